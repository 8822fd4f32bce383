"""Stops a training whose loss or gradient is no number, before it spoils the weights."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from nemo_duplex.inputs import InputError

_MOST_IDS = 8


class StopAtDivergence(pl.Callback):
    """Checks before every optimizer step that the loss and all gradients are finite, on all ranks alike.

    With float16 only the loss is checked: there, gradients overflow now and then, and the scaler passes over such steps.

    Raises:
        InputError: with the step and the conversations of its batches; the step is not taken, on any rank.
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
        where = " on another process" if good else f"; cuts {named}"
        raise InputError(
            f"The training diverged: the {what} of step {trainer.global_step + 1} is not finite{where}. "
            "The step was not taken, and the last checkpoint is as it was. Lower model.optim.lr, or look at those cuts."
        )


def _finite_gradients(optimizer: Optimizer) -> list[Tensor]:
    """Whether each gradient of this rank (its shard of it) is free of inf and NaN, in as many kernels as it takes to sum."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    local = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
    norms = torch._foreach_norm([g for g in local if g.numel()])
    return [norm.isfinite() for norm in norms]
