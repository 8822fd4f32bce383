"""What a training shows while it runs: losses, speed and memory, in the progress bar and in every logger.

    train/       text_loss, speech_loss, experts_loss (of a mixture of experts), loss, accuracies of text, BOS, EOS and of every
                 codebook: means since the last entry; lr of every parameter group, and grad_norm before clipping, of the last
                 step
    throughput/  frames and audio seconds per second, padding ratio, text tokens, waiting for data, memory

Nothing is read from the device between two log entries, so a GPU does not wait for the log.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.optim import Optimizer

from nemo_duplex.frames import Seconds
from nemo_duplex.models.metrics import StepSums
from nemo_duplex.models.parallel import gradient_norm

_GB = 1e9


class Throughput(pl.Callback):
    """Logs a DuplexS2SModel's training every `trainer.log_every_n_steps` optimizer steps.

    All figures are of the global batch: `StepSums` are added over ranks before. Validation does not count as time. Time
    between two batches counts as waiting for data; writing checkpoints falls into it.
    """

    def __init__(self) -> None:
        self._sums: StepSums | None = None  # since the last entry
        self._untimed: StepSums | None = None  # the part of these from before an interruption, without a time
        self._started: Seconds | None = None  # when the time since the last entry began
        self._batch_ended: Seconds | None = None
        self._validation_began: Seconds = 0.0
        self._waited: Seconds = 0.0
        self._step = 0  # of the last entry
        self._optimizer: dict[str, Any] = {}

    # ------------------------------------------------------------------ the clock

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step = trainer.global_step
        self._sums = self._untimed = self._untimed and self._untimed.to(pl_module.device)
        self._started = self._batch_ended = None
        self._waited = 0.0

    def state_dict(self) -> dict[str, Any]:
        """The sums since the last entry: a resumed training logs the same curve as one without the interruption."""
        sums = self._sums.cpu() if self._sums else None
        return {"since_last_entry": (sums.names, sums.sums, sums.counts, sums.ranks) if sums else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        since = state["since_last_entry"]
        self._untimed = StepSums(*since) if since else None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        now = time.perf_counter()
        if self._started is None or self._batch_ended is None:
            self._started = now
        else:
            self._waited += now - self._batch_ended

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validation_began = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._started is not None and self._batch_ended is not None:
            lasted = time.perf_counter() - self._validation_began
            self._started += lasted
            self._batch_ended += lasted

    # ------------------------------------------------------------------ sums and entries

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer) -> None:
        """Notes the norm of the gradients before they are clipped, and the learning rates of this step."""
        if not _due(trainer, trainer.global_step + 1):
            return
        names = group_names(pl_module, optimizer)
        self._optimizer = {name: group["lr"] for name, group in zip(names, optimizer.param_groups)}
        norm = gradient_norm(pl_module.parameters())
        if norm is not None:
            self._optimizer["grad_norm"] = norm

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if outputs and "sums" in outputs:  # a step that was skipped has none
            self._sums = outputs["sums"] if self._sums is None else self._sums + outputs["sums"]
        if self._sums is not None and trainer.global_step != self._step and _due(trainer, trainer.global_step):
            self._log(trainer, pl_module, self._sums)
        self._batch_ended = time.perf_counter()

    def _log(self, trainer: pl.Trainer, model: pl.LightningModule, sums: StepSums) -> None:
        sums = sums.cpu()  # waits until the device has finished these steps
        now = time.perf_counter()
        assert self._started is not None, "A batch ends after it started."
        steps = trainer.global_step - self._step
        timed = sums - self._untimed.to("cpu") if self._untimed else sums
        speed = throughput(timed, now - self._started, self._waited, steps, model.perception.frame_rate.seconds)
        speed |= memory(model.device)
        trained = sums.logged(model.loss_weights)
        trained.pop("padding_ratio")  # is logged in `throughput/`
        trained |= {name: float(value) for name, value in self._optimizer.items()}
        values = {f"train/{name}": value for name, value in trained.items()}
        values |= {f"throughput/{name}": value for name, value in speed.items()}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
            logger.save()
        on_cpu = {name: torch.tensor(value) for name, value in values.items()}
        trainer.callback_metrics.update(on_cpu)
        model.log_dict({name: torch.tensor(v) for name, v in _bar(trained, speed).items()}, prog_bar=True, logger=False)
        self._sums = self._untimed = None
        self._started, self._waited, self._step = now, 0.0, trainer.global_step


def throughput(sums: StepSums, elapsed: Seconds, waited: Seconds, steps: int, frame: Seconds) -> dict[str, float]:
    """Training speed over `elapsed` seconds.

    Args:
        sums: of the steps, on the CPU.
        waited: seconds of these in which this process waited for data.
        frame: length of a frame in seconds.

    Returns:
        frames_per_second and audio_seconds_per_second (without padding), padding_ratio (of all frames), text_tokens_per_step
        and text_tokens_per_second (with BOS and EOS, without pads), seconds_per_step, wait_ratio.
    """
    all_frames, padding = float(sums.count("padding_ratio")), float(sums.sums[sums.names.index("padding_ratio")])
    frames, tokens = all_frames - padding, float(sums.count("text_accuracy"))
    return {
        "frames_per_second": frames / elapsed,
        "audio_seconds_per_second": frames * frame / elapsed,
        "padding_ratio": padding / all_frames,
        "text_tokens_per_step": tokens / steps,
        "text_tokens_per_second": tokens / elapsed,
        "seconds_per_step": elapsed / steps,
        "wait_ratio": waited / elapsed,
    }


def memory(device: torch.device) -> dict[str, float]:
    """Gigabytes (1e9 bytes) of this process: resident_gb, peak_resident_gb, and on a GPU peak_cuda_gb, that of its tensors."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    statm = Path("/proc/self/statm")
    resident = int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else peak
    found = {"resident_gb": resident / _GB, "peak_resident_gb": peak / _GB}
    if device.type == "cuda":
        found["peak_cuda_gb"] = torch.cuda.max_memory_allocated(device) / _GB
    return found


def group_names(model: pl.LightningModule, optimizer: Optimizer) -> list[str]:
    """`lr` for the first parameter group, `lr_<part>` for those of `optim_param_groups` (NeMo puts them after it)."""
    named = list(model.cfg.get("optim_param_groups") or {})
    groups = len(optimizer.param_groups)
    return ["lr", *(f"lr_{name}" for name in (named if len(named) == groups - 1 else range(1, groups)))]


def _due(trainer: pl.Trainer, step: int) -> bool:
    return trainer.log_every_n_steps > 0 and step % trainer.log_every_n_steps == 0


def _bar(trained: dict[str, float], speed: dict[str, float]) -> dict[str, float]:
    """The main figures for the progress bar, under short names and rounded."""
    shown = {
        "loss": trained.get("loss"),
        "text": trained.get("text_loss"),
        "speech": trained.get("speech_loss"),
        "experts": trained.get("experts_loss"),
        "frames/s": round(speed["frames_per_second"]),
        "audio_s/s": round(speed["audio_seconds_per_second"], 1),
        "pad%": round(100 * speed["padding_ratio"], 1),
        "tokens": round(speed["text_tokens_per_step"]),
        "GB": round(speed.get("peak_cuda_gb", speed["resident_gb"]), 2),
        "wait%": round(100 * speed["wait_ratio"], 1),
    }
    return {name: float(value) for name, value in shown.items() if value is not None}
