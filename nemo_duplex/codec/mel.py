"""Spectra and log-mel spectra, for the small codec's encoder and for the losses that train it; they need only torch."""

from __future__ import annotations

import math

import torch

#: Below this magnitude a bin counts as silent: 80 dB under full scale.
FLOOR = 1e-4


def mel_filters(sample_rate: int, window_size: int, bins: int) -> torch.Tensor:
    """Triangular filters (bins, window_size // 2 + 1), evenly spaced on the mel scale 2595 log10(1 + f / 700).

    Each sums to one. A filter so narrow that it falls between two Fourier bins takes the nearest one, so that none is empty.
    """
    top = 2595 * math.log10(1 + sample_rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, bins + 2, dtype=torch.float64) / 2595) - 1)
    frequencies = torch.arange(window_size // 2 + 1, dtype=torch.float64) * sample_rate / window_size
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters = torch.minimum((frequencies - low) / (centre - low), (high - frequencies) / (high - centre)).clamp(min=0)
    nearest = (frequencies - centre).abs().argmin(dim=1, keepdim=True)
    filters.scatter_reduce_(1, nearest, torch.full_like(centre, 0.01), reduce="amax")
    return (filters / filters.sum(1, keepdim=True)).float()


def spectra(audio: torch.Tensor, window: torch.Tensor, hop: int) -> torch.Tensor:
    """(B, S) -> complex (B, window_size // 2 + 1, 1 + S // hop), centred on multiples of `hop`; a full-scale sine has 1/2."""
    return torch.stft(audio, len(window), hop, window=window / window.sum(), pad_mode="constant", return_complex=True)


def log_mel(audio: torch.Tensor, window: torch.Tensor, hop: int, filters: torch.Tensor) -> torch.Tensor:
    """(B, S) -> natural logarithms of mel magnitudes (B, bins, 1 + S // hop), at least log(FLOOR)."""
    return (filters @ spectra(audio, window, hop).abs()).clamp(min=FLOOR).log()
