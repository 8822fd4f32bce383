"""What the four stages of a step take, beside what the memory alone would take to bring their weights.

One caller's step is products of a vector with a matrix for the most part: every weight is read once, so weights over bandwidth
is the least that a stage can take. With many callers arithmetic counts too, and what each of them remembers is read as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from nemo_duplex.benchmark.concurrency import Play, Ticks, play
from nemo_duplex.benchmark.memory import PeakMemory
from nemo_duplex.frames import Seconds
from nemo_duplex.streaming.rows import AgentRows
from nemo_duplex.streaming.rows_state import tensors

if TYPE_CHECKING:
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel

#: The stages that read weights, in the order in which they run.
STAGES = ("mel", "encoder", "llm", "codec")


@dataclass(frozen=True)
class Traffic:
    """Bytes that one run of a stage reads at least."""

    weights: int
    remembered: int  # by each row: caches and histories

    def floor(self, rows: int, bandwidth: float) -> Seconds:
        """The least time for `rows` rows at a bandwidth in bytes per second."""
        return (self.weights + rows * self.remembered) / bandwidth


@dataclass(frozen=True)
class Batch:
    """One measurement: ticks and stages of so many callers, and the most memory that the process or the GPU had to hold."""

    ticks: Ticks
    peak_bytes: int


def traffic(model: DuplexS2SModel) -> dict[str, Traffic]:
    """What each stage reads. The rows of embedding tables that a frame looks up are too few to count."""
    perception, lm, codec = model.perception, model.lm, model.audio_codec.model
    with torch.inference_mode():
        state = AgentRows(model).init_state(1)
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
    return {stage: Traffic(read[stage], kept[stage]) for stage in STAGES}


def measure(
    model: DuplexS2SModel, audio: np.ndarray, batches: Sequence[int], ticks: int, options: Mapping[str, Any]
) -> list[Batch]:
    """Lets batches of callers talk with the model, one batch after the other.

    Args:
        audio: (S,) at the model's user_sample_rate.
        options: of `model.open_engine`.
    """
    measured = []
    for sessions in batches:
        with PeakMemory(model.device) as memory:
            seen = play(model, audio, sessions, Play(ticks=ticks, give_up=False, options=options))
        measured.append(Batch(seen, memory.peak))
    return measured


def _weights(module: nn.Module) -> int:
    """All but the projections of position embeddings, which are computed once."""
    return sum(_bytes(weight) for name, weight in module.named_parameters() if "linear_pos" not in name)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
