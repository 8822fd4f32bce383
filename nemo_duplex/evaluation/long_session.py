"""One long session: many conversations of a corpus, played to it one after the other.

    conversations   A B C D | E F G H ... | A B C D         of a corpus, one after the other, as one user's audio
    one session     ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~         in pushes of 80 ms
    compared        first                      last

The first and the last minutes hold the same conversations, so any difference comes from the time between them. `endurance.py`
measures it.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lhotse.cut import Cut
from tqdm import tqdm

from nemo_duplex.conversation import Conversation
from nemo_duplex.evaluation.activity import Vad
from nemo_duplex.evaluation.generation import check
from nemo_duplex.frames import FRAME_RATE, Seconds, Span
from nemo_duplex.inputs import InputError

if TYPE_CHECKING:
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.streaming.session import AgentFrame

_MOST_MINUTES = 7 * 24 * 60  # a week: its log is in memory


@dataclass(frozen=True)
class Playlist:
    """Conversations in the order in which they are played; `edge` first, and again at the end."""

    edge: tuple[Cut, ...]
    middle: tuple[Cut, ...]

    @classmethod
    def of(cls, cuts: Sequence[Cut], minutes: float, compared: float, seed: int = 0) -> Playlist:
        """Whole conversations of a corpus in random order, all of them before one is repeated.

        Args:
            cuts: of all its sets.
            minutes: of the whole session, at least.
            compared: minutes of `edge`, at least.

        Raises:
            InputError: if nothing is left between the edges.
        """
        if not 0 < minutes <= _MOST_MINUTES:
            raise InputError(f"minutes={minutes:g}: expected more than 0, up to {_MOST_MINUTES}.")
        if compared <= 0:
            raise InputError(f"compared={compared:g}: expected minutes, more than 0 and less than half of the {minutes:g}.")
        if not 2 * compared < minutes:
            raise InputError(
                f"compared={compared:g}: the first and the last {compared:g} of {minutes:g} minutes leave nothing between "
                f"them. Choose less than {minutes / 2:g}."
            )
        shuffled = _endlessly(cuts, random.Random(seed))
        edge = _filling(shuffled, 60 * compared)
        middle = _filling(shuffled, 60 * minutes - 2 * sum(c.duration for c in edge))
        return cls(edge, middle)

    def __iter__(self) -> Iterator[Cut]:
        return iter((*self.edge, *self.middle, *self.edge))

    @property
    def duration(self) -> Seconds:
        return sum(cut.duration for cut in self)


def _endlessly(cuts: Sequence[Cut], rng: random.Random) -> Iterator[Cut]:
    while True:
        yield from rng.sample(cuts, len(cuts))


def _filling(cuts: Iterator[Cut], seconds: Seconds) -> tuple[Cut, ...]:
    taken: list[Cut] = []
    while sum(cut.duration for cut in taken) < seconds:
        taken.append(next(cuts))
    return tuple(taken)


@dataclass(frozen=True)
class Played:
    """A conversation of the session: when it began, and the agent's speech in it, counted from there (Seconds)."""

    cut: Cut
    start: Seconds
    speech: tuple[Span, ...]


@dataclass
class SessionLog:
    """What a session did. It grows by a few numbers per frame and by spans of speech; no sound is kept."""

    played: list[Played] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    costs: list[Seconds] = field(default_factory=list)  # of each push that made frames, per frame
    work: list[Seconds] = field(default_factory=list)  # the same, in CPU time of the process
    times: list[Seconds] = field(default_factory=list)  # of the session, at which that was
    memory: list[dict[str, float]] = field(default_factory=list)
    transcript: Conversation | None = None


def play(
    model: DuplexS2SModel,
    playlist: Playlist,
    vad: Vad,
    *,
    memory_at: Sequence[float] = (),
    label: str | None = None,
    **options: Any,
) -> SessionLog:
    """Plays all conversations to one session, 80 ms at a time.

    Args:
        vad: finds speech in the agent's sound.
        memory_at: minutes after which memory is measured.
        label: shown beside a progress bar; None shows none.
        options: of the session.

    Raises:
        InputError: naming the cut that cannot be evaluated, or for an option that is not possible.
    """
    for cut in playlist:
        check(cut, model.user_sample_rate)
    session, log, due = model.open_session(**options), SessionLog(), sorted(memory_at)
    listener = _AgentListener(log, vad, model.agent_sample_rate)
    step = FRAME_RATE.samples_per_frame(model.user_sample_rate)
    pushed = 0
    with tqdm(total=playlist.duration, desc=label, disable=label is None, unit="s", unit_scale=True) as progress:
        for cut in playlist:
            audio = cut.load_audio()[0]
            listener.expect(cut, pushed / model.user_sample_rate)
            for start in range(0, len(audio), step):
                chunk = audio[start : start + step]
                listener.take(*_timed(session.push, chunk), at=pushed / model.user_sample_rate)
                pushed += len(chunk)
                while due and pushed >= 60 * due[0] * model.user_sample_rate:
                    log.memory.append({"minute": due.pop(0), **memory()})
            progress.update(cut.duration)
    listener.take(*_timed(session.flush), at=pushed / model.user_sample_rate)
    log.transcript = session.transcript
    return log


def _timed(call: Callable[..., list[AgentFrame]], *audio: np.ndarray) -> tuple[list[AgentFrame], Seconds, Seconds]:
    wall, work = time.perf_counter(), time.process_time()
    frames = call(*audio)
    return frames, time.perf_counter() - wall, time.process_time() - work


class _AgentListener:
    """Takes the agent's frames; notes when it spoke in each conversation and drops the sound."""

    def __init__(self, log: SessionLog, vad: Vad, sample_rate: int) -> None:
        self._log, self._vad, self._rate = log, vad, sample_rate
        self._sound = np.zeros(0, np.float32)
        self._dropped = 0  # samples before it
        self._expected: list[tuple[Cut, Seconds]] = []

    def expect(self, cut: Cut, start: Seconds) -> None:
        """A conversation begins."""
        self._expected.append((cut, start))

    def take(self, frames: list[AgentFrame], wall: Seconds, work: Seconds, at: Seconds) -> None:
        if not frames:
            return
        log = self._log
        log.tokens += [frame.token for frame in frames]
        log.times.append(at)
        log.costs.append(wall / len(frames))
        log.work.append(work / len(frames))
        self._sound = np.concatenate([self._sound, *(frame.audio for frame in frames)])
        while self._expected and self._finish(*self._expected[0]):
            self._expected.pop(0)

    def _finish(self, cut: Cut, start: Seconds) -> bool:
        """Looks for speech in a conversation, if all of it has been log."""
        first = round(start * self._rate) - self._dropped
        last = round((start + cut.duration) * self._rate) - self._dropped
        if len(self._sound) < last:
            return False
        self._log.played.append(Played(cut, start, tuple(self._vad(self._sound[first:last], self._rate))))
        self._sound, self._dropped = self._sound[last:], self._dropped + last
        return True


def memory() -> dict[str, float]:
    """MB of all tensors in this process, and of the process itself (0 where there is no /proc)."""
    gc.collect()
    # Only real ones: a compiler in this process may have left fake tensors behind.
    tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[1]) if statm.exists() else 0
    return {"tensors_mb": sum(storages.values()) / 1e6, "process_mb": pages * 4096 / 1e6}
