from __future__ import annotations

import gzip
import io
import json
import tarfile

import pytest

from nemo_duplex.files.json_rows import json_rows
from nemo_duplex.inputs import InputError

ROWS = [{"text": "one"}, {"text": "zwö", "n": [1, {}]}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
PRETTY = json.dumps(ROWS, indent=2, ensure_ascii=False)


def read(tmp_path, content: str | bytes, encoding: str = "utf-8") -> list:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return list(json_rows(path, "source"))


def tar_of(text: str) -> bytes:
    archive, data = io.BytesIO(), text.encode()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        info = tarfile.TarInfo("a.jsonl")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return archive.getvalue()


def values(rows) -> list:
    assert all(row.odd is None for row in rows), [str(row.odd) for row in rows]
    return [row.value for row in rows]


@pytest.mark.parametrize(
    "separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x00", "\t", "\u00a0", "\ufeff"]
)
def test_a_row_goes_on_after_whatever_a_string_holds(tmp_path, separator):
    lines = f'{{"text": "a{separator}b"}}\n{{"text": "{separator}"}}'
    assert values(read(tmp_path, lines)) == [{"text": f"a{separator}b"}, {"text": separator}]
    assert values(read(tmp_path, f"[\n{lines.replace(chr(10), ',')}\n]")) == [{"text": f"a{separator}b"}, {"text": separator}]


