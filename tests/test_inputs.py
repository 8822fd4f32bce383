"""What is said of wrong input: files, folders, audio, keys, and errors of libraries."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import soxr
from omegaconf import OmegaConf

from nemo_duplex.inputs import (
    InputError,
    did_you_mean,
    existing_file,
    existing_folder,
    one_line,
    plain,
    read_mono,
    refuse_unknown,
)


def test_a_file_exists_and_is_not_empty(tmp_path):
    (tmp_path / "a").write_text("x")
    assert existing_file(str(tmp_path / "a"), "model") == tmp_path / "a"
    (tmp_path / "empty").touch()
    for name, message in {"": "is a folder, expected a file", "b": "there is no file", "empty": "is empty"}.items():
        with pytest.raises(InputError, match=f"^model: .*{message}"):
            existing_file(tmp_path / name, "model")


def test_a_folder_exists_and_is_not_empty(tmp_path):
    (tmp_path / "empty").mkdir()
    assert existing_folder(str(tmp_path), "data") == tmp_path
    (tmp_path / "a").touch()
    for name, message in {"a": "is a file, expected a folder", "b": "there is no folder", "empty": "is empty"}.items():
        with pytest.raises(InputError, match=f"^data: .*{message}"):
            existing_folder(tmp_path / name, "data")


def test_mono_audio_is_resampled(tmp_path):
    samples = np.sin(np.arange(4410) / 20).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 44100, subtype="FLOAT")
    assert np.array_equal(read_mono(tmp_path / "a.wav", 44100), samples)
    assert np.array_equal(read_mono(tmp_path / "a.wav", 16000), soxr.resample(samples, 44100, 16000))


@pytest.mark.parametrize(
    "samples, message",
    [
        (np.zeros((100, 2)), "has 2 channels, expected one"),
        (np.zeros(0), "holds no samples"),
        (np.array([0.0, np.inf]), "not finite"),
        (np.array([0.0, np.nan]), "not finite"),
    ],
)
def test_audio_that_cannot_be_used(tmp_path, samples, message):
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(InputError, match=f"^user audio: .*a.wav .*{message}"):
        read_mono(tmp_path / "a.wav", 16000, "user audio")
    (tmp_path / "a.wav").write_text("no audio")
    with pytest.raises(InputError, match="cannot be read as audio .*Convert it"):
        read_mono(tmp_path / "a.wav", 16000)


def test_the_nearest_key():
    assert did_you_mean("hour", ["hours", "our"]) == " Did you mean 'hours'?"
    assert did_you_mean("every", ["evert", "steps.every"]) == " Did you mean 'steps.every'?"
    assert did_you_mean("xyz", ["hours"]) == ""


def test_unknown_keys():
    refuse_unknown({"a": 1}, ["a", "b"], "model")
    with pytest.raises(InputError, match="^model: unknown key 'optin'. Did you mean 'optim'\\?$"):
        refuse_unknown({"lr": 1, "optin": 2}, ["lr", "optim"], "model")
    with pytest.raises(InputError, match="^model: unknown key 'x'. Expected lr, optim.$"):
        refuse_unknown(["x"], ["lr", "optim"], "model")
    with pytest.raises(InputError, match="^adapter: unknown key 'x'. Expected no keys.$"):
        refuse_unknown(["x"], [], "adapter")


def test_the_message_of_a_librarys_error():
    assert one_line(ValueError("two\n\n  lines")) == "two lines"
    assert one_line(ValueError()) == "ValueError"
    assert one_line(ValueError("x" * 300)) == "x" * 200
    assert one_line(ValueError("x" * 300), 5) == "xxxxx"


def test_a_section_as_plain_data():
    section = OmegaConf.create({"a": {"b": 1}, "c": "${a.b}", "d": [1, 2]})
    assert plain(section) == {"a": {"b": 1}, "c": 1, "d": [1, 2]}
    nested = plain({"x": OmegaConf.create({"d": [1]}), "y": None})
    assert nested == {"x": {"d": [1]}, "y": None}
    assert type(nested["x"]) is dict and type(nested["x"]["d"]) is list
