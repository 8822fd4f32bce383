"""Training for a number of wall-clock minutes, on any machine, instead of `max_steps`."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from torch.optim import Optimizer


class TimeBudget(pl.Callback):
    """Stops the training when its minutes are spent, and lowers the learning rate towards the end.

    Over the last `cooldown` share of the budget, the learning rate of the optimizer's schedule is multiplied by a factor that
    falls linearly from 1 to `final`. Minutes before an interruption count: they are saved in the checkpoint.

    Args:
        minutes: the budget, validation included.
        cooldown: share of the budget, 0 to 1.
        final: the factor at the end.
    """

    def __init__(self, minutes: float, cooldown: float = 0.0, final: float = 0.03) -> None:
        self.minutes = minutes
        self.cooldown = cooldown
        self.final = final
        self._spent_before = 0.0
        self._started = time.monotonic()

    @property
    def share(self) -> float:
        """Share of the budget that is spent; 1 and more means stop."""
        return (self._spent_before + time.monotonic() - self._started) / (60 * self.minutes)

    @property
    def factor(self) -> float:
        """The factor of the learning rate now."""
        if self.cooldown == 0:
            return 1.0
        return max(self.final, min(1.0, (1 - self.share) / self.cooldown))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.monotonic()

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:  # the scheduler sets the rate again after every step
            group["lr"] *= self.factor

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if self.share >= 1:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, float]:
        return {"spent": self._spent_before + time.monotonic() - self._started}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self._spent_before = state["spent"]
