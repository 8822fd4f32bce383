"""Training for a number of wall-clock minutes, on any machine, or of steps, and a learning rate that falls towards its end."""

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
        minutes: the budget, validation included; None: there is none but of steps.
        cooldown: share of the budget, 0 to 1.
        final: the factor at the end.
        steps: a second budget, by which the trainer stops; None: none. The share is that of the budget that is spent further.
    """

    def __init__(self, minutes: float | None, cooldown: float = 0.0, final: float = 0.03, steps: int | None = None) -> None:
        self.minutes, self.steps = minutes, steps
        self.cooldown = cooldown
        self.final = final
        self._spent_before = 0.0
        self._steps_done = 0
        self._started = time.monotonic()

    @property
    def share(self) -> float:
        """Share of the budget that is spent; 1 and more means stop."""
        spent = self._spent_before + time.monotonic() - self._started
        by_minutes = spent / (60 * self.minutes) if self.minutes is not None else 0.0
        return max(by_minutes, self._steps_done / self.steps if self.steps else 0.0)

    @property
    def factor(self) -> float:
        """The factor of the learning rate now."""
        if self.cooldown == 0:
            return 1.0
        return max(self.final, min(1.0, (1 - self.share) / self.cooldown))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.monotonic()

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        self._steps_done = trainer.global_step
        for group in optimizer.param_groups:  # the scheduler sets the rate again after every step
            group["lr"] *= self.factor

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._steps_done = trainer.global_step
        if self.share >= 1:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, float]:
        return {"spent": self._spent_before + time.monotonic() - self._started}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self._spent_before = state["spent"]
