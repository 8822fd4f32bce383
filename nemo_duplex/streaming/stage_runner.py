"""How the stages of a step are run: as they are, compiled, or as CUDA graphs; timed if the engine has a timer.

A step of a language model is a thousand small operations, and Python takes longer to launch them than the GPU to run them. A
CUDA graph is captured once for each shape of a stage's inputs, and from then on replayed with one launch. It always reads and
writes the same memory:

    inputs ── copied ──> its own inputs ── the stage ──> its own outputs          read them before the next call
                                             │
                                           state                                  of the rows; its buffers never move

A stage really runs a few times while it is captured. Its inputs are zeros then: no row is live, so no state changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import fields, is_dataclass, replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from nemo_duplex.inputs import InputError
from nemo_duplex.streaming.step_timer import StepTimer

Part = TypeVar("Part")

#: (state of the rows, *inputs) -> outputs, all tensors or dataclasses of tensors; the state is written in place.
Stage = Callable[..., Any]
#: Captures a call without arguments; returns what replays it, and the outputs that a replay overwrites.
Capture = Callable[[Callable[[], Any]], tuple[Callable[[], None], Any]]

# Runs before a capture.
_WARM_UP = 3


def tensors(part: Any) -> Iterator[Tensor]:
    """Each tensor of a dataclass, list or tuple, those in nested ones included."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, list | tuple):
        for item in part:
            yield from tensors(item)
    elif is_dataclass(part):
        for field in fields(part):
            yield from tensors(getattr(part, field.name))


def mapped(part: Part, change: Callable[[Tensor], Tensor]) -> Part:
    """The same dataclass, list or tuple with `change(tensor)` in the place of each tensor."""
    if isinstance(part, Tensor):
        return change(part)
    if isinstance(part, list | tuple):
        items = [mapped(item, change) for item in part]
        return part if all(new is old for new, old in zip(items, part)) else type(part)(items)
    if is_dataclass(part):
        old = {field.name: getattr(part, field.name) for field in fields(part)}
        new = {name: mapped(value, change) for name, value in old.items()}
        return replace(part, **{k: value for k, value in new.items() if value is not old[k]})  # type: ignore[type-var]
    return part


class _Graph(NamedTuple):
    """One capture. It holds the state so that the `id` by which it is found stays taken."""

    state: Any
    inputs: tuple[Any, ...]
    replay: Callable[[], None]
    outputs: Any


class GraphedStage:
    """A stage that is captured when it is called with a new state or new shapes.

    Args:
        stage: a function of tensors: constant shapes, no look at the data, state written in place and only where rows are live.
        capture: captures it.
    """

    def __init__(self, stage: Stage, capture: Capture) -> None:
        self._stage, self._capture = stage, capture
        self._graphs: dict[tuple[Any, ...], _Graph] = {}

    def __call__(self, state: Any, *inputs: Any) -> Any:
        """As the stage. The outputs are overwritten by the next call with the same state and shapes."""
        key = (id(state), *map(_shape, inputs))
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._graphs[key] = self._captured(state, inputs)
        for here, there in zip(tensors(graph.inputs), tensors(inputs)):
            here.copy_(there)
        graph.replay()
        return graph.outputs

    def _captured(self, state: Any, inputs: tuple[Any, ...]) -> _Graph:
        own = mapped(inputs, torch.zeros_like)
        return _Graph(state, own, *self._capture(lambda: self._stage(state, *own)))


def _shape(given: Any) -> Any:
    """What a graph is found by: the shapes of tensors, and everything else itself."""
    if isinstance(given, Tensor):
        return given.shape
    shapes = tuple(tensor.shape for tensor in tensors(given))
    return shapes or given


class CudaCapture:
    """Captures CUDA graphs, all in one pool of memory: they run one after the other.

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
    """Runs stages.

    Args:
        device: where they run.
        timer: takes their times.
        compile: whether to use torch.compile: the first steps then take long, and numbers change in the last digits.
        cuda_graphs: whether to use CUDA graphs; None does so on a GPU.

    Attributes:
        needs_warm_up: whether the first call with a new shape takes long.
        compiles: whether torch.compile is used.

    Raises:
        InputError: for CUDA graphs without a GPU, or if nothing can be compiled on this machine.
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
        self.compiles = compile
        graphs = device.type == "cuda" if cuda_graphs is None else cuda_graphs
        self._capture = CudaCapture(device) if graphs else None
        self.needs_warm_up = compile or graphs
        self._stages: dict[str, Stage] = {}

    def __call__(self, name: str, stage: Stage, state: Any, *inputs: Any) -> Any:
        """The outputs of `stage`; those of a CUDA graph are overwritten by the next call. Each name belongs to one stage."""
        if name not in self._stages:
            self._stages[name] = self._prepared(stage)
        with self._timed(name):
            return self._stages[name](state, *inputs)

    def _prepared(self, stage: Stage) -> Stage:
        if self.compiles:
            stage = torch.compile(stage, dynamic=False)
        return GraphedStage(stage, self._capture) if self._capture else stage


def _check_compiler(device: torch.device) -> None:
    try:
        torch.compile(torch.sin, dynamic=False)(torch.zeros(3, device=device))
    except Exception as error:  # its type depends on what is missing
        lines = str(error).strip().splitlines() or [type(error).__name__]
        needed = "a C++ compiler such as g++" if device.type == "cpu" else "Triton and a C compiler"
        raise InputError(f"compile=True needs {needed} ({lines[0][:150]}). Install it, or leave compile out.") from error
