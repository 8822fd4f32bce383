"""Training within a budget of wall-clock minutes, whatever the machine: the laptop's counterpart of `max_steps`."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from torch.optim import Optimizer


class TimeBudget(pl.Callback):
    """Stops the training when its minutes are spent, and cools the learning rate down on the way there.

    Whatever schedule the optimizer has, over the last `cooldown` share of the budget its learning rate is multiplied by a
    factor that falls linearly from 1 to `final`. Minutes spent before an interruption count: they are in the checkpoint.

    Args:
        minutes: the budget, validation included.
        cooldown: share of the budget, 0 to 1.
        final: what remains of the learning rate at the end.
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
        """What the learning rate is multiplied by now."""
        if self.cooldown == 0:
            return 1.0
        return max(self.final, min(1.0, (1 - self.share) / self.cooldown))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.monotonic()

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:  # the scheduler writes the rate anew after every step
            group["lr"] *= self.factor

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if self.share >= 1:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, float]:
        return {"spent": self._spent_before + time.monotonic() - self._started}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self._spent_before = state["spent"]
