"""Which voices the demo takes, and what it says of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from nemo_duplex.inputs import InputError, NotInstalled
from nemo_duplex.scripts.demo import VOICES

ENGINE_VOICES = "nemo_duplex.synthesis.tts.engines.engine_voices"


@pytest.fixture
def example():
    path = Path(__file__).parents[2] / "examples" / "demo.py"
    spec = importlib.util.spec_from_file_location("demo_example", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without(missing: str, opened: list[str]):
    """Opens every engine but one."""

    def engine_voices(name: str) -> None:
        opened.append(name)
        if name == missing:
            raise NotInstalled(f"{name} is missing: pip install 'nemo_duplex[voices]'")

    return engine_voices


def test_hibari_where_it_is_installed(example, monkeypatch, capsys):
    opened: list[str] = []
    monkeypatch.setattr(ENGINE_VOICES, without("nothing", opened))
    assert example.demo_voices(None) is example.demo_voices("hibari") is VOICES["hibari"]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == said[1] and said[0].startswith("voices=hibari: the agent speaks with hibari, users with {")
    assert set(opened) == {"hibari"}


def test_espeak_where_it_is_not(example, monkeypatch, capsys):
    monkeypatch.setattr(ENGINE_VOICES, without("hibari", []))
    assert example.demo_voices(None) is VOICES["espeak"]
    why, what = capsys.readouterr().out.splitlines()
    assert why == "voices=espeak, for hibari is not installed: hibari is missing: pip install 'nemo_duplex[voices]'"
    assert what.startswith("voices=espeak: the agent speaks with espeak")
    with pytest.raises(NotInstalled, match="hibari"):
        example.demo_voices("hibari")


def test_espeak_needs_no_other_engine(example, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr(ENGINE_VOICES, without("hibari", opened))
    assert example.demo_voices("espeak") is VOICES["espeak"] and "hibari" not in opened


def test_other_voices_are_refused(example):
    with pytest.raises(InputError, match=r"voices=robot: expected one of hibari, espeak\."):
        example.demo_voices("robot")
