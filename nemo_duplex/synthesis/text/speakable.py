"""What of a value from elsewhere is speech, and what is not: the only rule for it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from nemo_duplex.synthesis.text.markup import REASONING, TOOL_CALLS, NotSpeech, without_markup

#: Reason of a value that only calls a tool, or is what a tool returns: nobody says it, so the turn is left out.
TOOL_CALL = "a call of a tool"

_LARGEST = 1e16  # from there on JSON's numbers are not exact in most programs: that is no number that somebody says
_DEEPEST = 4  # parts inside of parts
_TEXT = ("text", "input_text", "output_text", "summary_text", "multimodal_text")
_SOUND = ("audio", "input_audio", "output_audio")
_THOUGHT = ("thinking", "redacted_thinking", "reasoning", "reasoning_text", "thought", "thoughts")
_TOOL = re.compile(r"tool|function|_call(?:_output)?$")
_TOOL_KEYS = {"functionCall", "functionResponse", "function_call", "function_response", "executableCode", "codeExecutionResult"}


_MISSING = ("nan", "NaN", "<NA>", "null", "NULL", "undefined")  # how exporters write that there is no text
_KINDS = {float: "an odd number", int: "an odd number", list: "lists in lists"}


@dataclass(frozen=True)
class Speakable:
    """What was made of a value: a text, or the reason why there is none.

    Args:
        text: what is said, on one line; "" if nothing can be.
        reason: why nothing can be said; "" if something can.
        taken_out: the kinds of things that nobody says and that are not in `text`.
        audio: what its turn says about a recording that it begins with; None if nothing.

    Examples:
        >>> speakable([{"type": "text", "text": "It is **two**. 😀"}])
        Speakable(text='It is two.', reason='', taken_out=('emoji', 'Markdown'), audio=None)
        >>> speakable({"a": 1}).reason
        'an object instead of a text'
    """

    text: str = ""
    reason: str = ""
    taken_out: tuple[str, ...] = ()
    audio: Any = None

    def __add__(self, other: Speakable) -> Speakable:
        """One text after the other, both said in one turn."""
        return Speakable(f"{self.text} {other.text}", "", (*self.taken_out, *other.taken_out), self.audio or other.audio)


def speakable(value: Any, allowed: Collection[str] = ()) -> Speakable:
    """What of a JSON value can be spoken.

    A text is spoken without reasoning, calls of tools, tokens of chat templates, HTML and Markdown (their words stay),
    citations, URLs that stand alone, emoji, and characters that nobody sees. What would be no sentence without them is refused:
    code, tables, formulas, URLs inside a sentence, placeholders, several turns in one text, characters that were lost. A number
    is spoken as it is written. Of parts, in the forms of OpenAI, Anthropic, Gemini and Hugging Face, the text is spoken (also
    that of a refusal, and the transcript of a sound); an image, a sound or a file is refused: what is said needs it.

    Args:
        value: a text, a number, a part or a list of parts.
        allowed: of `code`, `tables` and `urls`: what is spoken as it is written instead of refused or taken out.
    """
    taken_out: list[str] = []
    try:
        whole = re.sub(r"\n(?=[.,;:!?])", "", "\n".join(_texts(value, taken_out)))  # parts that end inside a sentence
        # NFC: eSpeak misreads an accent that stands alone
        text, kinds = without_markup(unicodedata.normalize("NFC", whole), allowed)
        taken_out += kinds
        if not any(character.isalnum() for character in text):
            alone = {TOOL_CALLS: TOOL_CALL, REASONING: "reasoning without an answer"}
            raise NotSpeech(next((alone[kind] for kind in alone if kind in taken_out), "nothing to say"))
    except NotSpeech as refused:
        return Speakable(reason=str(refused))
    return Speakable(" ".join(text.split()), "", tuple(dict.fromkeys(taken_out)))


def _texts(value: Any, taken_out: list[str], depth: int = 0) -> Iterator[str]:
    """The texts in a value; adds the kinds of parts that nobody says to `taken_out`."""
    if value is None or value in _MISSING or value != value:  # the last: NaN
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, bool):
        raise NotSpeech("true or false instead of a text")
    elif isinstance(value, list) and depth < _DEEPEST:
        for part in value:
            yield from _texts(part, taken_out, depth + 1)
    elif isinstance(value, dict) and depth < _DEEPEST:
        yield from _texts(_said_by(value, taken_out), taken_out, depth + 1)
    elif isinstance(value, int | float) and abs(value) < _LARGEST and "e" not in str(value):
        yield str(value)
    else:
        raise NotSpeech(f"{_KINDS.get(type(value), 'an object')} instead of a text")


def _said_by(part: dict[str, Any], taken_out: list[str]) -> Any:
    """What a part holds of speech; None if nobody says it."""
    kind = part.get("type", part.get("content_type"))
    if (isinstance(kind, str) and _TOOL.search(kind)) or (kind is None and _TOOL_KEYS & part.keys()):
        taken_out.append(TOOL_CALLS)
        return None
    if kind in _THOUGHT or part.get("thought") is True:
        taken_out.append(REASONING)
        return None
    if kind in _SOUND and isinstance(part.get("transcript"), str):
        return part["transcript"]
    if kind == "refusal":
        return part.get("refusal")
    if kind is not None and kind not in _TEXT:
        raise NotSpeech("an image, a sound or another part that is no text")
    texts = [part[key] for key in ("text", "content", "value", "parts") if key in part]
    if texts:
        return next((text for text in texts if text is not None), None)
    raise NotSpeech("an object instead of a text")
