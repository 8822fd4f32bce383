"""DistillMOS where it is installed, one line where it is not, and no trace of the module that stands for torchaudio."""

import importlib.util
import pickle
import sys
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest

from nemo_duplex.evaluation.speech.distillmos import DistillMOS, _without_torchaudio
from nemo_duplex.files import wheels
from nemo_duplex.inputs import NotInstalled

INSTALLED = importlib.util.find_spec("distillmos") is not None


@pytest.mark.skipif(not INSTALLED, reason="distillmos is installed by hand: its requirements do not fit torch's CPU build")
def test_noise_sounds_worse_than_speech_and_silence_is_not_judged():
    from nemo_duplex.synthesis.tts.espeak import EspeakEngine
    from nemo_duplex.synthesis.tts.utterance import Voice

    spoken = EspeakEngine().speak("What is the capital of France?", Voice("agent", "en-us"))
    quality, rng = DistillMOS(), np.random.default_rng(0)
    clean = quality.score(spoken.audio, spoken.sample_rate)
    noisy = quality.score(spoken.audio + 0.1 * rng.standard_normal(len(spoken.audio)).astype(np.float32), spoken.sample_rate)
    assert 1 <= noisy < clean - 0.5 < 5
    assert quality.score(np.zeros(48000, np.float32), 16000) is None
    assert (quality.scorer.name, quality.scorer.version, quality.scorer.comparable) == ("distillmos", "0.9.1", False)
    assert pickle.loads(pickle.dumps(quality)).score(spoken.audio, spoken.sample_rate) == clean
    assert "torchaudio" not in sys.modules


@pytest.mark.skipif(not INSTALLED, reason="distillmos is installed by hand: its requirements do not fit torch's CPU build")
def test_a_long_sound_is_the_mean_of_windows_from_its_start_to_its_end():
    quality, heard = DistillMOS(), []
    quality._model = lambda windows: heard.append(windows) or windows[:, :1]
    sound = np.arange(122880 + 9 * 61440 + 1, dtype=np.float32)
    starts = np.linspace(0, 9 * 61440 + 1, 11).round()
    assert quality._judge(sound)["score"] == pytest.approx(starts.mean())
    assert [windows.shape for windows in heard] == [(8, 122880), (3, 122880)] and heard[-1][-1, -1] == sound[-1]
    quality._judge(sound[:50000])
    assert heard[-1].shape == (1, 122880) and heard[-1][0, 49999] == 49999 and not heard[-1][0, 50000:].any()


def test_torchaudio_is_absent_again_after_an_error():
    with pytest.raises(ImportError), _without_torchaudio():
        assert sys.modules["torchaudio"].MFCC is None
        raise ImportError
    assert "torchaudio" not in sys.modules and "torchaudio.transforms" not in sys.modules


def test_what_is_missing_is_said_with_its_cure(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(wheels, "distribution", missing)
    wheels._checked.cache_clear()
    with pytest.raises(NotInstalled, match="0.9.1 is not installed: pip install --no-deps distillmos==0.9.1 xls-r-sqa==0.1.0"):
        DistillMOS()
    wheels._checked.cache_clear()
