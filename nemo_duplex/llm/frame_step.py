"""One frame through the layers of a model of Llama's kind, as transformers computes it, in fewer calls.

transformers takes two dozen Python calls for each layer, which for one frame last as long as the arithmetic of a small model.
Here a layer is one function on rows (N, H). It uses the model's own modules, so their weights may be adapted (LoRA) or in 8
bits. Families: those whose layers are norm, attention with rotary positions in halves, norm, gated feed-forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nemo_duplex.kernels.attention import attend
from nemo_duplex.kernels.linear import Int8Linear, Joined, outputs
from nemo_duplex.llm.cache import LayerWriter
from nemo_duplex.llm.rope import LayerKind

#: Their layers compute the same thing; Qwen 2 adds biases, Qwen 3 norms of queries and keys.
_LAYERS = {"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer"}


class FrameStep:
    """The layers of a model, for one frame of N memories. Made by `frame_step`.

    Args:
        llm: the model behind its embedding.
        kinds: the kind of each layer.
    """

    def __init__(self, llm: nn.Module, kinds: list[LayerKind]) -> None:
        self._rotary, self._norm = llm.rotary_emb, _Norm.of(llm.norm)
        self._layers = [_Layer.of(layer, kind) for layer, kind in zip(llm.layers, kinds)]

    def __call__(self, x: Tensor, masks: Mapping[LayerKind, Tensor] | Tensor, positions: Tensor, writer: LayerWriter) -> Tensor:
        """Embeddings (N, H) -> hidden states (N, H).

        Args:
            masks: additive (N, 1, 1, S) over the first S slots of a layer's cache, one for each kind of layer if these differ.
            positions: (N,) of the frames in their memories.
            writer: takes keys and values, and gives those of all slots.
        """
        cos, sin = self._rotary(x[:, None], positions[:, None])  # (N, 1, D)
        half = sin.shape[-1] // 2
        turn = cos, torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
        for i, layer in enumerate(self._layers):
            mask = masks if isinstance(masks, Tensor) else masks[layer.kind]
            x = x + layer.attend(x, mask, turn, writer, i)
            x = x + layer.feed(x)
        return self._norm(x)


class _Norm(NamedTuple):
    """An RMS norm, as transformers computes it: in float32, then rounded to the type of its input."""

    weight: Tensor
    epsilon: float

    @classmethod
    def of(cls, norm: nn.Module) -> _Norm:
        return cls(norm.weight, norm.variance_epsilon)

    def __call__(self, x: Tensor) -> Tensor:
        return self.weight * F.rms_norm(x.float(), self.weight.shape, eps=self.epsilon).to(x.dtype)

    def outputs(self, x: Tensor, first: nn.Module, *others: nn.Module) -> Tensor:
        """The outputs (N, sum of out) of layers that take the norm of rows (N, H), one after the other."""
        if isinstance(first, Int8Linear) and isinstance(others[0], Joined) and x.dtype == torch.float32:
            return first.of_normed(x, self.weight, self.epsilon)
        return outputs(self(x), first, *others)


class _Layer(NamedTuple):
    """One layer of such a model."""

    kind: LayerKind
    norm: _Norm
    norm_feed: _Norm
    attention: nn.Module
    feed_forward: nn.Module

    @classmethod
    def of(cls, layer: nn.Module, kind: LayerKind) -> _Layer:
        return cls(kind, _Norm.of(layer.input_layernorm), _Norm.of(layer.post_attention_layernorm), layer.self_attn, layer.mlp)

    def attend(self, x: Tensor, mask: Tensor, turn: tuple[Tensor, Tensor], writer: LayerWriter, number: int) -> Tensor:
        """Attention of the norm of rows (N, H), each to the slots of its memory."""
        attention, rows, size = self.attention, len(x), self.attention.head_dim
        joint = self.norm.outputs(x, attention.q_proj, attention.k_proj, attention.v_proj).view(rows, -1, size)
        groups = attention.num_key_value_groups
        key_heads = joint.shape[1] // (groups + 2)
        both, value = joint.split([(groups + 1) * key_heads, key_heads], dim=1)
        if hasattr(attention, "q_norm"):
            query, key = both.split([groups * key_heads, key_heads], dim=1)
            both = torch.cat([attention.q_norm(query), attention.k_norm(key)], dim=1)
        both = (both * turn[0]).addcmul_(both.roll(size // 2, dims=2), turn[1])
        query, key = both.split([groups * key_heads, key_heads], dim=1)
        keys, values = writer.update(key[:, :, None], value[:, :, None], number)
        slots = mask.shape[-1]
        # Heads that share keys are like several queries of one head.
        query = query.reshape(rows, key_heads, groups, size)
        out = attend(query, keys[:, :, :slots], values[:, :, :slots], mask, attention.scaling)
        return attention.o_proj(out.view(rows, -1))

    def feed(self, x: Tensor) -> Tensor:
        """The gated feed-forward layer of the norm of rows (N, H)."""
        mlp = self.feed_forward
        gate, up = self.norm_feed.outputs(x, mlp.gate_proj, mlp.up_proj).chunk(2, dim=1)
        return mlp.down_proj(mlp.act_fn(gate).mul_(up))


def same_inputs(llm: nn.Module) -> list[tuple[nn.Module, ...]]:
    """The layers of such a model that take the same input, in groups; none of a model of another kind."""
    layers = llm.layers if _is_known(llm) else ()
    attentions = [(a.q_proj, a.k_proj, a.v_proj) for a in (layer.self_attn for layer in layers)]
    return attentions + [(layer.mlp.gate_proj, layer.mlp.up_proj) for layer in layers]


def frame_step(llm: nn.Module, kinds: list[LayerKind]) -> FrameStep | None:
    """The model's layers as one function a layer; None for a model of another kind, or on another device than a CPU."""
    return FrameStep(llm, kinds) if _is_known(llm) else None


def _is_known(llm: nn.Module) -> bool:
    layers = getattr(llm, "layers", ())
    known = {type(layer).__name__ for layer in layers} <= _LAYERS and len(layers) > 0
    whole = all(type(weight) is nn.Parameter and weight.device.type == "cpu" for weight in llm.parameters())
    return known and whole and getattr(llm.config, "_attn_implementation", None) == "sdpa"
