"""Matrices in whole numbers of 8 bits with a scale for each row: a quarter of the room of float32."""

from __future__ import annotations

import torch
from torch import Tensor


def to_8_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight (R, ...) as (R, ...) int8 and what each row is multiplied by, (R,) float32.

    Examples:
        >>> rows, scales = to_8_bits(torch.tensor([[1.0, -0.5], [0.0, 0.0]]))
        >>> rows.tolist(), from_8_bits(rows, scales)[0, 0].item()
        ([[127, -64], [0, 0]], 1.0)
    """
    scales = weight.flatten(1).abs().amax(1).float() / 127
    rows = weight.flatten(1).float() / scales.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    return rows.round().to(torch.int8).view(weight.shape), scales


def from_8_bits(rows: Tensor, scales: Tensor) -> Tensor:
    """The weight (R, ...) float32 of what `to_8_bits` gave."""
    return rows.float() * scales.float().view(-1, *[1] * (rows.dim() - 1))
