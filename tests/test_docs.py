"""The examples of docs/ run, one after the other, on a tiny model in the place of yours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nemo_duplex import DuplexS2SModel
from tests.dummies import speech_like, tiny_model

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


def examples(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_page_of_streaming(model, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DuplexS2SModel, "restore_from", lambda path, map_location: model)
    sent: list = []
    names = {
        "model": model,
        "question": speech_like(1.3).numpy(),
        "call": speech_like(1.3, sample_rate=8000).numpy(),
        "play": lambda session, audio: sent.append(audio),
        "send": sent.append,
    }
    found = examples("streaming.md")
    assert len(found) >= 4
    for example in found:
        exec(compile(example, "docs/streaming.md", "exec"), names)
    assert sent and all(len(audio) for audio in sent) and capsys.readouterr().out
