"""What the four stages of a step take, beside the least time that the machine's memory and arithmetic allow (its roofline).

Most of one caller's step is products of a vector and a matrix. Every weight is read once, so weights over bandwidth is the
least that a stage can take. With many callers arithmetic counts too, and the caches of each caller are read as well.

Measured in a process of its own, which `measure_full_size` starts: `python -m nemo_duplex.benchmark.roofline stages FOLDER`.
"""

from __future__ import annotations

import gc
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from nemo_duplex.benchmark.callers import user_speech
from nemo_duplex.benchmark.machine import PeakMemory, copy_bandwidth, matmul_rate, read_bandwidth
from nemo_duplex.benchmark.measured_models import Size, random_model
from nemo_duplex.benchmark.measurement import main, run_measurement
from nemo_duplex.benchmark.sessions import Simulation, Ticks, simulate
from nemo_duplex.benchmark.table import Table, callers_in_words, measured_on, milliseconds, percentiles
from nemo_duplex.frames import USER_SAMPLE_RATE, Seconds
from nemo_duplex.kernels.linear import Int8Linear, in_int8
from nemo_duplex.streaming.rows import AgentRows
from nemo_duplex.streaming.stage_runner import StageRunner, tensors
from nemo_duplex.streaming.step_timer import StepTimer

if TYPE_CHECKING:
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel

#: The stages that read weights, in the order in which they run.
STAGES = ("mel", "encoder", "llm", "codec")


@dataclass(frozen=True)
class StageWork:
    """What one run of a stage has to do.

    Args:
        weights: bytes, however many rows there are.
        remembered: bytes of caches and histories of each row.
        operations: of each row: multiplications and additions in products and convolutions.
    """

    weights: int
    remembered: int
    operations: int

    def read_time(self, rows: int, bandwidth: float) -> Seconds:
        """The least time to read what `rows` rows need at `bandwidth` bytes per second; for 0 rows, the weights alone."""
        return (self.weights + rows * self.remembered) / bandwidth

    def compute_time(self, rows: int, rate: float) -> Seconds:
        """The least time for the arithmetic of `rows` rows at `rate` operations per second."""
        return rows * self.operations / rate


@dataclass(frozen=True)
class BatchTimes:
    """Ticks and stages of a number of callers, and the most memory that the process or the GPU held meanwhile (bytes)."""

    ticks: Ticks
    peak_bytes: int


def measure_full_size(
    size: Size,
    device: str,
    precision: str,
    threads: int,
    ticks: int,
    batches: Sequence[int],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Measures a random model in a process of its own.

    Args:
        size: of the model.
        device, precision, threads: `cpu` or `cuda`; `32`, or `bf16` for weights in bfloat16; of the CPU.
        ticks: measured for each batch.
        batches: numbers of callers.
        options: of `model.open_engine`.

    Returns:
        `what`; `copy_bandwidth`, `read_bandwidth`, `matmul_rate`; `work`: a `StageWork` per stage; `batches`: `BatchTimes`.
    """
    setting = dict(size=size, device=device, precision=precision, ticks=ticks, batches=list(batches), options=dict(options))
    with tempfile.TemporaryDirectory(prefix="nemo_duplex-benchmark-") as folder:
        return run_measurement("roofline", "stages", Path(folder), setting, threads)


def stages(
    folder: Path, size: Size, device: str, precision: str, ticks: int, batches: list[int], options: dict[str, Any]
) -> dict[str, Any]:
    """The process of `measure_full_size`."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    rates = {
        "copy_bandwidth": copy_bandwidth(device),
        "read_bandwidth": read_bandwidth(device),
        "matmul_rate": matmul_rate(device, dtype),
    }
    model = random_model(size, device, precision)
    times = measure_batches(model, user_speech(None, USER_SAMPLE_RATE), batches, ticks, options)
    return {
        "what": f"{sum(p.numel() for p in model.parameters()) / 1e6:,.0f} million parameters, random",
        **rates,
        "work": {stage: asdict(done) for stage, done in stage_work(model, options["int8"]).items()},
        "batches": [asdict(batch) for batch in times],
    }


def stage_work(model: DuplexS2SModel, int8: bool = False) -> dict[str, StageWork]:
    """What each stage does. Not counted: embedding tables, of which a frame reads a few rows, and the FFT of the mel."""
    with torch.inference_mode():
        state = AgentRows(model, StageRunner(model.device, cuda_graphs=False)).init_state(1)
    perception, lm, codec = model.perception, model.lm, model.audio_codec.model
    if int8:
        perception, lm = in_int8(perception), in_int8(lm)
    weights: dict[str, list[nn.Module]] = {
        "encoder": [perception.encoder, perception.modality_adapter, perception.proj],
        "llm": [lm.backbone.llm, lm.backbone.lm_head, lm.speech_head],
        "codec": [codec.audio_decoder],
    }
    stream = state.perception
    remembered = {
        "mel": [stream.samples, stream.mel],
        "encoder": [stream.encoder, stream.adapter],
        "llm": [state.lm],
        "codec": [state.decoder],
    }
    featurizer = perception.preprocessor.featurizer
    read = {stage: sum(_weights(module) for module in modules) for stage, modules in weights.items()}
    read["mel"] = _bytes(featurizer.fb) + _bytes(featurizer.window)
    kept = {stage: sum(_bytes(t) for part in parts for t in tensors(part)) for stage, parts in remembered.items()}
    operations = _operations(model)
    return {stage: StageWork(read[stage], kept[stage], operations[stage]) for stage in STAGES}


