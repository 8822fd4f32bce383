"""What the four stages of a step take, beside the least that the machine's memory and its arithmetic would take.

One caller's step is products of a vector with a matrix for the most part: every weight is read once, so weights over bandwidth
is the least that a stage can take. With many callers arithmetic counts too, and what each of them remembers is read as well.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from nemo_duplex.benchmark.concurrency import Play, Ticks, play
from nemo_duplex.benchmark.memory import PeakMemory
from nemo_duplex.frames import Seconds
from nemo_duplex.llm.int8_linear import Int8Linear, in_int8
from nemo_duplex.streaming.rows import AgentRows
from nemo_duplex.streaming.stage_runner import StageRunner, tensors
from nemo_duplex.streaming.step_timer import StepTimer

if TYPE_CHECKING:
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel

#: The stages that read weights, in the order in which they run.
STAGES = ("mel", "encoder", "llm", "codec")


@dataclass(frozen=True)
class Work:
    """What one run of a stage has to do."""

    weights: int  # bytes, however many rows there are
    remembered: int  # bytes of caches and histories of each row
    operations: int  # of each row: multiplications and additions in products and convolutions

    def reading(self, rows: int, bandwidth: float) -> Seconds:
        """The least time for `rows` rows at so many bytes per second; of 0 rows, for the weights alone."""
        return (self.weights + rows * self.remembered) / bandwidth

    def computing(self, rows: int, rate: float) -> Seconds:
        """The least time for `rows` rows at so many operations per second."""
        return rows * self.operations / rate


@dataclass(frozen=True)
class Batch:
    """One measurement: ticks and stages of so many callers, and the most memory that the process or the GPU had to hold."""

    ticks: Ticks
    peak_bytes: int


def work(model: DuplexS2SModel, int8: bool = False) -> dict[str, Work]:
    """What each stage does. Rows of embedding tables, of which a frame looks up a few, and the mel's FFT do not count."""
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
    heard = state.perception
    remembered = {
        "mel": [heard.samples, heard.mel],
        "encoder": [heard.encoder, heard.adapter],
        "llm": [state.lm],
        "codec": [state.decoder],
    }
    featurizer = perception.preprocessor.featurizer
    read = {stage: sum(_weights(module) for module in modules) for stage, modules in weights.items()}
    read["mel"] = _bytes(featurizer.fb) + _bytes(featurizer.window)
    kept = {stage: sum(_bytes(t) for part in parts for t in tensors(part)) for stage, parts in remembered.items()}
    operations = _operations(model)
    return {stage: Work(read[stage], kept[stage], operations[stage]) for stage in STAGES}


def measure(
    model: DuplexS2SModel, audio: np.ndarray, batches: Sequence[int], ticks: int, options: Mapping[str, Any] | None = None
) -> list[Batch]:
    """Lets batches of callers talk with the model, one batch after the other.

    Args:
        audio: (S,) at the model's user_sample_rate.
        options: of `model.open_engine`.
    """
    measured = []
    for sessions in batches:
        gc.collect()  # or the memory of the batch before would be counted
        with PeakMemory(model.device) as memory:
            seen = play(model, audio, sessions, Play(ticks=ticks, give_up=False, options=options or {}))
        measured.append(Batch(seen, memory.peak))
    return measured


class _Operations(StepTimer):
    """Counts operations where a timer takes times."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        direct = {torch.ops.aten.mkldnn_convolution: _of_convolution}  # the counter knows only those that choose their library
        counting = FlopCounterMode(display=False, custom_mapping=direct)
        with counting as counter, sdpa_kernel(SDPBackend.MATH):  # a CPU's own attention counts as nothing
            yield
        self.of[name] = counter.get_total_flops()


def _of_convolution(columns: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """Of shapes: columns (B, D, ...), weight, and what comes out."""
    return conv_flop_count(list(columns), list(weight), list(out_shape))


def _operations(model: DuplexS2SModel) -> dict[str, int]:
    """Of each stage, for one caller."""
    counter = _Operations()
    engine = model.open_engine(max_sessions=1, timer=counter, cuda_graphs=False)
    session = engine.open_session()
    session.push(np.zeros(2 * model.perception.chunk_samples, np.float32))
    engine.run_until_idle()
    session.close()
    return counter.of


def _weights(module: nn.Module) -> int:
    """All but the projections of position embeddings, which are computed once."""
    parts = [part for name, part in module.named_modules() if not name.endswith("linear_pos")]
    in_octets = sum(part.in_features * part.out_features for part in parts if isinstance(part, Int8Linear))
    return in_octets + sum(_bytes(weight) for part in parts for weight in part.parameters(recurse=False))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
