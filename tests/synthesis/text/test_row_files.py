from __future__ import annotations

import json

import pyarrow
import pyarrow.parquet
import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.text.row_files import row_files, rows_of


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jsonl", "a.json", "sub/c.JSONL.gz", "sub/d.parquet", "notes.md", ".hidden/e.jsonl", ".f.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    return tmp_path


def names(folder, *paths):
    return [path.relative_to(folder).as_posix() for path in row_files(paths, "source")]


def test_the_files_of_a_folder_are_sorted(folder):
    assert names(folder, folder) == ["a.json", "b.jsonl", "sub/c.JSONL.gz", "sub/d.parquet"]


def test_patterns_and_files_stay_in_their_order_and_come_once(folder):
    assert names(folder, folder / "**" / "*.parquet", folder / "notes.md", folder / "*.json*", folder / "a.json") == [
        "sub/d.parquet", "notes.md", "a.json", "b.jsonl",
    ]  # fmt: skip
    (folder / "x[1].jsonl").write_text("{}")
    assert names(folder, folder / "x[1].jsonl") == ["x[1].jsonl"]


def test_what_names_no_file(folder):
    (folder / "empty").mkdir()
    (folder / "other").mkdir()
    (folder / "other" / "a.txt").write_text("a")
    for path, message in [
        ("nowhere", "source: there is no file .*nowhere"), ("n*", "source: no file has a name like .*n\\*x"),
        ("empty", "source: the folder .*empty is empty"), ("other", "source: the folder .*other has no file of .jsonl, .json"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=message):
            row_files([folder / (path + "x" if "*" in path else path)], "source")


def test_rows_of_every_format(tmp_path):
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "whatever its name")
    (tmp_path / "lines").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "list").write_text(json.dumps(rows, indent=1))
    (tmp_path / "columns").write_text(json.dumps({key: {str(i): row[key] for i, row in enumerate(rows)} for key in "ab"}))
    for name in ("whatever its name", "lines", "list", "columns"):
        found = list(rows_of(tmp_path / name, "source"))
        assert [row.value for row in found] == rows and [row.number for row in found] == [1, 2]
