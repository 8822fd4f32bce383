"""What makes training cheaper, each by a key of the config: recomputed activations, compiled layers, frozen parameters."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointImpl, checkpoint_wrapper

from nemo_duplex.inputs import InputError
from nemo_duplex.models.in_tree.names import in_tree_name


def recompute_activations(perception: nn.Module, llm: nn.Module) -> None:
    """Keeps only the input of every layer, and runs the layer once more in the backward pass.

    Args:
        perception: all its Conformers (the encoder, and the adapter if it is one), and its convolutions.
        llm: a transformers model.

    Raises:
        InputError: if the language model's layers cannot do it.
    """
    for conformer in [m for m in perception.modules() if hasattr(m, "pre_encode") and hasattr(m, "layers")]:
        for i, layer in enumerate(conformer.layers):
            conformer.layers[i] = checkpoint_wrapper(layer, checkpoint_impl=CheckpointImpl.NO_REENTRANT)
    perception.recompute = True
    if not getattr(llm, "supports_gradient_checkpointing", False):
        raise InputError(
            f"model.activation_checkpointing: transformers' {type(llm).__name__} does not support it. Set it to false."
        )
    llm.gradient_checkpointing_enable({"use_reentrant": False})


def compile_layers(llm: nn.Module, backend: str) -> None:
    """Compiles the language model's forward pass, for any length of its input.

    Args:
        backend: one of `torch.compiler.list_backends()`, such as `inductor`.

    Raises:
        InputError: for another backend.
    """
    known = [*torch.compiler.list_backends(), "eager", "aot_eager"]  # the last two are for debugging
    if backend not in known:
        raise InputError(
            f"model.compile is {backend!r}, expected a backend of torch.compile that is installed, such as inductor, or null."
        )
    llm.compile(backend=backend, dynamic=True)


def freeze(model: nn.Module, patterns: Sequence[str], exceptions: Sequence[str] = ()) -> None:
    """Freezes the parameters whose name matches one of `patterns` and none of `exceptions`.

    Args:
        patterns, exceptions: regular expressions, matched from the start of a parameter's name (`re.match`): ours, or that of
            NeMo's in-tree model.

    Raises:
        InputError: for a pattern that is not a regular expression or matches no parameter.
    """
    names = {name: (name, in_tree_name(name)) for name, _ in model.named_parameters()}
    frozen = [_compiled("freeze_params", pattern, names) for pattern in patterns]
    kept = [_compiled("prevent_freeze_params", pattern, names) for pattern in exceptions]
    for name, parameter in model.named_parameters():
        if any(p.match(n) for p in frozen for n in names[name]) and not any(p.match(n) for p in kept for n in names[name]):
            parameter.requires_grad_(False)


def _compiled(key: str, pattern: str, names: dict[str, tuple[str, str]]) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"model.{key}: {pattern!r} is not a regular expression ({error}). Correct it.") from error
    if not any(compiled.match(name) for pair in names.values() for name in pair):
        parts = sorted({name.split(".")[0] for pair in names.values() for name in pair})
        raise InputError(f"model.{key}: {pattern!r} matches no parameter. Names begin with {', '.join(parts)}.")
    return compiled
