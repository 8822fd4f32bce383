"""A caller's audio between the network and the engine: bounded, and on the wall clock.

The clock starts with the first audio, or `patience_at_start` after the call is ready. From then on:

    on time      audio is taken as it comes; what comes faster than real time (a file sent at once) waits, and is taken as
                 fast as the model goes
    missing      nothing has come for `patience`: silence takes the place of what is missing up to now, until audio comes
    late         audio that comes after silence took its place is skipped, if the gap was short (`late_gap`): the network
                 was late. After a longer gap the caller had paused, and what comes is new
    overload     the model is more than `skip_after` behind the clock: the oldest audio is skipped, so that the answers are
                 those of now

Nothing here reads a clock: every method is told the time, in seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nemo_duplex.frames import Seconds

# Audio may come so much ahead of the clock before it counts as late: a chunk of it was spoken before it was sent.
_AHEAD: Seconds = 0.1
# Late audio comes in one burst within this time after a gap.
_BURST: Seconds = 1.0
# After a pause that the caller announced: a caller whose chunks come in time is still not taken for missing.
_PATIENCE_IN_A_PAUSE: Seconds = 0.2


@dataclass(frozen=True)
class AudioRules:
    """When audio counts as missing, late, or too much; all in seconds.

    Args:
        patience: silence takes the place of audio that has been missing for so long.
        patience_at_start: the same before the first audio of a call.
        late_gap: what comes after a gap of up to so much silence is late; after a longer one it is new.
        skip_after: the model may be so far behind before audio is skipped.
        most_queued: audio of one caller that may wait; then the caller is not read until there is room.
    """

    patience: Seconds = 0.5
    patience_at_start: Seconds = 2.0
    late_gap: Seconds = 1.0
    skip_after: Seconds = 1.0
    most_queued: Seconds = 60.0


class Gaps(NamedTuple):
    """What was wrong with a caller's audio so far.

    Attributes:
        gaps: that silence filled.
        filled: seconds of that silence.
        skipped: seconds of audio that were skipped: late, or too much for the model.
    """

    gaps: int
    filled: Seconds
    skipped: Seconds


class _Part(NamedTuple):
    """Samples that wait."""

    samples: np.ndarray
    came: float  # when
    end: int  # samples of the caller up to the end of these
    filled: bool  # they are silence in the place of missing audio

    def split(self, count: int) -> tuple[_Part, _Part]:
        """The first `count` samples, and the rest."""
        end = self.end if self.filled else self.end - len(self.samples) + count
        return self._replace(samples=self.samples[:count], end=end), self._replace(samples=self.samples[count:])


class CallerAudio:
    """The audio of one caller that the engine has not taken yet.

    Not safe to share between threads; `Call` locks it.

    Args:
        sample_rate: of the caller, in Hz.
        rules: as `AudioRules`.

    Attributes:
        gaps: how often silence took the place of missing audio so far.
        filled: seconds of that silence.
        skipped: seconds of audio that were skipped so far: late, or too much for the model.
        newest: when the newest audio that was taken had come.
        taken: samples of the caller up to the end of what was taken, those that were skipped included.

    Examples:
        >>> audio = CallerAudio(16000, AudioRules(patience=0.5))
        >>> audio.push(np.ones(1600, np.float32), now=10.0)                 # 0.1 s, the clock starts
        >>> len(audio.take(3200, now=10.1)), len(audio.take(3200, now=10.3))
        (1600, 0)
        >>> len(audio.take(16000, now=10.7))                                # 0.6 s are missing
        9600
        >>> round(audio.filled, 3)
        0.6
    """

    def __init__(self, sample_rate: int, rules: AudioRules) -> None:
        self.sample_rate, self.rules = sample_rate, rules
        self.gaps = 0
        self.filled: Seconds = 0.0
        self.skipped: Seconds = 0.0
        self.newest, self.taken = 0.0, 0
        self._parts: deque[_Part] = deque()
        self._pushed = 0  # samples that the caller sent
        self._waiting = 0  # samples in the parts
        self._received = 0  # samples since the start of the clock, silence included
        self._start: float | None = None  # of the clock
        self._ready: float | None = None  # when the call was ready
        self._heard = False  # whether any audio came
        self._finished = False  # whether no more will come
        self._paused = False  # whether none is expected for now
        self._gap = 0  # samples of silence since audio came last
        self._late = 0  # samples that are skipped if they come ahead of the clock ...
        self._late_until = 0.0  # ... before this time

    @property
    def waiting(self) -> Seconds:
        """Audio that waits to be taken."""
        return self._waiting / self.sample_rate

    @property
    def is_full(self) -> bool:
        """Whether no more should be pushed until some is taken."""
        return self.waiting >= self.rules.most_queued

    def ready(self, now: float) -> None:
        """The call can be answered from now on."""
        self._ready = now

    def finish(self) -> None:
        """No more audio will come, and none is missing."""
        self._finished = True

    def pause(self, now: float) -> None:
        """The caller said what it had to say, and waits for the agent: what is missing is silence, from the start on."""
        if self._start is None:
            self._start = now
        self._paused = True

    def push(self, samples: np.ndarray, now: float) -> None:
        """Takes (S,) float32 samples that came now."""
        if not len(samples):
            return
        self._pushed += len(samples)
        if self._start is None:
            self._start = now
        elif self._gap:
            short = self._gap <= self.rules.late_gap * self.sample_rate
            self._late = self._gap if self._heard and short and not self._paused else 0
            self._late_until = now + _BURST
        self._heard, self._gap, self._paused = True, 0, False
        if self._late and now < self._late_until:
            samples = self._without_late(samples, now)
        if len(samples):
            self._append(_Part(samples, now, self._pushed, filled=False))

    def take(self, most: int, now: float) -> np.ndarray:
        """The oldest samples (S,), at most `most`; silence where audio is missing."""
        self._fill(now)
        self._skip(now)
        taken, count = [], 0
        while self._parts and count < most:
            part = self._next(most - count)
            taken.append(part.samples)
            count += len(part.samples)
            self.newest, self.taken = part.came, part.end
        self._waiting -= count
        return np.concatenate(taken) if taken else np.zeros(0, np.float32)

    def _next(self, most: int) -> _Part:
        """Takes the oldest part, or the first `most` samples of it."""
        part = self._parts.popleft()
        if len(part.samples) > most:
            part, rest = part.split(most)
            self._parts.appendleft(rest)
        return part

    def _append(self, part: _Part) -> None:
        self._parts.append(part)
        self._waiting += len(part.samples)
        self._received += len(part.samples)

    def _elapsed(self, now: float) -> int:
        """Samples since the clock started."""
        return 0 if self._start is None else int((now - self._start) * self.sample_rate)

    def _fill(self, now: float) -> None:
        """Puts silence in the place of what is missing."""
        rules = self.rules
        if self._finished:
            return
        if self._start is None:
            if self._ready is None or now - self._ready < rules.patience_at_start:
                return
            self._start = self._ready + rules.patience_at_start
        missing = self._elapsed(now) - self._received
        patience = rules.patience if self._heard and not self._gap else 0.0
        if self._paused:
            patience = min(patience, _PATIENCE_IN_A_PAUSE)
        if missing > 0 and missing >= patience * self.sample_rate:
            self._append(_Part(np.zeros(missing, np.float32), now, self._pushed, filled=True))
            self.gaps += not self._gap
            self._gap += missing
            self.filled += missing / self.sample_rate

    def _without_late(self, samples: np.ndarray, now: float) -> np.ndarray:
        """The samples without those that are late: the first ones, as far as they come ahead of the clock."""
        ahead = self._received + len(samples) - self._elapsed(now) - round(_AHEAD * self.sample_rate)
        late = max(0, min(self._late, ahead, len(samples)))
        self._late -= late
        self.skipped += late / self.sample_rate
        return samples[late:]

    def _skip(self, now: float) -> None:
        """Drops the oldest audio if the model is too far behind."""
        done = self._received - self._waiting
        behind = min(self._received, self._elapsed(now)) - done
        if behind <= self.rules.skip_after * self.sample_rate:
            return
        self.skipped += behind / self.sample_rate
        self._waiting -= behind
        while behind:
            behind -= len(self._next(behind).samples)
