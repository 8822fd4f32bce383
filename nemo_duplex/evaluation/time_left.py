"""Barge-in success where it shows whether an agent listens: the user breaks in with over a second of the answer to go.

    user                  |--- next question
    agent      |-----------------x  -  -  -  -  -  -  -  |
                          |- stop -|                     : where the answer would have ended by itself
                          |---------- time left ---------|

Where answers are short, an agent that never listens falls silent in time, too: it scores 100 % with less than 1.5 s left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from nemo_duplex.evaluation.answers import Answer
from nemo_duplex.evaluation.spans import to_ms
from nemo_duplex.frames import Seconds, Span
from nemo_duplex.words import words

#: text, as words -> how long the agent takes to say it.
Lengths = Mapping[tuple[str, ...], Seconds]
#: An agent turn (Seconds) -> when it would have ended by itself, None where that is unknown.
OwnEnd = Callable[[Span], Seconds | None]

#: Two frames: an answer this much shorter than it would have been was broken off.
SHORTER: Seconds = 0.16
#: With no more than this to go, stopping and ending look alike.
TELLING: Seconds = 1.0
_WINDOW: Seconds = 1.5  # paper, section 5.2


@dataclass(frozen=True)
class Stop:
    """How one barge-in went.

    Args:
        latency: Seconds from the user's onset to the agent's stop; None if it was not seen to stop.
        time_left: Seconds from the user's onset to where the answer would have ended by itself; None where that is unknown.

    Examples:
        >>> Stop(latency=0.6, time_left=2.4).verdict, Stop(latency=1.65, time_left=1.6).verdict
        ('broke_off', 'ended')
    """

    latency: Seconds | None
    time_left: Seconds | None

    @property
    def verdict(self) -> Literal["broke_off", "ended", "unknown"]:
        """Whether the agent broke its answer off, or said it to its end. An answer that ended by itself just after the window
        is no failure to listen, and one that ended within it no success."""
        if self.time_left is None:
            return "unknown"
        broke_off = self.latency is not None and to_ms(self.latency) <= to_ms(self.time_left) - to_ms(SHORTER)
        return "broke_off" if broke_off else "ended"


def success_with_time_left(
    stops: Iterable[Stop], at_least: Seconds = TELLING, window: Seconds = _WINDOW
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Barge-in success in one conversation where over `at_least` Seconds were left: of the agent, and of a deaf one.

    Args:
        stops: the observable barge-ins; those with an unknown time left are not counted.
        window: Seconds in which an agent should stop (paper: 1.5).

    Returns:
        Two pairs (successes, barge-ins) for `estimate_ratio`.

    Examples:
        >>> stops = [Stop(0.6, 2.4), Stop(None, 5.0), Stop(1.2, 1.2), Stop(0.4, 0.4)]    # the last one says nothing
        >>> success_with_time_left(stops)
        ((2, 3), (1, 3))
    """
    told = [s for s in stops if s.time_left is not None and to_ms(s.time_left) > to_ms(at_least)]
    latest = to_ms(window)
    own = sum(s.latency is not None and to_ms(s.latency) <= latest for s in told)
    deaf = sum(s.time_left is not None and to_ms(s.time_left) <= latest for s in told)
    return (own, len(told)), (deaf, len(told))


def own_ends(answers: Iterable[Answer], lengths: Lengths) -> OwnEnd:
    """When the agent's turns would have ended by themselves: known of those that say the reference, as far as they go.

    Args:
        answers: of one conversation.
        lengths: how long answers take (`lengths_of_answers`).

    Returns:
        Turn (start, end) -> its own end in Seconds; None for a turn that answers nothing, or something else.
    """
    known = [
        (answer.question.turn.start, answer.question.next_start, lengths[key])
        for answer in answers
        if answer.verdict == "right" and (key := tuple(words(answer.reference.texts[0]))) in lengths
    ]

    def own_end(turn: Span) -> Seconds | None:
        return next((turn[0] + length for asked, following, length in known if asked < turn[0] < following), None)

    return own_end


def unknown_end(turn: Span) -> None:
    """The `OwnEnd` of an agent of which nobody knows how long its turns would be."""
