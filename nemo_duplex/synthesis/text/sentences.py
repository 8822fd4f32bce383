"""Sentences of plain text files (`text.form=sentences`): single ones, said by a user or an agent, for an ear and a codec.

A file has a sentence on each line, or prose. Blank lines and lines of `%` (as in files of fortunes) end a paragraph.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from nemo_duplex.files.json_rows import open_text
from nemo_duplex.files.odd_rows import OddRow

#: The value of `text.form` that reads files so.
SENTENCES = "sentences"
#: Words of a sentence that is used; `text.max_words` is another largest number.
FEWEST_WORDS, MOST_WORDS = 3, 18

_PARAGRAPH = 1000  # lines at most
_WRAPPED = 45  # characters; a shorter line is not broken by its width
_FILLED = 0.6  # share of the lines without a full stop that are as long as can be; in a list it is small
_END = re.compile(r"[.?!][\"')\]”’]*\Z")
# A full stop after a title or a single letter is none of a sentence.
_BETWEEN = re.compile(r"(?<=[.?!])(?<!\b[A-Z]\.)(?<!\bMr\.|\bMs\.|\bDr\.|\bSt\.)(?<!\bMrs\.)[\"')\]”’]*\s+(?=[\"'(\[“‘]?[A-Z])")
_PLAIN = re.compile(r"[^\W\d_]+(?:[ ,'’?!.-]+[^\W\d_]+)*[ ,'’?!.-]*")
_SHORTENED = re.compile(r"[A-Z]{2,}|(?<![’'])\b(?![AaIOo]\b)[^\W\d_]\b(?![’'])|\.(?=\s*\w)")
_NO_TEXT = re.compile("[\ud800-\udfff]")  # what is left of bytes that are no UTF-8
_CURE = "Such sentences are left out: give more text."


def sentences(path: Path, what: str) -> Iterator[tuple[int, str]]:
    """(line, text) of each sentence of a text file, as it is written; a line is the first of its paragraph.

    Raises:
        InputError: if it is no text; `what` names it ("source").

    Examples:
        >>> prose, lines = "It rained. We stayed at home for the whole day, and\\nslept.", "who is it\\nnobody"
        >>> _ = Path("a.txt").write_text(f"{prose}\\n%\\n{lines}\\n")
        >>> list(sentences(Path("a.txt"), "source"))
        [(1, 'It rained.'), (1, 'We stayed at home for the whole day, and slept.'), (4, 'who is it'), (4, 'nobody')]
    """
    with open_text(path, what) as text:
        numbered = ((number, line.strip()) for number, line in enumerate(text, start=1))
        for is_text, group in itertools.groupby(numbered, key=lambda found: found[1].strip("%") != ""):
            while is_text and (lines := list(itertools.islice(group, _PARAGRAPH))):
                for joined in _unwrapped([line for _, line in lines]):
                    yield from ((lines[0][0], part) for part in _BETWEEN.split(joined) if part.strip())


def plain_sentence(text: str, fewest: int = FEWEST_WORDS, most: int = MOST_WORDS) -> str:
    """A sentence as it is said: with a capital letter, and a full stop where it has no other sign at its end.

    Raises:
        OddRow: if it is too short or too long, or there is more than one way to say it: digits, signs, abbreviations.

    Examples:
        >>> plain_sentence('  "the dog barked;"  ')
        'The dog barked.'
    """
    said = " ".join(text.split()).strip(" \"“”‘'()[]").rstrip(" ,;:-–—")
    if _NO_TEXT.search(said):
        raise OddRow("not UTF-8 text", cure="Save the file as UTF-8.")
    if (count := len(said.split())) < fewest:
        raise OddRow(f"a sentence of fewer than {fewest} words", repr(said[:60]), _CURE)
    if count > most:
        raise OddRow(f"a sentence of over {most} words", repr(said[:60]), "Raise text.max_words to use them.")
    if not _PLAIN.fullmatch(said) or "--" in said:
        raise OddRow("a sentence with digits or signs", repr(said[:60]), _CURE)
    if _SHORTENED.search(said):
        raise OddRow("a sentence with an abbreviation", repr(said[:60]), _CURE)
    return said[0].upper() + said[1:] + ("" if said[-1] in ".?!" else ".")


def _unwrapped(lines: list[str]) -> Iterator[str]:
    """The lines of a paragraph; those of prose are joined.

    Prose is what ends with a full stop and goes on with a small letter, or whose lines end where the next word had no room.
    """
    width, ends_with_stop = max(map(len, lines)), _END.search(lines[-1]) is not None
    unfinished = [_END.search(line) is None for line in lines[:-1]]
    filled = [len(line) + 1 + len(after.split(maxsplit=1)[0]) > width for line, after in itertools.pairwise(lines)]
    is_filled = sum(f and u for f, u in zip(filled, unfinished)) >= _FILLED * sum(unfinished)
    joined = lines[0]
    for line, after, is_full, goes_on in zip(lines, lines[1:], filled, unfinished):
        is_broken = (is_filled and is_full) or (ends_with_stop and after[0].islower())
        if goes_on and is_broken and len(line) >= _WRAPPED:
            joined += f" {after}"
        else:
            yield joined
            joined = after
    yield joined
