"""Any Hugging Face decoder-only language model, seen as: embeddings in, hidden states out, whole or one frame at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nemo_duplex.inputs import InputError
from nemo_duplex.llm.cache import (
    KeyRecorder,
    LayerWriter,
    RingShape,
    RowCache,
    Span,
)
from nemo_duplex.llm.pretrained import random_llm
from nemo_duplex.llm.rope import (
    EndlessRotary,
    LayerKind,
    Pairs,
    keep_frequencies,
    pairs_turned,
    rotation,
    trained_positions,
)
from nemo_duplex.llm.streamable import _name, check_architecture, check_streaming, evaluating

#: First frames that a model without a window keeps for ever. Some of what attention looks at is always there, whatever it
#: says; without it the most recent frames make little sense (Xiao et al., Efficient Streaming Language Models, 2024).
_SINKS = 4


class Reach(NamedTuple):
    """What a layer looks back on: the last `window` frames, its own included, and the first `kept` ones."""

    window: int
    kept: int


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
            the model is trained as it runs in a session without end. A layer whose own window is smaller has that one.
        weights: a loaded `...ForCausalLM` to take the weights from; None starts at random.
        sinks: first frames that are kept for ever, beside the window or, without one, in each of the two memories that such a
            model has (`cache.py`); None takes 0 where all layers have a window and 4 elsewhere.

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
        #: Frames for which the model was trained: two are never further apart, however long a session lasts.
        self.positions = trained_positions(self.config)
        self.attention_window = attention_window
        self.sinks = sinks if sinks is not None else 0 if self.windowed else _SINKS
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
        all_seen = all(sum(reach) >= length for reach in self._reaches(length, self.sinks).values())
        mask = None if all_seen else self._causal(embeddings, self.sinks)  # transformers has a faster one for where all is seen
        return self.llm(inputs_embeds=embeddings, attention_mask=mask, use_cache=False).last_hidden_state

    def empty_cache(self, batch_size: int, prompt_frames: int = 0, frames: int | None = None) -> RowCache:
        """The memory of `batch_size` callers that have heard nothing.

        Args:
            prompt_frames: of the longest system prompt that there must be room for.
            frames: after which all conversations end, so that no memory is taken for more; None where nobody knows.

        Raises:
            InputError: if there is no room for that many.
        """
        check_prompt(self, prompt_frames)
        weight = next(self.llm.parameters())
        positions, memories = self.positions, 1 if self.windowed else 2
        if frames is not None and (needed := prompt_frames + max(frames, self.sinks + 1)) <= positions:
            positions, memories = needed, 1
        rings = self._ring_shapes(prompt_frames, positions)
        return RowCache.empty(rings, self.sinks, batch_size, memories, weight.device, weight.dtype)

    def prompt(self, embeddings: Tensor, cache: RowCache) -> None:
        """Frames (B, n, H) before all others, at once; they are never forgotten.

        Args:
            cache: of rows that have heard nothing, made with room for n frames or more; changed in place.
        """
        frames, recorder = embeddings.shape[1], KeyRecorder()
        self.llm(
            inputs_embeds=embeddings,
            attention_mask=self._causal(embeddings, max(self.sinks, frames)),
            position_ids=torch.arange(frames, device=embeddings.device)[None],
            past_key_values=recorder,
            use_cache=True,
        )
        cache.begin(recorder.keys, recorder.values)

    def step(self, embeddings: Tensor, cache: RowCache, live: Tensor) -> Tensor:
        """One frame (B, 1, H) -> hidden state (B, 1, H); `cache` moves on by one frame for the rows of `live` (B,) bool."""
        now = cache.now(live)
        spans = {ring.kind: ring.span for ring in cache.rings}
        visible = {span: now.visible(span)[:, None] for span in set(spans.values())}
        drift = (now.age - (self.positions - 1)).clamp(min=0)  # by which the first frame would be too far away
        turning = {ring.kind for ring in cache.rings if ring.turns}
        turns = {kind: rotation(self.llm.rotary_emb.frequencies(kind), drift) for kind in turning}
        hidden = self.llm(
            inputs_embeds=embeddings.repeat_interleave(cache.memories, dim=0),
            attention_mask=_mask(spans, visible, embeddings.dtype),
            position_ids=now.age[:, None],
            past_key_values=LayerWriter(cache, now, turns),
            use_cache=True,
        ).last_hidden_state
        cache.advance(live)
        answers = now.answers[:, None, None, None].expand(-1, 1, *hidden.shape[1:])
        return hidden.unflatten(0, (-1, cache.memories)).gather(1, answers)[:, 0]

    def forget_shapes(self) -> None:
        """After the layers have been split over ranks: what each of them writes into the cache is measured anew."""
        self._written = None

    # ------------------------------------------------------------------ how far layers look back

    @property
    def _kinds(self) -> list[LayerKind]:
        """The kind of each layer."""
        return getattr(self.config, "layer_types", None) or [None] * self.config.num_hidden_layers

    @property
    def prompt_limit(self) -> int:
        """Frames of the longest system prompt that can be kept for ever: what the window leaves of the positions, or half."""
        if not self.windowed:
            return self.positions // 2
        keeping = [(kind, layer) for kind, layer in zip(self._kinds, self._layers) if self._keeps(kind)]
        if any(layer.pairs is None for _, layer in keeping):
            return 0
        return self.positions - max(self._window(kind) or 0 for kind, _ in keeping)

    @property
    def windowed(self) -> bool:
        """Whether every layer has a window."""
        return all(map(self._window, self._kinds))

    def _own(self, kind: LayerKind) -> int | None:
        """The window that the family itself has in such layers, where it is the smaller one."""
        own = None if kind == "full_attention" else getattr(self.config, "sliding_window", None)
        return own if own is not None and own < (self.attention_window or self.positions) else None

    def _window(self, kind: LayerKind) -> int | None:
        """Most recent frames that such layers look back on; None for all that there are positions for."""
        return self._own(kind) or self.attention_window

    def _keeps(self, kind: LayerKind) -> bool:
        """Whether such layers keep first frames. Those that look back furthest do: the others were not trained so."""
        return not self._own(kind) or all(map(self._own, self._kinds))

    def _reaches(self, length: int, kept: int) -> dict[LayerKind, Reach]:
        """How far each kind of layer looks back in a conversation of `length` frames, of which the first are kept."""
        reaches = {}
        for kind in self._kinds:
            first = kept if self._keeps(kind) else 0
            reaches[kind] = Reach(self._window(kind) or max(length, self.positions) - first, first)
        return reaches

    def _causal(self, embeddings: Tensor, kept: int) -> Tensor | dict[LayerKind, Tensor]:
        """The mask of a whole conversation (B, T, H) that keeps its first frames."""
        length = embeddings.shape[1]
        reaches = self._reaches(length, kept)
        frame = torch.arange(length, device=embeddings.device)
        distance = frame[:, None] - frame
        seen = {r: ((distance >= 0) & ((distance < r.window) | (frame < r.kept)))[None] for r in set(reaches.values())}
        return _mask(reaches, seen, embeddings.dtype)

    def _ring_shapes(self, prompt_frames: int, positions: int) -> list[RingShape]:
        shapes, reaches, keep = [], self._reaches(0, self.sinks), max(self.sinks, prompt_frames)
        for kind, written in zip(self._kinds, self._layers):
            window, turns = self._window(kind), 0
            check_reach(self, *reaches[kind], written.pairs)
            if window is None:
                span = Span(positions, positions, keep)
            elif not self.windowed:
                span = Span(min(window + keep, positions), window, keep, fades=True)
            else:
                room = keep if self._keeps(kind) else 0
                span, turns = Span(window + room, window, room), 0 if written.pairs == "none" else room
            shapes.append(RingShape(span, *written[:3], kind, written.pairs or "none", turns))
        return shapes

    @property
    def _layers(self) -> list[_Written]:
        if self._written is None:
            self._written = self._measured()
        return self._written

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
            written.append(_Written(keys.shape[1], keys.shape[3], here.values[layer].shape[3], pairs))
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


def check_reach(backbone: Backbone, window: int, sinks: int, pairs: Pairs | None) -> None:
    """Refuses what there are no positions for, and sinks of which nobody knows how to move them."""
    name, positions = _name(backbone.config), backbone.positions
    most = positions if backbone.windowed else positions // 2 + window  # one half of them is left for what is new
    if window < 1 or window + sinks > most:
        looks = f"the first {sinks} frames and {max(1, window)} more"
        raise InputError(
            f"The language model {name} was trained for {positions} positions and is to look back on {looks}. "
            "Choose smaller values for model.attention_window or model.sinks."
        )
    if sinks and pairs is None and backbone.windowed:
        raise InputError(
            f"The language model {name} has rotary positions of a build that is not known here, so its first frames cannot be "
            "kept for ever beside a window. Set model.sinks to 0."
        )


def check_prompt(backbone: Backbone, frames: int) -> None:
    """Refuses a system prompt that could not be kept."""
    limit = backbone.prompt_limit if frames else 0
    if frames > limit:
        raise InputError(
            f"A system prompt of {frames} tokens is too long: each takes one of the {backbone.positions} positions for which "
            f"the language model {_name(backbone.config)} was trained, and it can keep {limit} beside the conversation. "
            "Shorten the prompt."
        )
