"""The truth of a scene is where its voice is loud; scenes are the same every time and as different as callers are."""

import numpy as np
import pytest

from nemo_duplex.synthesis.noises import FAMILIES, at_level, babble, rms
from nemo_duplex.user_activity.scenes import SAMPLE_RATE, Scene, SceneMaker, spoken
from tests.dummies import voice_like

VOICES = {f"voice {i}": [voice_like(1.0, 10 * i + k).numpy() for k in range(3)] for i in range(13)}


def tone(seconds: float, amplitude: float) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * 400 * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)


def test_speech_is_what_is_loud_with_pauses_of_a_fifth_of_a_second():
    parts = [(0.5, 0), (1.0, 1), (0.19, 0), (0.51, 0.05), (0.21, 0), (0.59, 1), (0.1, 0.001), (0.5, 0), (0.01, 1)]
    audio = np.concatenate([tone(seconds, amplitude) for seconds, amplitude in parts])
    assert spoken(audio) == [pytest.approx((0.5, 2.2)), pytest.approx((2.41, 3.0))]
    assert spoken(audio, 2.0)[0] == pytest.approx((2.5, 4.2))
    assert spoken(audio + 0.3) == spoken(audio), "An offset is no sound."


def test_the_truth_of_a_hop_is_that_of_most_of_it():
    scene = Scene(np.zeros(1600, np.float32), [(0.0121, 0.02), (0.03, 0.0701)])
    assert scene.truth(256).tolist() == [False, False, True, True, False, False]
    assert Scene(np.zeros(512, np.float32), [(0.008, 0.032)]).truth(256).tolist() == [True, True]


def test_scenes_are_the_same_every_time():
    one, two = (SceneMaker(VOICES, np.random.default_rng(4)) for _ in range(2))
    for _ in range(3):
        first, second = one.scene(6.0), two.scene(6.0)
        assert np.array_equal(first.audio, second.audio) and first.spans == second.spans


def test_what_a_hundred_scenes_are_like():
    maker = SceneMaker(VOICES, np.random.default_rng(0))
    scenes = [maker.scene(6.0) for _ in range(100)]
    assert all(s.audio.shape == (96000,) and s.audio.dtype == np.float32 and np.abs(s.audio).max() <= 1 for s in scenes)
    assert all(0 <= a < b <= 6.0 for s in scenes for a, b in s.spans)
    shares = [s.truth(256).mean() for s in scenes]
    assert 0.2 < np.mean(shares) < 0.5 and 5 < sum(share == 0 for share in shares) < 30
    levels = [20 * np.log10(rms(s.audio - s.audio.mean())) for s in scenes]
    assert min(levels) < -60 and max(levels) > -25


def test_a_level_is_a_root_mean_square():
    assert rms(at_level(tone(1.0, 0.3), -20.0)) == pytest.approx(0.1) and rms(np.zeros(5)) == pytest.approx(1e-10)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_noises_sound_and_differ(family):
    rng = np.random.default_rng(0)
    one, two = (family(8000, SAMPLE_RATE, rng) for _ in range(2))
    assert one.shape == (8000,) and np.isfinite(one).all() and rms(one) > 1e-5 and not np.allclose(one, two)


def test_babble_is_all_voices_equally_loud_and_has_the_pauses_that_are_asked_for():
    rng = np.random.default_rng(0)
    low, high = tone(0.1, 0.01), np.sin(2 * np.pi * 3000 * np.arange(1600) / SAMPLE_RATE)
    both = babble([[low], [high]], 160000, rng)
    power = np.square(np.abs(np.fft.rfft(both)))
    assert power[:20000].sum() == pytest.approx(power[20000:].sum(), rel=0.1)
    assert 0.35 < np.mean(babble([[high + 2]], 160000, rng, pause=1600) == 0) < 0.65
    assert (babble([[high + 2]], 160000, rng) != 0).all()
