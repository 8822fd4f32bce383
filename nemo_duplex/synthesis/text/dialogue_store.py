"""Imported dialogues on disk: written once, then read one by one by any number of processes, without a text in memory.

<store>/dialogues.jsonl       {"id", "source", "at", "language", "turns": [{"role", "text", "audio"?}, ...]}, a line each
<store>/dev.u64  train.u64    where the dialogues of a split begin in it, in the order of the hashes of their ids
<store>/seen.u64              hashes of the user's turns of train, sorted
<store>/store.json            what was read and what was left out

The folder is complete or absent. Every tenth dialogue by the hash of its id is kept for dev.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nemo_duplex.files.odd_rows import OddRow

DIALOGUES, _STORE = "dialogues.jsonl", "store.json"
_NUMBERS = "<u8"
_AT_ONCE = 1 << 16  # numbers that are written at once
# sqlite keeps what has to be found or sorted, on disk where it is much. After a failure the folder is removed: no need to sync.
_SETTINGS = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -16384; PRAGMA locking_mode = EXCLUSIVE;"
_TABLES = """
CREATE TABLE dialogues (id BLOB PRIMARY KEY, file INTEGER, start INTEGER) WITHOUT ROWID;
CREATE TABLE texts (hash BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE asked (id BLOB, hash BLOB);
"""

TWICE = OddRow("an id that occurs twice", cure="Give every dialogue an id of its own, or none of them.")
DUPLICATE = OddRow("the words of an earlier dialogue", cure="Set text.keep_duplicates=true to use them too.")


class StoreWriter:
    """Fills the empty folder of a store; use it in a `with` block, then call `finish`.

    Args:
        folder: empty.
        keep_duplicates: whether dialogues with the same words as an earlier one are kept.

    Examples:
        >>> folder = Path("store"); folder.mkdir()
        >>> turns = [{"role": "user", "text": "How many?"}, {"role": "agent", "text": "Two."}]
        >>> with StoreWriter(folder) as store:
        ...     for name in "ab":
        ...         store.add({"id": name, "turns": [dict(turns[0], text=f"{name}?"), turns[1]]}, file=0, prefix="x")
        ...     store.finish({})
        >>> DialogueStore(folder).row("dev", 0)["turns"][1]["text"]
        'Two.'
    """

    def __init__(self, folder: Path, keep_duplicates: bool = False) -> None:
        self._folder, self._keep_duplicates = folder, keep_duplicates
        self._content = hashlib.sha256()
        self.count, self._num_recordings = 0, 0

    def __enter__(self) -> StoreWriter:
        self._file: BinaryIO = open(self._folder / DIALOGUES, "wb")
        self._index = sqlite3.connect(self._folder / "index.part", isolation_level=None)
        self._index.executescript(_SETTINGS + _TABLES + "BEGIN;")
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()
        self._file.close()
        (self._folder / "index.part").unlink(missing_ok=True)

    def add(self, row: dict[str, Any], file: int, prefix: str, group: str | None = None) -> None:
        """Adds a dialogue.

        Args:
            row: as in `dialogues.jsonl`; one whose id another file has too gets another one, of its file and its id.
            file: number of the file that it is from.
            prefix: what the file is called in ids.
            group: of dialogues that go to one split, such as all about one recording.

        Raises:
            OddRow: if its id occurs twice in its file, or it has the words of an earlier dialogue.
        """
        name, start = row["id"], self._file.tell()
        if not self._keep_duplicates:
            words = json.dumps([[_said(turn), (turn.get("audio") or {}).get("path")] for turn in row["turns"]])
            if not self._is_new("INSERT OR IGNORE INTO texts VALUES (?)", _hash(words)):
                raise _again(DUPLICATE)
        for attempt in (name, f"{prefix}:{name}"):
            key = _hash(attempt if group is None else group)[:8] + _hash(attempt)[8:]
            if self._is_new("INSERT OR IGNORE INTO dialogues VALUES (?, ?, ?)", key, file, start):
                name = attempt
                break
            found = self._index.execute("SELECT file FROM dialogues WHERE id = ?", (key,)).fetchone()
            if found[0] == file:
                raise _again(TWICE)
        else:
            raise _again(TWICE)
        asked = [(key, _hash(_said(turn))[:8]) for turn in row["turns"] if turn["role"] == "user"]
        self._index.executemany("INSERT INTO asked VALUES (?, ?)", asked)
        self._content.update(json.dumps([name, row.get("language"), *map(_content, row["turns"])], sort_keys=True).encode())
        self._num_recordings += sum("audio" in turn for turn in row["turns"])
        self._file.write(json.dumps(row | {"id": name}, ensure_ascii=False).encode(errors="replace") + b"\n")
        self.count += 1

    def is_new(self, text: str) -> bool:
        """Whether no text of the same letters was asked about before."""
        return self._is_new("INSERT OR IGNORE INTO texts VALUES (?)", _hash("".join(filter(str.isalnum, text.lower()))))

    def _is_new(self, insert: str, *values: bytes | int) -> bool:
        return self._index.execute(insert, values).rowcount == 1

    def remove_unusable(self, first: int, reason: Callable[[dict[str, Any]], OddRow | None]) -> list[tuple[OddRow, str]]:
        """Removes those of the `first` dialogues by order, dev's first, that have a reason; returns reasons and places."""
        self._file.flush()
        starts = self._index.execute("SELECT start, id FROM dialogues ORDER BY id LIMIT ?", (first,)).fetchall()
        removed: list[tuple[OddRow, str]] = []
        names: list[bytes] = []
        with open(self._folder / DIALOGUES, "rb") as file:
            for start, name in starts:
                file.seek(start)
                row = json.loads(file.readline())
                if (odd := reason(row)) is not None:
                    self._content.update(b"removed" + name)
                    names.append(name)
                    removed.append((odd, f"{row.get('at', '')} (dialogue {row['id']})"))
        for table in ("dialogues", "asked"):
            self._index.execute(f"DELETE FROM {table} WHERE id IN ({', '.join('?' * len(names))})", names)
        self.count -= len(names)
        return removed

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Writes the index, and `store.json` with `facts`. There are at least two dialogues."""
        assert self.count > 1, "train and dev need a dialogue each"
        self._file.flush()
        num_dev = self._num_dev()
        in_order = self._index.execute("SELECT start FROM dialogues ORDER BY id")
        self._write("dev", (start for (start,) in _first(in_order, num_dev)))
        self._write("train", (start for (start,) in in_order))
        (first_of_train,) = self._index.execute("SELECT id FROM dialogues ORDER BY id LIMIT 1 OFFSET ?", (num_dev,)).fetchone()
        hashes = self._index.execute("SELECT DISTINCT hash FROM asked WHERE id >= ? ORDER BY hash", (first_of_train,))
        self._write("seen", (int.from_bytes(found, "big") for (found,) in hashes))
        store = {
            "sha256": self._content.hexdigest(),
            "dialogues": {"dev": num_dev, "train": self.count - num_dev},
            "recordings": self._num_recordings,
            "bytes": {path.name: path.stat().st_size for path in sorted(self._folder.iterdir()) if path.suffix != ".part"},
            **facts,
        }
        (self._folder / _STORE).write_text(json.dumps(store, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def _num_dev(self) -> int:
        """Dialogues of dev: a tenth, without half of a group."""
        num_dev = max(1, self.count // 10)
        (first,) = self._index.execute("SELECT id FROM dialogues ORDER BY id LIMIT 1 OFFSET ?", (num_dev,)).fetchone()
        group = (first[:8], first[:8] + b"\xff" * 8)
        before, after = (
            self._index.execute(f"SELECT COUNT(*) FROM dialogues WHERE id {sign} ?", (border,)).fetchone()[0]
            for sign, border in zip(("<", "<="), group)
        )
        return before or (after if after < self.count else num_dev)

    def _write(self, name: str, numbers: Iterable[int]) -> None:
        with open(self._folder / f"{name}.u64", "wb") as file:
            while len(chunk := np.fromiter(_first(iter(numbers), _AT_ONCE), _NUMBERS)):
                file.write(chunk.tobytes())


def _said(turn: Mapping[str, Any]) -> str:
    """All that is said in a turn."""
    return f"{turn['audio']['text']} {turn['text']}" if turn.get("audio") else turn["text"]


def _content(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A turn, wherever its recording lies."""
    audio = turn.get("audio")
    return dict(turn) if audio is None else {**turn, "audio": {**audio, "path": Path(audio["path"]).name}}


def _again(odd: OddRow) -> OddRow:
    return OddRow(odd.reason, cure=odd.cure)


def _first(items: Iterator[Any], count: int) -> Iterator[Any]:
    for _, item in zip(range(count), items):
        yield item


def _hash(text: str) -> bytes:
    return hashlib.md5(text.encode(errors="replace")).digest()


class DialogueStore:
    """A complete store, read through the page cache: what is in memory is shared by all processes, and can be given back.

    Args:
        folder: of the store.

    Raises:
        OSError, ValueError: if it is not there or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.facts: dict[str, Any] = json.loads((folder / _STORE).read_text(encoding="utf-8"))
        if any((folder / name).stat().st_size != size for name, size in self.facts["bytes"].items()):
            raise ValueError(f"{folder} is damaged")
        with open(folder / DIALOGUES, "rb") as file:
            self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._starts = {split: np.memmap(folder / f"{split}.u64", _NUMBERS, "r") for split in ("dev", "train")}
        self._seen = np.memmap(folder / "seen.u64", _NUMBERS, "r")

    def count(self, split: str) -> int:
        """Dialogues of a split."""
        return len(self._starts[split])

    def row(self, split: str, number: int) -> dict[str, Any]:
        """Dialogue `number` of a split, as in `dialogues.jsonl`."""
        start = int(self._starts[split][number])
        return json.loads(self._lines[start : self._lines.find(b"\n", start)])

    def is_seen(self, user_text: str) -> bool:
        """Whether a user says this in train."""
        wanted = np.array(int.from_bytes(_hash(user_text)[:8], "big"), _NUMBERS)
        place = int(np.searchsorted(self._seen, wanted))
        return place < len(self._seen) and bool(self._seen[place] == wanted)
