"""Stages as CUDA graphs: what a stage does on the GPU is recorded once for each shape of its inputs, and from then on replayed.

A step of a language model is a thousand small operations, and Python takes longer to ask for them than the GPU to do them. A
graph asks once. It reads and writes always the same memory:

    inputs ── copied ──> its own inputs ── the stage ──> its own outputs          read them before the next call
                                             │
                                           state                                  of the rows, where it always lies

While it is recorded a stage runs a few times in earnest. Its inputs are zeros then: no row is live, so no state changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nemo_duplex.streaming.rows_state import changed, tensors

#: Of the state of rows and inputs (tensors, or dataclasses of them): what a stage gives.
Stage = Callable[..., Any]
#: Takes what a stage does with its inputs in place; returns what does it again, and where its outputs then lie.
Capture = Callable[[Callable[[], Any]], tuple[Callable[[], None], Any]]

_WARM_UP = 3


class _Graph(NamedTuple):
    """One recording. It keeps the state alive by whose identity it is found."""

    state: Any
    inputs: tuple[Any, ...]
    replay: Callable[[], None]
    outputs: Any


class GraphedStage:
    """A stage that is recorded where it meets a state or shapes for the first time.

    Args:
        stage: a function of tensors: constant shapes, no look at the data, state written in place and only where rows are live.
        capture: how it is recorded.
    """

    def __init__(self, stage: Stage, capture: Capture) -> None:
        self._stage, self._capture = stage, capture
        self._graphs: dict[tuple[Any, ...], _Graph] = {}

    def __call__(self, state: Any, *inputs: Any) -> Any:
        """As the stage. The outputs are overwritten by the next call with the same state and shapes."""
        key = (id(state), *map(_shape, inputs))
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._graphs[key] = self._record(state, inputs)
        for here, there in zip(tensors(graph.inputs), tensors(inputs)):
            here.copy_(there)
        graph.replay()
        return graph.outputs

    def _record(self, state: Any, inputs: tuple[Any, ...]) -> _Graph:
        own = changed(inputs, torch.zeros_like)
        return _Graph(state, own, *self._capture(lambda: self._stage(state, *own)))


def _shape(given: Any) -> Any:
    """What must be the same for a recording to fit: shapes of tensors, and all else itself."""
    if isinstance(given, Tensor):
        return given.shape
    shapes = tuple(tensor.shape for tensor in tensors(given))
    return shapes or given


class CudaCapture:
    """Records on a GPU, all graphs in one pool of memory: they run one after the other.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        with torch.cuda.device(self._device):
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UP):  # libraries choose their algorithms and take their memory
                    run()
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                outputs = run()
        return graph.replay, outputs
