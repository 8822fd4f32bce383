"""What a frame costs in a conversation that has gone on for long, beside one in a conversation that has just begun.

Both sessions are open at once and take turns, a few frames each: whatever else the machine does meets both alike.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from nemo_duplex.benchmark.callers import Caller
from nemo_duplex.benchmark.memory import resident_bytes
from nemo_duplex.frames import FRAME_RATE, Seconds

if TYPE_CHECKING:
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.streaming.session import Session

#: Frames in a turn of one of the two; a whole number of encoder chunks for [70,0] and [70,1].
_BLOCK = 10


@dataclass(frozen=True)
class Ages:
    """A young and an old conversation.

    Args:
        young, old: seconds since their beginning, in the middle of what was measured.
        young_frame, old_frame: what a frame takes, median of the turns.
        ratio: old over young, median over pairs of turns that followed each other.
        pairs: how many there were.
        grown_bytes: by which the process grew while the old conversation went from the age of the young one to its own.
    """

    young: Seconds
    old: Seconds
    young_frame: Seconds
    old_frame: Seconds
    ratio: float
    pairs: int
    grown_bytes: int


def compare_ages(model: DuplexS2SModel, audio: np.ndarray, young: Seconds, old: Seconds, span: Seconds) -> Ages:
    """Streams a conversation to the age of `old` and beyond, frame by frame, and measures it beside a young one.

    Args:
        audio: (S,) at the model's user_sample_rate, which both users say.
        young, old: the ages that are compared; the middle of the span.
        span: of each conversation that is measured.
    """
    sessions = {name: _Conversation(model, audio) for name in ("old", "young")}
    sessions["old"].go_on(young)
    before = resident_bytes()
    sessions["old"].go_on(old - span / 2 - young)
    resize_vocabulary = resident_bytes() - before
    sessions["young"].go_on(young - span / 2)
    took: dict[str, list[Seconds]] = {"old": [], "young": []}
    pairs = max(1, round(span / (_BLOCK * FRAME_RATE.seconds)))
    for pair in range(pairs):
        for name in ("old", "young") if pair % 2 else ("young", "old"):  # neither is always the first
            took[name].append(sessions[name].go_on(_BLOCK * FRAME_RATE.seconds) / _BLOCK)
    ratio = median(o / y for o, y in zip(took["old"], took["young"]))
    return Ages(young, old, median(took["young"]), median(took["old"]), ratio, pairs, resize_vocabulary)


class _Conversation:
    """A session and its user."""

    def __init__(self, model: DuplexS2SModel, audio: np.ndarray) -> None:
        self._session: Session = model.open_session()
        self._caller = Caller(audio, model.perception.samples_per_frame)

    def go_on(self, seconds: Seconds) -> Seconds:
        """Streams so much more of the conversation; returns how long that took."""
        frames = [self._caller.speak() for _ in range(round(seconds / FRAME_RATE.seconds))]
        start = time.perf_counter()
        for frame in frames:
            self._session.push(frame)
        return time.perf_counter() - start
