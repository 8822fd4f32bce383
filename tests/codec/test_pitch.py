"""Pitch and phase of sounds whose pitch and phase are known."""

from __future__ import annotations

import pytest
import torch

from nemo_duplex.codec.pitch import HIGHEST, LOWEST, fundamental_phase, pitch_track

RATE, HOP, WINDOW = 22050, 252, 1008


def tone(frequency: torch.Tensor | float, seconds: float = 0.8, harmonics: int = 8, falling: bool = True) -> torch.Tensor:
    """(1, S) harmonics of a pitch, the k-th with 1/k of the level of the first, or all alike; at their crest at sample 0."""
    count = round(seconds * RATE) // HOP * HOP
    pitch = torch.as_tensor(frequency, dtype=torch.float64).expand(count)
    cycles = pitch.cumsum(0) / RATE - pitch[0] / RATE
    return sum(0.2 / (k if falling else 10) * torch.cos(2 * torch.pi * k * cycles) for k in range(1, harmonics + 1))[
        None
    ].float()


def whole(values: torch.Tensor) -> torch.Tensor:
    """Those of windows around which the sound is still going on."""
    return values[0, 1:-8]


@pytest.mark.parametrize("frequency", [60.0, 90.0, 123.4, 220.0, 333.0, 500.0])
def test_the_pitch_of_a_tone(frequency):
    found, voiced = pitch_track(tone(frequency), RATE, HOP, WINDOW)
    assert found.shape == voiced.shape == (1, 70) and whole(voiced).all()
    torch.testing.assert_close(whole(found), torch.full((61,), frequency), rtol=0.004, atol=0)


def test_the_pitch_of_pulses_as_sharp_as_can_be():
    """Their period is 52.5 pairs of samples: no lag of whole pairs fits, but 105 pairs do."""
    found, voiced = pitch_track(tone(210.0, harmonics=50, falling=False), RATE, HOP, WINDOW)
    assert whole(voiced).all() and (whole(found) / 210 - 1).abs().max() < 0.004


def test_a_tone_above_all_voices_has_the_pitch_of_two_periods():
    found, _ = pitch_track(tone(900.0, harmonics=1), RATE, HOP, WINDOW)
    assert (whole(found) / 450 - 1).abs().max() < 0.01


def test_a_tone_without_its_fundamental_has_it_as_pitch():
    sound = tone(200.0) - tone(200.0, harmonics=1)
    found, voiced = pitch_track(sound, RATE, HOP, WINDOW)
    assert whole(voiced).all() and (whole(found) / 200 - 1).abs().max() < 0.004


def test_each_window_has_its_own_pitch():
    """It rises by a tenth of a Hz at every hop; window j is about its middle, j + 2 hops from the start."""
    seconds, slope = 0.8, 0.1 * RATE / HOP
    pitch = 150 + slope * torch.arange(round(seconds * RATE) // HOP * HOP) / RATE
    found, _ = pitch_track(tone(pitch, seconds), RATE, HOP, WINDOW)
    expected = 150 + 0.1 * (torch.arange(70) + WINDOW / 2 / HOP)
    assert (whole(found) - expected[1:-8]).mean().abs() < 0.02  # a fifth of a hop
    assert (whole(found) - expected[1:-8]).abs().max() < 0.05


def test_rows_are_on_their_own():
    both = torch.cat([tone(100.0), tone(300.0)])
    found, _ = pitch_track(both, RATE, HOP, WINDOW)
    for row in (0, 1):
        torch.testing.assert_close(found[row : row + 1], pitch_track(both[row : row + 1], RATE, HOP, WINDOW)[0])


@pytest.mark.parametrize(
    "sound",
    [torch.zeros(1, 20 * HOP), 0.1 * torch.randn(1, 60 * HOP, generator=torch.Generator().manual_seed(0)), tone(200.0) * 1e-3],
    ids=["silence", "noise", "60 dB under full scale"],
)
def test_what_is_no_voice(sound):
    found, voiced = pitch_track(sound, RATE, HOP, WINDOW)
    assert voiced.float().mean() < 0.02
    assert ((found >= LOWEST) & (found <= HIGHEST)).all()


def test_the_phase_is_that_of_the_middle_of_the_window():
    sound = tone(200.0, harmonics=3)
    phase = fundamental_phase(sound, torch.full((1, 70), 200.0), RATE, HOP, WINDOW)
    expected = 200 / RATE * (torch.arange(70) * HOP + WINDOW // 2)
    apart = whole(phase) - expected[1:-8]
    assert (apart - apart.round()).abs().max() < 0.002
    assert phase.abs().max() <= 0.5
