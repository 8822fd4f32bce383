"""How long an agent takes for a whole answer when nobody interrupts: its own pace, against that of the corpus' voice."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nemo_duplex.evaluation.controls.baseline import Lengths
from nemo_duplex.evaluation.scores import Scored
from nemo_duplex.frames import Seconds
from nemo_duplex.words import words

_FEWEST = 8  # whole answers from which a pace is known
_EVEN = 0.25  # of the median: where more than one in ten answers is further from it, there is no pace
_TAIL = 0.05  # of the answers may be shorter than the shortest one that counts
_NEAR: Seconds = 0.5  # a user who starts as close to the end of an answer may have ended it


@dataclass(frozen=True)
class Pace:
    """Durations of whole answers, as shares of what the corpus' voice takes.

    Args:
        usual: the median.
        shortest: one in twenty is shorter.
        n: answers that it was measured over; 0: the agent is taken to be as fast as the corpus' voice.

    Examples:
        >>> Pace().usual, Pace().shortest
        (1.0, 1.0)
    """

    usual: float = 1.0
    shortest: float = 1.0
    n: int = 0


#: Of an agent of which nothing else is known.
AS_THE_CORPUS = Pace()


def pace_of(scored: Iterable[Scored], lengths: Lengths) -> Pace:
    """The agent's pace in right answers that nobody interrupts.

    An agent of which fewer than eight are known, or whose durations are too uneven to be those of whole answers (it breaks off
    at random), is taken to be as fast as the corpus' voice.
    """
    shares = sorted(share for one in scored for share in _shares(one, lengths))
    if len(shares) < _FEWEST:
        return AS_THE_CORPUS
    usual, tenth = statistics.median(shares), len(shares) // 10
    if max(usual - shares[tenth], shares[-1 - tenth] - usual) > _EVEN * usual:
        return AS_THE_CORPUS
    return Pace(usual, shares[int(_TAIL * len(shares))], len(shares))


def _shares(one: Scored, lengths: Lengths) -> Iterator[float]:
    """Of every answer that was said whole, in one go, and heard as one turn."""
    for answer in one.answers:
        whole = lengths.get(tuple(words(answer.reference.texts[0])))
        if answer.verdict != "right" or answer.cut_off or answer.said is None or not whole:
            continue
        said = answer.said
        heard = [span for span in one.turn_taking.agent if span[0] < said.end and said.start < span[1]]
        if len(heard) != 1:
            continue
        [(start, end)] = heard
        alone = sum(turn.start < end and start < turn.end for turn in one.outcome.agent) == 1
        if alone and not any(start < a < end + _NEAR for a, _ in one.turn_taking.user):
            yield (end - start) / whole
