"""Which language models can stream here: what can be seen is looked at, the rest is tried out."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel

from nemo_duplex.inputs import InputError, one_line

if TYPE_CHECKING:
    from nemo_duplex.llm.backbone import Backbone


_CURE = "Take a decoder-only one with rotary positions, such as Llama, Qwen, Gemma, Mistral, Phi-3 or SmolLM."


def check_architecture(model: PreTrainedModel) -> None:
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


def check_streaming(model: PreTrainedModel, backbone: Backbone) -> None:
    """Refuses what does not compute here, whole and frame by frame, what it computes in transformers.

    Three frames, and a window of two, tell: they go once through the whole model as transformers runs it, once through
    `forward` and once through `step`. And once as the frames of a caller who has been there for longer than there are trained
    positions: what is computed may depend on how far frames are apart, and on nothing else.
    """
    weight = backbone.lm_head.weight
    frames = torch.sin(torch.arange(3.0 * backbone.hidden_size)).view(1, 3, -1).to(weight.device, weight.dtype)
    window, sinks = backbone.attention_window, backbone.sinks
    backbone.attention_window, backbone.sinks = 2, 0
    try:
        with torch.no_grad(), evaluating(model):
            expected = model(inputs_embeds=frames, use_cache=False).logits[:, :2]
            whole = backbone(frames)
            cache, live = backbone.empty_cache(1), torch.ones(1, dtype=torch.bool, device=weight.device)
            stepped = torch.cat([backbone.step(frames[:, t : t + 1], cache, live) for t in range(3)], dim=1)
            logits = backbone.text_logits(whole[:, :2])
            positions = torch.arange(3, device=weight.device)[None]
            early, late = (
                backbone.llm(inputs_embeds=frames, position_ids=positions + start, use_cache=False).last_hidden_state
                for start in (0, backbone.positions)
            )
    except Exception as error:  # whatever a family raises that takes other arguments
        raise InputError(
            f"The language model {_name(model.config)} cannot stream ({type(error).__name__}: {one_line(error)}). {_CURE}"
        ) from error
    finally:
        backbone.attention_window, backbone.sinks = window, sinks
    tolerance = 1e-3 if weight.dtype == torch.float32 else 0.1
    same = {
        "whole here than in transformers": (logits, expected),
        "frame by frame here than in transformers": (stepped, whole),
        "after a while than at the start": (late, early),
    }
    for where, (here, there) in same.items():
        difference = ((here - there).abs().max() / there.float().std().clamp(min=1e-6)).item()
        if not difference < tolerance:
            raise InputError(
                f"The language model {_name(model.config)} computes something else {where} "
                f"(relative difference {difference:.2g}, expected below {tolerance:g}). {_CURE}"
            )


def _name(config: Any) -> str:
    return " ".join(filter(None, [config.model_type, getattr(config, "_name_or_path", "")]))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout for a while."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
