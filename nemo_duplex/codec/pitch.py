"""Pitch of speech and the phase of its fundamental, column by column: they tell `HarmonicDecoder` where its pulses belong."""

from __future__ import annotations

import torch
from torch import nn

#: Hz, lowest and highest pitch that is looked for.
LOWEST, HIGHEST = 55.0, 550.0
_USUAL = 150.0  # of which the compared samples lie around the middle of their window
# A period counts as found where the difference falls below the first, and as a voice's where it stays below the second.
_FOUND, _VOICED = 0.15, 0.3
# Quieter than this (root mean square, full scale 1) is silence.
_SILENT = 1e-3


def pitch_track(audio: torch.Tensor, sample_rate: int, hop: int, window_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pitch of each window, by the cumulative mean normalised difference, as in YIN (de Cheveigne, Kawahara, JASA 2002).

    Args:
        audio: (B, S), S whole hops.
        sample_rate: of the audio.
        hop, window_size: even; window j holds the samples from j * hop on; beyond the end stands silence.

    Returns:
        (B, J) Hz, J = S / hop, and whether each window is voiced, (B, J).
    """
    # Means of twelve samples: a period is no whole number of samples, which high harmonics would show as a difference.
    halved = nn.functional.avg_pool1d(audio[:, None], kernel_size=12, stride=2, padding=5)[:, 0]
    rate, hop, window_size = sample_rate / 2, hop // 2, window_size // 2
    shortest, longest = int(rate / HIGHEST), int(rate / LOWEST) + 1
    # The samples of a window are compared with those up to `longest` later.
    reach, ahead = window_size + longest, round(rate / _USUAL / 2)
    pieces = nn.functional.pad(halved, (ahead, reach)).unfold(1, reach, hop)[:, : halved.shape[1] // hop]  # (B, J, reach)

    size = 1 << (reach + window_size - 1).bit_length()
    head = torch.fft.rfft(pieces[..., :window_size], n=size)
    product = torch.fft.irfft(torch.fft.rfft(pieces, n=size) * head.conj(), n=size)[..., : longest + 1]
    energy = nn.functional.pad(pieces.square().double().cumsum(-1), (1, 0))
    energy = (energy[..., window_size:] - energy[..., : longest + 1]).float()
    difference = (energy[..., :1] + energy - 2 * product).clamp(min=0)[..., 1:]
    lags = torch.arange(1, longest + 1, device=audio.device)
    normal = difference / (difference.cumsum(-1) / lags + 1e-6)  # entry i is of lag i + 1

    inner = normal[..., 1:-1]
    dips = (inner <= normal[..., :-2]) & (inner < normal[..., 2:]) & (lags[1:-1] >= shortest)
    good = dips & (inner < _FOUND)
    deepest = torch.where(dips, inner, torch.inf).argmin(-1)
    index = torch.where(good.any(-1), good.int().argmax(-1), deepest) + 1
    before, at, after = (normal.gather(-1, (index + i)[..., None])[..., 0] for i in (-1, 0, 1))
    bend = (before - 2 * at + after).clamp(min=1e-6)
    lag = index + 1 + (0.5 * (before - after) / bend).clamp(-0.5, 0.5)  # of the parabola through them
    voiced = (at < _VOICED) & ((energy[..., 0] / window_size).sqrt() > _SILENT)
    return (rate / lag).clamp(LOWEST, HIGHEST), voiced


def fundamental_phase(
    audio: torch.Tensor, frequency: torch.Tensor, sample_rate: int, hop: int, window_size: int
) -> torch.Tensor:
    """Phase of a sine of `frequency` (B, J) in the middle of each window of audio (B, S): (B, J) cycles from -0.5 to 0.5."""
    pieces = nn.functional.pad(audio, (0, window_size)).unfold(1, window_size, hop)[:, : frequency.shape[1]]
    offsets = torch.arange(window_size, device=audio.device) - window_size // 2
    window = torch.hann_window(window_size, device=audio.device)
    angle = (2 * torch.pi / sample_rate * frequency.float())[..., None] * offsets
    windowed = pieces * window
    return torch.atan2(-(windowed * angle.sin()).sum(-1), (windowed * angle.cos()).sum(-1)) / (2 * torch.pi)
