"""How many callers an engine serves in time. Real time is simulated, without waiting for it.

Every tick is 80 ms: the next 80 ms of each caller are pushed, then the engine steps. A tick is in time if that took
less than 80 ms. Ticks follow each other at once, so a measurement takes as long as the work does.

An encoder chunk is several frames (two with [70,1]). Callers who came at different times (`spread`) complete their chunks in
different ticks; callers who came in the same tick complete them together. The frames of a chunk are answered one per tick
(`step`), each in time to follow the one before, or all of them as soon as the chunk is complete (`at_once`: `run_until_idle`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nemo_duplex.benchmark.callers import Caller
from nemo_duplex.benchmark.table import Table, callers_in_words, measured_on, milliseconds, percentiles
from nemo_duplex.frames import FRAME_RATE, Seconds
from nemo_duplex.streaming.step_timer import StageTimes, StepTimer

if TYPE_CHECKING:
    from nemo_duplex.benchmark.measured_models import MeasuredAgent
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.streaming.session import EngineSession

#: What a tick may take.
BUDGET: Seconds = FRAME_RATE.seconds
#: Encoder chunks before those that are measured: shapes are new, memory is touched, graphs are captured.
_WARM_UP_CHUNKS = 12
#: Numbers of sessions that are tried.
SESSION_COUNTS = (1, 2, 4, 8, 16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1024)
_MODES = {
    "spread": "came at different times",
    "together": "came in one frame",
    "at_once": "an encoder chunk's frames at once",
}


@dataclass(frozen=True)
class Simulation:
    """How real time is simulated.

    Args:
        ticks: that are measured.
        spread: whether callers come at different times.
        at_once: whether all frames of an encoder chunk are made in the tick that completes it.
        give_up: whether to stop as soon as more than one tick in a hundred is late.
        options: of `model.open_engine`.
    """

    ticks: int = 300
    spread: bool = True
    at_once: bool = False
    give_up: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ticks:
    """What the ticks of a simulation took.

    Args:
        sessions: callers.
        count: ticks measured.
        mean, p50, p95, p99: what one tick took.
        frames_per_tick: frames that each session got per tick; 1 keeps up with real time.
        stages: of the engine's steps, by name.
        opened: what it took to open the engine, the capture of its CUDA graphs included.
    """

    sessions: int
    count: int
    mean: Seconds
    p50: Seconds
    p95: Seconds
    p99: Seconds
    frames_per_tick: float
    stages: dict[str, StageTimes]
    opened: Seconds = 0.0

    @property
    def in_time(self) -> bool:
        """Whether 99 of 100 ticks took less than 80 ms."""
        return self.p99 < BUDGET


def simulate(model: DuplexS2SModel, audio: np.ndarray, sessions: int, simulation: Simulation) -> Ticks:
    """Serves `sessions` callers by one engine.

    Args:
        audio: (S,) at the model's user_sample_rate; all callers play it, each from another place.
    """
    timer, before = StepTimer(), time.perf_counter()
    engine = model.open_engine(max_sessions=sessions, timer=timer, **simulation.options)
    opened = time.perf_counter() - before
    chunk, step = model.perception.chunk_frames, engine.run_until_idle if simulation.at_once else engine.step
    callers = [Caller(audio, model.perception.samples_per_frame, number) for number in range(sessions)]
    first_tick = -_WARM_UP_CHUNKS * chunk
    arrivals = [first_tick + (number % chunk if simulation.spread else 0) for number in range(sessions)]
    calls: list[tuple[Caller, EngineSession]] = []
    seconds: list[Seconds] = []
    frames = 0
    for tick in range(first_tick, simulation.ticks):
        calls += [(caller, engine.open_session()) for caller, arrival in zip(callers, arrivals) if arrival == tick]
        if tick == 0:
            timer.reset()
        start = time.perf_counter()
        for caller, session in calls:
            session.push(caller.next_frame())
        answers = step()
        if tick >= 0:
            seconds.append(time.perf_counter() - start)
            frames += sum(map(len, answers.values()))
        if simulation.give_up and sum(s >= BUDGET for s in seconds) > simulation.ticks / 100:
            break
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99]).tolist()
    per_tick = frames / (sessions * len(seconds))
    return Ticks(sessions, len(seconds), float(np.mean(seconds)), p50, p95, p99, per_tick, timer.report(), opened)


def ramp_up(model: DuplexS2SModel, audio: np.ndarray, simulation: Simulation, most: int) -> Iterator[Ticks]:
    """More and more sessions, at most `most`, up to and including the first number that is not in time."""
    for sessions in SESSION_COUNTS:
        if sessions > most:
            return
        ticks = simulate(model, audio, sessions, simulation)
        yield ticks
        if not ticks.in_time:
            return


def ramp_down(model: DuplexS2SModel, audio: np.ndarray, simulation: Simulation, most: int) -> Iterator[Ticks]:
    """Fewer and fewer sessions from `most` on, down to and including the first number that is in time."""
    for sessions in reversed([count for count in SESSION_COUNTS if count <= most]):
        ticks = simulate(model, audio, sessions, simulation)
        yield ticks
        if ticks.in_time:
            return


def measure_sessions(agent: MeasuredAgent, simulation: Simulation, most: int) -> dict[str, Any]:
    """Measures how fast one caller is served, and how many are served in time.

    Returns:
        `about`; `alone`: `Ticks` of one caller, each push answered at once; `spread`, `together`, `at_once`: lists of `Ticks`,
        by how callers come and are answered; `most`: sessions in time of each of these, 0 for none.
    """
    model, audio = agent.model, agent.users
    alone = simulate(model, audio, 1, replace(simulation, at_once=True, give_up=False))
    spread = list(ramp_up(model, audio, simulation, most))
    in_time = _most_in_time(spread) or 1
    together = list(ramp_down(model, audio, replace(simulation, spread=False), in_time))
    at_once = list(ramp_down(model, audio, replace(simulation, at_once=True), in_time))
    tried = {"spread": spread, "together": together, "at_once": at_once}
    return {
        "about": agent.about,
        "alone": asdict(alone),
        **{mode: [asdict(ticks) | {"in_time": ticks.in_time} for ticks in seen] for mode, seen in tried.items()},
        "most": {mode: _most_in_time(seen) for mode, seen in tried.items()},
    }


def _most_in_time(tried: list[Ticks]) -> int:
    return max((ticks.sessions for ticks in tried if ticks.in_time), default=0)


def sessions_tables(result: Mapping[str, Any]) -> Iterator[Table]:
    """The part `sessions` of a result as tables."""
    part, setting = result["sessions"], result["setting"]
    alone, most = part["alone"], part["most"]
    about = [
        *part["about"],
        measured_on(result),
        f"one caller in pushes of 80 ms, answered at once: real-time factor {alone['mean'] / BUDGET:.3f}; pushes that bring "
        f"two frames take {milliseconds(alone['p95'])} (p95) to {milliseconds(alone['p99'])} (p99)",
        f"{most['spread']} sessions have 99 of 100 ticks within 80 ms ({most['together']} if all came in one frame, "
        f"{most['at_once']} if both frames of an encoder chunk are made at once); {setting['ticks']} ticks each",
    ]
    rows: list[tuple[str, ...]] = [
        (words, str(seen["sessions"]), *percentiles(seen), "yes" if seen["in_time"] else "no")
        for mode, words in _MODES.items()
        for seen in part[mode]
    ]
    yield Table("Sessions in time", about, ("callers", "sessions", "p50", "p95", "p99", "in time"), rows)
    for sessions in sorted({1, most["spread"]} - {0}):
        stages = next(seen["stages"] for seen in part["spread"] if seen["sessions"] == sessions)
        rows = [(stage, *percentiles(times), f"{times['p50'] / BUDGET:.1%}") for stage, times in stages.items()]
        columns = ("stage", "p50", "p95", "p99", "p50 of 80 ms")
        yield Table(f"Stages with {callers_in_words(sessions)}", [], columns, rows)
