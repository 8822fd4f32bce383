"""How the stages of a step are run: as they are, compiled, as CUDA graphs; and timed, where somebody wants to know.

Stages as CUDA graphs: what a stage does on the GPU is recorded once for each shape of its inputs, and from then on replayed.

A step of a language model is a thousand small operations, and Python takes longer to ask for them than the GPU to do them. A
graph asks once. It reads and writes always the same memory:

    inputs ── copied ──> its own inputs ── the stage ──> its own outputs          read them before the next call
                                             │
                                           state                                  of the rows, where it always lies

While it is recorded a stage runs a few times in earnest. Its inputs are zeros then: no row is live, so no state changes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nemo_duplex.inputs import InputError
from nemo_duplex.streaming.rows_state import changed, tensors
from nemo_duplex.streaming.step_timer import StepTimer

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


class StageRunner:
    """Runs stages: functions of tensors, of constant shapes, that write their state in place.

    Args:
        device: where they run.
        timer: takes their times.
        compile: whether torch.compile makes them faster; the first steps then take long, and numbers change in the last digits.
        cuda_graphs: whether they are recorded and replayed; None does so on a GPU.

    Attributes:
        rehearses: whether a shape is slow when it is met for the first time.

    Raises:
        InputError: for CUDA graphs without a GPU, or where nothing can be compiled.
    """

    def __init__(
        self,
        device: torch.device,
        timer: StepTimer | None = None,
        compile: bool = False,
        cuda_graphs: bool | None = None,
    ) -> None:
        if cuda_graphs and device.type != "cuda":
            raise InputError(f"cuda_graphs=True needs a model on a CUDA device, this one is on {device}. Leave it out.")
        if compile:
            _check_compiler(device)
        self._timed = timer.stage if timer else lambda stage: nullcontext()
        self._compile = compile
        graphs = device.type == "cuda" if cuda_graphs is None else cuda_graphs
        self._capture = CudaCapture(device) if graphs else None
        self.needs_warm_up = compile or graphs
        self._stages: dict[str, Stage] = {}

    def __call__(self, name: str, stage: Stage, state: Any, *inputs: Any) -> Any:
        """What `stage` gives; where it is recorded, that lies where the next call overwrites it. One stage to a name."""
        if name not in self._stages:
            self._stages[name] = self._prepared(stage)
        with self._timed(name):
            return self._stages[name](state, *inputs)

    def _prepared(self, stage: Stage) -> Stage:
        if self._compile:
            stage = torch.compile(stage, dynamic=False)
        return GraphedStage(stage, self._capture) if self._capture else stage


def _check_compiler(device: torch.device) -> None:
    try:
        torch.compile(torch.sin, dynamic=False)(torch.zeros(3, device=device))
    except Exception as error:  # many kinds, by what is missing
        lines = str(error).strip().splitlines() or [type(error).__name__]
        needed = "a C++ compiler such as g++" if device.type == "cpu" else "Triton and a C compiler"
        raise InputError(f"compile=True needs {needed} ({lines[0][:150]}). Install it, or leave compile out.") from error
