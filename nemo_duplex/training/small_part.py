"""How the small parts of an agent, its ear and its voice, are trained: by the clock, in a folder of their own, interruptible.

out/training.json      the settings: another training does not go on here
out/last.ckpt          after every epoch, until the part is written
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

#: Steps after which a checkpoint to go on from is written.
STEPS_PER_EPOCH = 100
# Learning rates end at this share of their peak.
_FINAL_RATE = 0.02


class PartTraining(pl.LightningModule):
    """A module that knows how far its training is.

    Matrices learn by Muon (orthogonalised momentum, Keller Jordan 2024) where there are any, everything else by AdamW; their
    rates rise over the first steps, and fall by a cosine of the share of the training that is done.

    Args:
        config: seed, rate, matrix_rate, warmup_steps.
        budget: minutes that there are.

    Attributes:
        step: optimiser steps so far.
    """

    def __init__(self, config: Any, budget: TimeBudget) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config = config
        self.budget = budget
        self.step = 0

    @property
    def share(self) -> float:
        """Share of the training that is done, 0 to 1."""
        return min(1.0, self.budget.share)

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(hash((self.config.seed, self.current_epoch)))  # what goes on draws what it would have drawn

    def descend(self, loss: Tensor) -> None:
        """One step of the optimisers; the trainer is stopped if it was the last.

        Raises:
            InputError: if the gradient is not finite; nothing is changed by it.
        """
        warmup = min(1.0, (self.step + 1) / self.config.warmup_steps) if self.config.warmup_steps else 1.0
        factor = warmup * (_FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * self.share)))
        optimizers = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
            peak = self.config.matrix_rate if isinstance(optimizer.optimizer, torch.optim.Muon) else self.config.rate
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
        self.manual_backward(loss)
        norm = torch.nn.utils.clip_grad_norm_([p for p in self.parameters() if p.grad is not None], 1.0)
        if not torch.isfinite(norm):
            raise InputError(f"The training diverged at step {self.step}. Lower rate= and matrix_rate=, or take another seed=.")
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
    """A bar over the whole training: its budget is time, so steps and epochs say nothing of how long it takes."""

    def __init__(self, part: str) -> None:
        self.bar = tqdm(total=100, desc=f"Training {part}", unit="%", bar_format="{desc}: {n:.0f}%|{bar}| {elapsed}{postfix}")

    def on_train_batch_end(self, trainer: pl.Trainer, module: PartTraining, *_: Any) -> None:  # type: ignore[override]
        self.bar.n = 100 * module.share
        if module.step % 10 == 0:
            self.bar.set_postfix_str(f"step {module.step}, loss {trainer.callback_metrics['loss']:.3f}")

    def teardown(self, *_: Any, **__: Any) -> None:
        self.bar.close()


def claim(out: Path, config: Any) -> None:
    """Notes in `out` which training (a dataclass with a field `out`) it belongs to, or checks that it is this one.

    Raises:
        InputError: if another training was there before.
    """
    settings, note = json.loads(json.dumps(asdict(config) | {"out": None})), out / "training.json"
    if not note.is_file():
        write_json(note, settings)
        return
    before = json.loads(note.read_text())
    if changed := sorted(key for key in settings if before.get(key) != settings[key]):
        names = ", ".join(changed)
        raise InputError(f"{out} holds a training with another {names}. Give another out=, or remove that folder.")


def fit(training: PartTraining, part: str, out: Path, accelerator: str, precision: Any = None) -> None:
    """Trains until the budget is spent; goes on from `out` if it holds a checkpoint.

    Args:
        part: what the bar calls it.
        precision: of Lightning; None where the module sees to it.

    Raises:
        KeyboardInterrupt: on Ctrl-C. Started again, the training goes on from its last checkpoint.
    """
    last = out / "last.ckpt"
    checkpoints = ModelCheckpoint(dirpath=out, save_last=True, save_top_k=0, every_n_epochs=1, enable_version_counter=False)
    for name in ("lightning.pytorch", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)  # which devices there are is no news
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer = pl.Trainer(
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
        try:
            trainer.fit(training, ckpt_path=str(last) if last.is_file() else None)
        except SystemExit as end:
            if end.code == 1:  # what Lightning makes of Ctrl-C
                raise KeyboardInterrupt from end
            raise
        if training.share < 1:  # what it makes of it between two batches: a quiet end
            raise KeyboardInterrupt


def finish(out: Path, quality: Mapping[str, Any]) -> None:
    """The part is written: notes how good it is, and that there is nothing to go on from any more."""
    write_json(out / "quality.json", quality)
    (out / "last.ckpt").unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes it whole or not at all."""
    with whole_file(path) as file:
        file.write_text(json.dumps(content, indent=2) + "\n")
