"""The metrics beyond the paper's, all of one conversation: how it goes (`floor`), what the agent makes of what it should not
answer (`behaviour`), and what it finds in time (`turn_ends`). These are the names of their groups in report.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nemo_duplex.conversation import Conversation
from nemo_duplex.evaluation import behaviour, floor, turn_ends
from nemo_duplex.evaluation.behaviour import Behaviour, measure_behaviour, pool_behaviour
from nemo_duplex.evaluation.confidence import Estimate, estimate_quantile
from nemo_duplex.evaluation.floor import Floor, measure_floor, pool_floor
from nemo_duplex.evaluation.labels import labelled_events, user_pauses, user_speech
from nemo_duplex.evaluation.time_left import OwnEnd, unknown_end
from nemo_duplex.evaluation.turn_ends import Detection, Sought, best_wait, detect, interruptions_of, onsets_and_stops
from nemo_duplex.frames import Seconds, Span

#: Silences (Seconds) that the timer is tried with.
WAITS = tuple(tenths / 10 for tenths in range(1, 21))


@dataclass(frozen=True)
class Conduct:
    """One conversation beyond the paper's metrics.

    `ends`, `interruptions`: what the agent's onsets and stops find. `sought`, `user_speech`: what a timer is tried on.

    Examples:
        >>> from nemo_duplex.conversation import Turn
        >>> talk = Conversation("d1", 10.0, (Turn("user", 1.0, 3.0, "What is it?", custom={"pauses": [[1.5, 2.0]]}),))
        >>> found = measure_conduct(talk, speech=[(3.6, 5.0)])
        >>> found.ends.found, found.behaviour.pauses[0].status, found.floor.gaps[0].seconds
        ((0.6,), 'waited', 0.6)
        >>> summary([found])["turn_ends"]["end_recall"]["value"]
        1.0
    """

    floor: Floor
    behaviour: Behaviour
    ends: Detection
    interruptions: Detection
    sought: Sought
    user_speech: tuple[Span, ...]

    def as_dict(self) -> dict[str, Any]:
        """The events of this conversation and its own rates, by group: what goes into report.json."""
        found = {"ends": self.ends.as_dict(), "interruptions": self.interruptions.as_dict()}
        return {"floor": self.floor.as_dict(), "behaviour": self.behaviour.as_dict(), "turn_ends": found}


def measure_conduct(conversation: Conversation, speech: Sequence[Span], own_end: OwnEnd = unknown_end) -> Conduct:
    """All metrics beyond the paper's of one conversation.

    Args:
        conversation: of its custom, `events` and the `pauses` of user turns are read.
        speech: when the agent speaks (Seconds), pauses not merged.
        own_end: when a turn of the agent would have ended by itself (`time_left.own_ends`).

    Raises:
        InputError: naming the conversation, if what it says of pauses or events cannot be.
    """
    duration = conversation.duration
    turns = [(turn.start, turn.end) for turn in conversation.user]
    pauses, events, said = user_pauses(conversation), labelled_events(conversation), user_speech(conversation)
    sought = turn_ends.turn_ends_of(turns, pauses, duration)
    onsets, stops = onsets_and_stops(speech, duration)
    return Conduct(
        floor=measure_floor(said, speech, duration),
        behaviour=measure_behaviour(turns, pauses, events, speech, duration, own_end=own_end),
        ends=detect(onsets, sought),
        interruptions=detect(stops, interruptions_of(turns, events, speech, duration)),
        sought=sought,
        user_speech=said,
    )


def summary(rows: Sequence[Conduct], seed: int = 0) -> dict[str, dict[str, Any]]:
    """The groups of a set: rates as dicts of `value`, `n`, `ci95`, `bootstrap95`; counts and maxima as plain numbers.

    In `turn_ends`, `timer_` is the baseline: the silence that finds most ends within the budget, `timer_wait` (Seconds), and
    what it finds. None where no silence is within the budget, or no pause tells.
    """
    floors, behaviours = [row.floor for row in rows], [row.behaviour for row in rows]
    pooled = pool_floor(floors)
    rates = floor.estimate_floor(floors, seed) | {
        "median_floor_transfer_offset": _median([floor.offsets(m) for m in floors], seed),
        "median_user_floor_transfer_offset": _median([floor.offsets(m, "user") for m in floors], seed),
        "median_agent_floor_transfer_offset": _median([floor.offsets(m, "agent") for m in floors], seed),
    }
    labels = pool_behaviour(behaviours)
    return {
        "floor": pooled | _as_dicts(rates),
        "behaviour": labels | _as_dicts(behaviour.estimate_behaviour(behaviours, seed)),
        "turn_ends": _detected("end_", [row.ends for row in rows], seed)
        | _detected("interruption_", [row.interruptions for row in rows], seed)
        | _timer(rows, seed),
    }


def parts(row: Conduct) -> dict[str, tuple[float, float]]:
    """What one conversation adds to each rate, by its place in report.json: (what is counted, over what)."""
    found = {f"floor.{name}": ratio(row.floor) for name, ratio in floor.RATIOS.items()}
    found |= {f"behaviour.{name}": ratio(row.behaviour) for name, ratio in behaviour.RATIOS.items()}
    for prefix, detection in (("end_", row.ends), ("interruption_", row.interruptions)):
        found |= {f"turn_ends.{prefix}{name}": ratio(detection) for name, ratio in turn_ends.RATIOS.items()}
    return found


def _detected(prefix: str, detections: Sequence[Detection], seed: int) -> dict[str, Any]:
    rates = turn_ends.estimate_detections(detections, seed)
    rates["median_latency"] = _median([d.latencies for d in detections], seed)
    found = _as_dicts(rates) | {"within_budget": turn_ends.pool_detections(detections)["within_budget"]}
    return {f"{prefix}{name}": value for name, value in found.items()}


def _timer(rows: Sequence[Conduct], seed: int) -> dict[str, Any]:
    best = best_wait([row.sought for row in rows], [row.user_speech for row in rows], WAITS)
    return {"timer_wait": best.threshold if best else None, **_detected("timer_", best.detections if best else (), seed)}


def _median(values: Sequence[Sequence[Seconds]], seed: int) -> Estimate:
    return estimate_quantile(values, 0.5, seed)


def _as_dicts(rates: dict[str, Estimate]) -> dict[str, Any]:
    return {name: rate.as_dict() for name, rate in rates.items()}
