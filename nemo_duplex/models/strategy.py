"""What the `trainer` section of a config becomes: arguments of Lightning's Trainer, the strategy among them as an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from nemo.utils.trainer_utils import resolve_trainer_cfg
from omegaconf import DictConfig, OmegaConf

from nemo_duplex.inputs import InputError

_STRATEGIES = ("auto", "ddp", "fsdp2")


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all processes, `tensor_parallel` of which share layers.

    Lightning's own default would shard over the GPUs of one node as tensor parallel ones.

    Args:
        tensor_parallel: GPUs that split the layers of the language model between them; they should be of one node.
        sharded_checkpoints: whether every rank writes its own part, into a folder. One file is what DDP writes too, and is
            gathered in the memory of rank 0: the weights and both moments of Adam, 12 bytes for each weight.
    """

    def __init__(self, tensor_parallel: int = 1, sharded_checkpoints: bool = False) -> None:
        super().__init__(tensor_parallel_size=tensor_parallel, save_distributed_checkpoint=sharded_checkpoints)
        self._tensor_parallel = tensor_parallel

    def setup_environment(self) -> None:
        processes = self.num_nodes * self.num_processes
        if processes % self._tensor_parallel:
            raise InputError(
                f"trainer.tensor_parallel is {self._tensor_parallel}, which does not divide the {processes} processes. "
                "Set it to a divisor, or to 1."
            )
        self._data_parallel_size = processes // self._tensor_parallel
        super().setup_environment()


def trainer_arguments(trainer: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of Lightning's Trainer from a `trainer` section.

    `strategy` is `auto` (one process, or ddp), `ddp` or `fsdp2`; with the latter, `tensor_parallel` and `sharded_checkpoints`
    are arguments of `ShardedStrategy`. A section that names a class (`strategy: {_target_: ...}`), as those of NeMo's in-tree
    configs, is read as NeMo reads it.

    The loss of a step is a mean over all valid frames of the global batch. With `accumulate_grad_batches` a step is the mean
    of several such means: a frame of a smaller batch then counts more.

    Raises:
        InputError: for another strategy, or tensor parallelism without fsdp2.
    """
    section = trainer if isinstance(trainer, DictConfig) else OmegaConf.create(dict(trainer))
    arguments: dict[str, Any] = OmegaConf.to_container(section, resolve=True)
    name = arguments.get("strategy") or "auto"
    if isinstance(name, Mapping):
        return resolve_trainer_cfg(section)
    tensor_parallel, sharded = arguments.pop("tensor_parallel", 1), arguments.pop("sharded_checkpoints", False)
    if name not in _STRATEGIES:
        raise InputError(f"trainer.strategy is {name!r}, expected one of {', '.join(_STRATEGIES)}.")
    if name != "fsdp2" and (tensor_parallel != 1 or sharded):
        raise InputError(f"trainer.tensor_parallel and trainer.sharded_checkpoints need trainer.strategy=fsdp2, got {name}.")
    if not isinstance(tensor_parallel, int) or tensor_parallel < 1:
        raise InputError(f"trainer.tensor_parallel is {tensor_parallel!r}, expected a number of GPUs, 1 or more.")
    one_process = arguments.get("devices") in (1, "1") and arguments.get("num_nodes", 1) == 1
    if name == "fsdp2":
        arguments["strategy"] = ShardedStrategy(tensor_parallel, sharded)
    elif name == "auto" and one_process:
        arguments["strategy"] = "auto"
    else:
        # All parameters are used in every step. Buffers are constants: sending them around would only make ranks wait for
        # each other in validation, where they need not have the same number of batches.
        arguments["strategy"] = DDPStrategy(find_unused_parameters=False, gradient_as_bucket_view=True, broadcast_buffers=False)
    return arguments
