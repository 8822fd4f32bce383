"""One training step of this model beside one of NeMo's in-tree model: the same weights, data, device and optimiser.

Each side runs in a process of its own, so that neither's memory is counted with the other's. The data has what the in-tree
model needs to be right: no padding, and a text pad of its own; then both losses of the first batch are the same number.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from nemo_duplex.benchmark.memory import PeakMemory
from nemo_duplex.benchmark.parts import Size, described, write_parts
from nemo_duplex.benchmark.side import run_side
from nemo_duplex.benchmark.table import Table
from nemo_duplex.inputs import InputError


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Args:
        size: of the model (`parts.py`); None is "small".
        batch, seconds: conversations in a step, and how long each is.
        warmup, steps: training steps before and while it is measured.
        device: `cpu` or `cuda`.
        precision: `32`, or `bf16` for autocast.
        threads: of the CPU.
        chunk, activation_checkpointing: keys of ours (`conf/duplex_paper.yaml`); the in-tree model has none like them.
    """

    size: Size | None = None
    batch: int = 4
    seconds: float = 20.0
    warmup: int = 1
    steps: int = 3
    device: str = "cpu"
    precision: str = "32"
    threads: int = 2
    chunk: int = 256
    activation_checkpointing: bool = True


def benchmark_training(setting: Setting) -> dict[str, Any]:
    """Runs both sides, one after the other.

    Returns:
        `in_tree` and `ours`, each `step_seconds`, `frames_per_second`, `peak_bytes` (of the whole process or device),
        `step_bytes` (of these, what a step needs beside weights and optimiser), `loss`; and the ratios.

    Raises:
        InputError: for a size or device that is not there.
    """
    if setting.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda: there is no GPU here. Take device=cpu.")
    with tempfile.TemporaryDirectory(prefix="nemo_duplex-benchmark-") as name:
        folder = Path(name)
        config = write_parts(folder, setting.size or "small")
        (folder / "setting.json").write_text(json.dumps(asdict(setting)))
        (folder / "model.json").write_text(json.dumps(config))
        sides: dict[str, Any] = {side: run_side("training_side", side, folder) for side in ("in_tree", "ours")}
        what = described(config)
    theirs, ours = sides["in_tree"], sides["ours"]
    return {
        "what": what,
        "setting": asdict(setting),
        **sides,
        "speedup": ours["frames_per_second"] / theirs["frames_per_second"],
        "peak_ratio": ours["peak_bytes"] / theirs["peak_bytes"],
        "step_ratio": ours["step_bytes"] / theirs["step_bytes"],
        "loss_difference": abs(ours["loss"] - theirs["loss"]) / abs(theirs["loss"]),
    }


def table(result: dict[str, Any]) -> Table:
    """The result to read."""
    setting = result["setting"]
    about = (
        f"{setting['batch']} conversations of {setting['seconds']:g} s, {setting['device']}, precision {setting['precision']}, "
        f"{setting['threads']} threads, median of {setting['steps']} steps"
    )
    rows = [
        (name, *(form(result[side][key] * scale) for side in ("in_tree", "ours")), ratio)
        for name, key, scale, form, ratio in (
            ("step, s", "step_seconds", 1, "{:.2f}".format, ""),
            ("frames per second", "frames_per_second", 1, "{:.0f}".format, f"{result['speedup']:.2f} x"),
            ("peak memory, GB", "peak_bytes", 1e-9, "{:.2f}".format, f"{result['peak_ratio']:.2f} x"),
            ("of it in a step, GB", "step_bytes", 1e-9, "{:.2f}".format, f"{result['step_ratio']:.2f} x"),
            ("loss, first batch", "loss", 1, "{:.6f}".format, f"differ by {result['loss_difference']:.1e}"),
        )
    ]
    return Table("A training step", [result["what"], about], ("", "NeMo in-tree", "nemo_duplex", "ratio"), rows)


def timed_steps(step: Any, setting: Setting, frames: int) -> dict[str, float]:
    """Runs `step() -> loss` and measures it."""
    device = torch.device(setting.device)
    losses = [float(step()) for _ in range(max(1, setting.warmup))]
    seconds = []
    with PeakMemory(device) as memory:
        for _ in range(setting.steps):
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
    return {
        "step_seconds": median(seconds),
        "frames_per_second": frames / median(seconds),
        "peak_bytes": memory.peak,
        "step_bytes": memory.peak - memory.before,
        "loss": losses[0],
    }
