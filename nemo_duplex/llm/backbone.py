"""Any Hugging Face decoder-only language model as: embeddings in, hidden states out, whole or one frame at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nemo_duplex.inputs import InputError
from nemo_duplex.llm.cache import (
    KeyRecorder,
    KeyValueShape,
    LayerWriter,
    RingShape,
    RingSpan,
    RowCache,
)
from nemo_duplex.llm.experts import ExpertsLoss, Routing
from nemo_duplex.llm.frame_step import FrameStep, frame_step
from nemo_duplex.llm.pretrained import random_llm
from nemo_duplex.llm.rope import (
    LayerKind,
    cos_sin,
    freeze_frequencies,
    make_endless,
    rope_layout,
    trained_positions,
)
from nemo_duplex.llm.streamable import check_architecture, llm_name
from nemo_duplex.llm.training_pass import can_train_here, training_pass
from nemo_duplex.llm.window_attention import Reach
from nemo_duplex.training.evaluation_mode import evaluating

#: First frames that a model without a window keeps permanently. Attention puts weight that it has no use for on frames that are
#: always there; without them the most recent frames make little sense (Xiao et al., Efficient Streaming Language Models, 2024).
_SINKS = 4


class Backbone(nn.Module):
    """The layers of a causal language model, with its token embedding and its output layer beside them.

    Building one runs no layer and allocates no cache: it checks the config. `check_streaming` (`trial.py`) tests the rest.

    Args:
        config: a transformers config as a plain dict, `model_type` included.
        attention_window: frames that a layer looks back on, its own included; None looks back on everything. With a window
            the model is trained as it runs in a session without end. A layer with a smaller window of its own keeps that one.
        weights: a loaded `...ForCausalLM` to take the weights from; None starts at random.
        sinks: first frames that are kept permanently, beside the window or, without one, in each of the two memories of such a
            model (`cache.py`); None takes 0 where all layers have a window and 4 elsewhere.

    Raises:
        InputError: for a config that describes no model, an architecture that cannot stream, or more frames to look back on
            than there are positions.
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
        check_architecture(model)
        self.config = model.config
        #: Positions for which the model was trained: two frames are never further apart, however long a session lasts.
        self.positions = trained_positions(self.config)
        #: Whether there are no others, as they are learnt or in a table; `check_streaming` finds out.
        self.ends = False
        self.attention_window = attention_window
        self.sinks = sinks if sinks is not None else 0 if self.windowed else _SINKS
        #: Whether a training on a CPU takes `training_pass` where it can; False: transformers' own layers.
        self.fused_training = True
        #: Rows (R,) of the text embedding and of the output layer that are trained; None: all, unless they are frozen.
        self.trained_rows: Tensor | None = None
        #: The load-balancing loss of the family's experts; None without experts, or without such a loss.
        self.experts_loss = ExpertsLoss.of(model)
        if getattr(self.config, "output_router_logits", False):  # only `forward` needs them, and asks for them
            self.config.output_router_logits = False
        self.config.return_dict = True  # a config may ask for tuples
        self.llm = model.base_model
        self.lm_head = model.get_output_embeddings()
        # Outside of the layers, because the model adds embeddings of speech before it calls them.
        self.embed_tokens = model.get_input_embeddings()
        self.embed_tokens.padding_idx = None  # text pad is a token like any other: its embedding is learnt
        self.llm.set_input_embeddings(nn.Identity())
        freeze_frequencies(self.llm)
        self._rotaries = make_endless(self.llm, self._kinds, self.positions)
        self._shapes: list[KeyValueShape] | None = None  # of each layer, once measured
        self._frame_step: tuple[FrameStep | None] | None = None  # once looked for
        for reach in self._reaches(0, self.sinks).values():
            check_reach(self, *reach)

    @property
    def hidden_size(self) -> int:
        """H."""
        return self.config.hidden_size

    def text_logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., H) -> logits (..., V text), scaled and capped as the family does (Gemma 2, Granite, Cohere)."""
        logits = self.lm_head(hidden)
        scale, cap = self._logit_shape
        if scale != 1:
            logits = logits * scale
        return logits if cap is None else cap * torch.tanh(logits / cap)

    @property
    def plain_head(self) -> nn.Module | None:
        """The output layer, where nothing follows it; else None."""
        return self.lm_head if self._logit_shape == (1, None) else None

    @property
    def _logit_shape(self) -> tuple[float, float | None]:
        """What logits are multiplied by, and where they are capped."""
        scale = getattr(self.config, "logit_scale", 1.0) / getattr(self.config, "logits_scaling", 1.0)
        return scale, getattr(self.config, "final_logit_softcapping", None)

    def forward(self, embeddings: Tensor, routing: Routing | None = None) -> Tensor:
        """Embeddings (B, T, H) -> hidden states (B, T, H); each frame attends to itself and to those before it.

        Args:
            routing: takes what the routers said, for `experts_loss`; None where that is not needed.

        Raises:
            InputError: for more frames than the model has positions, if these end.
        """
        length = embeddings.shape[1]
        if self.ends and length > self.positions:
            raise InputError(
                f"A conversation has {length} frames, and the language model {llm_name(self.config)} has {self.positions} "
                "positions and no others. Make the conversations shorter, or take a language model with rotary positions."
            )
        if routing is None and self.fused_training and can_train_here(self.llm, embeddings):
            return training_pass(self.llm, embeddings, self._kinds, self._reaches(length, self.sinks))
        all_seen = all(sum(reach) >= length for reach in self._reaches(length, self.sinks).values())
        mask = None if all_seen else self._causal(embeddings, self.sinks)  # None: transformers has a faster path for that
        asked = {} if routing is None else {"output_router_logits": True}
        output = self.llm(inputs_embeds=embeddings, attention_mask=mask, use_cache=False, **asked)
        if routing is not None:
            routing.logits = output.router_logits
        return output.last_hidden_state

    def empty_cache(self, batch_size: int, prompt_frames: int = 0, frames: int | None = None) -> RowCache:
        """The cache of `batch_size` sessions of age 0.

        Args:
            prompt_frames: number of frames of the longest system prompt.
            frames: after which all sessions end, so that no memory is taken for more; None if that is not known.

        Raises:
            InputError: if the prompt is longer than what can be kept, or the model has sinks beside a window and rotary
                positions of an unknown layout.
        """
        check_prompt(self, prompt_frames)
        weight = next(self.llm.parameters())
        positions, memories = self.positions, 1 if self.windowed else 2
        if frames is not None and (needed := prompt_frames + max(frames, self.sinks + 1)) <= positions:
            positions, memories = needed, 1
        rings = self._ring_shapes(prompt_frames, positions)
        return RowCache.empty(rings, self.sinks, batch_size, memories, weight.device, weight.dtype)

    def prompt(self, embeddings: Tensor, cache: RowCache) -> None:
        """Writes the frames (B, n, H) of a system prompt, which come before all others and are kept permanently.

        Args:
            cache: of rows of age 0, made for prompts of n frames or more; changed in place.
        """
        frames, recorder = embeddings.shape[1], KeyRecorder()
        self.llm(
            inputs_embeds=embeddings,
            attention_mask=self._causal(embeddings, max(self.sinks, frames)),
            position_ids=torch.arange(frames, device=embeddings.device)[None],
            past_key_values=recorder,
            use_cache=True,
        )
        cache.write_prompt(recorder.keys, recorder.values)

    def step(self, embeddings: Tensor, cache: RowCache, live: Tensor) -> Tensor:
        """One frame (B, 1, H) -> its hidden state (B, 1, H); `cache` takes one more frame in the rows of `live` (B,) bool."""
        direct = self._direct(embeddings)
        view = cache.step_view(live, alone=direct is not None)
        memories = len(view.age) // len(live)
        spans = {ring.kind: ring.span for ring in cache.rings}
        visible = {span: view.visible(span)[:, None] for span in set(spans.values())}
        if direct is not None:
            filled = view.filled()
            visible = {span: seen[..., :filled] for span, seen in visible.items()}
        drift = (view.age - (self.positions - 1)).clamp(min=0)  # how much too far away the first frame would be
        moving = {ring.kind for ring in cache.rings if ring.moved}
        writer = LayerWriter(cache, view, {kind: cos_sin(self._frequencies(kind), drift) for kind in moving})
        frames, mask = embeddings.repeat_interleave(memories, dim=0), _mask(spans, visible, embeddings.dtype)
        if direct is not None:
            hidden = direct(frames[:, 0], mask, view.age, writer)[:, None]
        else:
            hidden = self.llm(
                inputs_embeds=frames,
                attention_mask=mask,
                position_ids=view.age[:, None],
                past_key_values=writer,
                use_cache=True,
            ).last_hidden_state
        cache.advance(live)
        answers = view.answers[:, None, None, None].expand(-1, 1, *hidden.shape[1:])
        return hidden.unflatten(0, (-1, memories)).gather(1, answers)[:, 0]

    def _direct(self, embeddings: Tensor) -> FrameStep | None:
        """The layers without the calls of transformers around them, where that can be; None while torch compiles them."""
        if embeddings.device.type != "cpu" or self.training or torch.compiler.is_compiling():
            return None
        if self._frame_step is None:
            self._frame_step = (frame_step(self.llm, self._kinds),)
        return self._frame_step[0]

    def forget_shapes(self) -> None:
        """Discards what was measured of the layers' cache; call it after they were split over ranks."""
        self._shapes = self._frame_step = None

    def check_kept_frames(self) -> None:
        """Refuses first frames beside a window, if the layers rotate keys in a layout that `rope.py` does not know.

        Raises:
            InputError: naming the model.
        """
        if not self.windowed or not self.sinks:
            return
        for kind, shape in self._layers():
            if self._keeps(kind) and shape.layout is None:
                raise InputError(
                    f"The language model {llm_name(self.config)} rotates keys in a layout that is not known here, so its first "
                    "frames cannot be kept beside a window. Set model.sinks to 0."
                )

    # ------------------------------------------------------------------ how far layers look back

    @property
    def _kinds(self) -> list[LayerKind]:
        """The kind of each layer."""
        return getattr(self.config, "layer_types", None) or [None] * self.config.num_hidden_layers

    @property
    def prompt_limit(self) -> int:
        """Frames of the longest system prompt that can be kept: the positions that the window leaves, or half of all."""
        if not self.windowed:
            return self.positions // 2
        keeping = [(kind, shape) for kind, shape in self._layers() if self._keeps(kind)]
        if any(shape.layout is None for _, shape in keeping):
            return 0
        return self.positions - max(self._window(kind) or 0 for kind, _ in keeping)

    @property
    def windowed(self) -> bool:
        """Whether every layer has a window."""
        return all(map(self._window, self._kinds))

    def _own_window(self, kind: LayerKind) -> int | None:
        """The window that the family itself gives such layers, if it is smaller than ours."""
        own = None if kind == "full_attention" else getattr(self.config, "sliding_window", None)
        return own if own is not None and own < (self.attention_window or self.positions) else None

    def _window(self, kind: LayerKind) -> int | None:
        """How many recent frames such layers look back on; None for as many as there are positions."""
        return self._own_window(kind) or self.attention_window

    def _keeps(self, kind: LayerKind) -> bool:
        """Whether such layers keep first frames: those that look back furthest do, the others were not trained that way."""
        return not self._own_window(kind) or all(map(self._own_window, self._kinds))

    def _reaches(self, length: int, kept: int) -> dict[LayerKind, Reach]:
        """How far each kind of layer looks back in a session of `length` frames, of which the first `kept` are kept."""
        reaches = {}
        for kind in self._kinds:
            first = kept if self._keeps(kind) else 0
            reaches[kind] = Reach(self._window(kind) or max(length, self.positions) - first, first)
        return reaches

    def _causal(self, embeddings: Tensor, kept: int) -> Tensor | dict[LayerKind, Tensor]:
        """The mask of a whole session (B, T, H) that keeps its first `kept` frames."""
        length = embeddings.shape[1]
        reaches = self._reaches(length, kept)
        frame = torch.arange(length, device=embeddings.device)
        distance = frame[:, None] - frame
        seen = {r: ((distance >= 0) & ((distance < r.window) | (frame < r.kept)))[None] for r in set(reaches.values())}
        return _mask(reaches, seen, embeddings.dtype)

    def _ring_shapes(self, prompt_frames: int, positions: int) -> list[RingShape]:
        """What each layer remembers, if prompts have at most so many frames."""
        self.check_kept_frames()
        shapes, keep = [], max(self.sinks, prompt_frames)
        for kind, written in self._layers():
            window, moved = self._window(kind), 0
            if window is None:
                span = RingSpan(positions, positions, keep)
            elif not self.windowed:
                span = RingSpan(min(window + keep, positions), window, keep, fades=True)
            else:
                most_kept = keep if self._keeps(kind) else 0
                span = RingSpan(window + most_kept, window, most_kept)
                moved = 0 if written.layout == "none" else most_kept
            shapes.append(RingShape(span, written, kind, moved))
        return shapes

    def _layers(self) -> list[tuple[LayerKind, KeyValueShape]]:
        """The kind of each layer that has a cache, and what it writes there; there may be more or fewer than layers."""
        if self._shapes is None:
            self._shapes = self._measured()
        kinds = self._kinds if len(set(self._kinds)) > 1 else self._kinds[:1] * len(self._shapes)
        assert len(kinds) >= len(self._shapes), "More layers have a cache than have a kind."
        return list(zip(kinds, self._shapes))

    def _frequencies(self, kind: LayerKind) -> Tensor | None:
        """Radians per frame (F,) by which such layers rotate; None where they do not."""
        return self._rotaries[0].frequencies(kind) if self._rotaries else None

    def _measured(self) -> list[KeyValueShape]:
        """What layers write for one frame at two positions. Measured, because families name it differently in their configs."""
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
        shapes = []
        for layer, (keys, moved) in enumerate(zip(here.keys, there.keys)):
            kind = self._kinds[min(layer, len(self._kinds) - 1)]
            frequencies = self._frequencies(kind)
            turn = None if frequencies is None else cos_sin(frequencies, positions[1])
            layout = rope_layout(keys, moved, turn)
            shapes.append(KeyValueShape(keys.shape[1], keys.shape[3], here.values[layer].shape[3], layout))
        return shapes


