"""The loss falls as speech gets nearer to the original, and has a gradient everywhere."""

from __future__ import annotations

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
    assert ReconstructionLoss(22050, phase=0.3)(real, -real) > 0.1


def test_mel_distance_of_half_the_amplitude_is_log_two_where_it_is_loud():
    tone = 0.5 * torch.randn(22050)
    assert abs(mel_distance(tone, tone / 2, 22050) - 0.693) < 0.01
    assert mel_distance(tone, tone, 22050) == 0.0