def measure_batches(
    model: DuplexS2SModel, audio: np.ndarray, batches: Sequence[int], ticks: int, options: Mapping[str, Any] | None = None
) -> list[BatchTimes]:
    """Simulates each number of callers, one after the other.

    Args:
        audio: (S,) at the model's user_sample_rate.
        options: of `model.open_engine`.
    """
    measured = []
    for sessions in batches:
        gc.collect()  # or the memory of the batch before would be counted
        with PeakMemory(model.device) as memory:
            seen = simulate(model, audio, sessions, Simulation(ticks=ticks, give_up=False, options=options or {}))
        measured.append(BatchTimes(seen, memory.peak))
    return measured


def stages_tables(result: Mapping[str, Any]) -> Iterator[Table]:
    """The part `stages` of a result as tables."""
    part, setting = result["stages"], result["setting"]
    bandwidth, rate = part["copy_bandwidth"], part["matmul_rate"]
    work = {stage: StageWork(**part["work"][stage]) for stage in STAGES}
    options = [name for name in ("int8", "compile", "cuda_graphs") if setting[name]]
    about = [
        ", ".join([part["what"], f"precision {setting['precision']}", *options]),
        measured_on(result),
        f"floor: the stage's weights over the bandwidth of a copy, {bandwidth / 1e9:,.1f} GB/s of bytes read and written "
        f"(reading alone: {part['read_bandwidth'] / 1e9:,.1f} GB/s)",
        "with callers: the same with what callers remember; arithmetic: operations of all callers over the rate of a large "
        f"product of matrices, {rate / 1e9:,.0f} GFLOP/s",
    ]
    rows: list[tuple[str, ...]] = []
    ticks: list[tuple[str, ...]] = []
    for batch in part["batches"]:
        seen, callers = batch["ticks"], batch["ticks"]["sessions"]
        for stage in STAGES:
            times, floor = seen["stages"][stage], work[stage].read_time(0, bandwidth)
            least = (floor, work[stage].read_time(callers, bandwidth), work[stage].compute_time(callers, rate))
            took = map(milliseconds, (times["p50"], times["p99"]))
            weights, ratio = f"{work[stage].weights / 1e6:,.1f} MB", f"{times['p50'] / floor:.1f} x"
            rows.append((f"{stage}, {callers_in_words(callers)}", *took, weights, *map(milliseconds, least), ratio))
        runs_per_tick = {stage: seen["stages"][stage]["count"] / seen["count"] for stage in STAGES}
        floor = sum(work[stage].read_time(callers, bandwidth) * runs_per_tick[stage] for stage in STAGES)
        ticks.append((str(callers), *percentiles(seen), milliseconds(floor), f"{batch['peak_bytes'] / 1e9:.2f} GB"))
    columns: tuple[str, ...] = ("stage", "p50", "p99", "weights", "floor", "with callers", "arithmetic", "p50 to floor")
    yield Table(f"Stages at full size ({setting['size'] or 'paper'})", about, columns, rows)
    columns = ("callers", "p50", "p95", "p99", "mean floor, with callers", f"memory, {setting['device']}")
    yield Table("Ticks at full size", [], columns, ticks)


class _OperationCounter(StepTimer):
    """Counts the operations of stages where a timer would take their times."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        with counting() as counter:
            yield
        self.of[name] = counter.get_total_flops()


@contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """Counts multiplications and additions of products, attention and convolutions in a block: `get_total_flops()`."""
    direct: dict[Any, Any] = {  # the counter does not know them
        torch.ops.mkldnn._convolution_pointwise: _convolution_operations,
        torch.ops.mkldnn._linear_pointwise: _linear_operations,
    }
    with FlopCounterMode(display=False, custom_mapping=direct) as counter:
        with sdpa_kernel(SDPBackend.MATH):  # a CPU's own attention counts as nothing
            yield counter


def _convolution_operations(columns: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """Of shapes: columns (B, D, ...), weight, and what comes out."""
    return conv_flop_count(list(columns), list(weight), list(out_shape))


def _linear_operations(x: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """Of shapes: features (..., in), weight, and what comes out, (..., out)."""
    return 2 * x[-1] * math.prod(out_shape)


def _operations(model: DuplexS2SModel) -> dict[str, int]:
    """Of each stage, for one of several callers who have just begun. (A single one steps one memory alone until it is old.)"""
    counter, callers = _OperationCounter(), 2
    engine = model.open_engine(max_sessions=callers, timer=counter, cuda_graphs=False)
    sessions = [engine.open_session() for _ in range(callers)]
    for session in sessions:
        session.push(np.zeros(2 * model.perception.chunk_samples, np.float32))
    engine.run_until_idle()
    for session in sessions:
        session.close()
    return {stage: operations // callers for stage, operations in counter.of.items()}


def _weights(module: nn.Module) -> int:
    """Bytes of all weights but the projections of position embeddings, which are computed once."""
    parts = [part for name, part in module.named_modules() if not name.endswith("linear_pos")]
    in_int8_layers = sum(part.in_features * part.out_features for part in parts if isinstance(part, Int8Linear))
    return in_int8_layers + sum(_bytes(weight) for part in parts for weight in part.parameters(recurse=False))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


if __name__ == "__main__":
    main({"stages": stages})