def _mask(
    reaches: Mapping[LayerKind, Any], visible: Mapping[Any, Tensor], dtype: torch.dtype
) -> Tensor | dict[LayerKind, Tensor]:
    """The `attention_mask` for transformers: additive (B or 1, 1, T, S), one for each kind of layer if these differ.

    Args:
        reaches: how far each kind of layer looks back.
        visible: the mask (B or 1, T, S) bool of each such reach.
    """
    lowest = torch.finfo(dtype).min
    additive = {reach: torch.where(seen, 0.0, lowest).to(dtype)[:, None] for reach, seen in visible.items()}
    if len(additive) == 1:  # every family passes a mask of four dimensions on to its layers unchanged
        return next(iter(additive.values()))
    return {kind: additive[reach] for kind, reach in reaches.items()}


def check_reach(backbone: Backbone, window: int, kept: int) -> None:
    """Refuses layers that look back on more frames than there are positions.

    Raises:
        InputError: naming the model and the keys to change.
    """
    positions = backbone.positions
    most = positions if backbone.windowed else positions // 2 + window  # one half of the positions is left for new frames
    if window < 1 or window + kept > most:
        frames = f"the first {kept} frames and {max(1, window)} more"
        if backbone.windowed:
            cure = f"Choose model.attention_window and model.sinks so that they are {positions} or less together."
        else:
            cure = f"Choose a value of {positions // 2} or less for model.sinks."
        raise InputError(
            f"The language model {llm_name(backbone.config)} was trained for {positions} positions and is to look back on "
            f"{frames}. {cure}"
        )


def check_prompt(backbone: Backbone, frames: int) -> None:
    """Refuses a system prompt that is too long to be kept.

    Raises:
        InputError: naming the limit.
    """
    limit = backbone.prompt_limit if frames else 0
    if frames > limit:
        cure = "Shorten the prompt." if limit else "Open the session without a prompt."
        raise InputError(
            f"A system prompt of {frames} tokens is too long: each takes one of the {backbone.positions} positions for which "
            f"the language model {llm_name(backbone.config)} was trained, and it can keep {limit} beside the conversation. "
            f"{cure}"
        )
