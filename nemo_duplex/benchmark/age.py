"""What a frame costs late in a conversation, beside one early in a conversation.

Both sessions are open at once and take turns, a few frames each, so other work on the machine affects both alike.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from nemo_duplex.benchmark.callers import Caller
from nemo_duplex.benchmark.machine import resident_bytes
from nemo_duplex.benchmark.table import Table, measured_on, milliseconds
from nemo_duplex.frames import FRAME_RATE, Seconds

if TYPE_CHECKING:
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.streaming.session import Session

#: Age of the young conversation, and how much of each conversation is measured.
YOUNG: Seconds = 60.0
SPAN: Seconds = 60.0
#: Frames that one session streams before it is the other's turn; a whole number of encoder chunks for [70,0] and [70,1].
_BLOCK_FRAMES = 10


@dataclass(frozen=True)
class Ages:
    """A young and an old conversation.

    Args:
        young, old: Seconds since their start, in the middle of what was measured.
        young_frame, old_frame: what a frame takes, median of the blocks.
        ratio: old over young, median over pairs of blocks that followed each other.
        pairs: how many there were.
        grown_bytes: by which the process grew while the old conversation went from the young one's age to its own.
    """

    young: Seconds
    old: Seconds
    young_frame: Seconds
    old_frame: Seconds
    ratio: float
    pairs: int
    grown_bytes: int


def compare_ages(model: DuplexS2SModel, audio: np.ndarray, young: Seconds, old: Seconds, span: Seconds) -> Ages:
    """Streams a conversation until it is `old`, frame by frame, and measures it beside a young one.

    Args:
        audio: (S,) at the model's user_sample_rate; both users play it.
        young, old: the ages that are compared; the middle of the span.
        span: of each conversation that is measured.
    """
    conversations = {name: _Conversation(model, audio) for name in ("old", "young")}
    conversations["old"].stream(young)
    before = resident_bytes()
    conversations["old"].stream(old - span / 2 - young)
    grown = resident_bytes() - before
    conversations["young"].stream(young - span / 2)
    took: dict[str, list[Seconds]] = {"old": [], "young": []}
    pairs = max(1, round(span / (_BLOCK_FRAMES * FRAME_RATE.seconds)))
    for pair in range(pairs):
        for name in ("old", "young") if pair % 2 else ("young", "old"):  # neither is always the first
            took[name].append(conversations[name].stream(_BLOCK_FRAMES * FRAME_RATE.seconds) / _BLOCK_FRAMES)
    ratio = median(o / y for o, y in zip(took["old"], took["young"]))
    return Ages(young, old, median(took["young"]), median(took["old"]), ratio, pairs, grown)


class _Conversation:
    """A session and its user."""

    def __init__(self, model: DuplexS2SModel, audio: np.ndarray) -> None:
        self._session: Session = model.open_session()
        self._caller = Caller(audio, model.perception.samples_per_frame)

    def stream(self, seconds: Seconds) -> Seconds:
        """Streams that much more of the conversation; returns how long it took."""
        frames = [self._caller.next_frame() for _ in range(round(seconds / FRAME_RATE.seconds))]
        start = time.perf_counter()
        for frame in frames:
            self._session.push(frame)
        return time.perf_counter() - start


def age_tables(result: Mapping[str, Any]) -> Iterator[Table]:
    """The part `age` of a result as a table."""
    part = result["age"]
    young, old = (f"{part[name] / 60:g}" for name in ("young", "old"))
    about = [*part["about"], measured_on(result), f"two sessions in turns, {part['pairs']} of each"]
    row = (milliseconds(part["young_frame"]), milliseconds(part["old_frame"]), f"{part['ratio']:.3f}")
    rows = [("a frame", *row), ("the process grew by", "", f"{part['grown_bytes'] / 1e6:.1f} MB", "")]
    yield Table("Age of a conversation", about, ("", f"minute {young}", f"minute {old}", "old to young"), rows)
