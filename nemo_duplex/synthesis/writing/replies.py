"""What a language model wrote, out of the text that it answered with."""

from __future__ import annotations

import json
import re
from typing import Any

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.synthesis.writing.rules import plain_text

NOT_JSON = "an answer that is not the JSON asked for"
NOT_FOUR_TURNS = "an answer that is not four turns, the user's first"
REFUSED = "the model refused"
CUT = "an answer that was cut off"
EMPTY = "an empty answer"

_THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_REFUSAL = re.compile(r"\s*(?:I'm sorry|I am sorry|Sorry,|I can(?:no|')t|I'm unable|I am unable|I won't)", re.IGNORECASE)
_ROLES = {"user": "user", "human": "user", "agent": "agent", "assistant": "agent"}
_NUM_TURNS = 4


def written_turns(answer: str) -> list[str]:
    """The texts of four turns, the user's first.

    Raises:
        OddRow: if the answer holds no such dialogue.
    """
    value = _value(answer)
    turns = value.get("turns") if isinstance(value, dict) else value
    if not isinstance(turns, list) or not all(isinstance(turn, dict) and isinstance(turn.get("text"), str) for turn in turns):
        raise OddRow(NOT_JSON, _shown(answer))
    roles = [_ROLES.get(str(turn.get("role")).lower()) for turn in turns]
    if roles != ["user", "agent"] * (_NUM_TURNS // 2):
        raise OddRow(NOT_FOUR_TURNS, _shown(answer))
    return [plain_text(turn["text"]) for turn in turns]


def written_question(answer: str) -> list[str]:
    """A question and its answer.

    Raises:
        OddRow: if the answer does not hold both.
    """
    value = _value(answer)
    both = [value.get("question"), value.get("answer")] if isinstance(value, dict) else []
    if not both or not all(isinstance(text, str) for text in both):
        raise OddRow(NOT_JSON, _shown(answer))
    return [plain_text(str(text)) for text in both]


def without_thoughts(answer: str) -> str:
    """An answer without what the model thinks in it before it answers."""
    return _THOUGHTS.sub("", answer)


def _value(answer: str) -> Any:
    """The first JSON object or list of an answer, which may think before it, or fence it."""
    text = without_thoughts(answer).strip()
    begin = re.search(r"[\[{]", text)
    if begin is None:
        raise OddRow(REFUSED if _REFUSAL.match(text) else NOT_JSON if text else EMPTY, _shown(answer))
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, begin.start())[0]
    except (json.JSONDecodeError, RecursionError):
        raise OddRow(NOT_JSON, _shown(answer)) from None


def _shown(answer: str) -> str:
    return repr(answer[:80])
