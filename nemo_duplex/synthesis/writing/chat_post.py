"""One request to an OpenAI-compatible endpoint: what comes back, or why nothing does. The key goes nowhere else."""

from __future__ import annotations

import email.utils
import http.client
import json
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from nemo_duplex.inputs import InputError, one_line

#: The environment's variable with the key of the endpoint.
KEY = "OPENAI_API_KEY"

_TRIED_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_NO_MONEY = "insufficient_quota"  # OpenAI sends it with 429, but no later try will do better
_LONGEST_WAIT = 60.0
_LONGEST_MESSAGE = 4000  # bytes of what an endpoint says with an error
_SHORTEST_SECRET = 6  # shorter keys ("x", "EMPTY") are no secrets, and may be a part of any word


class NotYet(Exception):
    """Why a request failed that may succeed later, and after how many seconds, if the endpoint says so."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Refused(Exception):
    """The status of HTTP with which an endpoint refuses a request for good, and what it says."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"HTTP {status}: {said}")
        self.status, self.said = status, said


def post(url: str, body: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """The reply to a request, an object with `choices`.

    Args:
        timeout: seconds until all of it must be there.

    Raises:
        NotYet, Refused: if there is none.
        InputError: if the key cannot be sent.
    """
    headers = {"Content-Type": "application/json", "User-Agent": "nemo_duplex"}
    if key := _key():
        headers["Authorization"] = f"Bearer {key}"
    until = time.monotonic() + timeout
    try:
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=timeout) as response:
            reply = json.loads(_read(response, until))
    except urllib.error.HTTPError as error:
        said = without_key(_message(error, until))
        if error.code in _TRIED_AGAIN and _NO_MONEY not in said:
            raise NotYet(f"HTTP {error.code}", _seconds(error.headers.get("Retry-After"))) from None
        raise Refused(error.code, said) from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise NotYet("an answer that is no JSON") from None
    except (OSError, http.client.HTTPException, ValueError) as error:  # refused, reset, timed out, cut short
        raise NotYet(without_key(one_line(error))) from None
    if not has_choices(reply):
        raise NotYet("an answer without choices")
    return reply


def has_choices(reply: Any) -> bool:
    """Whether it is the object that OpenAI's API describes."""
    return isinstance(reply, dict) and isinstance(reply.get("choices"), list) and bool(reply["choices"])


def without_key(text: str) -> str:
    """`text` without the key of the endpoint, which a server may repeat."""
    key = os.environ.get(KEY, "").strip()
    return text.replace(key, "(key)") if len(key) >= _SHORTEST_SECRET else text


def _key() -> str:
    """The key of the endpoint; "" if there is none."""
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"{KEY}: the key holds characters that cannot be sent. Set it again, without quotes and line breaks.")
    return key


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: urllib would send the key along, to whatever host, and lose the body."""

    def redirect_request(self, *args: Any) -> None:
        return None


def _read(response: Any, until: float, most: float = math.inf) -> bytes:
    """A response, up to `most` bytes or a little more, that comes before a moment of time.monotonic()."""
    parts: list[bytes] = []
    while sum(map(len, parts)) < most and (part := response.read1(1 << 16)):
        parts.append(part)
        if time.monotonic() > until:
            raise TimeoutError("timed out")
    return b"".join(parts)


def _message(error: urllib.error.HTTPError, until: float) -> str:
    """What a server says with an error, from the beginning of its answer."""
    try:
        page = _read(error, until, most=_LONGEST_MESSAGE)[:_LONGEST_MESSAGE].decode(errors="replace")
    except (OSError, http.client.HTTPException):
        page = ""
    return one_line(Exception(page or error.reason))


def _seconds(retry_after: str | None) -> float | None:
    """What a Retry-After header asks for, as a number of seconds or a date; None if it asks for nothing."""
    try:
        return min(_LONGEST_WAIT, max(0.0, float(retry_after or "")))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(retry_after or "").timestamp()
        return min(_LONGEST_WAIT, max(0.0, moment - time.time()))
    except ValueError:
        return None
