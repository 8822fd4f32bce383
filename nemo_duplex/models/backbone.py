"""Any Hugging Face decoder-only language model, seen as: embeddings in, hidden states out, whole or one frame at a time."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nemo_duplex.inputs import InputError
from nemo_duplex.models.cache import RingShape, RowCache, ShapeRecorder
from nemo_duplex.models.pretrained_llm import random_llm

_CURE = "Take a decoder-only one with rotary positions, such as Llama, Qwen, Gemma, Mistral, Phi-3 or SmolLM."

#: A layer's kind, as `config.layer_types` names it; None where the layers of a model are all of one kind.
LayerKind = str | None


class Backbone(nn.Module):
    """The layers of a causal language model, with its token embedding and its output layer beside them.

    Args:
        config: a transformers config as a plain dict, `model_type` included.
        attention_window: frames that a layer looks back on, its own included; None looks back on everything. With a window
            the model is trained as it runs in a session without end. A layer whose own window is smaller keeps that one.
        weights: a loaded `...ForCausalLM` to take the weights from; None starts at random.

    Raises:
        InputError: for a config that describes no model, or a model that would not stream as it was trained.
    """

    def __init__(
        self, config: Mapping[str, Any], attention_window: int | None = None, weights: PreTrainedModel | None = None
    ) -> None:
        super().__init__()
        model = weights if weights is not None else random_llm(config)
        self.config = model.config
        self.attention_window = attention_window
        _check_architecture(model)
        self.llm = model.base_model
        self.lm_head = model.get_output_embeddings()
        # Outside of the layers, because this model adds embeddings before it calls them.
        self.embed_tokens = model.get_input_embeddings()
        self.embed_tokens.padding_idx = None  # text pad is a token like any other: what it means must be learnt
        self.llm.set_input_embeddings(nn.Identity())
        _keep_rotary_frequencies(self.llm)
        self._heads: list[tuple[int, int, int]] | None = None  # of each layer: heads, key size, value size
        _check_streaming(model, self)

    @property
    def hidden_size(self) -> int:
        return self.config.hidden_size

    @property
    def capacity(self) -> int:
        """Frames that the cache of a session holds: the window, else all positions that the model was trained for."""
        return self.attention_window or self.config.max_position_embeddings

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
        windows = {kind: self._window(kind) or length for kind in self._kinds}
        mask = None  # nobody's window is smaller than the whole: transformers then takes its fastest causal attention
        if min(windows.values()) < length:
            frames = torch.arange(length, device=embeddings.device)
            distance = (frames[:, None] - frames[None])[None]
            mask = _mask(windows, {w: (distance >= 0) & (distance < w) for w in set(windows.values())}, embeddings.dtype)
        return self.llm(inputs_embeds=embeddings, attention_mask=mask, use_cache=False).last_hidden_state

    def empty_cache(self, batch_size: int) -> RowCache:
        """The memory of `batch_size` callers that have heard nothing."""
        weight = next(self.llm.parameters())
        return RowCache.empty(self._ring_shapes(), batch_size, weight.device, weight.dtype)

    def step(self, embeddings: Tensor, cache: RowCache, live: Tensor) -> Tensor:
        """One frame (B, 1, H) -> hidden state (B, 1, H); `cache` moves on by one frame for the rows of `live` (B,) bool."""
        rings = {kind: self._ring_frames(kind) for kind in self._kinds}
        visible = {frames: cache.visible(frames, live)[:, None] for frames in set(rings.values())}
        hidden = self.llm(
            inputs_embeds=embeddings,
            attention_mask=_mask(rings, visible, embeddings.dtype),
            position_ids=cache.age[:, None],
            past_key_values=cache.open(live),
            use_cache=True,
        ).last_hidden_state
        cache.advance(live)
        return hidden

    def forget_shapes(self) -> None:
        """After the layers have been split over ranks: what each of them writes into the cache is measured anew."""
        self._heads = None

    # ------------------------------------------------------------------ windows

    @property
    def _kinds(self) -> list[LayerKind]:
        """The kind of each layer."""
        return getattr(self.config, "layer_types", None) or [None] * self.config.num_hidden_layers

    def _window(self, kind: LayerKind) -> int | None:
        """Frames that layers of this kind look back on, None for all."""
        own = None if kind == "full_attention" else getattr(self.config, "sliding_window", None)
        if own is None or self.attention_window is None:
            return self.attention_window if own is None else own
        return min(own, self.attention_window)

    def _ring_frames(self, kind: LayerKind) -> int:
        return min(self._window(kind) or self.capacity, self.capacity)

    def _ring_shapes(self) -> list[RingShape]:
        """Measured once with one frame: families differ in where their configs say it."""
        if self._heads is None:
            recorder, weight = ShapeRecorder(), next(self.llm.parameters())
            frame = torch.zeros(1, 1, self.hidden_size, device=weight.device, dtype=weight.dtype)
            with torch.no_grad(), _evaluating(self.llm):
                self.llm(
                    inputs_embeds=frame,
                    attention_mask=frame.new_zeros(1, 1, 1, 1),
                    position_ids=torch.zeros(1, 1, dtype=torch.long, device=weight.device),
                    past_key_values=recorder,
                    use_cache=True,
                )
            self._heads = [recorder.shapes[layer] for layer in range(len(self._kinds))]
        return [RingShape(self._ring_frames(kind), *heads) for kind, heads in zip(self._kinds, self._heads)]


def _mask(
    windows: Mapping[LayerKind, int], visible: Mapping[int, Tensor], dtype: torch.dtype
) -> Tensor | dict[LayerKind, Tensor]:
    """What transformers takes as `attention_mask`: additive (B or 1, 1, T, S), by kind of layer where their windows differ.

    Args:
        windows: of each kind of layer.
        visible: (B or 1, T, S) bool of each window.
    """
    lowest = torch.finfo(dtype).min
    additive = {window: torch.where(seen, 0.0, lowest).to(dtype)[:, None] for window, seen in visible.items()}
    if len(additive) == 1:  # of four dimensions, which every family hands on to its layers as it is
        return next(iter(additive.values()))
    return {kind: additive[window] for kind, window in windows.items()}


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


def _keep_rotary_frequencies(llm: nn.Module) -> None:
    """Rotary frequencies stay those of short texts, as far as the family has others for long ones (Phi-3 128k, dynamic NTK).

    transformers would change them with the age of the oldest caller in the batch: keys that were written before would no
    longer fit, and one caller would change what another one gets.
    """
    for module in llm.modules():
        kind = getattr(module, "rope_type", None)
        if isinstance(kind, dict):
            module.rope_type = {layer: _settled(k) for layer, k in kind.items()}
        elif isinstance(kind, str):
            module.rope_type = _settled(kind)


def _settled(rope_type: str) -> str:
    return "default" if rope_type == "longrope" or "dynamic" in rope_type else rope_type


def _check_architecture(model: PreTrainedModel) -> None:
    """Refuses what can be seen to be no decoder-only language model with keys and values as its only memory."""
    config, kinds = model.config, set(getattr(model.config, "layer_types", None) or [])
    inputs = inspect.signature(model.base_model.forward).parameters
    other_kinds = kinds - {"full_attention", "sliding_attention"}
    if getattr(config, "is_encoder_decoder", False):
        fault = "is an encoder-decoder"
    elif "inputs_embeds" not in inputs:
        fault = "takes no inputs_embeds"
    elif getattr(model, "_is_stateful", False) or "past_key_values" not in inputs:
        fault = "remembers by a recurrent state instead of keys and values"
    elif other_kinds:
        fault = f"has layers that cannot stream here ({', '.join(sorted(other_kinds))})"
    elif model.get_output_embeddings() is None:
        fault = "has no output layer"
    elif sum(isinstance(m, nn.Embedding) for m in model.base_model.modules()) != 1:
        fault = "has learned positions or other embeddings beside that of the tokens, so a session would end or differ"
    else:
        return
    raise InputError(f"The language model {_name(config)} {fault}. {_CURE}")


def _check_streaming(model: PreTrainedModel, backbone: Backbone) -> None:
    """Refuses what does not compute here, whole and frame by frame, what it computes in transformers.

    Three frames, and a window of two, tell: they go once through the whole model as transformers runs it, once through
    `forward` and once through `step`.
    """
    weight = backbone.lm_head.weight
    if weight.is_meta:
        return
    frames = torch.sin(torch.arange(3.0 * backbone.hidden_size)).view(1, 3, -1).to(weight.device, weight.dtype)
    window, backbone.attention_window = backbone.attention_window, 2
    try:
        with torch.no_grad(), _evaluating(model):
            expected = model(inputs_embeds=frames, use_cache=False).logits[:, :2]
            whole = backbone(frames)
            cache, live = backbone.empty_cache(1), torch.ones(1, dtype=torch.bool, device=weight.device)
            stepped = torch.cat([backbone.step(frames[:, t : t + 1], cache, live) for t in range(3)], dim=1)
            logits = backbone.text_logits(whole[:, :2])
    except Exception as error:  # whatever a family raises that takes other arguments
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"The language model {_name(model.config)} cannot stream ({type(error).__name__}: {reason}). {_CURE}"
        ) from error
    finally:
        backbone.attention_window = window
    tolerance = 1e-3 if weight.dtype == torch.float32 else 0.1
    for what, here, there in (("whole", logits, expected), ("frame by frame", stepped, whole)):
        difference = ((here - there).abs().max() / there.float().std().clamp(min=1e-6)).item()
        if not difference < tolerance:
            raise InputError(
                f"The language model {_name(model.config)} computes something else {what} here than in transformers "
                f"(relative difference {difference:.2g}, expected below {tolerance:g}). {_CURE}"
            )


def _name(config: Any) -> str:
    return " ".join(filter(None, [config.model_type, getattr(config, "_name_or_path", "")]))
