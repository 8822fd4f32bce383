"""The ConvNeXt block of the small codec: a depthwise convolution over time, then a two-layer network per step.

The caller decides what the convolution sees: the decoder puts the past in front (causal, streamable), the encoder pads both
sides (it may look ahead).
"""

from __future__ import annotations

import torch
from torch import nn


class ConvNeXtBlock(nn.Module):
    """x + mlp(norm(depthwise(x))) (Liu et al., A ConvNet for the 2020s, arXiv:2201.03545; 1-D as in Vocos, arXiv:2306.00814).

    Args:
        channels: C of input and output.
        hidden: width between the two layers.
        kernel_size: steps that the convolution spans; `kernel_size - 1` more steps come in than go out.
    """

    def __init__(self, channels: int, hidden: int, kernel_size: int) -> None:
        super().__init__()
        self.channels = channels
        self.depthwise = nn.Conv1d(channels, channels, kernel_size, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, hidden)
        self.contract = nn.Linear(hidden, channels)
        nn.init.zeros_(self.contract.bias)
        # Close to the identity at first, so that a deep stack can train with a high learning rate from the first step on.
        nn.init.normal_(self.contract.weight, std=0.02 * (channels / hidden) ** 0.5)

    @property
    def context(self) -> int:
        """Steps that come in beside the ones that go out."""
        return self.depthwise.kernel_size[0] - 1

    def forward(self, padded: torch.Tensor, lead: int) -> torch.Tensor:
        """(B, C, context + n) -> (B, C, n); step i of the output is a change to step `lead + i` of the input."""
        x = padded[..., lead : padded.shape[-1] - self.context + lead]
        hidden = self.norm(self.depthwise(padded).transpose(1, 2))
        return x + self.feed_forward(hidden).transpose(1, 2)

    def feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., C) -> (..., C)."""
        return self.contract(nn.functional.gelu(self.expand(x)))
