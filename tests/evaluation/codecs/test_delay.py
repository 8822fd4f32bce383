"""A codec's delay is found to the sample where it keeps the waveform, and to a millisecond where it does not."""

import numpy as np
import pytest

from nemo_duplex.evaluation.codecs.delay import delay_of
from tests.evaluation.speech.test_full_reference import noisy, syllables


def delayed(sound, samples):
    return np.concatenate([np.zeros(samples, np.float32), sound]) if samples >= 0 else sound[-samples:]


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
@pytest.mark.parametrize("late", [0, 1, 517, -300])
def test_of_a_codec_that_keeps_the_waveform(rate, late):
    sounds = [noisy(syllables(1.5, rate), decibel) for decibel in (20, 10)]
    assert delay_of([(s, noisy(delayed(0.5 * s, late), 5, seed=1)) for s in sounds], rate) == late


def test_of_a_codec_that_keeps_spectra_alone():
    """Every frequency has another phase: waveforms tell nothing, and their best agreement is elsewhere."""
    rng = np.random.default_rng(3)
    pairs = []
    for _ in range(3):
        s = noisy(syllables(2.0), 20)
        s *= np.repeat(rng.uniform(0.05, 1.0, 20), len(s) // 20).astype(np.float32)
        carrier = rng.standard_normal(len(s)).astype(np.float32)
        envelope = np.convolve(np.abs(s), np.ones(80) / 80, "same").astype(np.float32)
        pairs.append((s, delayed(carrier * envelope, 320)))
    assert delay_of(pairs, 16000) == pytest.approx(320, abs=48)


def test_where_nothing_can_be_told_there_is_none():
    s = syllables(1.0)
    assert delay_of([], 16000) == 0 and delay_of([(s, 0 * s), (0 * s, s)], 16000) == 0
    assert delay_of([(s, 0 * s), (s, delayed(s, 99))], 16000) == 99, "a silent one does not count"
