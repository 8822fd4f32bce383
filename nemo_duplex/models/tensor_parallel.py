"""Layers of a language model split over the GPUs of a node, by the plan that its family publishes in transformers.

Only the layers: their inputs and outputs, embeddings, heads and everything else are the same on all ranks of the group, which
therefore must be given the same batch.
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
from nemo_duplex.models.backbone import Backbone

_CURE = "Set trainer.tensor_parallel to 1."

#: transformers' names of the ways to split a module (its integrations/tensor_parallel.py).
_STYLES: dict[str, ParallelStyle] = {
    "colwise": ColwiseParallel(),
    "rowwise": RowwiseParallel(),
    "colwise_gather_output": ColwiseParallel(output_layouts=Replicate()),
    "rowwise_split_input": RowwiseParallel(input_layouts=Replicate()),
    # Norms of queries and keys (B, T, heads, D): each rank has some of the heads, so their gradients are summed.
    "replicated_with_grad_allreduce": SequenceParallel(sequence_dim=2, use_local_output=True),
}


def layers_of(llm: nn.Module) -> list[nn.Module]:
    """The decoder layers of a transformers model, whatever its family calls them."""
    count = llm.config.num_hidden_layers
    stacks = [list(m) for m in llm.children() if isinstance(m, nn.ModuleList) and len(m) == count]
    assert len(stacks) == 1, f"A {llm.config.model_type} model has {len(stacks)} stacks of {count} layers, expected one."
    return stacks[0]


def split_layers(backbone: Backbone, mesh: DeviceMesh) -> None:
    """Splits the layers over the ranks of a one-dimensional `mesh`, in place.

    Raises:
        InputError: for a family without a plan, one that cannot be carried out here, or sizes that do not divide.
    """
    llm, size = backbone.llm, mesh.size()
    plan = _plan(llm, size)
    for name, module in list(llm.named_modules()):
        for pattern, style in plan.items():
            if re.fullmatch(pattern, name):
                parallelize_module(module, mesh, _STYLES[style])
    backbone.forget_shapes()  # a rank's cache holds its own heads only


def _plan(llm: nn.Module, size: int) -> dict[str, str]:
    """Regular expressions over the names of modules, and how each is split."""
    config = llm.config
    what = f"tensor_parallel: {size} GPUs cannot share a {config.model_type} model"
    published = {
        k: style for k, style in (getattr(config, "base_model_tp_plan", None) or {}).items() if k.startswith("layers.")
    }
    if not published:
        raise InputError(f"{what}: transformers has no plan for this family. {_CURE}")
    if unknown := sorted(set(published.values()) - set(_STYLES)):
        raise InputError(f"{what}: its plan in transformers has parts that are not known here ({', '.join(unknown)}). {_CURE}")
    plan = {re.escape(k).replace(r"\*", r"\d+"): style for k, style in published.items()}
    by_heads = any("attn" in k or "attention" in k for k, style in published.items() if style == "colwise")
    heads = [getattr(config, key, None) for key in ("num_attention_heads", "num_key_value_heads")] if by_heads else []
    if any(n % size for n in heads if n):
        raise InputError(
            f"{what}: it has {' and '.join(map(str, filter(None, heads)))} heads, which {size} does not divide. {_CURE}"
        )
    for name, module in llm.named_modules():
        if (style := next((s for p, s in plan.items() if re.fullmatch(p, name)), None)) is None:
            continue
        if style == "replicated_with_grad_allreduce":
            continue
        if type(module) is not nn.Linear:
            raise InputError(f"{what}: {name} is a {type(module).__name__}, expected a plain Linear (no LoRA). {_CURE}")
        features = module.out_features if style.startswith("colwise") else module.in_features
        if features % size:
            raise InputError(f"{what}: {name} has {features} features, which {size} does not divide. {_CURE}")
    return plan
