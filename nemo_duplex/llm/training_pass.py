"""Whole conversations through the layers of a model of Llama's kind, as transformers computes them, for training on a CPU.

The same numbers within rounding, at less time and memory: attention by blocks of its window (`window_attention.py`), norms and
gates as one function each, which keep their inputs and compute the rest again in the backward pass, and under autocast results
in bfloat16 where the next product wants them. It uses the model's own linear layers, so they may be adapted (LoRA). Other
families, other devices and models that are compiled or spread over ranks take transformers' own way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nemo_duplex.llm.adapted_linear import adapted
from nemo_duplex.llm.rope import LayerKind
from nemo_duplex.llm.window_attention import Reach, window_attention

#: Their layers compute the same thing; Qwen 2 adds biases, Qwen 3 norms of queries and keys.
_LAYERS = {"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer"}


def can_train_here(llm: nn.Module, embeddings: Tensor) -> bool:
    """Whether `training_pass` computes what `llm` does, for embeddings (B, T, H): a known family, a CPU, gradients."""
    if embeddings.device.type != "cpu" or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    layers = getattr(llm, "layers", ())
    if not len(layers) or not {type(layer).__name__ for layer in layers} <= _LAYERS or llm._compiled_call_impl is not None:
        return False
    if llm.training and getattr(llm.config, "attention_dropout", 0.0):
        return False
    return all(type(weight) is nn.Parameter for weight in llm.parameters()) and not any(map(_watched, _bypassed(llm)))


def _bypassed(llm: nn.Module) -> list[nn.Module]:
    """The modules whose work is done here without calling them."""
    inner = [m for layer in llm.layers for m in (layer, layer.self_attn, layer.mlp, layer.input_layernorm)]
    return [llm, llm.norm, *inner]


def _watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def training_pass(llm: nn.Module, x: Tensor, kinds: list[LayerKind], reaches: Mapping[LayerKind, Reach]) -> Tensor:
    """Embeddings (B, T, H) -> hidden states (B, T, H).

    Args:
        llm: a model that `can_train_here`.
        kinds: the kind of each layer.
        reaches: what each kind looks back on.
    """
    positions = torch.arange(x.shape[1], device=x.device)[None]
    turn = llm.rotary_emb(x, positions)
    for layer, kind in zip(llm.layers, kinds):
        if layer.training and getattr(layer, "gradient_checkpointing", False):
            x = checkpoint(
                _layer, layer, x, turn, reaches[kind], use_reentrant=False, preserve_rng_state=bool(_dropouts(layer))
            )
        else:
            x = _layer(layer, x, turn, reaches[kind])
    return _norm(llm.norm, x, x.dtype)


def _dropouts(layer: nn.Module) -> list[nn.Module]:
    return [module for module in layer.modules() if isinstance(module, nn.Dropout)]


def _product_type(x: Tensor) -> torch.dtype:
    """The type in which matrix products are computed now."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _layer(layer: nn.Module, x: Tensor, turn: tuple[Tensor, Tensor], reach: Reach) -> Tensor:
    x = x + _attend(layer.self_attn, _norm(layer.input_layernorm, x, _product_type(x)), turn, reach)
    mlp, y = layer.mlp, _norm(layer.post_attention_layernorm, x, _product_type(x))
    gate, up = adapted(mlp.gate_proj, y), adapted(mlp.up_proj, y)
    silu = isinstance(mlp.act_fn, nn.SiLU) or type(mlp.act_fn).__name__ == "SiLUActivation"
    return x + adapted(mlp.down_proj, _Gate.apply(gate, up) if silu else mlp.act_fn(gate) * up)


def _attend(attention: nn.Module, x: Tensor, turn: tuple[Tensor, Tensor], reach: Reach) -> Tensor:
    """(B, T, H) -> (B, T, H)."""
    heads = (*x.shape[:2], -1, attention.head_dim)
    query, key, value = (adapted(project, x).view(heads) for project in (attention.q_proj, attention.k_proj, attention.v_proj))
    if hasattr(attention, "q_norm"):
        query, key = _norm(attention.q_norm, query, query.dtype), _norm(attention.k_norm, key, key.dtype)
    query, key, value = (y.transpose(1, 2) for y in (_Turn.apply(query, *turn), _Turn.apply(key, *turn), value))
    out = window_attention(query, key, value, reach, attention.scaling)
    return adapted(attention.o_proj, out.transpose(1, 2).flatten(2))


def _norm(norm: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor:
    return _RMSNorm.apply(x, norm.weight, norm.variance_epsilon, dtype)


class _RMSNorm(torch.autograd.Function):
    """(..., H) -> (..., H) in another type; keeps its input and one number for each row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        whole = x.float()
        scale = (torch.linalg.vector_norm(whole, dim=-1, keepdim=True).square_() / x.shape[-1] + epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        normed = whole * scale
        if x.dtype != torch.float32:  # transformers rounds before it weighs
            normed = normed.to(x.dtype)
        return (normed * weight).to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        unit = x.float() * scale
        grad = grad.float()
        d_weight = None
        if ctx.needs_input_grad[1]:
            d_weight = torch.linalg.vecdot(grad.flatten(0, -2), unit.flatten(0, -2), dim=0).to(weight.dtype)
        grad = grad * weight
        along = torch.linalg.vecdot(grad, unit).unsqueeze(-1) / x.shape[-1]
        return grad.addcmul_(unit, along, value=-1).mul_(scale).to(x.dtype), d_weight, None, None


class _Gate(torch.autograd.Function):
    """silu(gate) * up; keeps only its inputs."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return nn.functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        d_gate = torch.ops.aten.silu_backward(grad * up, gate)
        return d_gate, nn.functional.silu(gate).mul_(grad)


class _Turn(torch.autograd.Function):
    """Rotary positions in halves: (B, T, heads, D), by cos and sin (B or 1, T, D), in the type of the first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        half = sin.shape[-1] // 2
        return _turned(grad, cos, torch.cat([-sin[..., half:], -sin[..., :half]], dim=-1)), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    cos, sin, whole = cos.unsqueeze(2), sin.unsqueeze(2), x.float()
    out = torch.empty_like(x)
    one, two = whole[..., :half], whole[..., half:]
    out[..., :half] = torch.addcmul(one * cos[..., :half], two, sin[..., :half], value=-1)
    out[..., half:] = torch.addcmul(two * cos[..., half:], one, sin[..., half:])
    return out
