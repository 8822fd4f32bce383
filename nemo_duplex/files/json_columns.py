"""Tables by columns in JSON, `{"query": {"0": ..., "1": ...}, "answers": {"0": ...}}`, as pandas and MS MARCO write them.

Such a file is one object, of gigabytes. It is read once for every column at the same time, so that a row is in memory and not
the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Any, TextIO

from nemo_duplex.files.json_rows import DECODER, open_text
from nemo_duplex.files.json_window import JsonWindow
from nemo_duplex.inputs import InputError

_HEAD = 1 << 20  # characters that tell a table by columns from other JSON
_BEGINS = re.compile(r'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\{\s*"\d+"\s*:')
_CURE = "Write an object for each row (in pandas: `to_json(path, orient='records', lines=True)`)."


def is_column_file(path: Path) -> bool:
    """Whether a file is one object of columns, each an object of rows by number."""
    with open(path, "rb") as file:
        start = file.read(2)
        if start == b"\x1f\x8b" or start[:1] in b"{ \t\r\n\xef":
            try:
                with open_text(path, "source") as text:
                    head = text.read(_HEAD)
            except (InputError, UnicodeDecodeError, OSError, EOFError):
                return False  # whoever reads its rows says what is wrong
        else:
            return False
    if not _BEGINS.match(head):
        return False
    try:
        value, end = DECODER.raw_decode(head, head.index("{"))
    except (ValueError, RecursionError):
        return len(head) == _HEAD
    columns = value.values()
    return not head[end:].strip() and all(isinstance(column, dict) and all(map(str.isdigit, column)) for column in columns)


def column_rows(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, {column: value}) of every row of a table by columns; `what` names the file in an error ("source").

    Raises:
        InputError: if it is not JSON, or its columns have different rows.

    Examples:
        >>> _ = Path("table.json").write_text('{"query": {"0": "one?", "1": "two?"}, "answers": {"0": ["1"], "1": []}}')
        >>> list(column_rows(Path("table.json"), "source"))
        [(1, {'query': 'one?', 'answers': ['1']}), (2, {'query': 'two?', 'answers': []})]
    """
    try:
        with ExitStack() as stack:
            names = list(_columns(stack.enter_context(open_text(path, what)), None))
            columns = [_columns(stack.enter_context(open_text(path, what)), name) for name, _ in names]
            for number, cells in enumerate(zip_longest(*columns, fillvalue=("", None)), start=1):
                first = cells[0][0]
                if odd := next((name for (name, _), (key, _) in zip(names, cells) if key != first), None):
                    raise InputError(f"{what}: {path}: the columns {names[0][0]!r} and {odd!r} have different rows. {_CURE}")
                yield number, {name: value for (name, _), (_, value) in zip(names, cells)}
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what}: {path} is no table of JSON ({error}). {_CURE}") from None


def _columns(text: TextIO, wanted: str | None) -> Iterator[tuple[str, Any]]:
    """(row, value) of the cells of the wanted column; None: (name, None) of every column."""
    window = JsonWindow(text, DECODER)
    window.expect("{")
    while True:
        name, _ = window.value()
        window.expect(":")
        if wanted is None:
            yield name, None
        for key, value in window.members():
            if name == wanted:
                yield key, value
        if name == wanted or window.expect(",}") == "}":
            return
