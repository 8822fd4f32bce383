"""How the small parts of an agent (user encoder, codec) are trained: for a time budget, interruptible, each in its own folder.

out/training.json      settings; a training with others is refused here
out/last.ckpt          after every epoch, removed when the part is written
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from tqdm import tqdm

from nemo_duplex.files.atomic import whole_file
from nemo_duplex.inputs import InputError
from nemo_duplex.training.time_budget import TimeBudget
from nemo_duplex.training.trainer import lightning_trainer

#: Steps after which a checkpoint to resume from is written.
STEPS_PER_EPOCH = 100
# Learning rates end at this share of their peak.
_FINAL_RATE = 0.02


class PartTraining(pl.LightningModule):
    """A module with its own optimisation, whose schedule follows the share of the time budget that is spent.

    Muon (orthogonalised momentum, Keller Jordan 2024) trains the matrices, AdamW everything else. Both learning rates rise
    over the first steps and fall by a cosine of the share.

    Args:
        config: seed, steps (at most; None: any number), rate, matrix_rate, warmup_steps.
        budget: of minutes.

    Attributes:
        step: optimiser steps so far.
        stopped_early: whether it ended before its budget was spent.
    """

    def __init__(self, config: Any, budget: TimeBudget) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config = config
        self.budget = budget
        self.step = 0
        self.stopped_early = False

    @property
    def share(self) -> float:
        """Share of the training that is done, 0 to 1: of the minutes or of the steps, whichever is larger."""
        by_steps = self.step / self.config.steps if self.config.steps else 0.0
        return min(1.0, max(self.budget.share, by_steps))

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(hash((self.config.seed, self.current_epoch)))  # a resumed training draws the same numbers

    @property
    def rate_factor(self) -> float:
        """What the peak learning rates are multiplied by now."""
        warmup = min(1.0, (self.step + 1) / self.config.warmup_steps) if self.config.warmup_steps else 1.0
        return warmup * (_FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * self.share)))

    def descend(self, loss: Tensor, optimizers: list | None = None) -> None:
        """One step of the optimisers. Stops the trainer after the last one.

        Args:
            loss: a scalar.
            optimizers: those that take the step; None: all of the module.

        Raises:
            InputError: if the gradient is not finite; the weights stay as they are.
        """
        factor = self.rate_factor
        if optimizers is None:
            given = self.optimizers()
            optimizers = given if isinstance(given, list) else [given]  # Lightning gives a single one without its list
        for optimizer in optimizers:
            optimizer.zero_grad()
            peak = self.config.matrix_rate if isinstance(optimizer.optimizer, torch.optim.Muon) else self.config.rate
            for group in optimizer.param_groups:
                group["lr"] = peak * factor * group.get("share_of_rate", 1.0)
        self.manual_backward(loss)
        norm = torch.nn.utils.clip_grad_norm_([p for p in self.parameters() if p.grad is not None], 1.0)
        if not torch.isfinite(norm):
            raise InputError(
                f"The training diverged at step {self.step}. Start it with another out=, and lower rate= and matrix_rate= or "
                "another seed=."
            )
        for optimizer in optimizers:
            optimizer.step()
        self.step += 1
        self.log("loss", loss, batch_size=1)
        if self.share >= 1:
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["step"] = self.step

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.step = checkpoint["step"]


class ClockBar(pl.Callback):
    """A progress bar over the time budget; the number of steps is not known."""

    def __init__(self, part: str) -> None:
        self.bar = tqdm(total=100, desc=f"Training {part}", unit="%", bar_format="{desc}: {n:.0f}%|{bar}| {elapsed}{postfix}")

    def on_train_batch_end(self, trainer: pl.Trainer, module: PartTraining, *_: Any) -> None:  # type: ignore[override]
        self.bar.n = 100 * module.share
        if module.step % 10 == 0:
            self.bar.set_postfix_str(f"step {module.step}, loss {trainer.callback_metrics.get('loss', math.nan):.3f}")

    def teardown(self, *_: Any, **__: Any) -> None:
        self.bar.close()


def claim(out: Path, config: Any, free: tuple[str, ...] = ()) -> None:
    """Writes the settings of a training (a dataclass with a field `out`) to `out`, or checks that they are the same.

    Args:
        free: settings that may be others when the training resumes, besides `out`.

    Raises:
        InputError: if `out` holds a training with other settings.
    """
    settings, note = json.loads(json.dumps(asdict(config) | dict.fromkeys(("out", *free)))), out / "training.json"
    if not note.is_file():
        write_json(note, settings)
        return
    before = json.loads(note.read_text())
    if changed := sorted(key for key in settings if before.get(key) != settings[key]):
        names = ", ".join(changed)
        raise InputError(f"{out} holds a training with another {names}. Give another out=, or remove that folder.")


def fit(training: PartTraining, part: str, out: Path, accelerator: str, precision: Any = None) -> None:
    """Trains until the budget is spent; continues from the checkpoint in `out` if there is one.

    Args:
        part: its name in the progress bar.
        precision: Lightning's; None where the module sets its own.

    Raises:
        KeyboardInterrupt: on Ctrl-C. Started again, the training continues from its last checkpoint.
    """
    last = out / "last.ckpt"
    checkpoints = ModelCheckpoint(dirpath=out, save_last=True, save_top_k=0, every_n_epochs=1, enable_version_counter=False)
    for name in ("lightning.pytorch", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)  # lists of devices
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        keys = dict(
            accelerator=accelerator,
            devices=1,
            precision=precision,
            max_epochs=-1,
            limit_train_batches=STEPS_PER_EPOCH,
            reload_dataloaders_every_n_epochs=1,
            callbacks=[training.budget, checkpoints, ClockBar(part)],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer = lightning_trainer("accelerator, precision", keys)
        try:
            trainer.fit(training, ckpt_path=str(last) if last.is_file() else None)
        except SystemExit as end:
            if end.code == 1:  # Lightning's reaction to Ctrl-C
                raise KeyboardInterrupt from end
            raise
        if training.share < 1 and not training.stopped_early:  # and its reaction between two batches: it returns
            raise KeyboardInterrupt


def finish(out: Path, quality: Mapping[str, Any]) -> None:
    """Ends a training whose part is written: writes `quality` and removes the checkpoint."""
    write_json(out / "quality.json", quality)
    (out / "last.ckpt").unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` as JSON, completely or not at all."""
    with whole_file(path) as file:
        file.write_text(json.dumps(content, indent=2) + "\n")
