"""Training on many processes: sharded weights, sums over ranks, gradients. Of it, the model calls only the public functions.

Under DDP every rank holds the whole model, and only `summed_over_ranks` is needed. Under FSDP2 (torch's `fully_shard`,
Lightning's ModelParallelStrategy) a rank holds a slice of every weight and gathers a module's weights just before that module
runs. Gathering is a collective: if ranks run modules a different number of times, they deadlock. So
weights are gathered only where all ranks pass equally often:

    DuplexLM        one group: embeddings, heads, last norm. Gathered once when its `forward` begins and kept until the end
      |             of the backward pass: heads run on as many chunks of frames as this rank has (`losses.py`), and a head
      |             that is tied to the embedding is the same weight.
      llm layers    one group each, gathered for the forward and again for the backward pass
    Perception      one group
    FSQCodec        whole on every rank: it is small, frozen, and not always run

In validation and inference ranks may have different numbers of batches and frames, so the whole model is gathered (`whole`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from nemo_duplex.inputs import InputError
from nemo_duplex.llm.tensor_parallel import layers_of, split_layers
from nemo_duplex.models.metrics import StepSums

# Weights are sent, and kept for the backward pass, in bfloat16; gradients are summed in float32. Autocast casts the inputs.
_BF16_MIXED = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)


def shard(model: nn.Module, device_mesh: DeviceMesh | None) -> None:
    """Shards a DuplexS2SModel over the ranks, in place, for Lightning's `configure_model`. A second call does nothing.

    All ranks start from the weights of rank 0, as under DDP.

    Args:
        model: whole, on any device.
        device_mesh: of a model-parallel strategy: (data_parallel, tensor_parallel); None under any other strategy.

    Raises:
        InputError: if the language model cannot be split for tensor parallelism, or nothing before the heads is trained.
    """
    if device_mesh is None or is_sharded(model):
        return
    heads = {id(p) for head in (model.lm.backbone.lm_head, model.lm.speech_head) for p in head.parameters()}
    if not any(p.requires_grad and id(p) not in heads for p in model.parameters()):
        raise InputError("trainer.strategy: under fsdp2 more than the output layers must be trained. Use ddp, or freeze less.")
    _take_weights_of_rank_0(model, device_mesh.device_type)
    data, tensor = device_mesh["data_parallel"], device_mesh["tensor_parallel"]
    if tensor.size() > 1:
        split_layers(model.lm.backbone, tensor)
    # With autocast alone, the backward pass would keep a bfloat16 copy of all weights, as if they were not sharded.
    policy = _BF16_MIXED if _precision(model) == "bf16-mixed" else MixedPrecisionPolicy()
    for layer in layers_of(model.lm.backbone.llm):
        fully_shard(layer, mesh=data, mp_policy=policy)
    fully_shard(model.lm, mesh=data, reshard_after_forward=False)
    fully_shard(model.perception, mesh=data, reshard_after_forward=False)


def is_sharded(model: nn.Module) -> bool:
    """Whether this rank holds slices of the weights."""
    return any(isinstance(p, DTensor) for p in model.parameters())


def _precision(model: nn.Module) -> str | None:
    trainer = getattr(model, "_trainer", None)
    return None if trainer is None else trainer.precision


def _take_weights_of_rank_0(model: nn.Module, device_type: str) -> None:
    device = torch.device(device_type, torch.cuda.current_device()) if device_type == "cuda" else torch.device(device_type)
    for own in [*model.parameters(), *model.buffers()]:
        sent = own.detach().to(device).contiguous()  # one at a time: NCCL needs them on the device
        distributed.broadcast(sent, src=0)
        own.data.copy_(sent)


# ---------------------------------------------------------------------- whole weights


def gather(model: nn.Module) -> None:
    """Gives this rank all weights, so that it computes without the others, until `release`. Call it on all ranks.

    Under tensor parallelism the ranks that share layers still compute together: they need the same input.
    """
    groups = _groups(model)
    if not groups:
        return
    for root in (model.lm, model.perception):
        root._get_fsdp_state()._lazy_init()  # otherwise the first layer that runs becomes the root
    with torch.inference_mode(False):  # otherwise these weights could not be trained afterwards
        for group in groups:
            group.unshard()
            group.set_reshard_after_forward(False, recurse=False)


def release(model: nn.Module) -> None:
    """Ends `gather`."""
    layers = {id(layer) for layer in layers_of(model.lm.backbone.llm)}
    for group in _groups(model):
        group.set_reshard_after_forward(id(group) in layers, recurse=False)
        group.reshard()


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """`gather` for a while, with the training's autocast; on one process it does nothing. Enter it on all ranks."""
    with ExitStack() as ends:
        groups = _groups(model)
        if groups and isinstance(next(groups[-1].parameters()), DTensor):
            gather(model)
            ends.callback(release, model)
        if groups and _precision(model) == "bf16-mixed":
            ends.enter_context(torch.autocast(model.device.type, torch.bfloat16))
        yield


