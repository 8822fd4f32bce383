"""Cross-entropy of an output layer in one function: logits become their own gradient, a piece of the frames at a time.

Autograd would keep the logits of a piece, their log-softmax and two gradients of the same size, or compute all of it again in
the backward pass. A cross-entropy's gradient is known as soon as its loss is (softmax minus one at the target), so gradients of
hidden states and weights are made in the forward pass, and the backward pass only multiplies them (as Liger-Kernel does on
GPUs, arXiv 2410.10989).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

#: Elements of the logits that are looked at in one go in float32: small enough for a cache.
_IN_CACHE = 1 << 18


def is_plain(head: nn.Module | None) -> bool:
    """Whether `head_loss` may use an output layer's weights without calling it: not adapted, watched or spread over ranks."""
    return (
        isinstance(head, nn.Linear)
        and type(head) is nn.Linear
        and type(head.weight) is nn.Parameter
        and not head._forward_hooks
        and not head._forward_pre_hooks
    )


def head_loss(
    head: nn.Linear, hidden: Tensor, targets: Tensor, weight: Tensor, piece: int, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sum of the weighted cross-entropies of N frames, a mean over the K channels of each, and the most likely ids.

    Args:
        head: (K * V outputs), for which `is_plain` holds.
        hidden: (N, H).
        targets: (N, K) or (N,) for K = 1.
        weight: (N,) float.
        piece: frames whose logits exist at one time, in the type of matrix products.
        rows: (R,) outputs whose weights have a gradient; those of the others is zero. None: all.

    Returns:
        a scalar, and ids in the shape of `targets`.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    with torch.autocast(device, enabled=False):
        return _HeadLoss.apply(hidden, head.weight, head.bias, targets, weight.float(), piece, dtype, rows)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        matrix: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        weight: Tensor,
        piece: int,
        dtype: torch.dtype,
        rows: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        channels = targets.shape[1:].numel()
        wanted = ctx.needs_input_grad[:3]
        d_hidden = torch.empty_like(hidden) if wanted[0] else None
        d_matrix: Tensor | None = None  # made by the first piece: zeros of its size would cost as much as a piece
        d_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and wanted[2] else None
        total, predicted = hidden.new_zeros((), dtype=torch.float32), torch.empty_like(targets)
        cast, cast_bias = matrix.to(dtype), None if bias is None else bias.to(dtype)
        for first in range(0, len(hidden), piece):
            here = slice(first, first + piece)
            x, share = hidden[here].to(dtype), (weight[here] / channels)[:, None]
            logits = nn.functional.linear(x, cast, cast_bias)
            costs = _to_gradient(
                logits.view(len(x) * channels, -1), targets[here].reshape(-1), predicted[here].view(-1), any(wanted)
            )
            total += (costs.view(len(x), channels) * share).sum()
            if d_hidden is not None:
                d_hidden[here] = (logits @ cast).float() * share
            if wanted[1] or d_bias is not None:
                x, logits_t = (x * share).to(dtype), logits.t()
                weighed = logits_t if rows is None else logits_t[rows.to(logits.device)]
                if wanted[1]:
                    if d_matrix is None:
                        d_matrix = (weighed @ x).float()
                    else:
                        _add_product(d_matrix, weighed, x)
                if d_bias is not None:
                    d_bias += (logits_t @ share.to(dtype))[:, 0]
            del logits  # before the next are made
        ctx.mark_non_differentiable(predicted)
        if wanted[1] and d_matrix is None:  # there are no frames
            d_matrix = torch.zeros_like(matrix)
        elif d_matrix is not None and rows is not None:
            d_matrix = torch.zeros_like(matrix, dtype=torch.float32).index_copy_(0, rows.to(matrix.device), d_matrix)
        ctx.save_for_backward(*[d for d in (d_hidden, d_matrix, d_bias) if d is not None])
        ctx.wanted, ctx.types = wanted, (hidden.dtype, matrix.dtype, None if bias is None else bias.dtype)
        return total, predicted

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        kept = iter(ctx.saved_tensors)  # changed in place, so torch refuses a second backward pass
        found = [next(kept) if want else None for want in ctx.wanted]
        return *[None if d is None else d.mul_(grad).to(t) for d, t in zip(found, ctx.types)], None, None, None, None, None


def _add_product(total: Tensor, rows: Tensor, columns: Tensor) -> None:
    """Adds a matrix product to a float32 matrix, in place; a block of its rows at a time, which stays in a cache."""
    if rows.dtype == total.dtype:
        total.addmm_(rows, columns)
        return
    size = max(1, _IN_CACHE // total.shape[1])
    for first in range(0, len(total), size):
        here = slice(first, first + size)
        total[here].add_((rows[here] @ columns).float())


def _to_gradient(logits: Tensor, targets: Tensor, predicted: Tensor, wanted: bool) -> Tensor:
    """The cross-entropies (R,) of logits (R, V), which become softmax minus one at the target if that is `wanted`.

    Args:
        targets: (R,).
        predicted: (R,), takes the most likely ids.
    """
    costs = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    rows = max(1, _IN_CACHE // logits.shape[1])
    for first in range(0, len(logits), rows):
        here = slice(first, first + rows)
        some, target = logits[here].float(), targets[here, None]
        largest = some.amax(-1, keepdim=True)
        ids = some.argmax(-1, keepdim=True)
        shares = torch.softmax(some, -1)
        # The share of the largest is never small, so its logarithm is exact.
        costs[here] = (largest - some.gather(1, target) - shares.gather(1, ids).log())[:, 0]
        predicted[here] = ids[:, 0]
        if wanted:
            logits[here] = shares.scatter_add_(1, target, shares.new_full((), -1.0).expand(target.shape))
    return costs
