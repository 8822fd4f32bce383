"""What dialogues and questions are written from: chats of others, and transcripts of recordings."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from typing import Any

from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.text.dialogue_rows import dialogue_id, rows_inside, spoken_turns
from nemo_duplex.synthesis.text.dialogue_store import TWICE
from nemo_duplex.synthesis.text.recordings import names_of, recording_files
from nemo_duplex.synthesis.text.row_files import name_among, row_files, rows_of

_FEWEST_WORDS = 6  # of a transcript that something can be asked about
_CURE = "Give a NeMo manifest (audio_filepath, text) or Lhotse cuts (id, supervisions) as JSON lines."


def chats(paths: Sequence[str], seed: int, most: int) -> tuple[list[tuple[str, list[str]]], OddRows]:
    """At most `most` chats of the files, drawn and ordered by the seed: (id, texts, the user's first).

    The files may be of any size: what is not drawn is not kept.

    Args:
        paths: of files, folders and patterns, as synthesize.py reads them.
        seed: of the draw.
        most: number of chats.

    Returns:
        The chats, and why other rows are none. Where there are several files, an id begins with the name of its file.

    Raises:
        InputError: if a file cannot be read, or none of its rows is a chat.
    """
    odd, files = OddRows(), row_files(paths, "source")

    def found() -> Iterator[tuple[str, str, list[str]]]:
        for path in files:
            called = name_among(path, files)
            for row in rows_of(path, "source"):
                for position, value in enumerate(rows_inside(row.value), start=1):
                    own = dialogue_id(value)
                    name = own or f"{row.number}" + (f".{position}" if position > 1 else "")
                    name = f"{called}:{name}" if own is None or len(files) > 1 else name
                    try:
                        if row.odd is not None:
                            raise row.odd
                        turns = [speech.text for pair in spoken_turns(value) for speech in pair]
                        yield hashlib.sha256(f"{seed} {name}".encode()).hexdigest(), name, turns
                    except OddRow as reason:
                        odd.add(reason, f"{path}:{row.line}")

    drawn: dict[str, list[str]] = {}
    for _, name, turns in heapq.nsmallest(most, found()):
        if name in drawn:
            odd.add(OddRow(TWICE.reason, cure=TWICE.cure), name)
        drawn.setdefault(name, turns)
    if not drawn:
        raise InputError(f"source: no chat in {', '.join(paths) or 'no file'}. {odd.most_frequent()}".strip())
    return list(drawn.items()), odd


def transcripts(paths: Sequence[str], odd: OddRows) -> Iterator[tuple[str, str]]:
    """(id, text) of every recording of NeMo manifests or Lhotse cuts, in order; `odd` counts the rows that are none.

    The id is the first of the names by which the importer finds the recording (`names_of`).

    Raises:
        InputError: if a file cannot be read.
    """
    for path in recording_files(paths, "source"):
        for row in rows_of(path, "source"):
            try:
                if row.odd is not None:
                    raise row.odd
                yield utterance(row.value)
            except OddRow as reason:
                odd.add(reason, f"{path}:{row.line}")


def utterance(row: Any) -> tuple[str, str]:
    """(id, text) of a row.

    Raises:
        OddRow: if it is no recording with a transcript, or too short to ask about.

    Examples:
        >>> utterance({"audio_filepath": "a/b.wav", "offset": 2.5, "text": "the train to the coast was late again"})
        ('a/b.wav@2.5', 'the train to the coast was late again')
    """
    if not isinstance(row, dict):
        raise OddRow("a row that is no object", cure=_CURE)
    if isinstance(row.get("supervisions"), list):
        texts = [part.get("text") for part in row["supervisions"] if isinstance(part, dict)]
        text: Any = " ".join(text for text in texts if isinstance(text, str))
    else:
        text = row.get("text")
    name = next(iter(names_of(row)), None)
    if name is None:
        raise OddRow("a row without an id or an audio file", cure=_CURE)
    if not isinstance(text, str) or not text.strip():
        raise OddRow("a recording without a transcript", name, _CURE)
    if len(text.split()) < _FEWEST_WORDS:
        raise OddRow("a transcript that is too short to ask about", f"{name}: {text.strip()[:40]!r}")
    return name, " ".join(text.split())
