"""How long the engine's steps and their stages take, compared with the 80 ms of a frame.

    timer = StepTimer()
    engine = model.open_engine(max_sessions=16, timer=timer)        ... and, after a while,
    print(timer.table())

    stage       count       mean        p50        p95        p99     share
    mel           312     0.41 ms     0.40 ms     0.47 ms     0.55 ms      0.5%

Without a timer, an engine reads no clock.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch

from nemo_duplex.frames import FRAME_RATE, Seconds

#: What is timed, in the order in which it runs; "step" is a whole step of the engine, including Python and copies.
STAGES = ("mel", "encoder", "llm", "codec", "step")
# On a GPU: the most stages whose times are not read yet; then the oldest is waited for.
_PENDING = 64


@dataclass(frozen=True)
class StageTimes:
    """Times of one stage, over the latest runs that the timer remembers."""

    count: int  # runs since the start or `reset`, including those that are no longer remembered
    mean: Seconds
    p50: Seconds
    p95: Seconds
    p99: Seconds
    share: float  # mean divided by a frame (80 ms); mel and encoder run once per encoder chunk, which may be several frames


class StepTimer:
    """Takes the times of an engine's steps, in constant memory.

    On a GPU, stages are timed by CUDA events: no stage waits for another one, and the times are the GPU's own. The thread that
    steps takes the times; any thread may ask for reports.

    Args:
        window: how many runs of each stage are remembered.

    Attributes:
        device: where the stages run; the engine sets it.

    Examples:
        >>> timer = StepTimer()
        >>> engine = model.open_engine(max_sessions=1, timer=timer)
        >>> engine.open_session().push(question)
        >>> _ = engine.run_until_idle()
        >>> list(timer.report())
        ['mel', 'encoder', 'llm', 'codec', 'step']
    """

    def __init__(self, window: int = 10_000) -> None:
        self.device = torch.device("cpu")
        self._rings = {stage: np.zeros(window) for stage in STAGES}
        self._counts = dict.fromkeys(STAGES, 0)
        self._pending: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()
        self._spare: list[torch.cuda.Event] = []
        self._started = 0  # number of stages, ever
        self._lock = Lock()  # of all but `_started`

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times one of `STAGES`."""
        self._started += 1
        if self.device.type == "cuda":
            start, end = self._event(), self._event()
            start.record()
            yield
            end.record()
            with self._lock:
                self._pending.append((name, start, end))
                self._settle(len(self._pending) - _PENDING)
        else:
            before = time.perf_counter()
            yield
            self._note(name, time.perf_counter() - before)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Times a whole step. A step in which no stage ran, because nothing was due, does not count."""
        started, before = self._started, time.perf_counter()
        yield
        if self._started > started:
            self._note("step", time.perf_counter() - before)

    def report(self) -> dict[str, StageTimes]:
        """The times of each stage that has run."""
        with self._lock:
            self._settle(len(self._pending))
            runs = {stage: ring[: self._counts[stage]].copy() for stage, ring in self._rings.items() if self._counts[stage]}
            counts = dict(self._counts)
        return {stage: _times(counts[stage], seconds) for stage, seconds in runs.items()}

    def table(self) -> str:
        """The report as lines of text."""
        lines = ["stage       count       mean        p50        p95        p99     share"]
        for stage, times in self.report().items():
            columns = "".join(f"{1e3 * seconds:8.2f} ms" for seconds in (times.mean, times.p50, times.p95, times.p99))
            lines.append(f"{stage:<8}{times.count:9}{columns}{times.share:10.1%}")
        return "\n".join(lines)

    def reset(self) -> None:
        """Forgets all times, for example those of the first steps, which take longer."""
        with self._lock:
            self._settle(len(self._pending))
            self._counts = dict.fromkeys(STAGES, 0)

    def _note(self, stage: str, seconds: Seconds) -> None:
        with self._lock:
            self._write(stage, seconds)

    def _write(self, stage: str, seconds: Seconds) -> None:
        ring = self._rings[stage]
        ring[self._counts[stage] % len(ring)] = seconds
        self._counts[stage] += 1

    def _settle(self, at_least: int) -> None:
        """Reads the times of finished stages, and waits for the oldest `at_least` ones."""
        while self._pending and (at_least > 0 or self._pending[0][2].query()):
            stage, start, end = self._pending.popleft()
            end.synchronize()
            self._write(stage, start.elapsed_time(end) / 1e3)
            self._spare += [start, end]
            at_least -= 1

    def _event(self) -> torch.cuda.Event:
        with self._lock:
            return self._spare.pop() if self._spare else torch.cuda.Event(enable_timing=True)


def _times(count: int, seconds: np.ndarray) -> StageTimes:
    mean = float(seconds.mean())
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99]).tolist()
    return StageTimes(count, mean, p50, p95, p99, share=mean / FRAME_RATE.seconds)
