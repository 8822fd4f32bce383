"""The Lightning trainer of a duplex training: an endless stream of steps that can be interrupted at any time.

`trainer_arguments` turns the `trainer` section of a config into arguments of Lightning's Trainer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from nemo.utils.exp_manager import exp_manager
from nemo.utils.trainer_utils import resolve_trainer_cfg
from omegaconf import DictConfig, OmegaConf

from nemo_duplex.inputs import InputError, one_line, plain
from nemo_duplex.training.checkpoints import (
    Checkpoints,
    LearningRates,
    StepSeeds,
    StopAtDivergence,
    StraightCheckpointIO,
    newest_checkpoint,
)
from nemo_duplex.training.time_budget import TimeBudget


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all processes; groups of `tensor_parallel` share layers. A checkpoint is a single file, as with DDP.

    Lightning's defaults use all GPUs of a node for tensor parallelism, and write folders, from which no other strategy can
    resume. A single file is gathered in the memory of rank 0: weights and both moments of Adam, 12 bytes per weight.

    Args:
        tensor_parallel: GPUs that split the layers of the language model; they should be on one node.
    """

    def __init__(self, tensor_parallel: int = 1) -> None:
        super().__init__(tensor_parallel_size=tensor_parallel, save_distributed_checkpoint=False)
        self._tensor_parallel = tensor_parallel

    def setup_environment(self) -> None:
        """Sets the size of the data-parallel group, now that the number of processes is known."""
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

    `strategy` is `auto` (ddp if there are several processes), `ddp` or `fsdp2`, the last with `tensor_parallel`. Sections of
    NeMo's in-tree configs, which name classes (`strategy: {_target_: ...}`), are read as NeMo reads them, except that
    ModelParallelStrategy becomes `fsdp2`.

    The loss of a step is the mean over all valid frames of the global batch. With `accumulate_grad_batches` a step is the mean
    of several such means, so a frame of a smaller batch counts more.

    Raises:
        InputError: for another strategy, or tensor parallelism without fsdp2.
    """
    arguments = plain(trainer)
    strategy: Any = arguments.pop("strategy", None) or "auto"
    tensor_parallel = arguments.pop("tensor_parallel", 1)
    if not isinstance(strategy, str):  # the name of a class
        if not str(strategy.get("_target_")).endswith(".ModelParallelStrategy"):
            return resolve_trainer_cfg(OmegaConf.create({**arguments, "strategy": strategy}))
        strategy, tensor_parallel = "fsdp2", strategy.get("tensor_parallel_size", 1)
    if strategy not in ("auto", "ddp", "fsdp2"):
        raise InputError(f"trainer.strategy is {strategy!r}, expected auto, ddp or fsdp2.")
    if not isinstance(tensor_parallel, int) or tensor_parallel < 1:
        raise InputError(f"trainer.tensor_parallel is {tensor_parallel!r}, expected a number of GPUs, 1 or more.")
    if tensor_parallel > 1 and strategy != "fsdp2":
        raise InputError(f"trainer.tensor_parallel is {tensor_parallel}, which needs trainer.strategy=fsdp2, got {strategy}.")
    if strategy == "fsdp2":
        return {**arguments, "strategy": ShardedStrategy(tensor_parallel)}
    if strategy == "auto" and (arguments.get("devices"), arguments.get("num_nodes", 1)) == (1, 1):
        return {**arguments, "strategy": "auto"}
    # All parameters are used in every step. Buffers are constants: broadcasting them would make ranks wait for each other in
    # validation, where they may have different numbers of batches.
    ddp = DDPStrategy(find_unused_parameters=False, gradient_as_bucket_view=True, broadcast_buffers=False)
    return {**arguments, "strategy": ddp}


def lightning_trainer(what: str, keys: Mapping[str, Any]) -> pl.Trainer:
    """Lightning's Trainer with these arguments.

    Raises:
        InputError: if it refuses one, such as an accelerator that is not here; `what` names the keys in the message.
    """
    try:
        return pl.Trainer(**keys)
    except (ValueError, TypeError, RuntimeError, MisconfigurationException) as error:
        raise InputError(f"{what}: Lightning refuses it ({one_line(error)}).") from error


def duplex_trainer(cfg: DictConfig, callbacks: Sequence[pl.Callback] = ()) -> pl.Trainer:
    """The trainer for `trainer.fit(model, datamodule=DuplexDataModule(...))`, which continues from the checkpoint in `cfg.out`.

    Steps are counted over validations and interruptions; there are no epochs. NeMo's experiment manager writes
    `<out>/experiment` (TensorBoard, logs). `Checkpoints` writes the checkpoints: NeMo's own leave two "last" ones if the
    process dies between writing one and removing the other, and the next run then refuses both.

    Args:
        cfg: `conf/duplex_*.yaml`: `out`, `seed`, `minutes` (or None: `trainer.max_steps` decides) with `cooldown`,
            `checkpoint`, `wandb` (a project, or None) and `trainer`.
        callbacks: further callbacks.

    Raises:
        InputError: for a number of steps between checkpoints that is not positive.
    """
    folder = Path(cfg.out) / "experiment"
    for key in ("every_n_steps", "keep"):
        if cfg.checkpoint[key] < 1:
            raise InputError(f"checkpoint.{key}={cfg.checkpoint[key]}: expected 1 or more.")
    keys = trainer_arguments(cfg.trainer)
    if isinstance(keys.get("val_check_interval"), int):
        keys["val_check_interval"] *= keys.get("accumulate_grad_batches", 1)  # Lightning counts batches
    checkpoints = Checkpoints(folder / "checkpoints", **_checkpoint_keys(cfg))
    own = [StepSeeds(cfg.seed), StopAtDivergence(), LearningRates(), checkpoints]
    steps = keys.get("max_steps", -1)
    if cfg.minutes is not None or (cfg.cooldown and steps > 0):
        own.append(TimeBudget(cfg.minutes, cfg.cooldown, steps=steps if steps > 0 else None))
    keys |= {
        "callbacks": [*own, *callbacks],
        "plugins": [StraightCheckpointIO()],
        "max_epochs": -1,
        "limit_train_batches": 1.0,
        "check_val_every_n_epoch": None,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "enable_checkpointing": True,
        "logger": False,
    }
    trainer = lightning_trainer("trainer", keys)
    newest = newest_checkpoint(folder / "checkpoints")
    experiment: dict[str, Any] = {
        "explicit_log_dir": str(folder),
        "resume_from_checkpoint": str(newest) if newest else None,
        "create_checkpoint_callback": False,
        "log_tflops_per_sec_per_gpu": False,
        "log_step_timing": False,  # the model's own Throughput measures more
    }
    if cfg.wandb:
        experiment |= {"create_wandb_logger": True, "wandb_logger_kwargs": {"project": cfg.wandb, "name": Path(cfg.out).name}}
    exp_manager(trainer, OmegaConf.create(experiment))
    return trainer


def _checkpoint_keys(cfg: DictConfig) -> dict[str, int]:
    return {"every": cfg.checkpoint.every_n_steps, "keep": cfg.checkpoint.keep}
