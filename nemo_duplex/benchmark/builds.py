"""This build beside another one of nemo_duplex, in turns, on one machine: every figure is also a ratio, new to old.

    paper8, paper32     the paper's size, one caller: a tick and its stages, in 8 bits and in float32
    smollm              an agent in the geometry of SmolLM2-135M, one caller on one core: the same, both ways
    callers             a small agent: how many callers are in time, and the ticks of a fixed number
    file                a whole recording at once, also beside NeMo's in-tree model with the same weights
    train               a training step of the agent of smollm, with LoRA and in full
    start               fresh processes: imports, --help, an agent restored

The older build is another checkout, such as a git worktree. Each build runs in a process of its own (`one_build.py`).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from nemo_duplex.benchmark.fresh_starts import COMMANDS, check_package, started
from nemo_duplex.benchmark.machine import cpu_threads, describe_machine, matmul_rate
from nemo_duplex.benchmark.measured_models import Size, check_size
from nemo_duplex.benchmark.sessions import SESSION_COUNTS
from nemo_duplex.benchmark.table import Table, callers_in_words, measured_on
from nemo_duplex.benchmark.turns import COLUMNS, MILLISECONDS, NUMBER, SECONDS, Build, build, compared, in_turns, rate, row
from nemo_duplex.frames import FRAME_RATE, Seconds
from nemo_duplex.inputs import InputError, existing_file
from nemo_duplex.streaming.step_timer import STAGES

#: The checkout, or the folder of packages, that this file belongs to.
HERE = Path(__file__).parents[2]
_INT8 = {"int8": True}
#: How often callers in time are counted; a count takes minutes.
_MOST_SEARCHES = 3
_LORA = "model.lora={r: 16, lora_alpha: 32, target_modules: all-linear}"


@dataclass(frozen=True)
class BuildsSetting:
    """What is measured; the keys of `conf/benchmark.yaml` that say "builds" or nothing.

    Args:
        against: the checkout of the older build; a folder with `nemo_duplex/__init__.py`.
        parts: which of `PARTS`; None: all.
        size: of the models of all parts but `callers` and `start`; None: that of the part.
        model: agent of the parts `callers` and `start`; None: random weights in the geometry of `make demo`.
        rounds: turns of each build.
        ticks: of each build, in all rounds together; and for each number of callers that is tried.
        callers: whose ticks are compared in the part `callers`.
        least, most: numbers of callers that are tried.
        histories: Seconds; the longest is the length of the recording of `file`.
        batch, seconds, warmup, steps: of the part `train`: conversations in a step, how long each is, steps before the first
            round, steps in a round.
        chunk, activation_checkpointing, precision: of the part `train`: keys of both trainings.
        old_keys, new_keys: further `key=value` of conf/duplex_tiny.yaml, of the training of one build.
        threads: of the CPU; the part smollm has one.
        device: "cpu".
    """

    against: str | None = None
    parts: list[str] | None = None
    size: Size | None = None
    model: str | None = None
    rounds: int = 10
    ticks: int = 300
    callers: int = 128
    least: int = 1
    most: int = 256
    histories: list[Seconds] = field(default_factory=lambda: [10.0, 30.0, 60.0])
    batch: int = 4
    seconds: Seconds = 20.0
    warmup: int = 1
    steps: int = 3
    chunk: int = 256
    activation_checkpointing: bool = True
    precision: str = "32"
    old_keys: list[str] = field(default_factory=list)
    new_keys: list[str] = field(default_factory=list)
    threads: int = 2
    device: str = "cpu"

    @property
    def checkouts(self) -> dict[str, Path]:
        """The folders of the builds "old" and "new"."""
        return {"old": Path(self.against or "").resolve(), "new": HERE}

    def check(self) -> None:
        """Refuses what cannot be measured, before anything is.

        Raises:
            InputError: naming the key.
        """
        if self.against is None:
            raise InputError("against is not given: the folder of an older checkout of nemo_duplex, such as a git worktree.")
        if not (Path(self.against) / "nemo_duplex" / "__init__.py").is_file():
            raise InputError(
                f"against={self.against}: expected a checkout of nemo_duplex, a folder with nemo_duplex/__init__.py."
            )
        if self.parts is not None and (not self.parts or not set(self.parts) <= set(PARTS)):
            raise InputError(f"parts=[{','.join(map(str, self.parts))}]: expected some of {', '.join(PARTS)}.")
        if self.device != "cpu":
            raise InputError(f"device={self.device}: builds are compared on a CPU. Use device=cpu.")
        if self.precision not in ("32", "bf16"):
            raise InputError(f"precision={self.precision}: expected 32 or bf16.")
        check_size(self.size)
        if not self.histories or min(self.histories) < 1:
            raise InputError(f"histories={self.histories}: expected numbers of 1 or more.")
        if self.model is not None:
            existing_file(self.model, "model")


def benchmark_builds(setting: BuildsSetting) -> dict[str, Any]:
    """Measures the parts, one after the other.

    Returns:
        `machine`, `date`, `setting`, `builds` (in words), and of each part what it is `about`, its `figures` as `compared`
        returns them, and the Seconds that it `took`; plain data.

    Raises:
        InputError: for a setting that is not possible, or a build that fails.
    """
    setting.check()
    with cpu_threads(setting.threads):
        result: dict[str, Any] = {
            "machine": describe_machine("cpu"),
            "date": time.strftime("%Y-%m-%d"),
            "setting": asdict(setting),
            "builds": [f"{name}: {_in_words(checkout)}" for name, checkout in setting.checkouts.items()],
        }
    for part in setting.parts or PARTS:
        print(f"{part} ...", file=sys.stderr, flush=True)
        start = time.perf_counter()
        about, figures = PARTS[part][1](setting)
        result[part] = {"about": about, "figures": figures, "took": time.perf_counter() - start}
    return result


def builds_tables(result: Mapping[str, Any]) -> list[Table]:
    """What was measured, a table for each part."""
    general = [
        *result["builds"],
        measured_on(result),
        "ratios: of all rounds together; the smallest and the largest of one round",
    ]
    return [
        Table(title, [*result[part]["about"], *general], COLUMNS, [row(figure) for figure in result[part]["figures"]])
        for part, (title, _) in PARTS.items()
        if part in result
    ]


def _in_words(checkout: Path) -> str:
    """The folder, and its commit where there is one."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        commit, changes = git("rev-parse", "--short", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return str(checkout)
    return f"{checkout}, commit {commit}{' with changes' if changes else ''}"


