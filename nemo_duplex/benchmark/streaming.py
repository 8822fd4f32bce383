"""The streaming engine, measured in one run on one machine.

    sessions    the agent: how fast one caller is served, and how many are served in time (`concurrency.py`)
    stages      a model at full size: its four stages beside the bandwidth of the memory (`stages.py`)
    in_tree     the same work done by NeMo's in-tree model, which hears whole recordings only (`streaming_side.py`)
    age         the agent: what a frame costs late in a conversation, beside one early (`age.py`)

The agent is measured in this process, with nothing else beside it; the rest in processes of their own.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch

from nemo_duplex.benchmark.age import compare_ages
from nemo_duplex.benchmark.callers import speech_of
from nemo_duplex.benchmark.concurrency import Play, Ticks, climb, descend, play
from nemo_duplex.benchmark.machine import machine
from nemo_duplex.benchmark.models import agent
from nemo_duplex.benchmark.parts import Size, described, write_parts
from nemo_duplex.benchmark.side import run_side
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, existing_file, existing_folder
from nemo_duplex.models.duplex_s2s import DuplexS2SModel

PARTS = ("sessions", "stages", "in_tree", "age")
#: What is measured of a young and an old conversation; the young one's age.
_SPAN: Seconds = 60.0
_YOUNG: Seconds = 60.0
#: Callers of a model at full size.
_BATCHES = {"cpu": [1], "cuda": [1, 8, 32, 64, 128, 256]}


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Args:
        parts: which of `PARTS`.
        model: agent of the parts `sessions` and `age`, a `.nemo`; None takes random weights in the geometry of `make demo`.
        data: corpus whose dev set's users are heard; None takes noise.
        size: of the models of `stages` and `in_tree`; None is "paper" for the one and "small" for the other (`parts.py`).
        device, precision, threads: `cpu` or `cuda`; `32`, or `bf16` for weights in bfloat16; of the CPU.
        ticks: frames that are measured for each number of sessions.
        most: sessions that are tried.
        batches: callers of the model of `stages`; None: 1, and on a GPU up to 256.
        compile, cuda_graphs, int8: of `model.open_engine`.
        histories: seconds of conversation before the frame that is measured; the longest is also heard whole.
        minutes: age of the old conversation.
    """

    parts: list[str] = field(default_factory=lambda: list(PARTS))
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
    histories: list[float] = field(default_factory=lambda: [10.0, 30.0, 60.0])
    minutes: float = 30.0

    @property
    def full_size(self) -> Size:
        """Of the model of the part `stages`."""
        return self.size or "paper"

    @property
    def all_batches(self) -> list[int]:
        """Of the part `stages`."""
        return self.batches or _BATCHES[self.device]

    @property
    def options(self) -> dict[str, Any]:
        """Of `open_engine`."""
        return {"compile": self.compile, "cuda_graphs": self.cuda_graphs, "int8": self.int8}


def benchmark_streaming(setting: Setting) -> dict[str, Any]:
    """Runs the parts, one after the other.

    Returns:
        `machine`, `date`, `setting`, and of each part what its function below says; all of it can be written as JSON.

    Raises:
        InputError: for a setting that is not possible.
    """
    check(setting)
    torch.set_num_threads(setting.threads)
    result = {"machine": machine(setting.device), "date": time.strftime("%Y-%m-%d"), "setting": asdict(setting)}
    agents = _Agents(setting)
    measures = {"sessions": sessions, "stages": stages, "in_tree": in_tree, "age": age}
    for part in setting.parts:
        print(f"{part} ...", file=sys.stderr, flush=True)
        started = time.perf_counter()
        figures = measures[part](setting, agents)
        result[part] = figures | {"took": time.perf_counter() - started}
    return result


