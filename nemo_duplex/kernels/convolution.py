"""Convolutions of few columns with many channels, as a vocoder decodes a frame, by oneDNN with weights that it has packed.

torch packs the weights of a convolution for oneDNN at each call. For 7 columns of 864 channels that takes longer than the
convolution itself: 1.24 ms, and 0.49 with packed weights (one core of an AMD EPYC, torch 2.13).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def can_pack(like: Tensor) -> bool:
    """Whether oneDNN can convolve float32 tensors such as this one with packed weights."""
    known = hasattr(torch.ops.mkldnn, "_reorder_convolution_weight") and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    return known and torch.backends.mkldnn.is_available() and like.device.type == "cpu" and like.dtype == torch.float32


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself: faster than float32. Others imitate it, and are slower."""
    return torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported()


class PackedConvolution:
    """A convolution along the last axis whose weights never change.

    Args:
        weight: (out, in / groups, kernel) float32 on a CPU.
        bias: (out,), or None.
        dilation, groups: as of `torch.nn.functional.conv1d`.
        bfloat16: whether products are computed in bfloat16, and summed in float32.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dilation: int, groups: int, bfloat16: bool = False) -> None:
        self._dtype = torch.bfloat16 if bfloat16 else torch.float32
        self._weight, self._bias = weight.to(self._dtype)[:, :, None], bias
        self._steps, self._groups = ([0, 0], [1, 1], [1, dilation]), groups
        self._packed: Tensor | None = None

    def __call__(self, columns: Tensor) -> Tensor:
        """Columns (B, in, T) float32 -> (B, out, T - dilation * (kernel - 1)) float32."""
        if torch.compiler.is_compiling():  # a compiler chooses layouts itself
            weight, (*_, (_, dilation)) = self._weight[:, :, 0], self._steps
            out = F.conv1d(columns.to(self._dtype), weight, dilation=dilation, groups=self._groups)
            return out.float() if self._bias is None else out.float() + self._bias[:, None]
        x = columns[:, :, None].to(self._dtype)
        padding, stride, dilations = self._steps
        if self._packed is None:  # for the shape of the first call; others are right too
            steps = (padding, stride, dilations, self._groups)
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(self._weight, *steps, list(x.shape))
        bias = None if self._bias is None else self._bias.to(self._dtype)
        given: tuple[Any, ...] = (x, self._packed, bias, padding, stride, dilations, self._groups, "none", [], "")
        return torch.ops.mkldnn._convolution_pointwise(*given)[:, :, 0].float()
