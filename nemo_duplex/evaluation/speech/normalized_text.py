"""The words of a text and of its transcript, however each of them is written, and the errors between them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import regex
from kaldialign import edit_distance

from nemo_duplex.inputs import NotInstalled
from nemo_duplex.words import words

_NUMBER = (
    r"(?:\d+|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    r"|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|double|triple)"
)
_MONTH = r"(?:january|february|march|april|may|june|july|august|september|october|november|december)"
# What Whisper's normaliser gets wrong or leaves, in small letters; each line: what is written, and what is said.
_AS_SAID: Sequence[tuple[str, str]] = [
    (r"[’‘ʼ′´`]", "'"),
    (r"[()\[\]{}<>]", " "),  # it drops what they hold
    (r"[…‥]|\.{2,}", " "),  # else points stay at the word
    (r"\bo'clock\b", "oclock"),  # else "2 o'clock" becomes "20 clock"
    (r"\b0?(\d{1,2}):00(?=\s*[ap]\.?\s?m\b)", r"\1"),
    (r"\b0?(\d{1,2}):00\b", r"\1 oclock"),
    (r"\b0?(\d{1,2}):(\d\d)\b", r"\1\2"),
    (r"(?<=\d)\s*([ap])\.?\s?m\b\.?", r" \1m"),
    (r"\b([ap])\.\s?m\b\.?", r"\1m"),
    (rf"\b({_NUMBER})[ -]oh(?=[ -]{_NUMBER}\b)", r"\1 zero"),  # nineteen oh five
    (r"\boh\b[,.!]?", " "),  # else it becomes 0
    (r"\bo\.?\s?k\b\.?", "okay"),
    (r"\ball right\b", "alright"),
    (r"\bgood[ -]bye\b", "goodbye"),
    (r"\b(e-?mail|e mail)", "email"),
    (r"\bwi[ -]fi\b", "wifi"),
    (r"\bt[ -](shirts?)\b", r"t\1"),
    (r"\bcannot\b", "can not"),
    (r"\bvs\b\.?", "versus"),
    (r"\betc\b\.?", "et cetera"),
    (r"(?:\bno\. ?|#)(?=\d)", "number "),
    (r"\ba (?=(?:hundred|thousand|[mb]illion|dollar)\b)", "one "),
    (r"(?<![\d/])1/2(?![\d/])|½", " one half "),
    (r"(?<![\d/])1/4(?![\d/])|¼", " one quarter "),
    (r"(?<![\d/])3/4(?![\d/])|¾", " three quarters "),
    (r"(?<=\d)\s*[x×]\s*(?=\d)", " times "),
    (r"(?<=\d)'(?=s\b)", ""),  # 1980's
    (r"(?<=\d)\s?(?:−|[-–](?=\s?\d+\s?=))\s?(?=\d)", " minus "),
    (r"(?<![\d-])(\d{1,2})\s?[-–]\s?(\d{1,2})(?![\d-])", r"\1 to \2"),
    (r"(?<!\w)[-−](?=[\d.])", "minus "),
    (r"\+", " plus "),
    (r"=", " equals "),
    (r"÷", " divided by "),
    (r"&", " and "),
    (r"°\s?c\b", " degrees celsius"),
    (r"°\s?f\b", " degrees fahrenheit"),
    (r"°", " degrees "),
    (r"(?<=\d)\s+%", "%"),
    (r"(?<![\w$£€.])\.(?=\d)", "0."),
    (r"(?<![$£€\d.])0\.(\d+)(?![\d.])", r"zero point \1"),
    (r"(?<![$£€\d.])(\d+)\.(\d+)(?![\d.])", r"\1 point \2"),  # else 3.0 becomes 3
    (rf"\b({_NUMBER})\s?km\b", r"\1 kilometers"),
    (rf"\b({_NUMBER})\s?kg\b", r"\1 kilograms"),
    (rf"\b({_NUMBER})\s?cm\b", r"\1 centimeters"),
    (rf"\b({_NUMBER})\s?mph\b", r"\1 miles per hour"),
]
# What it wrote, made one: digits are joined over blanks and points, and so are letters that stand alone.
_JOINED: Sequence[tuple[str, str]] = [
    (rf"\b({_MONTH} \d{{1,2}})(?:st|nd|rd|th)\b", r"\1"),
    (r"\bone\b", "1"),
    (r"(?<!\S)\.(?=\d)", "0"),
    (r"(?<=\d)[ .](?=\d)", ""),
]
_LETTERS = regex.compile(r"\b\w(?: \w\b)+")


def word_errors(reference: str, transcript: str, language: str = "en") -> tuple[int, int]:
    """Wrong, missing and added words of `transcript`, and the words of `reference`, both as `heard_words`."""
    expected = heard_words(reference, language)
    return edit_distance(expected, heard_words(transcript, language))["total"], len(expected)


def character_errors(reference: str, transcript: str, language: str = "en") -> tuple[int, int]:
    """Wrong, missing and added characters of `transcript`, and those of `reference`, both as `heard_words` with blanks."""
    expected, heard = (list(" ".join(heard_words(text, language))) for text in (reference, transcript))
    return edit_distance(expected, heard)["total"], len(expected)


def heard_words(text: str, language: str = "en") -> list[str]:
    """The words of a text, to be compared with what was heard: `normalized` in English, `nemo_duplex.words` otherwise."""
    return normalized(text) if is_english(language) else words(text)


def is_english(language: str) -> bool:
    """Whether a language tag (`en`, `en-GB`, `en_US`, `eng`, `English`) is English."""
    return regex.split("[-_]", language.lower())[0] in ("en", "eng", "english")


def normalized(text: str) -> list[str]:
    """The words of an English text as Whisper's normaliser (whisper-normalizer 0.1.15) writes them, without its faults.

    It makes "20 clock" of "two o'clock", "0 yes" of "Oh, yes", "5 0" of "5:00", drops words in brackets, and writes the same
    words differently: "5.30" and "530", "-5" and "5", "2 2" and "2 +2", "cannot" and "can not", "ok" and "okay". So texts are
    first written as they are said (`_AS_SAID`), and its result is joined where digits or letters stand alone.

    Examples:
        >>> normalized("Oh, it is two o'clock."), normalized("It's 2 o'clock")
        (['it', 'is', '2', 'oclock'], ['it', 'is', '2', 'oclock'])
        >>> normalized("At five thirty: C, A, T.") == normalized("at 5:30 CAT")
        True
    """
    written = " ".join(_normalizer()(_rewritten(text.lower(), _AS_SAID)).split())
    joined = _LETTERS.sub(lambda match: match[0].replace(" ", ""), _rewritten(written, _JOINED))
    return [word for word in joined.split() if any(map(str.isalnum, word))]


def _rewritten(text: str, rules: Sequence[tuple[str, str]]) -> str:
    for pattern, said in rules:
        text = regex.sub(pattern, said, text)
    return text


@cache
def _normalizer():
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError:
        raise NotInstalled("whisper-normalizer is not installed: pip install 'nemo_duplex[eval]'") from None
    return EnglishTextNormalizer()
