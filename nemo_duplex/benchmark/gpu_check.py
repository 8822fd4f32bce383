"""What a GPU makes of this package, in one command of a few minutes: worth most first, each part in a process of its own.

    ticks            a tick of 80 ms by number of callers, beside its floor; the capture of CUDA graphs
    training         a training step with recomputed activations, as in conf/duplex_paper.yaml: frames per second, memory, MFU
    tests            the repository's tests that need a GPU
    training_kept    the same step with activations kept, which takes more memory and less arithmetic
    in_tree          NeMo's step of the same size on the same batch

A part that fails, or no longer fits into the minutes, is reported; the others are measured. It runs on a CPU in small form.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nemo_duplex.benchmark.callers import user_speech
from nemo_duplex.benchmark.gpu_tests import run_gpu_tests
from nemo_duplex.benchmark.machine import check_device, copy_bandwidth, describe_machine, matmul_rate
from nemo_duplex.benchmark.measured_models import Size, check_size, random_model, write_parts
from nemo_duplex.benchmark.measurement import main, run_measurement
from nemo_duplex.benchmark.roofline import STAGES, StageWork, measure_batches, stage_work
from nemo_duplex.benchmark.training_step import TrainingSetting
from nemo_duplex.files.atomic import whole_file
from nemo_duplex.frames import USER_SAMPLE_RATE, Seconds
from nemo_duplex.inputs import InputError, existing_folder, one_line
from nemo_duplex.models.duplex_s2s import DuplexS2SModel

#: What is measured where a key is null.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "cpu": {"callers": [1, 2], "ticks": 20, "batch": 1, "seconds": 4.0},
    "cuda": {"callers": [1, 8, 32, 64, 128, 256, 512], "ticks": 300, "batch": 25, "seconds": 40.0},
}
#: Numbers of callers that are measured before the others: something is expected of them.
FIRST_CALLERS = (256, 1)
#: The rows of ticks that are there so far, in the folder of the measurements.
_ROWS = "ticks.rows.json"


@dataclass(frozen=True)
class GpuCheckSetting:
    """What is measured; the keys of `conf/gpu_check.yaml`.

    Args:
        device, size, precision: `cuda` or `cpu`; of the model; `bf16` or `32`.
        minutes: of everything together.
        parts: of `PARTS`; they run in its order.
        callers, ticks: numbers of callers; ticks that are measured of each. None: `_DEFAULTS`, as below.
        batch, seconds: conversations in a training step, and how long each is.
        warmup, steps: training steps before those that are measured, and those that are.
        tests: folder of tests; None: that of this checkout.
        threads: of the CPU; None: all cores.
    """

    device: str = "cuda"
    size: Size = "paper"
    precision: str = "bf16"
    minutes: float = 8.0
    parts: list[str] | None = None
    callers: list[int] | None = None
    ticks: int | None = None
    batch: int | None = None
    seconds: Seconds | None = None
    warmup: int = 2
    steps: int = 5
    tests: str | None = None
    threads: int | None = None

    def complete(self) -> GpuCheckSetting:
        """The setting without None.

        Raises:
            InputError: naming the key that cannot be.
        """
        check_device(self.device)
        check_size(self.size)
        if self.precision not in ("32", "bf16"):
            raise InputError(f"precision={self.precision}: expected 32 or bf16.")
        if self.parts is not None and not (self.parts and set(self.parts) <= set(PARTS)):
            raise InputError(f"parts=[{','.join(map(str, self.parts))}]: expected some of {', '.join(PARTS)}.")
        if self.callers is not None and not (self.callers and min(self.callers) >= 1):
            raise InputError(f"callers={self.callers}: expected numbers of 1 or more.")
        if self.tests is not None:
            existing_folder(self.tests, "tests")
        filled = {key: value for key, value in _DEFAULTS[self.device].items() if getattr(self, key) is None}
        tests = self.tests or str(Path(__file__).parents[2] / "tests")
        parts = [part for part in PARTS if self.parts is None or part in self.parts]
        return replace(self, tests=tests, parts=parts, threads=self.threads or os.cpu_count() or 1, **filled)


class Part(NamedTuple):
    """A part of the check.

    Args:
        least: it is not begun with less time left.
        share: of the minutes, the most that it may take.
        measure: (complete setting, folder of measurements, limit) -> figures; with `error` if only some could be had, or
            with `not_run`, why there are none.
    """

    least: Seconds
    share: float
    measure: Callable[[GpuCheckSetting, Path, Seconds], dict[str, Any]]


def check_gpu(
    setting: GpuCheckSetting, save: Callable[[Mapping[str, Any]], Any] = lambda result: None, started: Seconds | None = None
) -> dict[str, Any]:
    """Measures the parts, one after the other.

    Args:
        save: is given the result so far after each part.
        started: when the minutes began, by `time.perf_counter`; None: now.

    Returns:
        `machine`, `device_name`, `date`, `setting`, and `parts`: of each its `state` (done, failed, not run), the Seconds that
        it `took`, its figures, and its `error` or, if not run, `why`. Plain data.

    Raises:
        InputError: for a setting that is not possible.
    """
    started = time.perf_counter() if started is None else started
    setting = setting.complete()
    result: dict[str, Any] = {
        "machine": describe_machine(setting.device),
        "device_name": torch.cuda.get_device_name() if setting.device == "cuda" else "cpu",
        "date": time.strftime("%Y-%m-%d"),
        "setting": asdict(setting),
        "parts": {},
    }
    with tempfile.TemporaryDirectory(prefix="nemo_duplex-benchmark-") as folder:
        for name in setting.parts or ():
            left = 60 * setting.minutes - (time.perf_counter() - started)
            result["parts"][name] = _outcome(name, setting, Path(folder), left)
            save(result)
    return result


def _outcome(name: str, setting: GpuCheckSetting, folder: Path, left: Seconds) -> dict[str, Any]:
    """What became of a part for which so much time is left."""
    part = PARTS[name]
    if left < part.least:
        why = f"it needs {part.least:.0f} s or more, and {max(0.0, left):.0f} s of minutes={setting.minutes:g} are left"
        return {"state": "not run", "why": why}
    print(f"{name} ...", file=sys.stderr, flush=True)
    before = time.perf_counter()
    try:
        figures = part.measure(setting, folder, min(left, 60 * setting.minutes * part.share))
    except Exception as error:  # whatever it is, the other parts are measured
        figures = {"error": one_line(error)}
    took = time.perf_counter() - before
    if "not_run" in figures:
        return {"state": "not run", "why": figures["not_run"], "took": took}
    return {"state": "failed" if "error" in figures else "done", "took": took, **figures}


# --- the parts ----------------------------------------------------------------------------------------------------------


def _measure_ticks(setting: GpuCheckSetting, folder: Path, limit: Seconds) -> dict[str, Any]:
    """`what`, rates and work as `ticks` finds them, and `rows`: one for each number of callers, whatever became of it."""
    keys = ("size", "device", "precision", "callers", "ticks")
    given = {key: getattr(setting, key) for key in keys} | {"until": time.time() + limit}
    try:
        found = run_measurement("gpu_check", "ticks", folder, given, setting.threads or 1, limit)
    except InputError as error:  # killed or crashed: what it has written counts
        rows = folder / _ROWS
        found = (json.loads(rows.read_text()) if rows.exists() else {"rows": []}) | {"error": str(error)}
    there = {row["callers"]: row for row in found["rows"]}
    missing = {"not_run": found.get("error", "the measurement had ended")}
    found["rows"] = [there.get(number, {"callers": number} | missing) for number in sorted(set(setting.callers or ()))]
    errors = [f"{row['callers']} callers: {row['error']}" for row in found["rows"] if "error" in row]
    return {"error": "; ".join(errors), **found} if errors else found


def _measure_training(setting: GpuCheckSetting, folder: Path, limit: Seconds, name: str, recompute: bool) -> dict[str, Any]:
    """What the measurement `name` of `training_step.py` returns."""
    before = time.perf_counter()
    if not (folder / "model.json").exists():
        (folder / "model.json").write_text(json.dumps(write_parts(folder, setting.size)))
    keys = ("size", "batch", "seconds", "warmup", "steps", "device", "precision", "threads")
    wanted = TrainingSetting(**{key: getattr(setting, key) for key in keys}, activation_checkpointing=recompute)
    left = max(1.0, limit - (time.perf_counter() - before))
    return run_measurement("training_step", name, folder, asdict(wanted), wanted.threads, left)


def _measure_tests(setting: GpuCheckSetting, folder: Path, limit: Seconds) -> dict[str, Any]:
    return run_gpu_tests(Path(setting.tests or ""), folder / "tests.xml", limit)


#: In the order in which they run: what is worth most first.
PARTS = {
    "ticks": Part(60.0, 0.5, _measure_ticks),
    "training": Part(60.0, 0.4, partial(_measure_training, name="ours_counted", recompute=True)),
    "tests": Part(30.0, 0.25, _measure_tests),
    "training_kept": Part(60.0, 0.4, partial(_measure_training, name="ours_counted", recompute=False)),
    "in_tree": Part(60.0, 0.4, partial(_measure_training, name="in_tree", recompute=False)),
}


# --- the process of the ticks -------------------------------------------------------------------------------------------


def ticks(
    folder: Path, size: Size, device: str, precision: str, callers: list[int], ticks: int, until: float
) -> dict[str, Any]:
    """Measures each number of callers; what is found so far is always on disk.

    Args:
        until: by `time.time`; what would take longer is not begun.

    Returns:
        `what`; `copy_bandwidth`, `matmul_rate`; `chunk_frames`; `work`: a `StageWork` per stage, or `work_error`; `rows`, in
        the order in which they were measured, as `_row` makes them.
    """
    found: dict[str, Any] = {
        "copy_bandwidth": copy_bandwidth(device),
        "matmul_rate": matmul_rate(device, torch.bfloat16 if precision == "bf16" else torch.float32),
    }
    model = random_model(size, device, precision)
    found["what"] = f"{sum(p.numel() for p in model.parameters()) / 1e6:,.0f} million parameters, random"
    found["chunk_frames"] = model.perception.chunk_frames
    rows: list[dict[str, Any]] = []
    found["rows"] = rows
    try:
        found["work"] = {stage: asdict(done) for stage, done in stage_work(model).items()}
    except Exception as error:  # ticks are measured without a floor
        found["work_error"] = one_line(error)
    for number in by_worth(callers):
        rows.append({"callers": number, **_row(model, number, ticks, until - time.time(), rows)})
        with whole_file(folder / _ROWS) as path:
            path.write_text(json.dumps(found))
    return found


def by_worth(callers: list[int]) -> list[int]:
    """Numbers of callers in the order in which they are measured: `FIRST_CALLERS`, then from few to many."""
    return [number for number in FIRST_CALLERS if number in callers] + sorted(set(callers) - set(FIRST_CALLERS))


def _row(model: DuplexS2SModel, callers: int, ticks: int, left: Seconds, before: list[dict[str, Any]]) -> dict[str, Any]:
    """The ticks of a number of callers.

    Args:
        left: time for it.
        before: rows that were measured before, by which it is judged whether the time is enough.

    Returns:
        `p50`, `p99` and other fields of `Ticks`, `peak_bytes`, `took`; or `out_of_memory` or `error`, what was said; or
        `not_run`, why.
    """
    needed = max((row["took"] * max(1.0, callers / row["callers"]) for row in before if "took" in row), default=0.0)
    if left < needed or left <= 0:
        return {"not_run": f"it needs about {needed:.0f} s, and {max(0.0, left):.0f} s are left"}
    began = time.perf_counter()
    options = {"cuda_graphs": True} if model.device.type == "cuda" else {}
    try:
        (seen,) = measure_batches(model, user_speech(None, USER_SAMPLE_RATE), [callers], ticks, options)
    except Exception as error:
        return {"out_of_memory" if out_of_memory(error) else "error": one_line(error)}
    finally:
        gc.collect()
        if model.device.type == "cuda":
            with suppress(RuntimeError):  # of a GPU that is lost, as the next row will say
                torch.cuda.empty_cache()
    return {**asdict(seen.ticks), "peak_bytes": seen.peak_bytes, "took": time.perf_counter() - began}


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one before it in its chain, says that memory ran out."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        if any(words in str(error).lower() for words in ("out of memory", "alloc_failed", "can't allocate memory")):
            return True
        error = error.__cause__ or error.__context__
    return False


def tick_floors(part: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[Seconds, Seconds]:
    """The least time of a mean tick: to read weights and what callers remember, and to do its arithmetic.

    Weights are read in each run of a stage. A caller is heard once in an encoder chunk of `chunk_frames` ticks, and thinks and
    speaks in each tick.

    Args:
        part: as `ticks` returns it, with `work`.
        row: one of its `rows` that was measured.
    """
    reading = arithmetic = 0.0
    for stage in STAGES:
        work = StageWork(**part["work"][stage])
        runs = row["stages"][stage]["count"] / row["count"]
        callers = row["callers"] / (part["chunk_frames"] if stage in ("mel", "encoder") else 1)
        reading += (runs * work.weights + callers * work.remembered) / part["copy_bandwidth"]
        arithmetic += callers * work.operations / part["matmul_rate"]
    return reading, arithmetic


if __name__ == "__main__":
    main({"ticks": ticks})
