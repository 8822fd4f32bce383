"""How the stages of a step are run: as they are, compiled, as CUDA graphs; and timed, where somebody wants to know."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.streaming.graphs import CudaCapture, GraphedStage, Stage
from nemo_duplex.streaming.step_timer import StepTimer


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
        self.rehearses = compile or graphs
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
