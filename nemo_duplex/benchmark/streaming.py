"""The streaming engine, measured in one run on one machine.

    sessions    the agent: how fast one caller is served, and how many are served in time (`sessions.py`)
    stages      a model at full size: its four stages beside the machine's bandwidth and arithmetic (`roofline.py`)
    in_tree     the same work done by NeMo's in-tree model, which takes whole recordings only (`in_tree.py`)
    age         the agent: what a frame costs late in a conversation, beside one early (`age.py`)

The agent is measured in this process, with nothing else beside it; the rest in processes of their own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nemo_duplex.benchmark.age import SPAN, YOUNG, age_tables, compare_ages
from nemo_duplex.benchmark.in_tree import compare_with_in_tree, in_tree_tables
from nemo_duplex.benchmark.machine import check_device, cpu_threads, describe_machine
from nemo_duplex.benchmark.measured_models import MeasuredAgent, Size, check_size
from nemo_duplex.benchmark.roofline import measure_full_size, stages_tables
from nemo_duplex.benchmark.sessions import Simulation, measure_sessions, sessions_tables
from nemo_duplex.benchmark.table import Table
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, existing_file, existing_folder

PARTS = ("sessions", "stages", "in_tree", "age")
#: Callers of a model at full size.
_BATCHES = {"cpu": [1], "cuda": [1, 8, 32, 64, 128, 256]}


@dataclass(frozen=True)
class StreamingSetting:
    """What is measured; the keys of `conf/benchmark.yaml` that say "stream" or nothing.

    Args:
        parts: which of `PARTS`; None: all.
        model: agent of the parts `sessions` and `age`, a `.nemo`; None: random weights in the geometry of `make demo`.
        data: corpus whose dev set's users are played; None: noise.
        size: of the models of `stages` and `in_tree`; None: "paper" for `stages` and "small" for `in_tree`.
        device, precision, threads: `cpu` or `cuda`; `32`, or `bf16` for weights in bfloat16; of the CPU.
        ticks: frames that are measured for each number of sessions.
        most: largest number of sessions that is tried.
        batches: numbers of callers of the model of `stages`; None: 1, and on a GPU up to 256.
        compile, cuda_graphs, int8: of `model.open_engine`.
        histories: Seconds of conversation before the frame that is measured; the longest is also processed in one piece.
        minutes: age of the old conversation.
    """

    parts: list[str] | None = None
    model: str | None = None
    data: str | None = None
    size: Size | None = None
    device: str = "cpu"
    precision: str = "32"
    threads: int = 2
    ticks: int = 300
    most: int = 256
    batches: list[int] | None = None
    compile: bool = False
    cuda_graphs: bool | None = None
    int8: bool = False
    histories: list[Seconds] = field(default_factory=lambda: [10.0, 30.0, 60.0])
    minutes: float = 30.0

    def check(self) -> None:
        """Refuses what cannot be measured, before anything is.

        Raises:
            InputError: naming the key.
        """
        check_device(self.device)
        if self.precision not in ("32", "bf16"):
            raise InputError(f"precision={self.precision}: expected 32 or bf16.")
        check_size(self.size)
        if self.parts is not None and (not self.parts or not set(self.parts) <= set(PARTS)):
            raise InputError(f"parts=[{','.join(map(str, self.parts))}]: expected some of {', '.join(PARTS)}.")
        numbers = {"batches": self.batches or [1], "histories": self.histories, "ticks": [self.ticks], "most": [self.most]}
        for name, given in numbers.items():
            if not isinstance(given, list) or not given or not all(isinstance(n, int | float) and n >= 1 for n in given):
                raise InputError(f"{name}={given}: expected numbers of 1 or more.")
        if self.minutes * 60 < YOUNG + SPAN:
            raise InputError(
                f"minutes={self.minutes:g}: expected {(YOUNG + SPAN) / 60:g} or more; the young conversation is of minute 1."
            )
        if self.model is not None:
            existing_file(self.model, "model")
        if self.data is not None:
            existing_folder(self.data, "data")


def benchmark_streaming(setting: StreamingSetting) -> dict[str, Any]:
    """Measures the parts, one after the other.

    Returns:
        `machine`, `date`, `setting`, and of each part what its function returns, with the Seconds that it `took`; plain data.

    Raises:
        InputError: for a setting that is not possible.
    """
    setting.check()
    agent = MeasuredAgent(setting.model, setting.data, setting.device, setting.precision)
    options = {"compile": setting.compile, "cuda_graphs": setting.cuda_graphs, "int8": setting.int8}
    batches = setting.batches or _BATCHES[setting.device]
    device, threads = setting.device, setting.threads

    def age() -> dict[str, Any]:
        ages = compare_ages(agent.model, agent.users, YOUNG, setting.minutes * 60, SPAN)
        return {"about": agent.about, **asdict(ages)}

    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "sessions": lambda: measure_sessions(agent, Simulation(setting.ticks, options=options), setting.most),
        "stages": lambda: measure_full_size(
            setting.size or "paper", device, setting.precision, threads, setting.ticks, batches, options
        ),
        "in_tree": lambda: compare_with_in_tree(setting.size or "small", setting.data, device, threads, setting.histories),
        "age": age,
    }
    with cpu_threads(threads):
        result = {"machine": describe_machine(device), "date": time.strftime("%Y-%m-%d"), "setting": asdict(setting)}
        for part in setting.parts or PARTS:
            print(f"{part} ...", file=sys.stderr, flush=True)
            started = time.perf_counter()
            figures = measures[part]()
            result[part] = figures | {"took": time.perf_counter() - started}
    return result


def streaming_tables(result: Mapping[str, Any]) -> list[Table]:
    """What was measured, in the order of `PARTS`."""
    makers = {"sessions": sessions_tables, "stages": stages_tables, "in_tree": in_tree_tables, "age": age_tables}
    return [table for part in PARTS if part in result for table in makers[part](result)]