# --- the parts --------------------------------------------------------------------------------------------------------

Measured = tuple[list[str], list[dict[str, Any]]]


@contextmanager
def _both(
    setting: BuildsSetting, part: str, threads: int, own: Mapping[str, Mapping[str, Any]] = {}, **given: Any
) -> Iterator[dict[str, Build]]:
    """Both builds, loaded one after the other; `own` is what only one of them is given."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(build(name, checkout, part, threads, **given, **own.get(name, {})))
            for name, checkout in setting.checkouts.items()
        }


def _ticks(setting: BuildsSetting, sides: Sequence[tuple[Build, dict[str, Any]]], callers: int) -> list[dict[str, list]]:
    """Ticks of an engine for each side (a build, and options of its engine): of each, its times by figure, round by round."""
    for one, options in sides:
        one.ask(open=callers, options=options)
    asked = [(one, {"options": options}) for one, options in sides]
    answers = in_turns(asked, setting.rounds, ticks=-(-setting.ticks // setting.rounds))
    return [{name: [answer["times"][name] for answer in own] for name in own[0]["times"]} for own in answers]


def _tick_figures(old: Mapping[str, list], new: Mapping[str, list], after: str = "") -> list[dict[str, Any]]:
    names = [name for name in ("tick", *STAGES) if name in old]
    return [figure for name in names for figure in compared(f"{name}{after}", old[name], new[name], MILLISECONDS)]


def _said_of_ticks(setting: BuildsSetting, model: str, callers: int, threads: int) -> str:
    ticks = -(-setting.ticks // setting.rounds)
    return f"{model}, {callers_in_words(callers)}, threads {threads}; {setting.rounds} rounds of {ticks} ticks of each build"


def _paper(setting: BuildsSetting, options: dict[str, Any]) -> Measured:
    size = setting.size or "paper"
    with _both(setting, "ticks", setting.threads, model=size) as builds:
        old, new = _ticks(setting, [(one, options) for one in builds.values()], 1)
    about = _said_of_ticks(setting, f"random weights, size {size}, {'int8' if options else 'float32'}", 1, setting.threads)
    return [about], _tick_figures(old, new)


def _smollm_model(setting: BuildsSetting) -> str:
    return "smollm_tiny" if setting.size == "tiny" else "smollm"


def _smollm(setting: BuildsSetting) -> Measured:
    model = _smollm_model(setting)
    with _both(setting, "ticks", 1, model=model) as builds:
        sides = [(one, options) for options in ({}, _INT8) for one in builds.values()]
        old, new, old8, new8 = _ticks(setting, sides, 1)
    about = _said_of_ticks(setting, f"random weights, {model}", 1, 1)
    return [about], [*_tick_figures(old, new, ", float32"), *_tick_figures(old8, new8, ", int8")]


def _callers(setting: BuildsSetting) -> Measured:
    path = setting.model and str(Path(setting.model).resolve())
    with _both(setting, "ticks", setting.threads, model="demo", path=path) as builds:
        sides: list[tuple[Build, dict[str, Any]]] = [(builds["old"], {}), (builds["new"], {}), (builds["new"], _INT8)]
        searches = [_in_time(setting, sides) for _ in range(min(setting.rounds, _MOST_SEARCHES))]
        old, new, new8 = _ticks(setting, sides, setting.callers)
    most = [[[found] for found in side] for side in zip(*searches)]
    about = [
        _said_of_ticks(setting, setting.model or "random weights, the agent of make demo", setting.callers, setting.threads),
        f"in time: the most callers, of {setting.least} to {setting.most}, with 99 of 100 ticks within 80 ms; {setting.ticks} "
        f"ticks for each number; the median of {len(searches)} searches",
        "int8: the new build in 8 bits beside the old one in float32",
    ]
    figures = [
        *compared("callers in time", most[0], most[1], NUMBER),
        *compared("callers in time, int8", most[0], most[2], NUMBER),
        *_tick_figures(old, new),
        *_tick_figures(old, new8, ", int8"),
    ]
    return about, figures


def _in_time(setting: BuildsSetting, sides: Sequence[tuple[Build, dict[str, Any]]]) -> list[int]:
    """Of each side the largest number of callers in time, 0 for none; each number is tried by one side after the other."""
    most = [0 for _ in sides]
    climbing = set(range(len(sides)))
    for callers in SESSION_COUNTS:
        for side in sorted(climbing) if setting.least <= callers <= setting.most else ():
            one, options = sides[side]
            if one.ask(simulate=callers, ticks=setting.ticks, options=options)["in_time"]:
                most[side] = callers
            else:
                climbing.remove(side)
    return most


def _file(setting: BuildsSetting) -> Measured:
    seconds, rounds = max(setting.histories), setting.rounds
    with tempfile.TemporaryDirectory(prefix="nemo_duplex-benchmark-") as folder, ExitStack() as stack:
        given: dict[str, Any] = {"folder": folder, "size": setting.size or "small", "seconds": seconds}
        nemos = stack.enter_context(build("in-tree", HERE, "recording", setting.threads, whose="in_tree", **given))
        both = stack.enter_context(_both(setting, "recording", setting.threads, whose="ours", **given))
        answers = in_turns([(one, {}) for one in (nemos, *both.values())], rounds)
    theirs, old, new = ([answer["times"]["recording"] for answer in own] for own in answers)
    frames = [own[0]["frames"] for own in answers]
    same = [sum(a == b for a, b in zip(frames[2], others)) for others in frames[:2]]
    about = [
        f"{nemos.first['what']}; threads {setting.threads}; {rounds} rounds",
        f"of {len(frames[2])} frames the new build has {same[1]} as the old one, {same[0]} as NeMo's in-tree model",
        "the last row: NeMo's in-tree model in place of the old build",
    ]
    name = f"{seconds:g} s in one piece"
    return about, [*compared(name, old, new, SECONDS), *compared(f"{name}, NeMo in-tree", theirs, new, SECONDS)]


def _train(setting: BuildsSetting) -> Measured:
    precision = {"32": "32-true", "bf16": "bf16-mixed"}[setting.precision]
    keys = [
        f"trainer.precision={precision}",
        f"model.loss.chunk={setting.chunk}",
        f"model.activation_checkpointing={str(setting.activation_checkpointing).lower()}",
    ]
    frames = setting.batch * round(setting.seconds / FRAME_RATE.seconds)
    about = [
        f"random weights, {_smollm_model(setting)}; {setting.batch} conversations of {setting.seconds:g} s, threads "
        f"{setting.threads}; {setting.rounds} rounds of {setting.steps} steps of each build",
        f"both: {' '.join(keys)}; only old: {' '.join(setting.old_keys) or '-'}; only new: {' '.join(setting.new_keys) or '-'}",
    ]
    with cpu_threads(setting.threads):
        most = matmul_rate("cpu", torch.bfloat16 if setting.precision == "bf16" else torch.float32)
    figures: list[dict[str, Any]] = []
    given: dict[str, Any] = {key: getattr(setting, key) for key in ("batch", "seconds", "warmup")}
    given["model"] = _smollm_model(setting)
    for name, lora in (("LoRA", [_LORA]), ("in full", [])):
        own = {"old": {"keys": [*keys, *lora, *setting.old_keys]}, "new": {"keys": [*keys, *lora, *setting.new_keys]}}
        with _both(setting, "training", setting.threads, own, **given) as builds:
            answers = in_turns([(one, {}) for one in builds.values()], setting.rounds, steps=setting.steps)
        losses = [one.first["loss"] for one in builds.values()]
        old, new = ([answer["times"]["step"] for answer in side] for side in answers)
        shares = [
            one.first["operations"] / statistics.median(chain(*steps)) / most for one, steps in zip(builds.values(), (old, new))
        ]
        about.append(
            f"{name}: loss of the first step {losses[0]:.6f} old, {losses[1]:.6f} new; products are "
            f"{builds['new'].first['operations'] * 1e-9:.3g} GFLOP a step, {shares[0]:.0%} old and {shares[1]:.0%} new of the "
            f"{most * 1e-9:.3g} GFLOP/s of a large one"
        )
        figures += compared(f"a step, {name}", old, new, SECONDS)
        figures += compared(f"frames a second, {name}", old, new, rate(frames))
    return about, figures


def _start(setting: BuildsSetting) -> Measured:
    with tempfile.TemporaryDirectory(prefix="nemo_duplex-benchmark-") as folder:
        agent = Path(setting.model or Path(folder) / "agent.nemo").resolve()
        if setting.model is None:  # by the old build, whose files both can read
            with build("old", setting.checkouts["old"], "ticks", setting.threads, model="demo") as old:
                old.ask(save=str(agent))
        for checkout in setting.checkouts.values():
            check_package(checkout)
        seconds: dict[str, dict[str, list[list[Seconds]]]] = {name: {"old": [], "new": []} for name in COMMANDS}
        for turn in range(1 + setting.rounds):  # the first one fills the caches
            for name, found in seconds.items():
                for side, checkout in setting.checkouts.items():
                    took = started(name, checkout, agent)
                    found[side] += [[took]] if turn else []
    about = [f"a fresh process each time, from its start to its end; {setting.rounds} rounds"]
    return about, [figure for name, found in seconds.items() for figure in compared(name, found["old"], found["new"], SECONDS)]


#: Of each part: the title of its table, and what measures it.
PARTS: dict[str, tuple[str, Callable[[BuildsSetting], Measured]]] = {
    "paper8": ("The paper's size in 8 bits", lambda setting: _paper(setting, _INT8)),
    "paper32": ("The paper's size in float32", lambda setting: _paper(setting, {})),
    "smollm": ("The size of SmolLM2-135M, one core", _smollm),
    "callers": ("Callers of a small agent", _callers),
    "file": ("A whole recording", _file),
    "train": ("A training step", _train),
    "start": ("Fresh processes", _start),
}
