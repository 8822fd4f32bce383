"""The loss falls as speech gets nearer to the original, and has a gradient everywhere."""

from __future__ import annotations

import math

import pytest
import torch

from nemo_duplex.codec.reconstruction import ReconstructionLoss, mel_distance
from tests.dummies import speech_like


def test_equal_is_zero_and_nearer_is_less():
    loss, real = ReconstructionLoss(22050), speech_like(1.0, sample_rate=22050)[None]
    noise = 0.05 * torch.randn_like(real)

    def at(share: float) -> float:
        torch.manual_seed(0)  # the same resolutions
        return loss(real, real + share * noise).item()

    assert at(0.0) < 1e-4
    assert at(0.0) < at(0.1) < at(0.5) < at(1.0)


def test_half_the_amplitude_is_known_in_every_term():
    """ln 2 in log-mel, half of that in log magnitudes, 1/2 in the loud parts, 1 - 1/sqrt(2) in compressed phases."""
    real = torch.randn(1, 22050)
    without, with_phase = (ReconstructionLoss(22050, phase=phase)(real, real / 2).item() for phase in (0.0, 0.3))
    assert without == pytest.approx(1.5 * math.log(2) + 0.5, abs=0.01)
    torch.manual_seed(0)
    at_once = ReconstructionLoss(22050)
    terms = [at_once._at(real, real / 2, window, filters) for window, filters in zip(at_once.windows, at_once.filters)]
    assert [term.item() for term in terms] == pytest.approx([without + 0.3 * (1 - 0.5**0.5)] * 5, abs=0.03)
    assert with_phase - without == pytest.approx(0.088, abs=0.03)


def test_all_resolutions_are_drawn():
    loss, real = ReconstructionLoss(22050), speech_like(0.3, sample_rate=22050)[None]
    drawn = set()
    loss._at = lambda real, decoded, window, filters: drawn.add(len(window)) or torch.tensor(0.0)
    for _ in range(40):
        loss(real, real)
    assert drawn == {2048, 1024, 512, 256, 128}


def test_silence_gives_a_finite_gradient():
    decoded = torch.zeros(1, 4410, requires_grad=True)
    ReconstructionLoss(22050)(torch.zeros(1, 4410), decoded).backward()
    assert torch.isfinite(decoded.grad).all()


def test_phase_counts_only_where_it_is_asked_for():
    """A sign change keeps every magnitude."""
    real = speech_like(0.5, sample_rate=22050)[None]
    assert ReconstructionLoss(22050, phase=0.0)(real, -real) < 1e-4
    assert ReconstructionLoss(22050, phase=0.3)(real, -real).item() == pytest.approx(0.6, abs=0.05)


def test_mel_distance_of_half_the_amplitude_is_log_two_where_it_is_loud():
    tone = 0.5 * torch.randn(22050)
    assert abs(mel_distance(tone, tone / 2, 22050) - 0.693) < 0.01
    assert mel_distance(tone, tone, 22050) == 0.0
    seconds = torch.arange(22050) / 22050
    low, high = (0.5 * torch.sin(2 * math.pi * hz * seconds) for hz in (300, 6000))
    assert mel_distance(low, high, 22050) > 0.5