def _groups(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def save_once(model: nn.Module, save: Callable[[], None]) -> None:
    """Calls `save` on rank 0, with all weights of `model` there. Call it on all ranks; they return when it is done."""
    with _whole_on_rank_0(model):
        if not _distributed() or distributed.get_rank() == 0:
            save()
    if _distributed():
        distributed.barrier()


@contextmanager
def _whole_on_rank_0(model: nn.Module) -> Iterator[None]:
    """Replaces sharded parameters by whole ones on the CPU, on rank 0, for a while."""
    places = [(m, name, p) for m in model.modules() for name, p in m._parameters.items() if isinstance(p, DTensor)]
    wholes: dict[nn.Parameter, nn.Parameter] = {}  # one for both places of a tied weight
    for parameter in dict.fromkeys(parameter for _, _, parameter in places):
        gathered = parameter.detach().full_tensor()
        if distributed.get_rank() == 0:
            wholes[parameter] = nn.Parameter(gathered.cpu(), parameter.requires_grad)
    for module, name, parameter in places:
        module._parameters[name] = wholes.get(parameter, parameter)
    try:
        yield
    finally:
        for module, name, parameter in places:
            module._parameters[name] = parameter


# ---------------------------------------------------------------------- sums over ranks


def summed_over_ranks(sums: StepSums, device_mesh: DeviceMesh | None) -> StepSums:
    """The sums over all ranks with different data, and their number; on one process the sums themselves.

    Args:
        device_mesh: of a model-parallel strategy, whose `data_parallel` ranks have different data; None otherwise.
    """
    if not _distributed():
        return sums
    group = _data_group(device_mesh)
    both = torch.stack([sums.sums, sums.counts])
    distributed.all_reduce(both, group=group)
    return StepSums(sums.names, both[0], both[1], distributed.get_world_size(group))


def merged_over_ranks(sums: Mapping[str, StepSums], device_mesh: DeviceMesh | None) -> dict[str, StepSums]:
    """The sums of every data set over all ranks, as `summed_over_ranks`; a rank need not have a batch of each set."""
    if not _distributed():
        return dict(sums)
    group = _data_group(device_mesh)
    found: list[dict[str, StepSums]] = [{}] * distributed.get_world_size(group)
    distributed.all_gather_object(found, {name: s.cpu() for name, s in sums.items()}, group=group)
    merged: dict[str, StepSums] = {}
    for rank in found:
        for name, s in rank.items():
            merged[name] = merged[name] + s if name in merged else s
    return merged


def _distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _data_group(device_mesh: DeviceMesh | None) -> ProcessGroup | None:
    return None if device_mesh is None else device_mesh["data_parallel"].get_group()


# ---------------------------------------------------------------------- gradients


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor | None:
    """Euclidean norm of all gradients together, a scalar on their device; None where there are none.

    Of gradients that are sharded over ranks (the DTensors of FSDP2) it is the norm of the whole: call it on all ranks.
    """
    alike: dict[Any, list[Tensor]] = {}  # torch computes no norm over gradients that are split in different ways
    for parameter in parameters:
        if (gradient := parameter.grad) is not None:
            split = (getattr(gradient, "device_mesh", None), getattr(gradient, "placements", None))
            alike.setdefault(split, []).append(gradient)
    norms = [get_total_norm(gradients) for gradients in alike.values()]
    whole = [norm.full_tensor() if hasattr(norm, "full_tensor") else norm for norm in norms]
    return torch.stack(whole).norm() if whole else None


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """Scales the gradients so that their norm, over all weights and ranks, is at most `max_norm`.

    torch's `clip_grad_norm_` fails for weights that are split in different ways, as under tensor parallelism.
    """
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    if (norm := gradient_norm(trained)) is not None:
        scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        for parameter in trained:
            parameter.grad.mul_(scale)


def groups_by_mesh(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parameter groups of an optimizer, split so that each is on one device mesh, which fused updates need."""
    split = []
    for group in groups:
        meshes: dict[Any, list[nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            on_mesh = isinstance(parameter, DTensor) and parameter.requires_grad
            meshes[parameter.device_mesh if on_mesh else None].append(parameter)
        split += [{**group, "params": alike} for alike in meshes.values()]
    return split if any(isinstance(p, DTensor) and p.device_mesh.ndim > 1 for g in groups for p in g["params"]) else groups
