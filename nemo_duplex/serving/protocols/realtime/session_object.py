"""The session object of OpenAI Realtime: what a client may set, partial updates of it, and what of it has an effect here.

Effective are the audio formats, `output_modalities`, and of `turn_detection`: whether there is any, `create_response`,
`interrupt_response`, `prefix_padding_ms` and `silence_duration_ms`. Everything else is accepted, and given back as it was set.
There is no transcription of the user, so `transcription` stays null.
"""

from __future__ import annotations

import copy
from typing import Any

from nemo_duplex.serving.protocols.realtime.client_events import EventError, wrong_type
from nemo_duplex.serving.wire_audio import WireFormat

#: The wire format of each `type` of a format; and the names of older clients.
FORMATS = {
    "audio/pcm": WireFormat("pcm16", 24000),
    "audio/pcmu": WireFormat("ulaw", 8000),
    "audio/pcma": WireFormat("alaw", 8000),
}
_OLD_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
#: Where the flat settings of older clients (OpenAI-Beta: realtime=v1) are now.
_FLAT = {
    "modalities": ("output_modalities",),
    "max_response_output_tokens": ("max_output_tokens",),
    "input_audio_format": ("audio", "input", "format"),
    "input_audio_transcription": ("audio", "input", "transcription"),
    "input_audio_noise_reduction": ("audio", "input", "noise_reduction"),
    "turn_detection": ("audio", "input", "turn_detection"),
    "output_audio_format": ("audio", "output", "format"),
    "voice": ("audio", "output", "voice"),
    "speed": ("audio", "output", "speed"),
}
_DETECTION: dict[str, dict[str, Any]] = {
    "server_vad": {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
        "idle_timeout_ms": None,
        "create_response": True,
        "interrupt_response": True,
    },
    "semantic_vad": {"type": "semantic_vad", "eagerness": "auto", "create_response": True, "interrupt_response": True},
}
_NUMBERS, _SWITCHES = ("threshold", "prefix_padding_ms", "silence_duration_ms"), ("create_response", "interrupt_response")
# The longest padding and silence that have an effect.
_LONGEST_MS = 10_000
#: What a client may set at the top, and of which type; None is always allowed.
_TOP: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "instructions": str,
    "tools": list,
    "tool_choice": (str, dict),
    "max_output_tokens": (int, str),
    "tracing": (str, dict),
    "truncation": (str, dict),
    "prompt": dict,
    "include": list,
    "reasoning": dict,
    "parallel_tool_calls": bool,
}


class SessionObject:
    """The settings of one session.

    Args:
        id: of the session.
        model: that the client asked for.
        expires_at: seconds since 1970.

    Attributes:
        shown: the whole object, as clients see it.

    Examples:
        >>> session = SessionObject("sess_1", "duplex", 1)
        >>> session.update({"audio": {"input": {"format": {"type": "audio/pcmu"}, "turn_detection": None}}})
        >>> session.input_format.sample_rate, session.detects, session.output_format.sample_rate
        (8000, False, 24000)
    """

    def __init__(self, id: str, model: str, expires_at: int) -> None:
        self.shown: dict[str, Any] = {
            "type": "realtime",
            "object": "realtime.session",
            "id": id,
            "model": model,
            "output_modalities": ["audio"],
            "instructions": "",
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "tracing": None,
            "truncation": "auto",
            "prompt": None,
            "expires_at": expires_at,
            "include": None,
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "transcription": None,
                    "noise_reduction": None,
                    "turn_detection": dict(_DETECTION["server_vad"]),
                },
                "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "default", "speed": 1.0},
            },
        }

    def update(self, changes: dict[str, Any]) -> None:
        """Takes a partial update, all of it or nothing; unknown settings are ignored.

        Raises:
            EventError: for a value that cannot be.
        """
        changed, changes = copy.deepcopy(self.shown), _nested(changes)
        if changes.get("type") not in (None, "realtime"):
            raise _no_value("session.type", changes["type"], "realtime")
        if changes.get("output_modalities") is not None:
            changed["output_modalities"] = modalities(changes["output_modalities"], "session.output_modalities")
        for name, expected in _TOP.items():
            if name in changes:
                changed[name] = _of_type(changes[name], expected, f"session.{name}")
        audio = _section(changes, "audio", "session.audio")
        _update_input(changed["audio"]["input"], _section(audio, "input", "session.audio.input"))
        _update_output(changed["audio"]["output"], _section(audio, "output", "session.audio.output"))
        self.shown = changed

    @property
    def input_format(self) -> WireFormat:
        """Of the audio that the client sends."""
        return FORMATS[self.shown["audio"]["input"]["format"]["type"]]

    @property
    def output_format(self) -> WireFormat:
        """Of the audio that it gets."""
        return FORMATS[self.shown["audio"]["output"]["format"]["type"]]

    @property
    def detects(self) -> bool:
        """Whether the client is told when the user speaks."""
        return self.shown["audio"]["input"]["turn_detection"] is not None

    @property
    def creates(self) -> bool:
        """Whether a turn that the agent begins by itself is a response at once; else it waits for `response.create`."""
        return self._detection("create_response", True) if self.detects else False

    @property
    def interrupts(self) -> bool:
        """Whether the user's speech cancels a response."""
        return self._detection("interrupt_response", True) if self.detects else False

    @property
    def prefix_ms(self) -> float:
        """What of the audio before the user's speech belongs to it."""
        return min(max(self._detection("prefix_padding_ms", 300), 0), _LONGEST_MS)

    @property
    def silence_ms(self) -> float:
        """The silence that ends the user's speech."""
        return min(max(self._detection("silence_duration_ms", 500), 0), _LONGEST_MS)

    def _detection(self, name: str, default: Any) -> Any:
        value = (self.shown["audio"]["input"]["turn_detection"] or {}).get(name)
        return default if value is None else value


