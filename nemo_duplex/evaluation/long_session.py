"""One session that goes on and on: many conversations of a corpus, played to it one behind the other.

    conversations   A B C D | E F G H ... | A B C D         of a corpus, one behind the other, as one user's audio
    one session     ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~         in pushes of 80 ms
    compared        first                      last

The first and the last minutes hold the same conversations, so what differs between them is what the time between has done
(`endurance.py` says what that is).
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
from nemo_duplex.evaluation.record import check
from nemo_duplex.frames import FRAME_RATE, Seconds, Span
from nemo_duplex.inputs import InputError

if TYPE_CHECKING:
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.streaming.session import AgentFrame


@dataclass(frozen=True)
class Playlist:
    """Conversations in the order in which a session hears them; `edge` are played first, and again at the end."""

    edge: tuple[Cut, ...]
    middle: tuple[Cut, ...]

    @classmethod
    def of(cls, cuts: Sequence[Cut], minutes: float, compared: float, seed: int = 0) -> Playlist:
        """Whole conversations of a corpus in random order, all of them before one comes again.

        Args:
            cuts: of all its sets.
            minutes: of the whole session, at least.
            compared: minutes of `edge`, at least.

        Raises:
            InputError: if the edges leave no room between them.
        """
        if not 0 < 2 * compared < minutes:
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
    """A conversation of the session: when it began, and when the agent was heard in it, counted from there."""

    cut: Cut
    start: Seconds
    speech: tuple[Span, ...]


@dataclass
class Heard:
    """What a session did. All that grows in it are numbers of frames and the spans of speech: no sound is kept."""

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
    marks: Sequence[float] = (),
    label: str | None = None,
    **options: Any,
) -> Heard:
    """Plays all conversations to one session, 80 ms at a time.

    Args:
        vad: finds speech in the agent's sound.
        marks: minutes after which memory is looked at.
        label: shown beside a progress bar; None shows none.
        options: of the session.

    Raises:
        InputError: naming the cut that cannot be evaluated, or for an option that is not possible.
    """
    for cut in playlist:
        check(cut, model.user_sample_rate)
    session, heard, due = model.open_session(**options), Heard(), sorted(marks)
    listener = _Listener(heard, vad, model.agent_sample_rate)
    step = FRAME_RATE.samples_per_frame(model.user_sample_rate)
    pushed = 0
    with tqdm(total=playlist.duration, desc=label, disable=label is None, unit="s", unit_scale=True) as progress:
        for cut in playlist:
            audio = cut.load_audio()[0]
            listener.expect(cut, pushed / model.user_sample_rate)
            for start in range(0, len(audio), step):
                chunk = audio[start : start + step]
                listener.hear(*_timed(session.push, chunk), at=pushed / model.user_sample_rate)
                pushed += len(chunk)
                while due and pushed >= 60 * due[0] * model.user_sample_rate:
                    heard.memory.append({"minute": due.pop(0), **memory()})
            progress.update(cut.duration)
    listener.hear(*_timed(session.flush), at=pushed / model.user_sample_rate)
    heard.transcript = session.transcript
    return heard


def _timed(call: Callable[..., list[AgentFrame]], *audio: np.ndarray) -> tuple[list[AgentFrame], Seconds, Seconds]:
    wall, work = time.perf_counter(), time.process_time()
    frames = call(*audio)
    return frames, time.perf_counter() - wall, time.process_time() - work


class _Listener:
    """Takes the agent's frames; notes when it spoke in each conversation, and forgets the sound."""

    def __init__(self, heard: Heard, vad: Vad, sample_rate: int) -> None:
        self._heard, self._vad, self._rate = heard, vad, sample_rate
        self._sound = np.zeros(0, np.float32)
        self._dropped = 0  # samples before it
        self._expected: list[tuple[Cut, Seconds]] = []

    def expect(self, cut: Cut, start: Seconds) -> None:
        """A conversation begins."""
        self._expected.append((cut, start))

    def hear(self, frames: list[AgentFrame], wall: Seconds, work: Seconds, at: Seconds) -> None:
        if not frames:
            return
        heard = self._heard
        heard.tokens += [frame.token for frame in frames]
        heard.times.append(at)
        heard.costs.append(wall / len(frames))
        heard.work.append(work / len(frames))
        self._sound = np.concatenate([self._sound, *(frame.audio for frame in frames)])
        while self._expected and self._listen(*self._expected[0]):
            self._expected.pop(0)

    def _listen(self, cut: Cut, start: Seconds) -> bool:
        """Looks for speech in a conversation, if all of it has been heard."""
        first = round(start * self._rate) - self._dropped
        last = round((start + cut.duration) * self._rate) - self._dropped
        if len(self._sound) < last:
            return False
        self._heard.played.append(Played(cut, start, tuple(self._vad(self._sound[first:last], self._rate))))
        self._sound, self._dropped = self._sound[last:], self._dropped + last
        return True


def memory() -> dict[str, float]:
    """Bytes of all tensors that there are, and of the process (Linux; else 0), in MB."""
    gc.collect()
    # Not those that only stand for tensors, as a compiler in this process may have left behind.
    tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, torch.nn.Parameter)]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[1]) if statm.exists() else 0
    return {"tensors_mb": sum(storages.values()) / 1e6, "process_mb": pages * 4096 / 1e6}
