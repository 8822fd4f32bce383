"""What a client of OpenAI Realtime sends: JSON text to a checked event, or the error that it is answered with."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any

#: The events that are understood, and what each must have.
REQUIRED: dict[str, dict[str, type | tuple[type, ...]]] = {
    "session.update": {"session": dict},
    "input_audio_buffer.append": {"audio": str},
    "input_audio_buffer.commit": {},
    "input_audio_buffer.clear": {},
    "output_audio_buffer.clear": {},
    "conversation.item.create": {"item": dict},
    "conversation.item.delete": {"item_id": str},
    "conversation.item.retrieve": {"item_id": str},
    "conversation.item.truncate": {"item_id": str, "audio_end_ms": (int, float)},
    "response.create": {},
    "response.cancel": {},
}
_WORDS = {dict: "an object", str: "a string", (int, float): "a number", list: "a list", bool: "true or false"}
# A reader of JSON in Python takes what other readers refuse; such values must not come back out.
_DEEPEST = 64


class EventError(Exception):
    """What a client sent cannot be done; it is told so, and the session goes on.

    Args:
        code: in the words of OpenAI.
        message: one line: given, expected.
        param: the field that is wrong.
    """

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param
        self.event_id: str | None = None

    @property
    def error(self) -> dict[str, Any]:
        """The `error` of an error event."""
        kind = "invalid_request_error"
        return {"type": kind, "code": self.code, "message": self.message, "param": self.param, "event_id": self.event_id}


def read_event(message: str | bytes | Mapping[str, Any]) -> dict[str, Any]:
    """One event with everything that its type must have.

    Raises:
        EventError: if it is none; with the client's `event_id` as far as there is one.

    Examples:
        >>> read_event('{"type": "response.cancel", "event_id": "e1"}')["type"]
        'response.cancel'
        >>> read_event('{"type": "response.say", "event_id": "e2"}')
        Traceback (most recent call last):
        ...
        nemo_duplex.serving.protocols.realtime.client_events.EventError: Invalid value: 'response.say'. Supported ...
    """
    event = _parsed(message) if isinstance(message, str | bytes) else dict(message)
    try:
        _check(event)
    except EventError as error:
        given = event.get("event_id")
        error.event_id = given if isinstance(given, str) and _writable(given) else None
        raise
    return event


def _parsed(message: str | bytes) -> dict[str, Any]:
    try:
        event = json.loads(message)
    except (ValueError, RecursionError):  # UnicodeDecodeError and a number of too many digits are ValueErrors
        event = None
    if not isinstance(event, dict):
        raise EventError("invalid_json", "A message must be one JSON object.")
    return event


def _check(event: dict[str, Any]) -> None:
    kind = event.get("type")
    if not isinstance(kind, str):
        raise _missing("type", str, event)
    if kind not in REQUIRED:
        shown = repr(kind[:80]) if _writable(kind) else "a type that is no text"
        raise EventError("invalid_value", f"Invalid value: {shown}. Supported values are: {', '.join(REQUIRED)}.", "type")
    for field, expected in REQUIRED[kind].items():
        if not isinstance(event.get(field), expected) or isinstance(event.get(field), bool):
            raise _missing(field, expected, event)
    if kind == "response.create" and not isinstance(event.get("response"), dict | type(None)):
        raise wrong_type("response", dict, event["response"])
    if kind != "input_audio_buffer.append" and not _writable(event):
        raise EventError("invalid_value", "Expected text that is UTF-8, numbers that are finite, at most 64 levels deep.")


def _missing(field: str, expected: Any, event: dict[str, Any]) -> EventError:
    if event.get(field) is None:
        return EventError("missing_required_parameter", f"Missing required parameter: '{field}'.", field)
    return wrong_type(field, expected, event[field])


def wrong_type(field: str, expected: Any, given: Any) -> EventError:
    """The error for a value of another type than expected."""
    told = f"Invalid type for '{field}': expected {_WORDS[expected]}, got {type(given).__name__}."
    return EventError("invalid_type", told, field)


def _writable(value: Any, depth: int = 0) -> bool:
    """Whether a value can be sent as strict JSON in UTF-8."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, float):
        return math.isfinite(value)
    if depth >= _DEEPEST:
        return not isinstance(value, dict | list)
    if isinstance(value, dict):
        return all(_writable(key) and _writable(entry, depth + 1) for key, entry in value.items())
    return all(_writable(entry, depth + 1) for entry in value) if isinstance(value, list) else True


def audio_bytes(audio: str, sample_bytes: int, param: str = "audio") -> bytes:
    """The bytes of base64.

    Args:
        audio: base64; spaces and line breaks between are skipped.
        sample_bytes: of one sample; the audio must be whole samples.
        param: its name in an error.

    Raises:
        EventError: if it is none.
    """
    try:
        try:
            data = base64.b64decode(audio, validate=True)
        except binascii.Error:
            data = base64.b64decode("".join(audio.split()), validate=True)
    except ValueError as error:  # binascii.Error, or characters beyond ASCII
        raise EventError("invalid_value", f"Invalid '{param}': expected base64 ({error}).", param) from None
    if len(data) % sample_bytes:
        told = f"Invalid '{param}': {len(data)} bytes are no whole samples of {sample_bytes} bytes."
        raise EventError("invalid_value", told, param)
    return data
