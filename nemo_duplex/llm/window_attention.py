"""Causal attention over whole conversations that looks back on a window, block by block, for training on a CPU.

torch's attention with a mask computes all T x T pairs, and on a CPU its backward pass multiplies at a sixth of the rate of a
plain product (6 x 160 frames, 9 heads of 64, bfloat16, forward and backward: 32 ms, here 11). Here a block of queries meets
only the keys that it sees, T x window pairs, and queries that share keys are rows of one product. The backward pass computes
the probabilities of a block again, so none of them are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Queries in a block.
_BLOCK = 64


class Reach(NamedTuple):
    """What a frame looks back on: the last `window` frames, its own included, and the first `kept` ones."""

    window: int
    kept: int


class _Block(NamedTuple):
    """Queries `first` to `end`, which see some of the keys up to `kept` and from `start` to `end`."""

    first: int
    end: int
    kept: int  # 0 where these are within the others
    start: int

    def of(self, keys: Tensor) -> Tensor:
        """The rows of (N, T, D) that are seen."""
        near = keys[:, self.start : self.end]
        return torch.cat([keys[:, : self.kept], near], dim=1) if self.kept else near

    def add(self, total: Tensor, part: Tensor) -> None:
        """Adds the gradient of `of(keys)` to that of all keys (N, T, D), in place."""
        if self.kept:
            total[:, : self.kept] += part[:, : self.kept]
        total[:, self.start : self.end] += part[:, self.kept :]

    def bias(self, reach: Reach, device: torch.device, dtype: torch.dtype) -> Tensor:
        """(queries, keys) to add to scores: minus infinity for the keys of `of` that a query does not see."""
        frame = torch.arange(self.first, self.end, device=device)[:, None]
        kept, near = torch.arange(self.kept, device=device), torch.arange(self.start, self.end, device=device)
        seen = (near <= frame) & ((near > frame - reach.window) | (near < reach.kept))
        seen = torch.cat([(kept <= frame).expand(len(frame), -1), seen], dim=1)
        return torch.where(seen, 0.0, float("-inf")).to(dtype)


def _blocks(frames: int, reach: Reach) -> Iterator[_Block]:
    for first in range(0, frames, _BLOCK):
        start = max(0, first - reach.window + 1)
        near = start <= reach.kept
        yield _Block(first, min(first + _BLOCK, frames), 0 if near else reach.kept, 0 if near else start)


class _WindowAttention(torch.autograd.Function):
    """Queries (N, G, T, D), keys and values (N, T, D), all of one type -> (N, G, T, D)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, reach: Reach, scale: float) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.reach, ctx.scale = reach, scale
        out = torch.empty_like(query)
        for block in _blocks(query.shape[2], reach):
            rows, seen = _rows(query, block), block.of(value)
            share = _shares(rows, block.of(key), block, query.shape[1], reach, scale)
            out[:, :, block.first : block.end] = torch.bmm(share, seen).unflatten(1, (query.shape[1], -1))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        d_query = torch.empty_like(query)
        d_key, d_value = (torch.zeros(x.shape, dtype=torch.float32, device=x.device) for x in (key, value))
        for block in _blocks(query.shape[2], ctx.reach):
            rows, keys, values, d_rows = _rows(query, block), block.of(key), block.of(value), _rows(grad, block)
            share = _shares(rows, keys, block, query.shape[1], ctx.reach, ctx.scale)
            block.add(d_value, torch.bmm(share.transpose(1, 2), d_rows))
            d_share = torch.bmm(d_rows, values.transpose(1, 2))
            d_score = torch.ops.aten._softmax_backward_data(d_share, share, -1, share.dtype)
            d_query[:, :, block.first : block.end] = (torch.bmm(d_score, keys) * ctx.scale).unflatten(1, (query.shape[1], -1))
            block.add(d_key, torch.bmm(d_score.transpose(1, 2), rows * ctx.scale))
        return d_query, d_key.to(key.dtype), d_value.to(value.dtype), None, None


def _rows(heads: Tensor, block: _Block) -> Tensor:
    """(N, G, T, D) -> the block's queries (N, G * queries, D)."""
    return heads[:, :, block.first : block.end].flatten(1, 2)


def _shares(rows: Tensor, keys: Tensor, block: _Block, groups: int, reach: Reach, scale: float) -> Tensor:
    """How queries (N, G * queries, D) share their attention among keys (N, S, D): (N, G * queries, S)."""
    bias = block.bias(reach, rows.device, rows.dtype).repeat(groups, 1)
    scores = torch.bmm(rows * scale, keys.transpose(1, 2)).add_(bias)
    return torch.softmax(scores, -1)


def window_attention(query: Tensor, key: Tensor, value: Tensor, reach: Reach, scale: float) -> Tensor:
    """Causal attention of whole conversations.

    Args:
        query: (B, heads, T, D).
        key, value: (B, key heads, T, D) of the same type; consecutive query heads share a key head.
        reach: what each frame looks back on.
        scale: what products of queries and keys are multiplied by.

    Returns:
        (B, heads, T, D).
    """
    batch, key_heads = key.shape[:2]
    rows = query.unflatten(1, (key_heads, -1)).flatten(0, 1)
    with torch.autocast(query.device.type, enabled=False):
        out = _WindowAttention.apply(rows, key.flatten(0, 1), value.flatten(0, 1), reach, scale)
    return out.unflatten(0, (batch, key_heads)).flatten(1, 2)
