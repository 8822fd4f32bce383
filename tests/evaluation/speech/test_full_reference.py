"""Scores beside the original: closed forms where there are some, the libraries' own numbers otherwise."""

import importlib.util
import pickle

import numpy as np
import pytest
import torch

from nemo_duplex.evaluation.speech import full_reference
from nemo_duplex.evaluation.speech.full_reference import PESQ, SISDR, STOI, MelDistance, open_full_reference
from nemo_duplex.evaluation.speech.scoring_processes import Task, score_sounds
from nemo_duplex.inputs import NotInstalled

RATE = 16000
PESQ_IS_THERE = importlib.util.find_spec("pesq") is not None
by_hand = pytest.mark.skipif(not PESQ_IS_THERE, reason="pesq is installed by hand: it is compiled where it is installed")


def syllables(seconds: float = 3.0, rate: int = RATE, level: float = 0.2) -> np.ndarray:
    """(S,) float32: four syllables a second of a voice of 140 Hz with 12 harmonics, the same each time."""
    t = np.arange(round(seconds * rate)) / rate
    voice = sum(np.sin(2 * np.pi * 140 * k * t + k * k) / k for k in range(1, 13))
    return (level * voice * np.sin(2 * np.pi * 2 * t) ** 2).astype(np.float32)


def noisy(sound: np.ndarray, decibel: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(len(sound)).astype(np.float32)
    return sound + noise * np.float32(np.sqrt(np.mean(sound**2) / np.mean(noise**2)) * 10 ** (-decibel / 20))


def score(scorer, original, decoded, rate=RATE):
    return scorer.answer(np.stack([original, decoded]), rate).get("score")


def test_si_sdr_has_its_closed_form_at_any_level_and_rate():
    for rate in (16000, 24000):
        t = np.arange(rate) / rate
        s, n = np.sin(2 * np.pi * 500 * t).astype(np.float32), np.cos(2 * np.pi * 500 * t).astype(np.float32)
        for decibel in (-10, 0, 20):
            for level in (0.01, 1.0):
                heard = level * (s + n * np.float32(10 ** (-decibel / 20)))
                assert score(SISDR(), s, heard, rate) == pytest.approx(decibel, abs=0.02)
    quarter = round(RATE / 500 / 4)  # a delay of a quarter of a period leaves nothing of a sine
    s = np.sin(2 * np.pi * 500 * np.arange(RATE) / RATE).astype(np.float32)
    assert score(SISDR(), s, np.roll(s, quarter)) < -60
    assert score(SISDR(), s, s) > 90 and score(SISDR(), s, -0.3 * s) > 90, "its sign is its scale"
    assert score(SISDR(), s, s + 0.25) > 90, "without its mean"


def test_si_sdr_is_that_of_torchmetrics():
    from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio as theirs

    s = syllables()
    for decibel in (-5, 10):
        expected = float(theirs(torch.from_numpy(noisy(s, decibel)), torch.from_numpy(s), zero_mean=True))
        assert score(SISDR(), s, noisy(s, decibel)) == pytest.approx(expected, abs=1e-3)


def test_mel_distance_of_a_change_of_level_is_its_logarithm():
    noise = np.random.default_rng(1).standard_normal(RATE).astype(np.float32) / 8
    for gain in (0.5, 0.9):
        assert score(MelDistance(), noise, gain * noise) == pytest.approx(-np.log(gain), abs=1e-4)
    assert score(MelDistance(), noise, noise) == 0
    wide = np.random.default_rng(1).standard_normal(24000).astype(np.float32) / 8
    assert score(MelDistance(), wide, 0.5 * wide, 24000) == pytest.approx(np.log(2), abs=1e-4)


def test_stoi_is_that_of_its_library():
    """Values of pystoi 0.4.1 for these sounds."""
    s = syllables()
    found = [score(STOI(), s, noisy(s, decibel)) for decibel in (20, 5, -5)]
    assert found == pytest.approx([0.8747, 0.8037, 0.6262], abs=2e-3)
    assert score(STOI(), s, 0.1 * s) == pytest.approx(1.0, abs=1e-6)
    assert score(STOI(), syllables(rate=24000), syllables(rate=24000), 24000) == pytest.approx(1.0, abs=1e-6)
    short = s[:4800]
    assert STOI().answer(np.stack([short, short]), RATE) == {"refused": "less than 0.4 s of speech"}


@by_hand
def test_pesq_is_that_of_its_library():
    """Values of pesq 0.0.4, wide band, for these sounds."""
    s = syllables()
    assert [score(PESQ(), s, noisy(s, decibel)) for decibel in (40, 20, 5)] == pytest.approx([1.6647, 1.0187, 1.0131], abs=0.02)
    assert score(PESQ(), s, s) == pytest.approx(4.644, abs=1e-3)
    assert score(PESQ(), syllables(rate=8000), syllables(rate=8000), 8000) == pytest.approx(4.644, abs=1e-3)
    assert PESQ().answer(np.stack([s[:3000], s[:3000]]), RATE) == {"refused": "less than 0.25 s of sound"}


@by_hand
def test_they_judge_pairs_in_processes_of_their_own():
    scorers, missing = open_full_reference()
    assert list(scorers) == ["stoi", "pesq", "si_sdr", "mel_distance"] and not missing
    s = syllables()
    pair = np.stack([s, noisy(s, 10)])
    found = dict(score_sounds([Task(name, name, pair, RATE) for name in scorers], scorers, workers=1))
    assert found == {name: one.answer(pair, RATE) for name, one in scorers.items()}
    assert pickle.loads(pickle.dumps(scorers["pesq"])).scorer == scorers["pesq"].scorer


def test_what_is_no_sound_is_refused():
    s = syllables(1.0)
    for original, decoded, why in (
        (s, 0 * s, "the decoded sound is silent"),
        (0 * s, s, "the original is silent"),
        (s, s * np.nan, "the decoded sound has samples that are not finite"),
        (s, 99 * s, "the decoded sound is far beyond full scale"),
        (s[:0], s[:0], "the original is silent"),
    ):
        for scorer in (SISDR(), MelDistance(), STOI()):
            assert scorer.answer(np.stack([original, decoded]), RATE) == {"refused": why}
    constant = np.full(RATE, 0.3, np.float32)
    assert SISDR().answer(np.stack([constant, s]), RATE) == {"refused": "the scorer's answer is not a number"}


def test_who_is_missing_says_how_to_get_it(monkeypatch):
    def nothing(name):
        raise full_reference.PackageNotFoundError(name)

    monkeypatch.setattr(full_reference, "version", nothing)
    scorers, missing = open_full_reference()
    assert list(scorers) == ["si_sdr", "mel_distance"]
    assert missing == {
        "stoi": "pystoi is not installed: pip install pystoi",
        "pesq": "pesq is not installed: pip install pesq==0.0.4",
    }
    with pytest.raises(NotInstalled):
        PESQ()
