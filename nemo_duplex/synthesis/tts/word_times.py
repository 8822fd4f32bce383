"""The words of a text in any script, and when each of them is said."""

from __future__ import annotations

from unicodedata import normalize

import numpy as np
import regex

from nemo_duplex.conversation import Word

_SMALL_KANA = "ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮー"
_WITHOUT_BLANKS = r"\p{Han}\p{Hiragana}\p{Katakana}ー"
_LETTER = rf"[[\p{{L}}\p{{N}}]--[{_WITHOUT_BLANKS}]]"
_LETTERS = rf"{_LETTER}(?:{_LETTER}|[\p{{M}}\u200c\u200d])*"  # marks and joiners belong to the letter before them
# Where there are no blanks between words, a Chinese character is a word, and a kana with its small ones, so that a turn that is
# cut off keeps what was said of it. Apostrophes and hyphens are inside words: it's, well-known, col·lecció.
_WORD = regex.compile(rf"(?V1)\p{{Han}}\p{{M}}*|[{_WITHOUT_BLANKS}][{_SMALL_KANA}\p{{M}}]*|{_LETTERS}(?:['’\-·״׳]{_LETTERS})*")


def word_spans(text: str) -> list[tuple[int, int]]:
    """(begin, end) of every word: letters and digits with the marks on them."""
    return [match.span() for match in _WORD.finditer(text)]


def word_times(text: str, onsets: dict[int, int], num_samples: int, sample_rate: int) -> tuple[Word, ...]:
    """Every word of `text` with its time, from the onsets that an engine reports.

    Args:
        text: that was said.
        onsets: {first character of a word: its first sample}. eSpeak joins some words ("the day") and reports only the
            first of them. They share the time up to the next reported word by their number of letters.
        num_samples: of the utterance. A word lasts until the next one starts.
        sample_rate: Hz.
    """
    spans = word_spans(text)
    if not spans:
        return ()
    starts: list[float | None] = [onsets.get(begin) for begin, _ in spans]
    starts[0] = 0.0 if starts[0] is None else starts[0]
    known = [i for i, start in enumerate(starts) if start is not None] + [len(spans)]
    edges = [float(s) if s is not None else 0.0 for s in starts] + [float(num_samples)]
    for first, last in zip(known, known[1:]):
        letters = np.cumsum([len(normalize("NFC", text[begin:end])) for begin, end in spans[first:last]]).tolist()
        for i in range(first + 1, last):
            edges[i] = edges[first] + (edges[last] - edges[first]) * letters[i - first - 1] / letters[-1]
    return tuple(
        Word(text[begin:end], begin, edges[i] / sample_rate, edges[i + 1] / sample_rate) for i, (begin, end) in enumerate(spans)
    )
