"""What is written about a corpus when its sets are complete: corpus.json, and texts.txt for a tokenizer.

Markers are read one by one and texts are sorted on disk, so that a corpus of any size takes the same memory.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nemo_duplex.files.atomic import whole_file
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.synthesis.corpus_spec import as_written
from nemo_duplex.synthesis.opened_corpus import OpenedCorpus
from nemo_duplex.synthesis.shards import Shard, markers_of
from nemo_duplex.version import __version__

LeftOut = dict[str, dict[str, str]]  # {reason: {what: detail}}


def summarize(corpus: OpenedCorpus, planned: Mapping[str, Sequence[Shard]], out: Path) -> dict[str, Any]:
    """Writes corpus.json about the complete sets, and texts.txt with the texts of train.

    Args:
        corpus: what the sets are made by.
        planned: the shards of each set.
        out: folder of the corpus.

    Returns:
        What corpus.json says.
    """
    sets: dict[str, Any] = {}
    for name, shards in planned.items():
        markers = markers_of(out, shards)
        if markers is None:
            continue
        if name == "train":
            with (
                tempfile.TemporaryDirectory() as folder,
                SortedTexts(Path(folder)) as texts,
                whole_file(out / "texts.txt") as path,
            ):
                sets[name] = _facts(_texts_taken(markers, texts))
                with open(path, "w", encoding="utf-8") as file:
                    file.writelines(f"{text}\n" for text in texts)
        else:
            sets[name] = _facts(markers)
    summary = {
        "sets": sets,
        "source": corpus.source.describe(),
        "spec": as_written(corpus.spec),
        "cast": corpus.cast.describe(),
        "speakers_to_draw_from": corpus.cast.num_users,
        "versions": {"nemo_duplex": __version__, **corpus.cast.versions, "numpy": np.__version__},
    }
    with whole_file(out / "corpus.json") as path:
        path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


class SortedTexts:
    """Different texts, in the order of their characters; on disk.

    Args:
        folder: for a file that is not needed later.

    Examples:
        >>> with SortedTexts(Path(".")) as texts:
        ...     texts.add(["two  words", "one", "two words"])
        ...     list(texts)
        ['one', 'two words']
    """

    def __init__(self, folder: Path) -> None:
        self._database = sqlite3.connect(folder / "texts.sqlite")
        self._database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; CREATE TABLE texts (text TEXT PRIMARY KEY) WITHOUT ROWID;"
        )

    def add(self, texts: Iterable[str]) -> None:
        """Adds texts, with one blank for each gap between words."""
        self._database.executemany("INSERT OR IGNORE INTO texts VALUES (?)", ((" ".join(text.split()),) for text in texts))

    def __iter__(self) -> Iterator[str]:
        return (text for (text,) in self._database.execute("SELECT text FROM texts ORDER BY text"))

    def __enter__(self) -> SortedTexts:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()


def _texts_taken(markers: Iterable[dict[str, Any]], texts: SortedTexts) -> Iterator[dict[str, Any]]:
    for marker in markers:
        texts.add(marker["texts"])
        yield marker


def _facts(markers: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What all shards of a set hold."""
    counts: Counter[str] = Counter()
    voices: set[str] = set()
    found: LeftOut = {}
    for marker in markers:
        counts.update(marker["counts"])
        voices.update(marker["voices"])
        for reason, places in marker.get("left_out", {}).items():
            found.setdefault(reason, {}).update(places)
    facts: dict[str, Any] = {"hours": round(counts.pop("seconds", 0) / 3600, 3)}
    facts |= {key: count for key, count in counts.items() if count}
    facts["speakers"] = len(voices)
    left_out = OddRows()
    for reason, places in found.items():
        for what, detail in places.items():
            left_out.add(OddRow(reason, detail), what)
    if left_out:
        facts["left_out"] = left_out.describe()
    if counts["onsets_after_the_first"]:
        facts["interruption_rate"] = round(counts["interruptions"] / counts["onsets_after_the_first"], 4)
    return facts
