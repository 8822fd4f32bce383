"""Memory and time of training, traded by key: activations made again in the backward pass, and compiled layers."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointImpl, checkpoint_wrapper

from nemo_duplex.inputs import InputError


def recompute_activations(perception: nn.Module, llm: nn.Module) -> None:
    """Keeps of every layer only its input, and runs the layer once more in the backward pass.

    Args:
        perception: its Conformers (encoder, and adapter where that is one) are treated so.
        llm: a transformers model.

    Raises:
        InputError: if the language model's layers cannot do it.
    """
    for conformer in [m for m in perception.modules() if hasattr(m, "pre_encode") and hasattr(m, "layers")]:
        for i, layer in enumerate(conformer.layers):
            conformer.layers[i] = checkpoint_wrapper(layer, checkpoint_impl=CheckpointImpl.NO_REENTRANT)
    if not getattr(llm, "supports_gradient_checkpointing", False):
        raise InputError(f"activation_checkpointing: transformers' {type(llm).__name__} has none of it. Set it to false.")
    llm.gradient_checkpointing_enable({"use_reentrant": False})


def compile_layers(llm: nn.Module, backend: str) -> None:
    """Compiles the language model's forward pass, for any length of its input.

    Args:
        backend: one of `torch.compiler.list_backends()`, such as `inductor`.

    Raises:
        InputError: for another backend.
    """
    known = [*torch.compiler.list_backends(), "eager", "aot_eager"]  # the last two are for finding out what goes wrong
    if backend not in known:
        raise InputError(f"compile is {backend!r}, expected a backend of torch.compile: {', '.join(known)}; or null.")
    llm.compile(backend=backend, dynamic=True)
