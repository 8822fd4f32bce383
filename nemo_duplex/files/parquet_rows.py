"""Rows of Parquet files, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_duplex.inputs import InputError, NotInstalled, existing_file, one_line

#: How such a file begins.
PARQUET = b"PAR1"
_ROWS_AT_ONCE = 256


def parquet_rows(path: str | Path, what: str) -> Iterator[tuple[int, Any]]:
    """(number from 1, row as a dict of plain values) of every row; `what` names the file in an error ("source").

    Raises:
        InputError: if the file is missing or damaged.
        NotInstalled: if pyarrow is not installed.

    Examples:
        >>> import pyarrow, pyarrow.parquet
        >>> pyarrow.parquet.write_table(pyarrow.table({"query": ["what is a foot"], "query_id": [7]}), "rows.parquet")
        >>> list(parquet_rows("rows.parquet", "source"))
        [(1, {'query': 'what is a foot', 'query_id': 7})]
    """
    path = existing_file(path, what)
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise NotInstalled(
            f"{what}: {path} is a Parquet file, and pyarrow is not installed: pip install 'nemo_duplex[text]'."
        ) from None
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{what}: {path} is damaged ({one_line(error)}). Copy or write it again.") from None
