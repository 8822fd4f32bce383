"""How many callers an engine serves in time, by playing real time without waiting for it.

Every tick stands for 80 ms: each caller's next 80 ms are pushed, then the engine steps. A tick is in time if that took less
than 80 ms. Ticks follow each other at once, so a measurement takes as long as the work does.

An encoder chunk of the encoder is several frames (two with [70,1]). Callers who came at different times have theirs in
different ticks (`spread`); where all came in the same tick, all have them together. Frames are answered one per tick, each in
time to be heard after the one before (`step`), or all of them as soon as there is an encoder chunk (`at_once`:
`run_until_idle`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from nemo_duplex.benchmark.callers import Caller
from nemo_duplex.frames import FRAME_RATE, Seconds
from nemo_duplex.streaming.step_timer import StageTimes, StepTimer

if TYPE_CHECKING:
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.streaming.session import EngineSession

#: What a tick may take.
BUDGET: Seconds = FRAME_RATE.seconds
#: Ticks before those that are measured: shapes are seen for the first time, memory is touched, graphs are captured.
_WARMUP = 12
#: Numbers of sessions that are tried.
RUNGS = (1, 2, 4, 8, 16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1024)


@dataclass(frozen=True)
class Play:
    """A simulated real time.

    Args:
        ticks: that are measured.
        spread: whether callers came at different times.
        at_once: whether all frames of an encoder chunk are made in the tick of the encoder chunk.
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
    """What the ticks of a measurement took.

    Args:
        frames_per_tick: that each session got; 1 keeps up with real time.
        stages: of the engine's steps, by name.
    """

    sessions: int
    count: int
    mean: Seconds
    p50: Seconds
    p95: Seconds
    p99: Seconds
    frames_per_tick: float
    stages: dict[str, StageTimes]

    @property
    def in_time(self) -> bool:
        """Whether 99 of 100 ticks were."""
        return self.p99 < BUDGET


def play(model: DuplexS2SModel, audio: np.ndarray, sessions: int, setting: Play) -> Ticks:
    """Lets `sessions` callers talk with one engine.

    Args:
        audio: (S,) at the model's user_sample_rate; callers say it, each from another place on.
    """
    timer = StepTimer()
    engine = model.open_engine(max_sessions=sessions, timer=timer, **setting.options)
    chunk, step = model.perception.chunk_frames, engine.run_until_idle if setting.at_once else engine.step
    callers = [Caller(audio, model.perception.samples_per_frame, number) for number in range(sessions)]
    arrivals = [(number % chunk if setting.spread else 0) - _WARMUP * chunk for number in range(sessions)]
    talking: list[tuple[Caller, EngineSession]] = []
    seconds: list[Seconds] = []
    frames = 0
    for tick in range(-_WARMUP * chunk, setting.ticks):
        talking += [(caller, engine.open_session()) for caller, arrival in zip(callers, arrivals) if arrival == tick]
        if tick == 0:
            timer.reset()
        start = time.perf_counter()
        for caller, session in talking:
            session.push(caller.speak())
        answers = step()
        if tick >= 0:
            seconds.append(time.perf_counter() - start)
            frames += sum(map(len, answers.values()))
        if setting.give_up and sum(s >= BUDGET for s in seconds) > setting.ticks / 100:
            break
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99]).tolist()
    per_tick = frames / (sessions * len(seconds))
    return Ticks(sessions, len(seconds), float(np.mean(seconds)), p50, p95, p99, per_tick, timer.report())


def climb(model: DuplexS2SModel, audio: np.ndarray, setting: Play, most: int) -> Iterator[Ticks]:
    """More and more sessions, at most `most`, up to and with the first number that is not in time."""
    for sessions in RUNGS:
        if sessions > most:
            return
        ticks = play(model, audio, sessions, setting)
        yield ticks
        if not ticks.in_time:
            return


def descend(model: DuplexS2SModel, audio: np.ndarray, setting: Play, most: int) -> Iterator[Ticks]:
    """Fewer and fewer sessions from `most` on, down to and with the first number that is in time."""
    for sessions in reversed([rung for rung in RUNGS if rung <= most]):
        ticks = play(model, audio, sessions, setting)
        yield ticks
        if ticks.in_time:
            return
