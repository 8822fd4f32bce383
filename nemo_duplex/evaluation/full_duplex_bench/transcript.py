"""The words of a channel with their times, in the JSON of Full-Duplex-Bench.

{"text": "Hello there.", "chunks": [{"text": "Hello", "timestamp": [0.5, 0.8]}, {"text": "there.", "timestamp": [0.8, 1.1]}]}
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from nemo_duplex.files.atomic import whole_file
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.frames import Seconds


class TimedWord(NamedTuple):
    """A word of a transcript; an end that its recogniser did not find is None, as some write it for the last word."""

    text: str
    start: Seconds
    end: Seconds | None

    @property
    def last(self) -> Seconds:
        """Its end, or its start where that is not known."""
        return self.start if self.end is None else self.end

    def shifted(self, by: Seconds) -> TimedWord:
        return TimedWord(self.text, self.start + by, None if self.end is None else self.end + by)


def transcript(words: Sequence[TimedWord]) -> dict[str, Any]:
    """What is written for these words; none give an empty text and an empty list.

    Examples:
        >>> transcript([TimedWord("Yes.", 1.0, 1.25)])
        {'text': 'Yes.', 'chunks': [{'text': 'Yes.', 'timestamp': [1.0, 1.25]}]}
    """
    chunks = [{"text": w.text, "timestamp": [_rounded(w.start), _rounded(w.end)]} for w in words]
    return {"text": " ".join(w.text for w in words), "chunks": chunks}


def write_transcript(path: Path, words: Sequence[TimedWord]) -> None:
    """Writes `transcript(words)`, whole or not at all."""
    write_json(path, transcript(words))


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_transcript(path: Path) -> tuple[TimedWord, ...]:
    """The words of a transcript, whoever wrote it.

    Raises:
        OddRow: if it is missing or is no such JSON, or a word has no start.
    """
    return words_of(read_json(path), path.name)


def words_of(content: Any, name: str) -> tuple[TimedWord, ...]:
    """The words of a transcript that was read; `name` is its file's in the error. Raises as `read_transcript`."""
    chunks = content.get("chunks") if isinstance(content, dict) else None
    if not isinstance(chunks, list):
        raise OddRow(f"{name} has no list of chunks", cure=_CURE)
    return chunk_words(chunks, name)


def chunk_words(chunks: Any, name: str) -> tuple[TimedWord, ...]:
    """The words of a list of chunks. Raises as `read_transcript`."""
    words = []
    for number, chunk in enumerate(chunks if isinstance(chunks, list) else [None]):
        span = chunk.get("timestamp") if isinstance(chunk, dict) else None
        if not isinstance(span, list) or len(span) != 2 or not is_time(span[0]) or not (span[1] is None or is_time(span[1])):
            raise OddRow(f"{name} has a word without times", f"chunk {number} is {str(chunk)[:80]}", _CURE)
        words.append(TimedWord(str(chunk.get("text", "")).strip(), float(span[0]), None if span[1] is None else float(span[1])))
    return tuple(words)


def read_json(path: Path) -> Any:
    """What a JSON file of a sample holds.

    Raises:
        OddRow: if it is missing or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise OddRow(f"no {path.name}", cure=f"Write {path.name} for it, or leave the folder out.") from None
    except (OSError, ValueError) as error:
        raise OddRow(f"{path.name} is no JSON", f"{error}"[:120], f"Write {path.name} again.") from None


def is_time(value: Any) -> TypeGuard[float]:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_CURE = 'Expected {"text": ..., "chunks": [{"text": word, "timestamp": [start, end]}]}.'


def _rounded(time: Seconds | None) -> Seconds | None:
    return None if time is None else round(time, 3)
