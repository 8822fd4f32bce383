"""Embeddings: equal to those of Resemblyzer's own code; files of others; the cosine."""

import importlib.util
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from nemo_duplex.evaluation.speech.speakers import ECAPA2, Resemblyzer, secs
from nemo_duplex.inputs import InputError
from tests.evaluation.speech.sounds import tone

installed = pytest.mark.skipif(importlib.util.find_spec("resemblyzer") is None, reason="resemblyzer is installed by hand")


def syllables(seconds: float, seed: int = 0) -> np.ndarray:
    rng, n = np.random.default_rng(seed), round(16000 * seconds)
    return (0.1 * rng.standard_normal(n) * np.abs(np.sin(np.arange(n) / 3000))).astype(np.float32)


def test_secs_is_the_cosine():
    assert secs([1.0, 0.0], [1.0, 1.0]) == pytest.approx(0.5**0.5)
    assert secs([3.0, 4.0], [30.0, 40.0]) == pytest.approx(1.0) and secs([1.0, 0.0], [-2.0, 0.0]) == -1.0


@installed
@pytest.mark.parametrize("seconds", [1.0, 1.6, 1.60001, 2.37, 2.8, 3.27, 10.0])
def test_an_embedding_is_that_of_resemblyzer(seconds):
    try:
        from resemblyzer import VoiceEncoder
    except ImportError as error:
        pytest.skip(f"resemblyzer's own code cannot be imported: {error}")
    sound = syllables(seconds)
    own, theirs = Resemblyzer(), VoiceEncoder("cpu", verbose=False)
    assert np.abs(np.array(own._judge(sound)["embedding"]) - theirs.embed_utterance(sound)).max() < 1e-6


@installed
def test_a_voice_is_known_by_its_sound_not_by_its_loudness():
    encoder = Resemblyzer()
    whole = encoder.embed(syllables(3.0), 16000)
    assert whole.shape == (256,) and np.linalg.norm(whole) == pytest.approx(1.0)
    assert secs(whole, encoder.embed(0.01 * syllables(3.0), 16000)) > secs(whole, encoder.embed(tone(3.0), 16000)) + 0.1
    quiet = encoder.embed(0.02 * syllables(3.0), 16000)
    assert secs(quiet, encoder.embed(0.01 * syllables(3.0), 16000)) == pytest.approx(1.0, abs=1e-6)
    assert encoder.embed(syllables(0.5), 16000) is None
    assert encoder.scorer.name == "resemblyzer" and not encoder.scorer.comparable


class Moments(nn.Module):
    """(1, S) to (1, 2): the mean of the sound and of its absolute values."""

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        return torch.stack([wave.mean(1), wave.abs().mean(1)], 1)


class One(nn.Module):
    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        return wave.mean(1)


def saved(module: nn.Module, path):
    torch.jit.script(module).save(str(path))
    return path


def test_a_file_of_ecapa2_is_called_with_a_sound(tmp_path):
    encoder = ECAPA2(saved(Moments(), tmp_path / "ecapa2.pt"))
    assert encoder.scorer.comparable and len(encoder.scorer.sha256) == 64 and "ecapa2.pt" in encoder.scorer.about
    assert encoder.embed(tone(3.0), 16000) == pytest.approx([0.0, 1.0], abs=1e-3)
    long = np.concatenate([tone(20.0) + 0.5, tone(20.0) - 0.5]).clip(-1, 1)
    assert encoder.embed(long, 16000) == pytest.approx([0.0, 1.0], abs=1e-3), "The mean of two pieces."
    again = pickle.loads(pickle.dumps(encoder))
    assert np.array_equal(again.embed(long, 16000), encoder.embed(long, 16000))


def test_a_file_that_is_no_encoder_is_one_line(tmp_path):
    with pytest.raises(InputError, match="ecapa2: .*one.pt gives 1 number for a sound, expected an embedding"):
        ECAPA2(saved(One(), tmp_path / "one.pt"))
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"ecapa2: .*weights.pt is no TorchScript \(torch.jit.save\) and not named .onnx"):
        ECAPA2(tmp_path / "weights.pt")
    (tmp_path / "half.pt").write_bytes((tmp_path / "one.pt").read_bytes()[:500])
    with pytest.raises(InputError, match="ecapa2: .*half.pt is no TorchScript"):
        ECAPA2(tmp_path / "half.pt")
