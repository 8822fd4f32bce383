from __future__ import annotations

import sys

import pyarrow
import pyarrow.parquet
import pytest

from nemo_duplex.files.parquet_rows import parquet_rows
from nemo_duplex.inputs import InputError, NotInstalled

ROWS = [{"id": i, "messages": [{"role": "user", "content": f"é {i}"}], "none": None} for i in range(700)]


@pytest.fixture
def path(tmp_path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet", row_group_size=300)
    return tmp_path / "a.parquet"


def test_rows_in_order(path):
    assert list(parquet_rows(path, "source")) == list(enumerate(ROWS, start=1))


def test_a_damaged_file_is_named(path):
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"source: .*a.parquet is damaged \(.*\). Copy or write it again."):
        list(parquet_rows(path, "source"))


def test_without_pyarrow_the_cure_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        NotInstalled, match=r"a.parquet is a Parquet file, and pyarrow is not installed: pip install 'nemo_duplex\[text\]'"
    ):
        list(parquet_rows(path, "source"))
