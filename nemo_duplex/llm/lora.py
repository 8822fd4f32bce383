"""LoRA on the language model by Hugging Face peft, and merged weights that need no peft.

peft's `inject_adapter_in_model` keeps every module in its place: the weight of an adapted layer `q_proj` becomes
`q_proj.base_layer.weight`, beside `q_proj.lora_A.default.weight` and `q_proj.lora_B.default.weight`. NeMo's in-tree model wraps
its `llm` instead (`get_peft_model`), which puts `base_model.model.` before these same names.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from nemo_duplex.inputs import InputError, one_line, plain
from nemo_duplex.llm.experts import is_router

# These add weights that the plain model does not have, so they could not be merged into it.
_NOT_MERGED = ("modules_to_save", "target_parameters", "trainable_token_indices", "layer_replication")


def add_lora(llm: nn.Module, arguments: Mapping[str, Any]) -> None:
    """Adds adapters to the layers of `llm`, in place; of its parameters only theirs are trained from now on.

    They start as zero, so the model first computes what it did before. Parts outside `llm` (token embedding, output layer,
    the speech parts) train as before, unless `freeze_params` freezes them.

    Args:
        llm: the layers, `Backbone.llm`.
        arguments: of peft's LoraConfig: `r`, `lora_alpha`, `lora_dropout`, `target_modules` and so on. `task_type: CAUSAL_LM`,
            as in NeMo's configs, is accepted and has no effect.

    Raises:
        InputError: if peft is not installed, for an argument that peft does not know, or targets that are not in the model or
            that peft cannot adapt.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise InputError("model.lora needs peft, which is not installed: pip install 'nemo_duplex[lora]'.") from error
    given = plain(arguments)
    for key in _NOT_MERGED:
        if given.get(key):
            raise InputError(f"model.lora.{key} is not supported: it could not be merged when saving. Leave it out.")
    try:
        inject_adapter_in_model(LoraConfig(**given), llm)
    except (TypeError, ValueError) as error:
        linear = sorted({name.split(".")[-1] for name, module in llm.named_modules() if isinstance(module, nn.Linear)})
        targets = f"target_modules here are {', '.join(linear)}, or all-linear."
        advice = targets if "target" in str(error).lower() else "Give what peft's LoraConfig takes, such as r: 8."
        raise InputError(f"model.lora: peft refuses {given} ({one_line(error)}). {advice}") from error
    for name, layer in _adapted_layers(llm).items():
        base, part = layer.get_base_layer(), name.split(".")[-1]
        if isinstance(base, nn.Linear) and is_router(llm, base):  # that of Phi-MoE; peft expects one output of a Linear
            raise InputError(
                f"model.lora: {type(base).__name__} ({part}) cannot have an adapter, because it has three outputs. "
                f"Add exclude_modules: [{part}] to model.lora."
            )
    llm.train(llm.training)  # the new modules too: dropout must be off in evaluation


def merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of `model`, or of any module around it, with its adapters merged, under the names of the plain model.

    `model` itself stays unchanged. One layer at a time is copied, so memory grows by one layer beside the merged weights.
    """
    state = dict(model.state_dict())
    layers = _adapted_layers(model)
    for name, layer in layers.items():
        if any(name.startswith(f"{outer}.") for outer in layers):  # experts have one adapter around another: merged with it
            continue
        merged = copy.deepcopy(layer)
        for adapted in _adapted_layers(merged).values():
            adapted.merge(safe_merge=True)
        for key in [key for key in state if key.startswith(f"{name}.")]:
            del state[key]
        state.update({f"{name}.{key}": weight for key, weight in merged.get_base_layer().state_dict().items()})
    return state


def _adapted_layers(model: nn.Module) -> dict[str, Any]:
    try:
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError:  # then there are none
        return {}
    return {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
