"""Levels are those of the sound; features do not change with the gain; the memory is of the latest seconds."""

import numpy as np
import pytest

from nemo_duplex.user_activity.features import BANDS, FEATURES, REMEMBERED, describe, levels, window


def sine(hertz: float, rate: int, amplitude: float = 1.0) -> np.ndarray:
    time = np.arange(2 * window(rate).hop) / rate
    return (amplitude * np.sin(2 * np.pi * hertz * time)).astype(np.float32)[None]


def test_the_window_of_16_khz():
    hop, weights, size, edges = window(16000)
    assert hop == 256 and len(weights) == 512 == size and np.argmax(weights) in (383, 384)
    assert np.sum(np.square(weights)) == pytest.approx(1, abs=1e-5)
    assert len(edges) == BANDS + 1 and edges[0] == 3 and edges[-1] == 243  # 100 and 7600 Hz in bins of 31.25 Hz
    assert (np.diff(edges) >= 1).all()


@pytest.mark.parametrize("rate, bands", [(8000, 24), (11025, 28), (16000, 32), (22050, 32), (48000, 32)])
def test_a_rate_has_the_bands_that_fit(rate, bands):
    edges = window(rate).edges
    assert len(edges) == bands + 1 and (np.diff(edges) >= 1).all() and edges[-1] <= window(rate).size // 2
    found = levels(sine(1000, rate), rate)
    assert (found[:, bands:] == -120).all()
    assert found.argmax() == np.searchsorted(edges, 1000 * window(rate).size / rate, side="right") - 1


def test_a_sound_of_a_tenth_is_20_db_lower_and_silence_is_at_minus_120_db():
    loud, soft = levels(sine(1000, 16000), 16000), levels(sine(1000, 16000, 0.1), 16000)
    assert loud.max() - soft.max() == pytest.approx(20, abs=1e-3)
    power = 512 * 0.5 / 2  # of a window whose squares add up to 1: half of the transform's, the other half is its mirror image
    assert 10 * np.log10((10 ** (loud / 10)).sum()) == pytest.approx(10 * np.log10(power), abs=0.1)
    assert np.allclose(levels(np.zeros((1, 512), np.float32), 16000), -120)


def described(bands: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features of each hop of a stream (N, BANDS), and what is remembered at the end."""
    memory = np.zeros((1, REMEMBERED), np.float32)
    return np.concatenate([describe(hop[None], memory) for hop in bands]), memory[0]


def test_the_first_hops_of_a_stream_exactly():
    bands = np.full((3, BANDS), -60, np.float32)
    bands[1] = -50
    bands[2, 0], bands[2, 1:] = -40, -80
    features, memory = described(bands)
    assert features.shape == (3, FEATURES)
    assert np.allclose(features[0], [0] * 2 * BANDS + [0, 0, 0, -10 / 20])
    # the mean of two is -55; the lowest is -60 + 0.05, the highest -50
    assert np.allclose(features[1], [0.25] * BANDS + [0] * BANDS + [9.95 / 20, 0, 9.95 / 20, 0], atol=1e-5)
    mean = (-60 - 50 - 40) / 3
    assert features[2, 0] == pytest.approx((-40 - mean) / 20, abs=1e-5)
    assert features[2, BANDS] == pytest.approx((-40 - (-40 - 31 * 80) / 32) / 20, abs=1e-5)
    assert np.allclose(features[2, -4:], [19.9 / 20, 0, 19.9 / 20, 10 / 20], atol=1e-5)
    assert memory[-3:] == pytest.approx([-59.9, -40, 3])


def test_the_lowest_level_rises_and_the_highest_falls_and_the_mean_forgets():
    bands = np.full((400, BANDS), -40, np.float32)
    bands[0], bands[1] = -90, 0
    _, memory = described(bands)
    assert memory[-3] == pytest.approx(-90 + 399 * 0.05, abs=1e-2) and memory[-2] == pytest.approx(-398 * 0.02, abs=1e-2)
    assert memory[-1] == 125 and memory[0] == pytest.approx(-40, abs=0.1)


def test_a_gain_changes_the_last_feature_only():
    bands = np.random.default_rng(0).uniform(-60, -30, (50, BANDS)).astype(np.float32)
    loud, soft = described(bands)[0], described(bands - 30)[0]
    assert np.allclose(loud[:, :-1], soft[:, :-1], atol=1e-5)
    assert np.allclose(loud[:, -1] - soft[:, -1], 1.5, atol=1e-5)


def test_no_feature_is_larger_than_three():
    bands = np.full((2, BANDS), -120, np.float32)
    bands[1, 3] = 40
    assert np.abs(described(bands)[0]).max() == 3


def test_streams_in_a_batch_do_not_know_each_other():
    bands = np.random.default_rng(1).uniform(-90, 0, (40, 5, BANDS)).astype(np.float32)
    memory = np.zeros((5, REMEMBERED), np.float32)
    together = np.stack([describe(hop, memory) for hop in bands], axis=1)
    for stream in range(5):
        assert np.array_equal(together[stream], described(bands[:, stream])[0])
