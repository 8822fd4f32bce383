"""The log of a server: one line an event, as text or JSON; never audio, text of a conversation, or a key.

    2026-11-29T14:03:07Z info call ended id=3rN8... protocol=talk address=192.0.2.x seconds=61.2 reason=hung_up frames=765
    {"time": "2026-11-29T14:03:07Z", "level": "info", "event": "call ended", "id": "3rN8...", ...}

Fields are given as `_log.info("call ended", extra={"id": ...})`.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Literal

#: What every record has; the rest are fields.
_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message", "websocket"}


class EventFormatter(logging.Formatter):
    """Formats a record with its fields.

    Args:
        form: text (key=value) or json.
    """

    def __init__(self, form: Literal["text", "json"]) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line; the trace of an error follows in the lines below it, or in the field `trace`."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        fields = {name: value for name, value in vars(record).items() if name not in _USUAL}
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        if self._form == "json":
            event: dict[str, Any] = {"time": at, "level": record.levelname.lower(), "event": record.getMessage(), **fields}
            return json.dumps(event | ({"trace": trace} if trace else {}), ensure_ascii=False, default=str)
        words = [at, record.levelname.lower(), " ".join(record.getMessage().split())]
        words += [f"{name}={_shown(value)}" for name, value in fields.items()]
        return " ".join(words) + (f"\n{trace}" if trace else "")


def use_log(form: Literal["text", "json"]) -> None:
    """Writes our events, and the warnings of uvicorn and the libraries, in this form to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(EventFormatter(form))
    own = logging.getLogger("nemo_duplex")
    own.handlers, own.propagate = [handler], False
    own.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "websockets"):  # below WARNING they write addresses with their queries
        library = logging.getLogger(name)
        library.handlers, library.propagate = [handler] if name != "uvicorn.error" else [], name == "uvicorn.error"
        library.setLevel(logging.WARNING)
    for name in ("aiortc", "aioice"):  # a warning for each packet that a caller broke
        logging.getLogger(name).setLevel(logging.ERROR)


def _shown(value: Any) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(c.isspace() or c in '"=' for c in text) else text
