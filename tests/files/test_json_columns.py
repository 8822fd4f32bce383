from __future__ import annotations

import gzip
import json

import pytest

from nemo_duplex.files import json_window
from nemo_duplex.files.json_columns import column_rows, is_column_file
from nemo_duplex.inputs import InputError

ROWS = [{"query": f'q "{i}" é', "answers": ["a" * i, {}], "query_id": 100 + i} for i in range(40)]
TABLE = {key: {str(i): row[key] for i, row in enumerate(ROWS)} for key in ROWS[0]}


@pytest.mark.parametrize("read_at_once", [1, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 1])
def test_rows_of_columns_however_little_is_read_at_once(tmp_path, monkeypatch, read_at_once, indent):
    monkeypatch.setattr(json_window, "_READ_AT_ONCE", read_at_once)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(TABLE, indent=indent))
    assert is_column_file(path) and list(column_rows(path, "source")) == list(enumerate(ROWS, start=1))


def test_a_packed_table(tmp_path):
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(json.dumps(TABLE).encode()))
    assert is_column_file(path) and [row for _, row in column_rows(path, "source")] == ROWS


@pytest.mark.parametrize(
    "content",
    [
        '{"a": {"0": 1}, "b": 2}', '{"a": {"0": 1}}\n{"a": {"0": 2}}',
        '{"meta": {"0": 1}, "turns": []}', '{"a": {"x": 1}}', "[]", "{}", "x",
    ],
)  # fmt: skip
def test_other_json_is_no_table_by_columns(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    assert not is_column_file(path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"a": {"0": 1, "1": 2}, "b": {"0": 1}},
            "a.json: the columns 'a' and 'b' have different rows. Write an object",
        ),
        ({"a": {"0": 1, "1": 2}, "b": {"1": 1, "0": 2}}, "the columns 'a' and 'b' have different rows"),
    ],
)
def test_columns_of_different_rows_are_no_table(tmp_path, table, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(table))
    with pytest.raises(InputError, match=message):
        list(column_rows(path, "source"))


def test_a_table_that_was_cut_off_is_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(TABLE)[:-20])
    with pytest.raises(InputError, match="source: .*a.json is no table of JSON"):
        list(column_rows(path, "source"))
