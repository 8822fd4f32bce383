"""Any Hugging Face decoder-only language model, seen as: embeddings in, hidden states out, whole or one frame at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nemo_duplex.models.cache import KeyRecorder, RingShape, RowCache
from nemo_duplex.models.pretrained_llm import random_llm
from nemo_duplex.models.rotary import EndlessRotary, LayerKind, Pairs, keep_frequencies, pairs_turned, rotation
from nemo_duplex.models.streamable import check_architecture, check_reach, check_streaming, evaluating

#: First frames that a model without a window keeps for ever. Some of what attention looks at is always there, whatever it
#: says; without it the most recent frames make little sense (Xiao et al., Efficient Streaming Language Models, 2024).
_SINKS = 4


class Reach(NamedTuple):
    """What a layer looks back on: the last `window` frames, its own included, and the first `sinks` ones."""

    window: int
    sinks: int


class _Written(NamedTuple):
    """What a layer writes into a cache."""

    heads: int
    key_size: int
    value_size: int
    pairs: Pairs | None  # of features that its positions turn; None: in no way that is known here


class Backbone(nn.Module):
    """The layers of a causal language model, with its token embedding and its output layer beside them.

    Args:
        config: a transformers config as a plain dict, `model_type` included.
        attention_window: frames that a layer looks back on, its own included; None looks back on everything. With a window
            the model is trained as it runs in a session without end. A layer whose own window is smaller keeps that one.
        weights: a loaded `...ForCausalLM` to take the weights from; None starts at random.
        sinks: first frames that are looked back on for ever, beside the window or, without one, the most recent frames that
            there are trained positions for; None takes 0 with a window and 4 without.

    Raises:
        InputError: for a config that describes no model, a model that would not stream as it was trained, or more frames to
            look back on than it has positions.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        attention_window: int | None = None,
        weights: PreTrainedModel | None = None,
        sinks: int | None = None,
    ) -> None:
        super().__init__()
        model = weights if weights is not None else random_llm(config)
        self.config = model.config
        self.attention_window = attention_window
        self.sinks = sinks if sinks is not None else 0 if attention_window else _SINKS
        check_architecture(model)
        self.llm = model.base_model
        self.lm_head = model.get_output_embeddings()
        # Outside of the layers, because this model adds embeddings before it calls them.
        self.embed_tokens = model.get_input_embeddings()
        self.embed_tokens.padding_idx = None  # text pad is a token like any other: what it means must be learnt
        self.llm.set_input_embeddings(nn.Identity())
        keep_frequencies(self.llm)
        if hasattr(self.llm, "rotary_emb"):
            self.llm.rotary_emb = EndlessRotary(self.llm.rotary_emb, self._kinds, self.positions)
        self._written: list[_Written] | None = None  # by each layer
        if not self.lm_head.weight.is_meta:
            check_streaming(model, self)
            self.empty_cache(1)  # refuses what it could not keep

    @property
    def hidden_size(self) -> int:
        return self.config.hidden_size

    @property
    def positions(self) -> int:
        """Frames for which the model was trained: two are never further apart, however long a session lasts."""
        return self.config.max_position_embeddings

    def text_logits(self, hidden: Tensor) -> Tensor:
        """(..., H) -> (..., V text), scaled and capped as the family does it (Gemma 2, Granite, Cohere)."""
        logits = self.lm_head(hidden)
        scale = getattr(self.config, "logit_scale", 1.0) / getattr(self.config, "logits_scaling", 1.0)
        if scale != 1:
            logits = logits * scale
        cap = getattr(self.config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, T, H) -> hidden states (B, T, H), each frame seeing itself and those before it."""
        length = embeddings.shape[1]
        reaches = {kind: self._reach(kind, max(length, self.positions), self.sinks) for kind in self._kinds}
        mask = None  # every layer sees all: transformers then takes its fastest causal attention
        if any(window + sinks < length for window, sinks in reaches.values()):
            frame = torch.arange(length, device=embeddings.device)
            distance = frame[:, None] - frame
            seen = {r: ((distance >= 0) & ((distance < r.window) | (frame < r.sinks)))[None] for r in set(reaches.values())}
            mask = _mask(reaches, seen, embeddings.dtype)
        return self.llm(inputs_embeds=embeddings, attention_mask=mask, use_cache=False).last_hidden_state

    def empty_cache(self, batch_size: int, sinks: int | None = None) -> RowCache:
        """The memory of `batch_size` callers that have heard nothing.

        Args:
            sinks: first frames that are kept for ever, such as those of a system prompt; None: as the model has it.

        Raises:
            InputError: if there is no room for them, or they cannot be kept.
        """
        weight = next(self.llm.parameters())
        rings = self._ring_shapes(self.sinks if sinks is None else sinks)
        return RowCache.empty(rings, batch_size, weight.device, weight.dtype)

    def step(self, embeddings: Tensor, cache: RowCache, live: Tensor) -> Tensor:
        """One frame (B, 1, H) -> hidden state (B, 1, H); `cache` moves on by one frame for the rows of `live` (B,) bool."""
        frames = {ring.kind: ring.frames for ring in cache.rings}
        visible = {size: cache.visible(size, live)[:, None] for size in set(frames.values())}
        drift = (cache.age - (self.positions - 1)).clamp(min=0)  # by which the first frame would be too far away
        turns = {
            kind: rotation(self.llm.rotary_emb.frequencies(kind), drift)
            for kind in {ring.kind for ring in cache.rings if ring.sinks and ring.pairs != "none"}
        }
        hidden = self.llm(
            inputs_embeds=embeddings,
            attention_mask=_mask(frames, visible, embeddings.dtype),
            position_ids=cache.age[:, None],
            past_key_values=cache.open(live, turns),
            use_cache=True,
        ).last_hidden_state
        cache.advance(live)
        return hidden

    def forget_shapes(self) -> None:
        """After the layers have been split over ranks: what each of them writes into the cache is measured anew."""
        self._written = None

    # ------------------------------------------------------------------ how far layers look back

    @property
    def _kinds(self) -> list[LayerKind]:
        """The kind of each layer."""
        return getattr(self.config, "layer_types", None) or [None] * self.config.num_hidden_layers

    def _reach(self, kind: LayerKind, positions: int, sinks: int) -> Reach:
        """What layers of this kind look back on. A window that the family has itself needs no sinks: it was trained so."""
        own = None if kind == "full_attention" else getattr(self.config, "sliding_window", None)
        window = self.attention_window
        if own is not None and own <= (window or positions):
            return Reach(own, 0)
        return Reach(window or positions - sinks, sinks)

    def _ring_shapes(self, sinks: int) -> list[RingShape]:
        if self._written is None:
            self._written = self._measured()
        shapes = []
        for kind, written in zip(self._kinds, self._written):
            reach = self._reach(kind, self.positions, sinks)
            check_reach(self, *reach, written.pairs)
            shapes.append(RingShape(sum(reach), reach.sinks, *written[:3], kind, written.pairs or "none"))
        return shapes

    def _measured(self) -> list[_Written]:
        """What layers write, seen with one frame at two positions: families differ in where their configs say it."""
        recorders, weight = (KeyRecorder(), KeyRecorder()), next(self.llm.parameters())
        frame = torch.sin(torch.arange(1.0, self.hidden_size + 1)).view(1, 1, -1).to(weight.device, weight.dtype)
        positions = torch.tensor([[0], [5]], device=weight.device)
        for recorder, position in zip(recorders, positions):
            with torch.no_grad(), evaluating(self.llm):
                self.llm(
                    inputs_embeds=frame,
                    attention_mask=frame.new_zeros(1, 1, 1, 1),
                    position_ids=position[None],
                    past_key_values=recorder,
                    use_cache=True,
                )
        here, there = recorders
        written = []
        for layer, kind in enumerate(self._kinds):
            keys, moved = here.keys[layer], there.keys[layer]
            rotary = getattr(self.llm, "rotary_emb", None)
            frequencies = rotary.frequencies(kind) if isinstance(rotary, EndlessRotary) else None
            turn = None if frequencies is None else rotation(frequencies, positions[1])
            pairs = pairs_turned(keys, moved, turn)
            written.append(_Written(keys.shape[1], keys.shape[3], here.value_sizes[layer], pairs))
        return written


def _mask(
    reaches: Mapping[LayerKind, Any], visible: Mapping[Any, Tensor], dtype: torch.dtype
) -> Tensor | dict[LayerKind, Tensor]:
    """What transformers takes as `attention_mask`: additive (B or 1, 1, T, S), by kind of layer where these see differently.

    Args:
        reaches: how far each kind of layer looks back.
        visible: (B or 1, T, S) bool of each such reach.
    """
    lowest = torch.finfo(dtype).min
    additive = {reach: torch.where(seen, 0.0, lowest).to(dtype)[:, None] for reach, seen in visible.items()}
    if len(additive) == 1:  # of four dimensions, which every family hands on to its layers as it is
        return next(iter(additive.values()))
    return {kind: additive[reach] for kind, reach in reaches.items()}
