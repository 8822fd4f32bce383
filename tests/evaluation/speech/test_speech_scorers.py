"""Which scorers are there; those that are missing say why, those whose files are given are opened or refused."""

from importlib.metadata import PackageNotFoundError

import pytest
import soundfile
import torch
from torch import nn

from nemo_duplex.evaluation.speech.speech_scorers import open_scorers
from nemo_duplex.files import wheels
from nemo_duplex.inputs import InputError
from tests.evaluation.speech.sounds import tone


@pytest.fixture
def bare(monkeypatch):
    """Nothing is installed."""

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(wheels, "distribution", missing)
    wheels._checked.cache_clear()
    yield
    wheels._checked.cache_clear()


class Moments(nn.Module):
    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        return torch.stack([wave.mean(1), wave.abs().mean(1)], 1)


class Loudness(nn.Module):
    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        return wave.abs().mean(1)


def test_each_that_is_missing_says_how_to_get_it(bare):
    scorers = open_scorers()
    assert scorers.all == {} and scorers.described() == []
    assert scorers.missing == {
        "distillmos": "distillmos 0.9.1 is not installed: pip install --no-deps distillmos==0.9.1 xls-r-sqa==0.1.0",
        "utmos": "give utmos=PATH of utmos22_strong_step7459_v1.pt, or of a TorchScript or ONNX file",
        "dnsmos": "speechmos 0.0.1.1 is not installed: pip install speechmos==0.0.1.1",
        "secs": "resemblyzer 0.1.4 is not installed: pip install --no-deps resemblyzer==0.1.4",
        "ecapa2_secs": "give ecapa2=PATH of ecapa2.pt, or of a TorchScript or ONNX file",
    }


def test_files_and_a_voice_that_are_given(bare, tmp_path):
    torch.jit.script(Loudness()).save(str(tmp_path / "utmos.pt"))
    torch.jit.script(Moments()).save(str(tmp_path / "ecapa2.pt"))
    soundfile.write(tmp_path / "voice.wav", tone(2.0, 24000), 24000)
    scorers = open_scorers(utmos=tmp_path / "utmos.pt", ecapa2=tmp_path / "ecapa2.pt", voice=tmp_path / "voice.wav")
    assert list(scorers.all) == ["utmos", "ecapa2_secs"] and set(scorers.missing) == {"distillmos", "dnsmos", "secs"}
    assert [scorer.name for scorer in scorers.described()] == ["utmos", "ecapa2"]
    assert (scorers.voice.sample_rate, len(scorers.voice.samples())) == (16000, 32000)


def test_a_file_that_cannot_be_used_ends_before_anything_is_judged(bare, tmp_path):
    for name in ("utmos", "dnsmos", "ecapa2", "voice"):
        with pytest.raises(InputError, match=f"{name}: there is no file"):
            open_scorers(**{name: tmp_path / "none"})
    (tmp_path / "voice.wav").write_text("no audio")
    with pytest.raises(InputError, match="voice: .*voice.wav cannot be read as audio"):
        open_scorers(voice=tmp_path / "voice.wav")
