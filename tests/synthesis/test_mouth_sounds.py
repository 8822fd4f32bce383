from __future__ import annotations

import numpy as np
import pytest

from nemo_duplex.synthesis.mouth_sounds import MOUTH_SOUNDS, laugh


@pytest.mark.parametrize("name, shortest, longest", [("cough", 0.15, 1.35), ("laugh", 0.4, 2.0), ("throat", 0.3, 0.7)])
def test_sounds_of_a_mouth_are_finite_of_full_scale_and_as_long_as_people_make_them(name, shortest, longest):
    lengths = set()
    for seed in range(40):
        sound = MOUTH_SOUNDS[name](16000, np.random.default_rng(seed))
        assert sound.dtype == np.float32 and np.isfinite(sound).all() and np.abs(sound).max() == pytest.approx(1.0)
        assert shortest <= len(sound) / 16000 <= longest
        lengths.add(len(sound))
    assert len(lengths) > 35, "No two are the same."


def test_a_cough_begins_at_once_and_dies_away():
    for seed in range(10):
        sound = MOUTH_SOUNDS["cough"](16000, np.random.default_rng(seed))[:2400]
        assert np.square(sound[:480]).mean() > 3 * np.square(sound[1920:]).mean()


def test_a_laugh_has_three_to_seven_syllables():
    envelope = np.convolve(np.square(laugh(16000, np.random.default_rng(0))), np.ones(800) / 800, "same")
    loud = envelope > 0.1 * envelope.max()
    assert 3 <= np.count_nonzero(np.diff(loud.astype(int)) == 1) + int(loud[0]) <= 7
