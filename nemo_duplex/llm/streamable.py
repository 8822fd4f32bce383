"""Checks from its architecture whether a language model can stream; `trial.py` tests the rest by running it."""

from __future__ import annotations

import inspect

from transformers import PretrainedConfig, PreTrainedModel

from nemo_duplex.inputs import InputError
from nemo_duplex.llm.rope import stated_positions

#: The advice at the end of every message that refuses a language model.
ADVICE = "Take a decoder-only one with rotary positions, such as Llama, Qwen, Gemma, Mistral, Phi-3 or SmolLM."

_ATTENTION = {"full_attention", "sliding_attention"}


def check_architecture(model: PreTrainedModel) -> None:
    """Refuses language models that are not decoder-only, or remember by more than keys and values.

    Raises:
        InputError: with the model's name and the reason.
    """
    layers = getattr(model.config, "num_hidden_layers", None)
    if isinstance(layers, int) and layers < 1:
        raise InputError(
            f"The language model {llm_name(model.config)} has {layers} layers. Set num_hidden_layers to 1 or more."
        )
    fault = _fault(model)
    if fault is not None:
        raise InputError(f"The language model {llm_name(model.config)} {fault}. {ADVICE}")


def _fault(model: PreTrainedModel) -> str | None:
    config, kinds = model.config, set(getattr(model.config, "layer_types", None) or [])
    inputs = inspect.signature(model.base_model.forward).parameters
    others = ", ".join(sorted(kinds - _ATTENTION))
    if getattr(config, "is_encoder_decoder", False):
        return "is an encoder-decoder"
    if "inputs_embeds" not in inputs:
        return "takes no inputs_embeds"
    if getattr(model, "_is_stateful", False) and (others or not kinds):  # hybrids are, also those of attention layers alone
        return "remembers by a recurrent state instead of keys and values" + (f" ({others})" if others else "")
    if "past_key_values" not in inputs:
        return "takes no past_key_values"
    if others:
        return f"has layers that cannot stream here ({others})"
    if "position_ids" not in inputs:
        return "takes no position_ids: it derives positions from the order of its cache, as models with ALiBi do"
    if getattr(config, "hidden_size_per_layer_input", 0):
        return "looks its tokens up again in every layer (hidden_size_per_layer_input), and a frame is more than a token"
    if model.get_output_embeddings() is None:
        return "has no output layer"
    lacking = [name for name in ("hidden_size", "num_hidden_layers", "num_attention_heads") if not hasattr(config, name)]
    if stated_positions(config) is None:
        lacking.append("max_position_embeddings")
    if lacking:
        return f"does not state {', '.join(lacking)} in its config"
    return None


def llm_name(config: PretrainedConfig) -> str:
    """A model's name for errors: its family, and where it was loaded from."""
    return " ".join(filter(None, [config.model_type, getattr(config, "_name_or_path", "")]))