@pytest.mark.parametrize(
    "content",
    [
        LINES,
        LINES.rstrip("\n"),
        LINES.replace("\n", "\r\n"),
        LINES.replace("\n", "\r"),
        f"\n  \n\n{LINES}\n\n",
        f"\ufeff{LINES}",
        f"\ufeff\n{LINES}",
        LINES.replace("\n", "\n\ufeff"),  # two files with byte order marks, joined
        json.dumps(ROWS),
        PRETTY,
        PRETTY.replace("\n", "\r\n"),
        f"\ufeff\n\n{PRETTY}\n\n",
        f"[{LINES.strip().replace(chr(10), ',' + chr(10))}]\n",
        f"[\n{LINES.strip().replace(chr(10), chr(10) + ',')}\n]\n",
        "\n".join(json.dumps(row, indent=1) for row in ROWS),  # jq
        "".join(json.dumps(row) for row in ROWS),
        f"{LINES}\0\0\0",  # what a crash or a file system leaves
        f"{LINES.rstrip()}\0",
        f"{PRETTY}\0\n",
        LINES.replace("\n", "\n\0\0\0\n"),
        f"{LINES}\x1a",  # the end of a file of DOS
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_form_and_encoding_gives_the_same_rows(tmp_path, content, encoding, packed):
    data = content.encode(encoding)
    assert values(read(tmp_path, gzip.compress(data) if packed else data)) == ROWS


def test_nan_is_no_value_and_infinity_is_a_number(tmp_path):
    (row,) = values(read(tmp_path, '{"a": NaN, "b": [NaN, 1.5], "c": -Infinity, "d": "NaN"}'))
    assert row == {"a": None, "b": [None, 1.5], "c": float("-inf"), "d": "NaN"}


@pytest.mark.parametrize(
    ("content", "places"),
    [
        (f"\n{LINES}", [(2, 2), (3, 3)]),
        (LINES.replace("\n", "\r\n\r\n"), [(1, 1), (3, 3)]),
        (f"\n\n{json.dumps(ROWS, indent=1)}", [(1, 4), (2, 7)]),
        (f"\n{json.dumps(ROWS[0], indent=1)}\n\n{json.dumps(ROWS[1])}", [(1, 2), (2, 6)]),
        ("[[1], [2]]\n", [(1, 1), (2, 1)]),
        ("[[1]]\n[[2]]\n", [(1, 1), (2, 2)]),
    ],
)
def test_numbers_and_lines_of_rows(tmp_path, content, places):
    assert [(row.number, row.line) for row in read(tmp_path, content)] == places


def test_lines_of_lists_are_rows_and_one_list_is_not(tmp_path):
    assert values(read(tmp_path, '["a", "b"]\n["c"]\n')) == [["a", "b"], ["c"]]
    assert values(read(tmp_path, '["a", "b"]\n')) == ["a", "b"]
    assert values(read(tmp_path, "[]")) == []
    assert values(read(tmp_path, "\n \n")) == []


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b'{"text": "two', "not JSON", "Unterminated string starting at character 10"),
        (b'{"text": 2},', "not JSON", "more than one value, ',' at character 12"),
        (b"# two", "not JSON", "Expecting value at character 1"),
        (b"{'text': 2}", "not JSON", "Expecting property name enclosed in double quotes at character 2"),
        (b'{"text": ' + b"9" * 5000 + b"}", "not JSON", "Exceeds the limit (4300 digits) for integer string conversion"),
        (b"[" * 100_000, "not JSON", "nested too deep at character 1"),
        (b'{"text": "caf\xe9"}', "not UTF-8 text", ""),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_line_that_cannot_be_read_is_one_odd_row(tmp_path, line, reason, detail, place):
    lines = [json.dumps(row).encode() for row in ROWS]
    lines.insert(place, line)
    rows = read(tmp_path, b"\n".join(lines))
    assert [row.value for row in rows if row.odd is None] == ROWS
    (row,) = [row for row in rows if row.odd is not None]
    assert (row.line, row.value, row.odd.reason) == (place + 1, None, reason) and row.odd.detail.startswith(detail)
    assert row.odd.cure


@pytest.mark.parametrize(
    "text", ["[{0},\n{1},\n{2}]", "[\n{0},\n {1},\n{2}\n]\n", "\n[ {0}\n,{1}\n,{2}\n]", "[\n{0},\n{1},\n{2},\n"]
)
def test_an_element_on_a_line_of_its_own_that_cannot_be_read_is_one_odd_row(tmp_path, text):
    broken = '{"text": "He said "two"."}'
    for place in range(3):
        elements = [json.dumps(row) for row in ROWS]
        elements.insert(place, broken)
        content = text.replace("{0}", elements[0]).replace("{1}", elements[1]).replace("{2}", elements[2])
        rows = read(tmp_path, content)
        assert [row.value for row in rows if row.odd is None] == ROWS
        (row,) = [row for row in rows if row.odd is not None]
        assert row.line == content[: content.index("He said")].count("\n") + 1 and row.odd.reason == "not JSON"
        column = content.split("\n")[row.line - 1].index("two") + 1
        assert row.odd.detail == f"Expecting ',' delimiter at character {column}"


def test_an_element_of_a_list_that_is_no_utf_8_is_one_odd_row(tmp_path):
    rows = read(tmp_path, b'[{"text": "one"}, {"text": "caf\xe9"}, {"text": "caf\\udce9"}]')
    assert [row.value for row in rows] == [{"text": "one"}, None, {"text": "caf\udce9"}] and rows[
        1
    ].odd.reason == "not UTF-8 text"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"text": 1},\n{"text": 2', r"a.jsonl:2: not JSON \(Expecting ',' delimiter\). Write one JSON object per line"),
        (b'[{"text": 1}\n{"text": 2}]', r"a.jsonl:2: not JSON \(Expecting ',' or '\]'\)"),
        (b'[{"text": 1}] x', r"a.jsonl:1: not JSON \(Extra data after the list\)"),
        (
            b'{"text": 1},\n{"text": 2},\n',
            r"source: .*a.jsonl:1: not JSON \(a comma after a row\). Write one JSON object per line",
        ),
        (b'[{"text": 1},]', r"a.jsonl:1: not JSON \(Expecting value\)"),
        (b'{\n "text": 1,\n "x"\n}', r"a.jsonl:4: not JSON \(Expecting ':' delimiter\)"),
        (b"", r"source: .*a.jsonl is empty"),
        (b"PAR1...", r"source: .*a.jsonl is a Parquet file, expected JSON lines or a JSON list. Write its rows as JSON lines"),
        (b"PK\x03\x04...", r"source: .*a.jsonl is a zip archive.*Unpack it; of a spreadsheet .* write the rows as JSON lines"),
        (tar_of(LINES), r"source: .*a.jsonl is a tar archive, expected JSON lines or a JSON list. Unpack it"),
        (gzip.compress(tar_of(LINES)), r"source: .*a.jsonl is a tar archive, .* Unpack it"),
        (gzip.compress(LINES.encode())[:-20], r"source: .*a.jsonl is damaged \(.*\). Copy or write it again"),
        (gzip.compress(LINES.encode())[:-8] + b"12345678", r"source: .*a.jsonl is damaged \(CRC check failed"),
        (LINES.encode("utf-16")[:-1], r"source: .*a.jsonl is not UTF-16-LE text. Save it as UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, content)


def test_of_json_lines_one_line_is_read_at_a_time(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n' * 200_000)
    rows = json_rows(path, "source")
    next(rows)
    with open(path, "a") as file:
        file.write('{"text": "last"}\n')
    assert [row.value["text"] for row in rows][-1] == "last"
