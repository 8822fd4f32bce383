"""Log-mels of other throats and with hidden parts, so that a small corpus lasts longer."""

from __future__ import annotations

import torch
from torch import Tensor


def warped(mel: Tensor, filters: Tensor, limit: float) -> Tensor:
    """Log-mels (B, mels, M), each row as if its speaker's vocal tract were up to `limit` shorter or longer.

    Vocal tract length perturbation (Jaitly and Hinton 2013).

    Args:
        mel: (B, mels, M).
        filters: (1, mels, bins) of the spectrogram, from which the bands' frequencies follow.
        limit: 0.1 moves formants by up to 10 percent, 0 returns `mel`.
    """
    if limit == 0:
        return mel
    bins = torch.arange(filters.shape[2], device=mel.device, dtype=torch.float32)
    centres = (filters[0] * bins).sum(1) / filters[0].sum(1)  # (mels,) of the bands, rising
    factor = 1 + limit * (2 * torch.rand(len(mel), 1, device=mel.device) - 1)
    wanted = (centres * factor).clamp(centres[0], centres[-1])  # (B, mels) where each band is taken from
    above = torch.searchsorted(centres, wanted).clamp(1, len(centres) - 1)
    share = ((wanted - centres[above - 1]) / (centres[above] - centres[above - 1])).unsqueeze(2)
    lower, upper = (mel.gather(1, band.unsqueeze(2).expand_as(mel)) for band in (above - 1, above))
    return torch.lerp(lower, upper, share)


def masked(mel: Tensor, bands: int, band_width: int, stretches: int, stretch_width: int) -> Tensor:
    """Log-mels (B, mels, M) with random bands and stretches of each row set to the row's mean (SpecAugment, Park et al. 2019).

    Args:
        bands, stretches: how many of them.
        band_width, stretch_width: the largest width, in mel bands and mel frames.
    """
    mean = mel.mean(dim=(1, 2), keepdim=True)
    for axis, count, width in ((1, bands, band_width), (2, stretches, stretch_width)):
        size = mel.shape[axis]
        positions = torch.arange(size, device=mel.device)
        for _ in range(count):
            widths = torch.randint(0, min(width, size) + 1, (len(mel), 1), device=mel.device)
            starts = (torch.rand(len(mel), 1, device=mel.device) * (size - widths + 1)).long()
            hidden = (positions >= starts) & (positions < starts + widths)  # (B, size)
            mel = torch.where(hidden.unsqueeze(2 if axis == 1 else 1), mean, mel)
    return mel
