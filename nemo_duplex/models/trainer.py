"""The Lightning trainer of a duplex training: one stream of steps, and everything that lets it be interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from nemo.utils.exp_manager import exp_manager
from omegaconf import DictConfig, OmegaConf

from nemo_duplex.budget import TimeBudget
from nemo_duplex.inputs import InputError
from nemo_duplex.models.checkpoints import Checkpoints, StepSeeds, StraightCheckpointIO, newest_checkpoint
from nemo_duplex.models.divergence import StopAtDivergence
from nemo_duplex.models.strategy import trainer_arguments


def duplex_trainer(cfg: DictConfig, callbacks: Sequence[pl.Callback] = ()) -> pl.Trainer:
    """The trainer, ready for `trainer.fit(model, datamodule=DuplexDataModule(...))`, which goes on where `cfg.out` was left.

    Steps count from start to end, over validations and interruptions; there are no epochs. NeMo's experiment manager keeps
    `<out>/experiment` (TensorBoard, logs); checkpoints are written by `Checkpoints`, because its own leave two "last" ones if
    the process dies between writing one and removing the other, and then refuse to choose.

    Args:
        cfg: `conf/duplex_*.yaml`: `out`, `seed`, `minutes` (or None: `trainer.max_steps` decides) with `cooldown`,
            `checkpoint`, `wandb` (a project, or None) and `trainer`.
        callbacks: more of them.

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
    own = [StepSeeds(cfg.seed), StopAtDivergence(), Checkpoints(folder / "checkpoints", **_checkpoint_keys(cfg))]
    if cfg.minutes is not None:
        own.append(TimeBudget(cfg.minutes, cfg.cooldown))
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
    trainer = pl.Trainer(**keys)
    newest = newest_checkpoint(folder / "checkpoints")
    experiment: dict[str, Any] = {
        "explicit_log_dir": str(folder),
        "resume_from_checkpoint": str(newest) if newest else None,
        "create_checkpoint_callback": False,
        "log_tflops_per_sec_per_gpu": False,
        "log_step_timing": False,  # the model's own Throughput says more
    }
    if cfg.wandb:
        experiment |= {"create_wandb_logger": True, "wandb_logger_kwargs": {"project": cfg.wandb, "name": Path(cfg.out).name}}
    exp_manager(trainer, OmegaConf.create(experiment))
    return trainer


def _checkpoint_keys(cfg: DictConfig) -> dict[str, int]:
    return {"every": cfg.checkpoint.every_n_steps, "keep": cfg.checkpoint.keep}
