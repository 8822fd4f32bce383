"""What a caller of OpenAI Live sends, decoded and checked: JSON messages in, `ClientEvent` and `LiveConfig` out.

Field names and meanings are those of `openai` 3.57 (`openai/types/live`). What a session cannot do is an error or is named in
`LiveConfig.unused`; nothing is dropped without a word.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nemo_duplex.serving.wire_audio import Encoding, WireFormat

#: Encodings of `audio.format.type`, and the rates in Hz that each may have; the first is the default.
_FORMATS: dict[str, tuple[Encoding, tuple[int, ...]]] = {
    "audio/pcm": ("pcm16", (24000, 16000)),
    "audio/pcmu": ("ulaw", (8000,)),
    "audio/pcma": ("alaw", (8000,)),
}
#: The most messages of a conversation before the session.
_MOST_INPUT = 128
#: The voice of a session whose caller names none: the only one that an agent has.
_VOICE = "agent"


class EventError(Exception):
    """A client event that cannot be used; the session goes on.

    Args:
        message: one line for the caller.
        code: a word for programs.
        param: the field that is wrong, such as `session.audio.format.rate`.
    """

    def __init__(self, message: str, code: str = "invalid_value", param: str | None = None) -> None:
        super().__init__(message)
        self.message, self.code, self.param = message, code, param
        self.event_id: str | None = None  # of the client event, as far as it could be read


@dataclass(frozen=True)
class ClientEvent:
    """One message of the caller.

    Args:
        type: such as `session.start`; not checked.
        event_id: the caller's name for it.
        fields: the whole message.
    """

    type: str
    event_id: str | None
    fields: dict[str, Any]

    @classmethod
    def of(cls, message: str | bytes) -> ClientEvent:
        """Decodes a message.

        Raises:
            EventError: if it is no JSON object with a type.
        """
        try:
            fields = json.loads(message)
            if isinstance(fields, dict):  # half a surrogate pair, NaN: Python reads them, and no other peer could
                rest = {key: value for key, value in fields.items() if key != "audio"}
                json.dumps(rest, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, RecursionError):
            raise EventError("A message must be a JSON object in UTF-8, sent as text.", "invalid_json") from None
        if not isinstance(fields, dict):
            raise EventError(f"A message must be a JSON object, got {_kind(fields)}.", "invalid_json")
        kind, event_id = fields.get("type"), fields.get("event_id")
        if not isinstance(event_id, str):
            event_id = None
        if not isinstance(kind, str):
            error = EventError('A message needs a "type", such as "session.start".', "missing_required_parameter", "type")
            error.event_id = event_id
            raise error
        return cls(kind, event_id, fields)

    def audio(self, wire: WireFormat) -> np.ndarray:
        """The samples (S,) float32 of `session.input_audio.append`.

        Raises:
            EventError: for no base64, or half a sample.
        """
        text = self.fields.get("audio")
        if not isinstance(text, str):
            raise EventError(f"audio must be base64 text, got {_kind(text)}.", "invalid_type", "audio")
        try:
            data = base64.b64decode(text, validate=True)
        except ValueError:
            raise EventError("audio is not valid base64; this message was left out.", "invalid_base64", "audio") from None
        if wire.encoding == "pcm16" and len(data) % 2:
            raise EventError(
                f"audio has {len(data)} bytes; samples of 16 bits need an even number. This message was left out.",
                "invalid_audio",
                "audio",
            )
        return wire.decode(data)

    def content(self) -> str:
        """The text of an append event.

        Raises:
            EventError: for none, or for a delegation, of which a session has none.
        """
        text, delegation = self.fields.get("content"), self.fields.get("delegation_id")
        if not isinstance(text, str) or not text.strip():
            raise EventError("content must be a text of at least one word.", "invalid_value", "content")
        if delegation is not None:
            raise EventError(
                "This agent delegates nothing, so there is no such delegation. Set delegation_id to null.",
                "invalid_value",
                "delegation_id",
            )
        return text


@dataclass(frozen=True)
class LiveConfig:
    """The configuration of a session, resolved from `session.start`.

    Args:
        model: as the caller names it.
        wire: how audio is written in both directions.
        format: the same as the caller reads it.
        voice: as the caller names it.
        instructions: for the agent.
        delegation: whom the agent would delegate to; it never does.
        idle_seconds: after so long without speech the session is paused; None: never.
        echoed: further settings that the session resource repeats.
        unused: settings of the caller that have no effect here.
    """

    model: str
    wire: WireFormat
    format: dict[str, Any]
    voice: Any
    instructions: str | None
    delegation: dict[str, Any]
    idle_seconds: int | None
    echoed: dict[str, Any]
    unused: tuple[str, ...]

    @classmethod
    def of(cls, event: ClientEvent, reads_instructions: bool = False) -> LiveConfig:
        """The configuration that a `session.start` asks for.

        Args:
            event: the start.
            reads_instructions: whether the agent reads instructions.

        Raises:
            EventError: for what is missing, malformed or not possible.
        """
        session = _dict(event.fields, "session", "")
        model = session.get("model")
        if not isinstance(model, str) or not model:
            raise EventError(
                "session.model must name a model; any name will do.", "missing_required_parameter", "session.model"
            )
        audio = _dict(session, "audio")
        voice = _dict(audio, "output", "session.audio").get("voice")
        if not (voice is None or isinstance(voice, str) or isinstance(voice, dict) and isinstance(voice.get("id"), str)):
            raise EventError('The voice must be a name or {"id": ...}.', "invalid_type", "session.audio.output.voice")
        wire, format = _format(_dict(audio, "format", "session.audio"))
        instructions = _typed(session, "instructions", str)
        _check_input(session.get("input"))
        if session.get("triggers"):
            raise EventError("This server makes no decisions. Leave triggers out.", "unsupported", "session.triggers")
        idle = _typed(session, "idle_timeout_s", int)
        if idle is not None and idle < 1:
            raise EventError("idle_timeout_s must be at least 1 second.", "invalid_value", "session.idle_timeout_s")
        known = {"model", "audio", "delegation", "idle_timeout_s", "wake_policy", "safety_identifier", "triggers", "store"}
        unused = [quoted(key) for key, value in session.items() if key not in known and value]
        if reads_instructions or not (instructions or "").strip():
            unused = [name for name in unused if name != "instructions"]
        unused += _check_wake_policy(_dict(session, "wake_policy"))
        unused += ["store"] * (_typed(session, "store", bool) is True) + ["audio.output.voice"] * (voice is not None)
        return cls(
            model=model,
            wire=wire,
            format=format,
            voice=voice or _VOICE,
            instructions=instructions,
            delegation=_delegation(session.get("delegation")),
            idle_seconds=idle,
            echoed={
                "input": session.get("input") or [],
                "safety_identifier": _typed(session, "safety_identifier", str),
                "store": False,
                "triggers": [],
            },
            unused=tuple(unused),
        )

    def updated(self, event: ClientEvent) -> LiveConfig:
        """The configuration after a `session.update`: settings of the delegation that are left out keep their values.

        Raises:
            EventError: for a setting that cannot change.
        """
        session = _dict(event.fields, "session", "")
        for key in session:
            if key not in ("delegation", "triggers"):
                name = quoted(key)
                raise EventError(f"{name} cannot change after the start. Open another session.", "immutable", f"session.{name}")
        if session.get("triggers"):
            raise EventError("This server makes no decisions. Leave triggers out.", "unsupported", "session.triggers")
        if session.get("delegation") is None:
            return self
        change = _dict(session, "delegation")
        kind = change.get("type", self.delegation["type"])
        if kind != self.delegation["type"]:
            raise EventError(
                f"The delegation is {self.delegation['type']} and cannot become {quoted(kind)}. Open another session.",
                "immutable",
                "session.delegation.type",
            )
        merged = self.delegation | change | {"type": kind}
        if kind == "responses":
            merged["responses"] = self.delegation["responses"] | _dict(change, "responses", "session.delegation")
        return replace(self, delegation=_delegation(merged))

    def resource(self, session_id: str, expires_at: int) -> dict[str, Any]:
        """The session as events show it.

        Args:
            session_id: of the session.
            expires_at: when it ends, in seconds of Unix time.
        """
        idle = {"idle_timeout_s": self.idle_seconds, "wake_policy": {"type": "speech"}} if self.idle_seconds else {}
        return {
            "id": session_id,
            "status": "active",
            "model": self.model,
            "expires_at": expires_at,
            "audio": {"format": self.format, "output": {"voice": self.voice}},
            "delegation": self.delegation,
            "instructions": self.instructions,
            **self.echoed,
            **idle,
        }


def quoted(value: Any) -> str:
    """What a caller sent, in one short line."""
    text = str(value)
    return text if text.isidentifier() and len(text) <= 40 else f"{text[:40]!r}"


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__


def _dict(fields: dict[str, Any], key: str, parent: str = "session") -> dict[str, Any]:
    """The object at `key`; empty where there is none."""
    value = fields.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        path = f"{parent}.{key}".lstrip(".")
        raise EventError(f"{path} must be an object, got {_kind(value)}.", "invalid_type", path)
    return value


def _typed(session: dict[str, Any], key: str, kind: type) -> Any:
    """The value at `key`, which must be None or of that type."""
    value = session.get(key)
    if value is not None and type(value) is not kind:
        raise EventError(f"session.{key} must be {kind.__name__}, got {_kind(value)}.", "invalid_type", f"session.{key}")
    return value


def _format(format: dict[str, Any]) -> tuple[WireFormat, dict[str, Any]]:
    kind = format.get("type", "audio/pcm")
    if not isinstance(kind, str) or kind not in _FORMATS:
        expected = ", ".join(_FORMATS)
        raise EventError(
            f"Audio as {quoted(kind)} is not supported, expected one of {expected}.",
            "invalid_value",
            "session.audio.format.type",
        )
    encoding, rates = _FORMATS[kind]
    rate = format.get("rate", rates[0])
    if type(rate) is not int or rate not in rates:
        raise EventError(
            f"{kind} must have {' or '.join(map(str, sorted(rates)))} Hz, got {quoted(rate)}.",
            "invalid_value",
            "session.audio.format.rate",
        )
    return WireFormat(encoding, rate), {"type": kind, "rate": rate}


def _delegation(delegation: Any) -> dict[str, Any]:
    if delegation is None:
        delegation = {"type": "client"}
    if not isinstance(delegation, dict):
        raise EventError(
            f"session.delegation must be an object, got {_kind(delegation)}.", "invalid_type", "session.delegation"
        )
    kind, delay = delegation.get("type"), delegation.get("acknowledgement_delay_ms", 0)
    if kind not in ("client", "responses"):
        raise EventError(
            f"Delegation to {quoted(kind)} is not supported, expected client or responses (this agent uses neither).",
            "unsupported",
            "session.delegation.type",
        )
    if type(delay) is not int or delay < 0:
        path = "session.delegation.acknowledgement_delay_ms"
        raise EventError(f"{path} must be a whole number from 0.", "invalid_value", path)
    resolved = {"type": kind, "acknowledgement_delay_ms": delay}
    return resolved if kind == "client" else resolved | {"responses": _dict(delegation, "responses", "session.delegation")}


def _check_input(messages: Any) -> None:
    if messages is not None and not (isinstance(messages, list) and all(isinstance(message, dict) for message in messages)):
        raise EventError("session.input must be a list of messages.", "invalid_type", "session.input")
    if messages and len(messages) > _MOST_INPUT:
        raise EventError(
            f"session.input has {len(messages)} messages, expected at most {_MOST_INPUT}. Send the latest ones.",
            "invalid_value",
            "session.input",
        )


def _check_wake_policy(policy: dict[str, Any]) -> list[str]:
    """Returns what of the policy has no effect."""
    if policy and policy.get("type") != "speech":
        raise EventError('session.wake_policy.type must be "speech".', "invalid_value", "session.wake_policy.type")
    threshold = policy.get("vad_threshold")
    if threshold is not None and (type(threshold) not in (int, float) or not 0 <= threshold <= 1):
        path = "session.wake_policy.vad_threshold"
        raise EventError(f"{path} must be from 0 to 1.", "invalid_value", path)
    return [] if threshold is None else ["wake_policy.vad_threshold"]
