from __future__ import annotations

import io
import json

import pytest

from nemo_duplex.files import json_window
from nemo_duplex.files.json_rows import json_rows
from nemo_duplex.files.json_window import JsonWindow


@pytest.mark.parametrize("read_at_once", [1, 5, 1 << 20])
def test_elements_and_their_lines(monkeypatch, read_at_once):
    monkeypatch.setattr(json_window, "_READ_AT_ONCE", read_at_once)
    window = JsonWindow(io.StringIO(' [12,\n\n{"a": "x\ty"}\n,-1.5e3 ,null]'), json.JSONDecoder(strict=False))
    found = [(window.line, *window.value()) for _ in window.elements()]
    assert found == [(1, 12, "12"), (3, {"a": "x\ty"}, '{"a": "x\ty"}'), (4, -1500.0, "-1.5e3"), (4, None, "null")]
    assert window.next() == ""


@pytest.mark.parametrize("text", ["[1 2]", "[1,]", "[1", "{}", "[}", ""])
def test_what_is_no_list(text):
    window = JsonWindow(io.StringIO(text), json.JSONDecoder())
    with pytest.raises(ValueError):
        for _ in window.elements():
            window.value()


def test_no_more_of_a_list_is_in_memory_than_is_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(json_window, "_READ_AT_ONCE", 1000)
    path, longest = tmp_path / "a.json", []
    path.write_text(json.dumps([{"text": "a" * 100}] * 1000))
    move = JsonWindow._move

    def watched(self, to):
        longest.append(len(self._buffer))
        move(self, to)

    monkeypatch.setattr(JsonWindow, "_move", watched)
    rows = list(json_rows(path, "source"))
    assert len(rows) == 1000 and rows[-1].value == {"text": "a" * 100} and max(longest) < 3000
