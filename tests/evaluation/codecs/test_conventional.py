"""Opus and Codec 2 at their real rates, and names of them."""

import importlib.util
import sys

import numpy as np
import pytest

from nemo_duplex.evaluation.codecs.conventional import Codec2, Opus, open_conventional
from nemo_duplex.evaluation.codecs.delay import delay_of
from nemo_duplex.inputs import InputError
from tests.evaluation.speech.test_full_reference import syllables

CODEC2_IS_THERE = importlib.util.find_spec("pycodec2") is not None
by_hand = pytest.mark.skipif(not CODEC2_IS_THERE, reason="pycodec2 is installed by hand: it has wheels for few machines")


@pytest.mark.parametrize("rate", [16000, 22050])
def test_opus_gives_the_whole_sound_back_in_time(rate):
    sound = syllables(1.0, rate)
    for kbps in (6, 64):
        decoded = Opus(kbps).send(sound, rate)
        assert decoded.sample_rate == 48000 and decoded.samples.dtype == np.float32
        assert decoded.bits / decoded.seconds == pytest.approx(1000 * kbps)
        assert len(decoded.samples) >= 48000 and 0.1 < np.abs(decoded.samples).max() < 1.1
        original = syllables(1.0, 48000)
        assert abs(delay_of([(original, decoded.samples)], 48000)) <= 24, "half a millisecond"
    like = np.corrcoef(original, decoded.samples[:48000])[0, 1]
    assert like > 0.8, "at 64 kbit/s it is the same waveform, but for a high-pass filter"
    assert np.array_equal(Opus(64).send(sound, rate).samples, decoded.samples)


@by_hand
@pytest.mark.parametrize(("mode", "bits"), [("700C", 700), ("1200", 1200), ("3200", 3200)])
def test_codec2_has_the_rate_of_its_mode(mode, bits):
    sound = syllables(1.01, 24000)
    decoded = Codec2(mode).send(sound, 24000)
    assert decoded.sample_rate == 8000 and decoded.bits / decoded.seconds == pytest.approx(bits)
    assert len(decoded.samples) / 8000 == pytest.approx(decoded.seconds) and decoded.seconds >= 1.01
    assert 0.05 < np.abs(decoded.samples).max() <= 1
    assert Codec2(mode).about()["codec"] == f"Codec 2, mode {mode}"


def test_names_are_checked_and_who_is_missing_is_said(monkeypatch):
    for name in ("opus", "opus-5", "opus-511", "opus-6k", "codec2-700", "codec2", "speex-2", ""):
        with pytest.raises(InputError, match=f"conventional_codecs: '{name}': expected opus-KBPS with 6 to 510"):
            open_conventional([name])
    monkeypatch.setitem(sys.modules, "pycodec2", None)
    found, missing = open_conventional(["opus-6", "codec2-700C", "opus-6"])
    assert [one.name for one in found] == ["opus-6"]
    assert missing == {"codec2-700C": "pycodec2 is not installed: pip install pycodec2==4.1.1 (Python 3.11 and newer)"}
    monkeypatch.setitem(sys.modules, "av", None)
    assert open_conventional(["opus-6"]) == ([], {"opus-6": "PyAV is not installed: pip install av"})
    assert open_conventional([]) == ([], {})
