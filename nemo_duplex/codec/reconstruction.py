"""How far decoded speech is from the original: the loss that trains a codec, and the distance that judges it."""

from __future__ import annotations

import torch
from torch import nn

from nemo_duplex.codec.mel import FLOOR, log_mel, mel_filters, spectra

# (window in samples, mel bins): from fine in frequency to fine in time. Hops are a quarter of the window.
# Two of them at a time, drawn at random, teach as much per step as all five, and take 40 % of the time.
_RESOLUTIONS = ((2048, 160), (1024, 80), (512, 64), (256, 40), (128, 20))
_RESOLUTIONS_PER_STEP = 2
_DISTANCE_RESOLUTION = (1024, 80)


class ReconstructionLoss(nn.Module):
    """Distance at two of five time-frequency resolutions: mel spectra, magnitudes, and, with less weight, phases.

    At each, with X the spectra of the original and Y of the decoded speech:

        |log mel X - log mel Y|                       mean; timbre and words
        1/2 |log |X| - log |Y||                       mean; harmonics
        || |X| - |Y| || / || |X| ||                   the loud parts (spectral convergence, Arik et al., arXiv:1808.06719)
        phase * |X/sqrt|X| - Y/sqrt|Y||               mean, over that of sqrt|X|; keeps harmonics in step

    Args:
        sample_rate: of the audio.
        phase: weight of the last term.
    """

    def __init__(self, sample_rate: int, phase: float = 0.3) -> None:
        super().__init__()
        self.phase = phase
        self.windows = [torch.hann_window(size) for size, _ in _RESOLUTIONS]
        self.filters = [mel_filters(sample_rate, size, bins) for size, bins in _RESOLUTIONS]

    def forward(self, real: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
        """(B, S), (B, S) float32 -> a scalar; zero if they are equal. torch's random state chooses the resolutions."""
        chosen = torch.randperm(len(_RESOLUTIONS))[:_RESOLUTIONS_PER_STEP].tolist()
        return torch.stack([self._at(real, decoded, self.windows[i], self.filters[i]) for i in chosen]).mean()

    def _at(self, real: torch.Tensor, decoded: torch.Tensor, window: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
        window, filters = window.to(real.device), filters.to(real.device)
        with torch.no_grad():
            x = spectra(real, window, len(window) // 4)
            x_magnitude = _magnitude(x)
        y = spectra(decoded, window, len(window) // 4)
        y_magnitude = _magnitude(y)
        loss = (_log(filters @ x_magnitude) - _log(filters @ y_magnitude)).abs().mean()
        loss = loss + 0.5 * (_log(x_magnitude) - _log(y_magnitude)).abs().mean()
        loss = loss + (x_magnitude - y_magnitude).norm() / (x_magnitude.norm() + 1e-3)
        compressed = _magnitude(x * x_magnitude.rsqrt() - y * y_magnitude.rsqrt())
        return loss + self.phase * compressed.mean() / (x_magnitude.sqrt().mean() + 1e-3)


def mel_distance(real: torch.Tensor, decoded: torch.Tensor, sample_rate: int) -> float:
    """Mean absolute difference of natural log-mel magnitudes of two (S,) signals (window 1024, hop 256, 80 bins)."""
    size, bins = _DISTANCE_RESOLUTION
    window, filters = torch.hann_window(size), mel_filters(sample_rate, size, bins)
    return (log_mel(real[None], window, 256, filters) - log_mel(decoded[None], window, 256, filters)).abs().mean().item()


def _magnitude(spectrum: torch.Tensor) -> torch.Tensor:
    """|spectrum|, with a gradient also at zero."""
    return (spectrum.real**2 + spectrum.imag**2 + 1e-10).sqrt()


def _log(magnitude: torch.Tensor) -> torch.Tensor:
    return magnitude.clamp(min=FLOOR).log()
