"""Checkpoints from which a training continues exactly, bit for bit on CPU, and a stop before a divergence reaches the weights.

A checkpoint is written between two steps, after validation and logging. The random numbers of a step depend only on the seed,
the rank and the number of the step. So no state of generators is saved, and it does not matter what else was drawn (by a
validation, or by a run that was killed).
"""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from nemo_duplex.inputs import InputError
from nemo_duplex.training.seeds import data_rank, mixed_seed

_NAME = re.compile(r"step=(\d+)\.ckpt")
_PART = ".part-"
# With less space left, a failed write counts as a full disk: torch.save says "unexpected pos".
_FULL_BYTES = 1 << 20
# Ids of conversations that an error names.
_MOST_IDS = 8


def newest_checkpoint(folder: str | Path) -> Path | None:
    """The checkpoint of `folder` with the most steps, or None. Incomplete ones have other names."""
    steps = {int(match[1]): path for path in Path(folder).glob("*.ckpt") if (match := _NAME.fullmatch(path.name))}
    return steps[max(steps)] if steps else None


class StepSeeds(pl.Callback):
    """Seeds torch (all devices), numpy and python before every batch."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        number = trainer.fit_loop.epoch_loop.batch_progress.total.processed
        seed = mixed_seed(self.seed, data_rank(trainer)[0], number)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)


class Checkpoints(Checkpoint):
    """Writes `step=N.ckpt` every `every` steps and at the end.

    A checkpoint gets its name when it is complete, and older ones are removed after that: whenever the process dies, a
    complete one exists.

    Args:
        folder: made if needed.
        every: optimizer steps between two checkpoints.
        keep: number of checkpoints to keep, the newest ones.

    Raises:
        OSError: with errno ENOSPC if the disk is full; the previous checkpoint stays.
    """

    def __init__(self, folder: str | Path, every: int, keep: int = 1) -> None:
        assert every > 0 and keep > 0, f"every={every} and keep={keep} must be positive"
        self.folder, self.every, self.keep = Path(folder), every, keep
        self._saved = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            for part in self.folder.glob(f"{_PART}*"):
                _remove(part)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved = trainer.global_step

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step % self.every == 0:
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        # Lightning has counted the coming batch already; after a resume it would validate one batch early.
        batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]
        batches["ready"] = batches["started"] = batches["processed"]

    def _save(self, trainer: pl.Trainer) -> None:
        step = trainer.global_step
        if step == self._saved:  # between two batches of one step, too
            return
        for logger in trainer.loggers:
            logger.save()  # else the curves of a run that is killed later would have a gap before this step
        part, whole = self.folder / f"{_PART}step={step}.ckpt", self.folder / f"step={step}.ckpt"
        with isolate_rng():
            try:
                trainer.save_checkpoint(part)  # a folder, where strategies write one
            except Exception as error:
                full = shutil.disk_usage(self.folder).free < _FULL_BYTES
                if trainer.is_global_zero:
                    _remove(part)
                if full or getattr(error, "errno", None) == errno.ENOSPC:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder)) from error
                raise
        if trainer.is_global_zero:
            _remove(whole)
            os.replace(part, whole)
            self._remove_older()
        trainer.strategy.barrier("Checkpoints")
        self._saved = step

    def _remove_older(self) -> None:
        found = sorted((int(match[1]), path) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name)))
        for _, path in found[: -self.keep]:
            _remove(path)


class LearningRates(pl.Callback):
    """Lets a training continue with other learning rates than those of its checkpoint, which Lightning restores.

    The rates of optimizers and schedulers change by as much as the configured ones. If these are the same, nothing changes.
    """

    def __init__(self) -> None:
        self._configured: list[float] = []  # of each group of parameters
        self._lowest: list[float | None] = []  # at which each scheduler ends
        self._before: list[float] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._configured = [group.get("initial_lr", group["lr"]) for group in _groups(trainer)]
        self._lowest = [getattr(config.scheduler, "min_lr", None) for config in trainer.lr_scheduler_configs]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if len(self._before) != len(self._configured) or self._before == self._configured:
            return
        for group, before, now in zip(_groups(trainer), self._before, self._configured):
            group["lr"] = group["lr"] * now / before if before else now
            if "initial_lr" in group:
                group["initial_lr"] = now
        for config, lowest in zip(trainer.lr_scheduler_configs, self._lowest):
            scheduler: Any = config.scheduler
            scheduler.base_lrs = [group["initial_lr"] for group in scheduler.optimizer.param_groups]
            if lowest is not None:
                scheduler.min_lr = lowest

    def state_dict(self) -> dict[str, list[float]]:
        return {"configured": self._configured}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        self._before = state["configured"]


def _groups(trainer: pl.Trainer) -> list[dict[str, Any]]:
    return [group for optimizer in trainer.optimizers for group in optimizer.param_groups]


class StraightCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints directly to their file; Lightning's own takes twice their size in memory, and space in /tmp."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        with open(path, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())  # a power cut must not leave the final name without the content


def _remove(path: Path) -> None:
    """Removes a file or a folder; a folder is renamed first, so that half of one is never taken for a checkpoint."""
    if path.is_dir():
        away = path.with_name(f"{_PART}old-{path.name}")
        os.replace(path, away)
        shutil.rmtree(away)
    else:
        path.unlink(missing_ok=True)


class StopAtDivergence(pl.Callback):
    """Checks before every optimizer step that the loss and all gradients are finite, on all ranks alike.

    With float16 only the loss is checked: gradients overflow now and then, and the scaler skips such steps.

    Raises:
        InputError: with the step and the ids of its conversations; no rank takes the step.
    """

    def __init__(self) -> None:
        self._batches: list[tuple[list[str], Tensor]] = []  # of the coming step: ids, and whether the loss is finite
        self._ids: list[str] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        ids = batch.get("ids", ()) if isinstance(batch, dict) else getattr(batch, "ids", ())
        self._ids = [str(i) for i in ids]

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        self._batches.append((self._ids, loss.detach().isfinite().all()))

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        batches, self._batches = self._batches, []
        finite = [finite for _, finite in batches]
        if not (isinstance(trainer.precision_plugin, MixedPrecision) and trainer.precision_plugin.scaler is not None):
            finite += _finite_gradients(optimizer)
        good = bool(torch.stack(finite).all())
        if trainer.strategy.reduce_boolean_decision(good, all=True):
            return
        bad = [ids for ids, finite in batches if not finite]
        what = "loss" if bad else "gradient"
        ids = [i for ids in bad or [ids for ids, _ in batches] for i in ids]
        named = ", ".join(ids[:_MOST_IDS]) + (f" and {len(ids) - _MOST_IDS} more" if len(ids) > _MOST_IDS else "")
        where = " on another process" if good else f"; cuts {named}" if named else ""
        lower = "Lower model.optim.lr (of NeMo's in-tree model: model.optimizer.lr)"
        cure = f"{lower}, or look at those cuts." if named and not good else f"{lower}."
        raise InputError(
            f"The training diverged: the {what} of step {trainer.global_step + 1} is not finite{where}. "
            f"The step was not taken, and the last checkpoint is as it was. {cure}"
        )


def _finite_gradients(optimizer: Optimizer) -> list[Tensor]:
    """Whether each gradient of this rank (its shard) is finite, by one fused norm."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    local = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
    norms = torch._foreach_norm([g for g in local if g.numel()])
    return [norm.isfinite() for norm in norms]
