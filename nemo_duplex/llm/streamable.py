"""Checks from its architecture whether a language model can stream; `backbone.check_streaming` tests the rest by running it."""

from __future__ import annotations

import inspect

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from nemo_duplex.inputs import InputError

#: The advice at the end of every message that refuses a language model.
ADVICE = "Take a decoder-only one with rotary positions, such as Llama, Qwen, Gemma, Mistral, Phi-3 or SmolLM."


def check_architecture(model: PreTrainedModel) -> None:
    """Refuses language models that are not decoder-only, or remember by more than keys and values.

    Raises:
        InputError: with the model's name and the reason.
    """
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
    raise InputError(f"The language model {llm_name(config)} {fault}. {ADVICE}")


def llm_name(config: PretrainedConfig) -> str:
    """A model's name for errors: its family, and where it was loaded from."""
    return " ".join(filter(None, [config.model_type, getattr(config, "_name_or_path", "")]))
