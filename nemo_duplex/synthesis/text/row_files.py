"""Files of rows: which ones a path, a folder or a pattern means, and the rows of each, whatever its format."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from nemo_duplex.files.json_columns import column_rows, is_column_file
from nemo_duplex.files.json_rows import JsonRow, json_rows
from nemo_duplex.files.parquet_rows import PARQUET, parquet_rows
from nemo_duplex.inputs import InputError, existing_file, existing_folder

_SUFFIXES = (".jsonl", ".json", ".ndjson", ".parquet")


def row_files(paths: Sequence[str | Path], what: str) -> list[Path]:
    """The files that `paths` name, each once: files as they are given; those of a folder and of a pattern sorted by name.

    Of a folder, the JSON and Parquet files in it and below it, gzip included, except hidden ones.

    Raises:
        InputError: if one is missing or empty, or a folder or a pattern has no such file; `what` names it ("source").

    Examples:
        >>> for name in ("b.jsonl", "a.jsonl", "notes.txt"):
        ...     _ = Path(name).write_text("{}")
        >>> [path.name for path in row_files([".", "notes.txt"], "source")]
        ['a.jsonl', 'b.jsonl', 'notes.txt']
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            inside = [file for file in sorted(existing_folder(path, what).rglob("*")) if _is_rows(file.relative_to(path), file)]
            if not inside:
                raise InputError(f"{what}: the folder {path} has no file of {', '.join(_SUFFIXES)}, gzip or not.")
        elif not path.exists() and glob.has_magic(str(path)):
            inside = [file for name in sorted(glob.glob(str(path), recursive=True)) if (file := Path(name)).is_file()]
            if not inside:
                raise InputError(f"{what}: no file has a name like {path} (this folder is {Path.cwd()}).")
        else:
            inside = [path]
        for file in inside:
            found.setdefault(file.resolve(), existing_file(file, what))
    return list(found.values())


def _is_rows(below: Path, file: Path) -> bool:
    if any(part.startswith(".") for part in below.parts) or not file.is_file():
        return False
    return below.name.lower().removesuffix(".gz").endswith(_SUFFIXES)


def name_among(path: Path, files: Sequence[Path]) -> str:
    """What one of several files is called in ids: its name, with the folders in which files of the same name differ."""
    if sum(other.name == path.name for other in files) == 1:
        return path.name
    folder = os.path.commonpath([other.resolve().parent for other in files])
    return path.resolve().relative_to(folder).as_posix()


def rows_of(path: Path, what: str) -> Iterator[JsonRow]:
    """The rows of a JSON or Parquet file, one by one.

    Raises:
        InputError: if it cannot be read; `what` names it ("source").
    """
    with open(path, "rb") as file:
        start = file.read(len(PARQUET))
    if start == PARQUET:
        yield from (JsonRow(number, number, value) for number, value in parquet_rows(path, what))
    elif is_column_file(path):
        yield from (JsonRow(number, 1, value) for number, value in column_rows(path, what))
    else:
        yield from json_rows(path, what)
