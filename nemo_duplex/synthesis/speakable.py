"""What of a value from elsewhere is speech, and what is not: the only rule for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Reason of a value that only calls a tool, or is what a tool returns: nobody says it, so the turn is left out.
TOOL_CALL = "a call of a tool"


@dataclass(frozen=True)
class Speakable:
    """What was made of a value: a text, or the reason why there is none.

    Args:
        text: what is said, on one line; "" if nothing can be.
        reason: why nothing can be said; "" if something can.
        taken_out: the kinds of things that were no speech and are not in `text`.

    Examples:
        >>> speakable([{"type": "text", "text": "Two."}])
        Speakable(text='Two.', reason='', taken_out=())
        >>> speakable({"a": 1}).reason
        'an object instead of a text'
    """

    text: str = ""
    reason: str = ""
    taken_out: tuple[str, ...] = ()

    def __add__(self, other: Speakable) -> Speakable:
        """One text after the other, both said in one turn."""
        return Speakable(f"{self.text} {other.text}", "", self.taken_out + other.taken_out)


class _NotSpeech(Exception):
    """Why a value cannot be spoken."""


def speakable(value: Any) -> Speakable:
    """The text of a turn that can be spoken, whatever JSON value holds it.

    Args:
        value: a text, a number, or parts in the forms of OpenAI, Anthropic, Gemini and Hugging Face.
    """
    try:
        text = " ".join(" ".join(_texts(value)).split())
        if not any(character.isalnum() for character in text):
            raise _NotSpeech("nothing to say")
    except _NotSpeech as refused:
        return Speakable(reason=str(refused))
    return Speakable(text)


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    if isinstance(value, dict) and isinstance(value.get("text"), str):
        return [value["text"]]
    raise _NotSpeech("an object instead of a text")