def modalities(given: Any, param: str) -> list[str]:
    """`["audio"]` or `["text"]`; audio comes with its text in any case.

    Raises:
        EventError: for anything else.
    """
    if isinstance(given, list) and given and all(entry in ("audio", "text") for entry in given):
        return ["audio"] if "audio" in given else ["text"]
    raise _no_value(param, given, '["audio"] or ["text"]')


def _update_input(shown: dict[str, Any], changes: dict[str, Any]) -> None:
    where = "session.audio.input"
    if changes.get("format") is not None:
        shown["format"] = _format(changes["format"], f"{where}.format")
    if "noise_reduction" in changes:
        shown["noise_reduction"] = _of_type(changes["noise_reduction"], dict, f"{where}.noise_reduction")
    _of_type(changes.get("transcription"), dict, f"{where}.transcription")
    if "turn_detection" in changes:
        shown["turn_detection"] = _detection(changes["turn_detection"], shown["turn_detection"], f"{where}.turn_detection")


def _update_output(shown: dict[str, Any], changes: dict[str, Any]) -> None:
    where = "session.audio.output"
    if changes.get("format") is not None:
        shown["format"] = _format(changes["format"], f"{where}.format")
    if changes.get("voice") is not None:
        shown["voice"] = _of_type(changes["voice"], (str, dict), f"{where}.voice")
    if changes.get("speed") is not None:
        shown["speed"] = _of_type(changes["speed"], (int, float), f"{where}.speed")


def _detection(given: Any, shown: dict[str, Any] | None, param: str) -> dict[str, Any] | None:
    if given is None or given is False or (isinstance(given, dict) and given.get("type") == "none"):
        return None
    if not isinstance(given, dict):
        raise wrong_type(param, dict, given)
    kind = given.get("type") or (shown or {}).get("type") or "server_vad"
    if not isinstance(kind, str) or kind not in _DETECTION:
        raise _no_value(f"{param}.type", kind, "server_vad, semantic_vad or null")
    for name in _NUMBERS:
        _of_type(given.get(name), (int, float), f"{param}.{name}")
    for name in _SWITCHES:
        _of_type(given.get(name), bool, f"{param}.{name}")
    kept = shown if shown is not None and shown["type"] == kind else _DETECTION[kind]
    known = {name: value for name, value in given.items() if name in _DETECTION[kind] and value is not None}
    return {**kept, **known, "type": kind}


def _format(given: Any, param: str) -> dict[str, Any]:
    kind = given.get("type") if isinstance(given, dict) else given
    kind = _OLD_FORMATS.get(kind, kind) if isinstance(kind, str) else kind
    if not isinstance(kind, str) or kind not in FORMATS:
        raise _no_value(f"{param}.type", kind, ", ".join(FORMATS))
    rate = given.get("rate") if isinstance(given, dict) else None
    expected = FORMATS[kind].sample_rate
    if rate is not None and rate != expected:
        raise _no_value(f"{param}.rate", rate, f"{expected} for {kind}")
    return {"type": kind, "rate": expected} if kind == "audio/pcm" else {"type": kind}


def _nested(changes: dict[str, Any]) -> dict[str, Any]:
    """The changes with the flat settings of older clients in their places of today."""
    nested = copy.deepcopy(changes)
    for name, path in _FLAT.items():
        if name not in nested:
            continue
        place, value = nested, nested.pop(name)
        for step in path[:-1]:
            if not isinstance(place.setdefault(step, {}), dict):
                raise wrong_type(f"session.{step}", dict, place[step])
            place = place[step]
        place.setdefault(path[-1], value)
    return nested


def _section(changes: dict[str, Any], name: str, param: str) -> dict[str, Any]:
    value = changes.get(name)
    if value is not None and not isinstance(value, dict):
        raise wrong_type(param, dict, value)
    return value or {}


def _of_type(value: Any, expected: Any, param: str) -> Any:
    """The value, or an error. A number is no bool."""
    wrong = isinstance(value, bool) and expected is not bool
    if value is not None and (wrong or not isinstance(value, expected)):
        first = expected if expected == (int, float) else expected[0] if isinstance(expected, tuple) else expected
        raise wrong_type(param, {int: (int, float)}.get(first, first), value)
    return value


def _no_value(param: str, given: Any, expected: str) -> EventError:
    return EventError("invalid_value", f"Invalid value for '{param}': {str(given)[:80]!r}. Expected {expected}.", param)
