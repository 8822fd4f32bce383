"""Rows of JSON from people's files, whatever editor or exporter wrote them: the only reader of such files."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from nemo_duplex.files.json_window import BLANK, JsonWindow
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.inputs import InputError, existing_file, one_line

# How other files begin that people give for JSON, and what to do with them.
_OTHER_FORMATS = {
    b"PAR1": ("a Parquet file", "Write its rows as JSON lines."),
    b"PK\x03\x04": ("a zip archive", "Unpack it; of a spreadsheet (xlsx, ods), write the rows as JSON lines."),
    b"BZh": ("packed by bzip2", "Unpack it."),
    b"\xfd7zXZ": ("packed by xz", "Unpack it."),
    b"\x28\xb5\x2f\xfd": ("packed by zstd", "Unpack it."),
}
_GZIP = b"\x1f\x8b"
_TAR, _TAR_AT = b"ustar", 257  # what a tar archive has at that byte
_BLANKS = re.compile(f"[{BLANK}]*")
_BEFORE_ELEMENT = re.compile(rf"\A[{BLANK}]*[\[,](?!\[)")
# Control characters stand inside strings, as some exporters leave them. NaN is how pandas writes that there is no value.
#: Reads what people's files hold.
DECODER = json.JSONDecoder(strict=False, parse_constant=lambda name: None if name == "NaN" else float(name))
_NO_TEXT = re.compile(r"[\udc80-\udcff]")  # what is left of bytes that are no UTF-8
_CURE = "Write one JSON object per line, or one JSON list."


@dataclass(frozen=True)
class JsonRow:
    """A row of a file.

    Args:
        number: its number, from 1: of the line in a file of JSON lines (blank lines count), else of the row.
        line: the line on which it begins.
        value: what it holds.
        odd: why it cannot be read; `value` is None then.
    """

    number: int
    line: int
    value: Any = None
    odd: OddRow | None = None


def json_rows(path: str | Path, what: str) -> Iterator[JsonRow]:
    """The rows of a JSON file, one by one; `what` names the file in an error ("source").

    Reads JSON lines, a JSON list, and objects one after the other over any number of lines; UTF-8, UTF-16 and UTF-32 with or
    without a byte order mark; gzip. Rows end at line feeds and carriage returns alone: U+2028, U+0085, form feeds and the like
    are a part of the text that holds them. NaN is None. Of JSON lines and of a list, no more than one row is in
    memory.

    Yields:
        A `JsonRow` for every row; of JSON lines, or a list with a row per line, also for a line that cannot be read, so that
        the others can be used.

    Raises:
        InputError: if the file is missing, empty, no text or damaged, or a list or an object over many lines is not JSON.

    Examples:
        >>> _ = Path("rows.jsonl").write_text('{"text": "one"}\\n\\n{"text": "tw\\n', encoding="utf-16")
        >>> [(row.line, row.value, str(row.odd)) for row in json_rows("rows.jsonl", "source")]
        [(1, {'text': 'one'}, 'None'), (3, None, 'not JSON (Unterminated string starting at character 10)')]
    """
    path = existing_file(path, what)
    if _is_whole_list(path, what):
        with open_text(path, what) as text:
            window = JsonWindow(text, DECODER)
            for number, _ in enumerate(window.elements(), start=1):
                line, (value, written) = window.line, window.value()
                yield JsonRow(number, line, odd=_not_utf8()) if _NO_TEXT.search(written) else JsonRow(number, line, value)
        return
    with open_text(path, what) as text:
        yield from _rows(text, path, what)


@contextmanager
def open_text(path: Path, what: str) -> Iterator[TextIO]:
    """A JSON file as text, whatever its encoding, gzip or not, with line feeds alone between lines.

    Raises:
        InputError: if it is no text or damaged, also while the block reads it; `what` names it ("source").
    """
    try:
        with open(path, "rb") as file, _text(file, path, what) as text:
            yield text
    except UnicodeDecodeError as error:
        raise InputError(f"{what}: {path} is not {error.encoding.upper()} text. Save it as UTF-8.") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{what}: {path} is damaged ({one_line(error)}). Copy or write it again.") from None


def _is_whole_list(path: Path, what: str) -> bool:
    """Whether a file is one JSON list and nothing else, to its end."""
    with open_text(path, what) as text:
        window = JsonWindow(text, DECODER)
        try:
            if window.next() != "[":
                return False
            for _ in window.elements():
                window.value()
            return not window.next()
        except UnicodeDecodeError:
            raise
        except (ValueError, RecursionError):
            return False  # where it is broken, its lines are looked at one by one


def _text(file: io.BufferedReader, path: Path, what: str) -> TextIO:
    """The text of a file, in its encoding, with line feeds alone between lines."""
    for start, (kind, cure) in _OTHER_FORMATS.items():
        if file.peek(8).startswith(start):
            raise InputError(f"{what}: {path} is {kind}, expected JSON lines or a JSON list. {cure}")
    packed = file.peek(2).startswith(_GZIP)
    binary = io.BufferedReader(gzip.GzipFile(fileobj=file)) if packed else file
    if binary.peek(_TAR_AT + len(_TAR))[_TAR_AT:].startswith(_TAR):
        raise InputError(f"{what}: {path} is a tar archive, expected JSON lines or a JSON list. Unpack it.")
    encoding = json.detect_encoding(binary.peek(4)[:4])
    # So one line with a wrong byte is one odd row. Half a pair of UTF-16 is for whoever uses the text.
    errors = "surrogateescape" if encoding.startswith("utf-8") else "surrogatepass"
    return io.TextIOWrapper(binary, encoding, errors, newline=None)


def _rows(text: TextIO, path: Path, what: str) -> Iterator[JsonRow]:
    lines = ((number, line) for number, line in enumerate(text, start=1) if line.strip(BLANK))
    first = next(lines, None)
    if first is None:
        return
    begun, is_list = [first], first[1].lstrip(BLANK).startswith("[")
    if is_list:
        begun += itertools.islice(lines, 1)
    is_whole = is_list and len(begun) == 1  # a list on every line is JSON lines too
    if not is_whole and _of_line(*first).odd is None:
        yield from itertools.starmap(_of_line, itertools.chain(begun, lines))
        return
    before, whole = 0, ""
    for number, line in begun:
        whole += "\n" * (number - before - 1) + line
        before = number
    yield from _of_whole(whole + text.read(), path, what)


def _of_line(number: int, line: str) -> JsonRow:
    if _NO_TEXT.search(line):
        return JsonRow(number, number, odd=_not_utf8())
    try:
        value, end = _decode(line, _after_blanks(line, 0))
        if rest := line[end:].strip(BLANK):
            raise json.JSONDecodeError(f"more than one value, {rest[:20]!r}", line, end)
        return JsonRow(number, number, value)
    except json.JSONDecodeError as error:
        message = f"{error.msg.removesuffix(' at')} at character {error.pos + 1}"
        return JsonRow(number, number, odd=OddRow("not JSON", message, _CURE))


def _not_utf8() -> OddRow:
    return OddRow("not UTF-8 text", cure="Save the file as UTF-8.")


def _of_whole(text: str, path: Path, what: str) -> Iterator[JsonRow]:
    """Rows of a text that is no JSON lines, or whose first line is broken."""
    is_list = text.lstrip(BLANK).startswith("[")
    try:
        for _ in _values(text, is_list):
            pass
    except json.JSONDecodeError as error:
        lines = [_element(line) if is_list else line for line in text.split("\n")]
        rows = [_of_line(number, line) for number, line in enumerate(lines, start=1) if line.strip(BLANK)]
        usable = sum(isinstance(row.value, dict) for row in rows)
        if 2 * usable <= len(rows) or (is_list and usable == len(rows)):  # the latter: what separates the rows is wrong
            raise InputError(f"{what}: {path}:{error.lineno}: not JSON ({error.msg}). {_CURE}") from None
        yield from rows
        return
    yield from _values(text, is_list)


def _element(line: str) -> str:
    """A line of a list with one element per line, without what separates them; characters stay where they are."""
    line = _BEFORE_ELEMENT.sub(lambda match: " " * len(match[0]), line)
    return line.rstrip(f",]{BLANK}")


def _values(text: str, is_list: bool) -> Iterator[JsonRow]:
    """The elements of a list, or values one after the other."""
    position = _after_blanks(text, 0)
    if is_list:
        position = _after_blanks(text, position + 1)
    end_of_text, line, counted = len(text), 1, 0
    for number in itertools.count(1):
        if is_list and text.startswith("]", position) and number == 1:
            break
        if not is_list and position == end_of_text:
            return
        if not is_list and text.startswith(",", position):
            raise json.JSONDecodeError("a comma after a row", text, position)
        line, counted = line + text.count("\n", counted, position), position
        start, (value, position) = position, _decode(text, position)
        broken = _NO_TEXT.search(text, start, position)
        yield JsonRow(number, line, odd=_not_utf8()) if broken else JsonRow(number, line, value)
        position = _after_blanks(text, position)
        if is_list and text.startswith("]", position):
            break
        if is_list:
            if not text.startswith(",", position):
                raise json.JSONDecodeError("Expecting ',' or ']'", text, position)
            position = _after_blanks(text, position + 1)
    if _after_blanks(text, position + 1) != end_of_text:
        raise json.JSONDecodeError("Extra data after the list", text, position + 1)


def _after_blanks(text: str, position: int) -> int:
    found = _BLANKS.match(text, position)
    assert found is not None  # it matches no blanks too
    return found.end()


def _decode(text: str, position: int) -> tuple[Any, int]:
    """The value that begins at `position`, and where it ends."""
    try:
        return DECODER.raw_decode(text, position)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise json.JSONDecodeError("nested too deep", text, position) from None
    except ValueError as error:  # an integer of over 4300 digits
        raise json.JSONDecodeError(one_line(error), text, position) from None
