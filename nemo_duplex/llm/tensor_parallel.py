"""Layers of a language model split over the GPUs of a node, by the plan that its family publishes in transformers.

Only the layers are split. Their inputs and outputs, embeddings, heads and everything else are the same on all ranks of the
group, so all ranks must get the same batch.
"""

from __future__ import annotations

import re

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from nemo_duplex.inputs import InputError
from nemo_duplex.llm.backbone import Backbone

#: transformers' names of the ways to split a module (its integrations/tensor_parallel.py).
_LINEAR: dict[str, ParallelStyle] = {
    "colwise": ColwiseParallel(),
    "rowwise": RowwiseParallel(),
    "colwise_gather_output": ColwiseParallel(output_layouts=Replicate()),
    "rowwise_split_input": RowwiseParallel(input_layouts=Replicate()),
}
_STYLES: dict[str, ParallelStyle] = {
    **_LINEAR,
    # Norms of queries and keys (B, T, heads, D): each rank has some of the heads, so their gradients are summed.
    "replicated_with_grad_allreduce": SequenceParallel(sequence_dim=2, use_local_output=True),
}
# What the errors advise to do with trainer.tensor_parallel.
_ALONE = "Set it to 1"
_DIVISOR = "Set it to a number that divides them, such as 1"


def layers_of(llm: nn.Module) -> list[nn.Module]:
    """The decoder layers of a transformers model, whatever its family calls them."""
    count = llm.config.num_hidden_layers
    stacks = [list(m) for m in llm.children() if isinstance(m, nn.ModuleList) and len(m) == count]
    assert len(stacks) == 1, f"A {llm.config.model_type} model has {len(stacks)} stacks of {count} layers, expected one."
    return stacks[0]


def split_layers(backbone: Backbone, mesh: DeviceMesh) -> None:
    """Splits the layers over the ranks of a one-dimensional `mesh`, in place.

    Raises:
        InputError: for a family without a plan, a plan with unknown parts, or sizes that do not divide.
    """
    size, kind = mesh.size(), backbone.config.model_type
    try:
        plan = _plan(backbone.llm, size)
    except InputError as error:
        raise InputError(f"trainer.tensor_parallel: {size} GPUs cannot share a {kind} model: {error}.") from error
    for module, style in plan:
        parallelize_module(module, mesh, style)
    backbone.forget_shapes()  # a rank's cache holds its own heads only


def _plan(llm: nn.Module, size: int) -> list[tuple[nn.Module, ParallelStyle]]:
    """The modules to split, each with its style.

    Raises:
        InputError: if the layers cannot be split over `size` ranks.
    """
    published = {k: s for k, s in (getattr(llm.config, "base_model_tp_plan", None) or {}).items() if k.startswith("layers.")}
    if not published:
        raise InputError(f"transformers has no plan for this family. {_ALONE}")
    if unknown := sorted(set(published.values()) - set(_STYLES)):
        raise InputError(f"its plan in transformers has parts that are not known here ({', '.join(unknown)}). {_ALONE}")
    if any(style == "colwise" and "att" in pattern for pattern, style in published.items()):  # heads stay whole
        heads = [getattr(llm.config, key, None) for key in ("num_attention_heads", "num_key_value_heads")]
        if any(n % size for n in heads if n):
            raise InputError(
                f"it has {' and '.join(str(n) for n in heads if n)} heads, which {size} does not divide. {_DIVISOR}"
            )
    plan = []
    for pattern, style in published.items():
        expression = re.compile(re.escape(pattern).replace(r"\*", r"\d+"))
        for name, module in llm.named_modules():
            if expression.fullmatch(name):
                if style in _LINEAR:
                    _check_linear(name, module, style, size)
                plan.append((module, _STYLES[style]))
    return plan


def _check_linear(name: str, module: nn.Module, style: str, size: int) -> None:
    if type(module) is not nn.Linear:
        raise InputError(f"{name} is no plain Linear (adapters of LoRA are not split). {_ALONE}")
    features = module.out_features if style.startswith("colwise") else module.in_features
    if features % size:
        raise InputError(f"{name} has {features} features, which {size} does not divide. {_DIVISOR}")