def check(setting: Setting) -> None:
    """Refuses what cannot be measured, before anything is."""
    if setting.device not in _BATCHES:
        raise InputError(f"device={setting.device}: expected cpu or cuda.")
    if setting.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda: there is no GPU here. Take device=cpu.")
    if setting.precision not in ("32", "bf16"):
        raise InputError(f"precision={setting.precision}: expected 32 or bf16.")
    if setting.size is not None and setting.size not in get_args(Size):
        raise InputError(f"size is {setting.size!r}, expected one of {', '.join(get_args(Size))}.")
    if not setting.parts or not set(setting.parts) <= set(PARTS):
        raise InputError(f"parts=[{','.join(map(str, setting.parts))}]: expected some of {', '.join(PARTS)}.")
    numbers = {"batches": setting.batches or [1], "histories": setting.histories, "ticks": [setting.ticks]}
    for name, given in (numbers | {"most": [setting.most]}).items():
        if not isinstance(given, list) or not given or not all(isinstance(n, int | float) and n >= 1 for n in given):
            raise InputError(f"{name}={given}: expected numbers of 1 or more.")
    if setting.minutes * 60 < _YOUNG + _SPAN:
        raise InputError(
            f"minutes={setting.minutes:g}: expected {(_YOUNG + _SPAN) / 60:g} or more; the young one is of minute 1."
        )
    if setting.model is not None:
        existing_file(setting.model, "model")
    if setting.data is not None:
        existing_folder(setting.data, "data")


class _Agents:
    """The agent and its users, once there is a part that needs them."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    @cached_property
    def model(self) -> DuplexS2SModel:
        model = agent(self._setting.model, self._setting.device)
        return model.to(torch.bfloat16) if self._setting.precision == "bf16" else model

    @cached_property
    def users(self) -> Any:
        return speech_of(self._setting.data, self.model.user_sample_rate)

    @property
    def about(self) -> list[str]:
        """What they are, in two lines."""
        millions = sum(p.numel() for p in self.model.parameters()) / 1e6
        random = "an agent of random weights in the geometry of conf/duplex_tiny.yaml, as no model= was given"
        noise = "noise in encoder chunks, as no data= was given"
        return [
            f"{self._setting.model or random}, {millions:.1f} million parameters",
            f"users: {f'dev set of {self._setting.data}' if self._setting.data else noise}",
        ]


def sessions(setting: Setting, agents: _Agents) -> dict[str, Any]:
    """`about`; `alone`: `Ticks` of one caller, each push answered at once; `spread`, `together`, `at_once`: lists of `Ticks`,
    by how callers come and are answered (`concurrency.py`); and `most` sessions in time of each of these, 0 for none."""
    model, users = agents.model, agents.users
    usual = Play(ticks=setting.ticks, options=setting.options)
    alone = play(model, users, 1, replace(usual, at_once=True, give_up=False))
    spread = list(climb(model, users, usual, setting.most))
    most = _most(spread) or 1
    together = list(descend(model, users, replace(usual, spread=False), most))
    at_once = list(descend(model, users, replace(usual, at_once=True), most))
    tried = {"spread": spread, "together": together, "at_once": at_once}
    return {
        "about": agents.about,
        "alone": asdict(alone),
        **{name: [asdict(ticks) | {"in_time": ticks.in_time} for ticks in list_] for name, list_ in tried.items()},
        "most": {name: _most(list_) for name, list_ in tried.items()},
    }


def _most(tried: list[Ticks]) -> int:
    return max((ticks.sessions for ticks in tried if ticks.in_time), default=0)


def stages(setting: Setting, agents: _Agents) -> dict[str, Any]:
    """As `streaming_side.stages`."""
    with tempfile.TemporaryDirectory(prefix="nemo_duplex-benchmark-") as name:
        (Path(name) / "setting.json").write_text(json.dumps(asdict(setting)))
        return run_side("streaming_side", "stages", Path(name))


def in_tree(setting: Setting, agents: _Agents) -> dict[str, Any]:
    """`what`; `in_tree` and `ours` as in `streaming_side.py`, without their tokens; `same_frames` of `frames` on both sides."""
    with tempfile.TemporaryDirectory(prefix="nemo_duplex-benchmark-") as name:
        folder = Path(name)
        config = write_parts(folder, setting.size or "small")
        (folder / "setting.json").write_text(json.dumps(asdict(setting)))
        (folder / "model.json").write_text(json.dumps(config))
        what = described(config)
        sides = {side: run_side("streaming_side", side, folder) for side in ("in_tree", "ours")}
    theirs, ours = (list(zip(side.pop("tokens"), side.pop("codes"))) for side in sides.values())
    return {"what": what, **sides, "frames": len(ours), "same_frames": sum(a == b for a, b in zip(theirs, ours))}


def age(setting: Setting, agents: _Agents) -> dict[str, Any]:
    """`about`, and the fields of `Ages`."""
    ages = compare_ages(agents.model, agents.users, _YOUNG, setting.minutes * 60, _SPAN)
    return {"about": agents.about, **asdict(ages)}
