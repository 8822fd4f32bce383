"""The timing of Full-Duplex-Bench v1.5 (arXiv 2507.23159, `get_timing.py` at d7336bd): overlaps and gaps of both channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nemo_duplex.frames import Seconds, Span

#: Pauses that are no ends of a turn.
USER_GAP: Seconds = 0.6
AGENT_GAP: Seconds = 0.5


class Timing(NamedTuple):
    """Of one sample, in Seconds.

    Args:
        stop: each stretch in which both speak; its length is how long the agent took to stop (or the user to give way).
        response: from the end of a user's turn to the agent's next start.
    """

    stop: list[Span]
    response: list[Span]

    def as_dict(self) -> dict[str, list[list[Seconds]]]:
        """The content of `latency_intervals.json`."""
        return {"latency_stop_list": _lists(self.stop), "latency_resp_list": _lists(self.response)}


def timing(user: Sequence[Span], agent: Sequence[Span]) -> Timing:
    """Overlaps and gaps of two channels.

    Args:
        user, agent: speech as Silero finds it, sorted and apart; pauses are merged here.

    Examples:
        >>> timing([(0.0, 2.0), (5.0, 7.0)], [(2.5, 5.75), (7.25, 9.0)])
        Timing(stop=[(5.0, 5.75)], response=[(2.0, 2.5), (7.0, 7.25)])
    """
    users, agents = merged(user, USER_GAP), merged(agent, AGENT_GAP)
    both = [(max(u[0], a[0]), min(u[1], a[1])) for u in users for a in agents]
    responses: dict[Seconds, Seconds] = {}  # of each start of the agent, the last end of the user before it
    for _, end in users:
        if (start := next((a for a, _ in agents if a > end), None)) is not None:
            responses[start] = end
    return Timing(
        [(round(start, 3), round(end, 3)) for start, end in both if start < end],
        [(round(end, 3), round(start, 3)) for start, end in responses.items()],
    )


def merged(speech: Sequence[Span], gap: Seconds) -> list[Span]:
    """Spans whose pauses are longer than `gap`."""
    found: list[Span] = []
    for start, end in speech:
        if found and start - found[-1][1] <= gap:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def _lists(spans: Sequence[Span]) -> list[list[Seconds]]:
    return [list(span) for span in spans]
