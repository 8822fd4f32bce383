"""Any Hugging Face decoder-only language model, seen as: embeddings in, hidden states out, whole or one frame at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from nemo_duplex.inputs import InputError
from nemo_duplex.models.cache import RowCache


class Backbone(nn.Module):
    """The layers of a causal language model, with its token embedding and its output layer beside them.

    Args:
        config: a transformers config as a plain dict, `model_type` included.
        attention_window: frames that a layer looks back on, its own included; None looks back on everything. With a window
            the model is trained as it runs in a session without end.
        weights: a loaded `...ForCausalLM` to take the weights from; None starts at random.

    Raises:
        InputError: for a config without `model_type`, or a model that is no decoder-only language model.
    """

    def __init__(
        self, config: Mapping[str, Any], attention_window: int | None = None, weights: nn.Module | None = None
    ) -> None:
        super().__init__()
        model = weights if weights is not None else _random_causal_lm(config)
        self.config = model.config
        self.attention_window = attention_window
        self.llm = model.base_model
        self.lm_head = model.get_output_embeddings()
        # Outside of the layers, because this model adds embeddings before it calls them.
        self.embed_tokens = model.get_input_embeddings()
        self.llm.set_input_embeddings(nn.Identity())

    @property
    def hidden_size(self) -> int:
        return self.config.hidden_size

    @property
    def capacity(self) -> int:
        """Frames that the cache of a session holds: the window, else all positions that the model was trained for."""
        return self.attention_window or self.config.max_position_embeddings

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, T, H) -> hidden states (B, T, H), each frame seeing itself and those before it."""
        mask = self._window_mask(embeddings) if self.attention_window else None
        return self.llm(inputs_embeds=embeddings, attention_mask=mask, use_cache=False).last_hidden_state

    def empty_cache(self, batch_size: int) -> RowCache:
        heads = getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads
        head_size = getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads
        weight = next(self.llm.parameters())
        return RowCache.empty(
            self.config.num_hidden_layers, batch_size, heads, self.capacity, head_size, weight.device, weight.dtype
        )

    def step(self, embeddings: Tensor, cache: RowCache, live: Tensor) -> Tensor:
        """One frame (B, 1, H) -> hidden state (B, 1, H); `cache` moves on by one frame for the rows of `live` (B,) bool."""
        visible = cache.visible(live)
        mask = torch.where(visible, 0.0, torch.finfo(embeddings.dtype).min).to(embeddings.dtype)[:, None, None]
        hidden = self.llm(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=cache.age[:, None],
            past_key_values=cache.open(live),
            use_cache=True,
        ).last_hidden_state
        cache.advance(live)
        return hidden

    def _window_mask(self, embeddings: Tensor) -> Tensor:
        """(1, 1, T, T) additive: frame t sees t - window + 1 .. t."""
        frames = torch.arange(embeddings.shape[1], device=embeddings.device)
        distance = frames[:, None] - frames[None]
        visible = (distance >= 0) & (distance < self.attention_window)
        return torch.where(visible, 0.0, torch.finfo(embeddings.dtype).min).to(embeddings.dtype)[None, None]


def _random_causal_lm(config: Mapping[str, Any]) -> nn.Module:
    config = dict(config)
    model_type = config.pop("model_type", None)
    if model_type is None:
        raise InputError("The config of the language model names no model_type (for example llama). Add one.")
    try:
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **config))
    except (ValueError, KeyError) as error:
        raise InputError(
            f"transformers cannot build a causal language model from model_type {model_type!r}: {error}"
        ) from error
