"""A linear layer with a LoRA adapter as one function, for training on a CPU.

peft casts the input to float32 for its adapter, and autocast back to bfloat16; the two products, their scaling and
their sum have a tensor each, which the backward pass keeps. Here the sums are made in the products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def adapted(layer: nn.Module, x: Tensor) -> Tensor:
    """What `layer` gives for x (..., H): in one function if it is plain and has one plain adapter, else by a call."""
    name = _only_adapter(layer)
    if name is None:
        return layer(x)
    base, device = layer.get_base_layer(), x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    with torch.autocast(device, enabled=False):
        return _AdaptedLinear.apply(x.to(dtype), base.weight, base.bias, down, up, layer.scaling[name])


def _only_adapter(layer: nn.Module) -> str | None:
    """The name of the adapter of a layer that `_AdaptedLinear` computes; None for any other layer."""
    base = getattr(layer, "base_layer", None)
    if (
        not isinstance(base, nn.Linear)
        or type(base) is not nn.Linear
        or base.weight.requires_grad
        or (base.bias is not None and base.bias.requires_grad)
    ):
        return None
    if layer._forward_hooks or layer._forward_pre_hooks or layer.disable_adapters or layer.merged or layer.lora_variant:
        return None
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if (
        len(names) != 1
        or layer.lora_bias[names[0]]
        or (layer.training and type(layer.lora_dropout[names[0]]) is not nn.Identity)
    ):
        return None
    pair = layer.lora_A[names[0]], layer.lora_B[names[0]]
    return names[0] if all(type(part) is nn.Linear for part in pair) else None


class _AdaptedLinear(torch.autograd.Function):
    """x W' + b + scale (x A') B' of rows x, in the type of x; W and b are not trained."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float) -> Tensor:
        rows, cast = x.reshape(-1, x.shape[-1]), weight.to(x.dtype)
        low = rows @ down.to(x.dtype).t()
        out = nn.functional.linear(rows, cast, None if bias is None else bias.to(x.dtype))
        out.addmm_(low, up.to(x.dtype).t(), alpha=scale)
        ctx.save_for_backward(rows, low, cast, down, up)
        ctx.scale = scale
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, low, cast, down, up = ctx.saved_tensors
        shape, grad = grad.shape, grad.reshape(-1, grad.shape[-1])
        d_low = (grad @ up.to(grad.dtype)).mul_(ctx.scale)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = (grad @ cast).addmm_(d_low, down.to(grad.dtype)).view(*shape[:-1], -1)
        d_down = (d_low.t() @ rows).to(down.dtype) if ctx.needs_input_grad[3] else None
        d_up = (grad.t() @ low).to(up.dtype).mul_(ctx.scale) if ctx.needs_input_grad[4] else None
        return d_x, None, None, d_down, d_up, None
