"""Turn-taking metrics (paper, section 5.2), as pure functions on timelines.

    user    |---- u1 ----|                    |----- u2 -----|
    agent                 <-0.64-> |--- a1 ---:-----|         <-0.64-> |--- a2 ---|
                           first response     ^     ^
                           latency            |     stop:  stop latency = a1.end - u2.start
                                              u2 starts inside a1: a barge-in

The paper leaves boundaries open. Here each one is defined, in whole milliseconds and on half-open spans, so that the same
timeline always gives the same number. What is undefined is None, never 0.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from nemo_duplex.evaluation.confidence import Estimate, estimate_ratio
from nemo_duplex.frames import Seconds, Span

_Milliseconds = tuple[int, int]


@dataclass(frozen=True)
class Rules:
    """The boundaries of the metrics, in Seconds.

    Args:
        barge_in_window: the agent yields if it stops within this time of the user's onset (paper: 1.5).
        fa_grace: an agent onset this close to the user's end is excused (paper: 0.1).
        user_merge_gap, agent_merge_gap: pauses up to this long do not end a turn. 0 for exact turns, 0.5 for a VAD.
        min_user_dur, min_agent_dur: shorter speech is no turn (a "mm-hm").
        min_overlap: speech of both has to last longer than this to be a barge-in.

    Examples:
        >>> Rules().barge_in_window, Rules(agent_merge_gap=0.5).agent_merge_gap
        (1.5, 0.5)
    """

    barge_in_window: Seconds = 1.5
    fa_grace: Seconds = 0.1
    user_merge_gap: Seconds = 0.0
    agent_merge_gap: Seconds = 0.0
    min_user_dur: Seconds = 0.0
    min_agent_dur: Seconds = 0.0
    min_overlap: Seconds = 0.0


@dataclass(frozen=True)
class BargeIn:
    """The user starts while the agent speaks.

    `status`: `success`, `failure`, or `censored` (the recording ends before the window does).
    `stop_latency`: Seconds from the user's onset to the agent's stop; None where the stop was not seen.
    `resumed`: the agent started again during the same user turn.
    """

    user_onset: Seconds
    status: Literal["success", "failure", "censored"]
    stop_latency: Seconds | None
    resumed: bool

    @property
    def success(self) -> bool | None:
        return None if self.status == "censored" else self.status == "success"


@dataclass(frozen=True)
class Response:
    """What followed a user turn: the first agent onset before the next user turn.

    `status`: `ok`, `early` (more than the grace before the user's end), `no_response`, `no_user` (there is no such turn).
    `latency`: Seconds from the user's end to that onset; negative if it came before it.
    `time_to_answer`: Seconds in which an answer could come, from the user's end to the next user onset or the recording's end.
    """

    status: Literal["ok", "early", "no_response", "no_user"]
    latency: Seconds | None
    time_to_answer: Seconds | None = None

    def as_dict(self) -> dict[str, Any]:
        """The entry of report.json, where `time_to_answer` is called `room`."""
        return {"status": self.status, "latency": self.latency, "room": self.time_to_answer}


@dataclass(frozen=True)
class TurnTaking:
    """What happened in one conversation. Times are Seconds from its start; spans are merged, sorted and clipped.

    Examples:
        >>> user, agent = [(1.0, 2.5), (5.0, 6.4)], [(3.2, 5.6), (7.04, 8.6)]      # the user interrupts at 5.0 s
        >>> found = measure(user, agent, duration=10.0)
        >>> [(b.status, b.stop_latency) for b in found.barge_ins]
        [('success', 0.6)]
        >>> [round(r.latency, 2) for r in found.responses]
        [0.7, 0.64]
    """

    rules: Rules
    duration: Seconds
    user: tuple[Span, ...]
    agent: tuple[Span, ...]
    n_short_user: int
    barge_ins: tuple[BargeIn, ...]
    false_alarms: tuple[Seconds, ...]
    false_alarms_excused: tuple[Seconds, ...]
    collisions: tuple[Seconds, ...]
    n_user_turns_with_false_alarm: int
    responses: tuple[Response, ...]

    @property
    def first_response(self) -> Response:
        return self.responses[0] if self.responses else Response("no_user", None)

    @property
    def observable(self) -> tuple[BargeIn, ...]:
        """Barge-ins whose outcome was seen."""
        return tuple(b for b in self.barge_ins if b.status != "censored")

    @property
    def successes(self) -> tuple[BargeIn, ...]:
        return tuple(b for b in self.barge_ins if b.status == "success")

    def as_dict(self) -> dict[str, Any]:
        """Events of this conversation and, beside them, its own rates: what goes into report.json."""
        events = {k: v for k, v in asdict(self).items() if k != "rules"}
        events["responses"] = [r.as_dict() for r in self.responses]
        events["first_response"] = self.first_response.as_dict()
        events["barge_ins"] = [asdict(b) | {"success": b.success} for b in self.barge_ins]
        return events | pool([self])


def measure(user: Iterable[Span], agent: Iterable[Span], duration: Seconds, rules: Rules = Rules()) -> TurnTaking:
    """Turn-taking of one conversation.

    Args:
        user, agent: spans (start, end) in Seconds, in any order; they may overlap.
        duration: length of the recording in Seconds; spans are clipped to it.

    Raises:
        ValueError: if a span ends before it starts.
    """
    end = _ms(duration)
    users, short = _normalise(user, end, _ms(rules.user_merge_gap), _ms(rules.min_user_dur))
    agents, _ = _normalise(agent, end, _ms(rules.agent_merge_gap), _ms(rules.min_agent_dur))
    onsets = [start for start, _ in agents]
    alarms, excused, collisions, turns_with_alarm = _onsets_inside(users, onsets, _ms(rules.fa_grace))
    return TurnTaking(
        rules=rules,
        duration=_seconds(end),
        user=_spans(users),
        agent=_spans(agents),
        n_short_user=short,
        barge_ins=tuple(b for u in users if (b := _barge_in(u, agents, end, rules)) is not None),
        false_alarms=tuple(map(_seconds, alarms)),
        false_alarms_excused=tuple(map(_seconds, excused)),
        collisions=tuple(map(_seconds, collisions)),
        n_user_turns_with_false_alarm=turns_with_alarm,
        responses=_responses(users, onsets, end, _ms(rules.fa_grace)),
    )


def _normalise(spans: Iterable[Span], end: int, merge_gap: int, min_duration: int) -> tuple[list[_Milliseconds], int]:
    """Clipped to the recording, sorted, merged; and how many were too short to keep."""
    clipped = []
    for start, stop in spans:
        if not start <= stop:
            raise ValueError(f"A span must run forwards, got {start} to {stop} s.")
        a, b = max(0, _ms(start)), min(end, _ms(stop))
        if a < b:  # a half-open span of no length holds nothing
            clipped.append((a, b))
    merged: list[_Milliseconds] = []
    for a, b in sorted(clipped):
        if merged and a - merged[-1][1] <= merge_gap:
            merged[-1] = (merged[-1][0], max(b, merged[-1][1]))
        else:
            merged.append((a, b))
    kept = [(a, b) for a, b in merged if b - a >= min_duration]
    return kept, len(merged) - len(kept)


def _barge_in(user: _Milliseconds, agents: Sequence[_Milliseconds], end: int, rules: Rules) -> BargeIn | None:
    """The event that this user turn is, if the agent speaks across its onset: there is at most one, agent turns being apart."""
    onset, user_end = user
    for start, stop in agents:
        if not (start < onset < stop and stop - onset > _ms(rules.min_overlap)):
            continue
        latency, unseen = stop - onset, stop == end
        in_time = latency <= _ms(rules.barge_in_window)
        resumed = any(stop <= t < user_end - _ms(rules.fa_grace) for t, _ in agents)
        if in_time:
            return BargeIn(_seconds(onset), "censored" if unseen else "success", None if unseen else _seconds(latency), resumed)
        return BargeIn(_seconds(onset), "failure", None if unseen else _seconds(latency), resumed)
    return None


def _onsets_inside(users: Sequence[_Milliseconds], onsets: Sequence[int], grace: int) -> tuple[list, list, list, int]:
    """Agent onsets inside user turns: false alarms, excused ones, simultaneous starts; and how many turns had an alarm."""
    alarms, excused, collisions, turns_with_alarm = [], [], [], 0
    for start, stop in users:
        inside = [t for t in onsets if start < t < stop]
        early = [t for t in inside if stop - t > grace]
        alarms += early
        excused += [t for t in inside if stop - t <= grace]
        collisions += [t for t in onsets if t == start]
        turns_with_alarm += bool(early)
    return alarms, excused, collisions, turns_with_alarm


def _responses(users: Sequence[_Milliseconds], onsets: Sequence[int], end: int, grace: int) -> tuple[Response, ...]:
    """The response to every user turn; what the agent says before the first one (a greeting) answers nothing."""
    responses = []
    for i, (start, stop) in enumerate(users):
        following = users[i + 1][0] if i + 1 < len(users) else end
        time_to_answer = _seconds(following - stop)
        onset = next((t for t in onsets if start < t < following), None)
        if onset is None:
            responses.append(Response("no_response", None, time_to_answer))
        else:
            status: Literal["early", "ok"] = "early" if stop - onset > grace else "ok"
            responses.append(Response(status, _seconds(onset - stop), time_to_answer))
    return tuple(responses)


# What is counted over what, conversation by conversation. Sums of both are pooled, so a long conversation weighs more than a
# short one and a mean of means can never arise.
RATIOS: dict[str, Callable[[TurnTaking], tuple[float, float]]] = {
    "success_rate": lambda m: (len(m.successes), len(m.observable)),
    "sustained_success_rate": lambda m: (sum(not b.resumed for b in m.successes), len(m.observable)),
    "mean_stop_latency": lambda m: (sum(b.stop_latency or 0.0 for b in m.successes), len(m.successes)),
    "false_alarm_rate": lambda m: (m.n_user_turns_with_false_alarm, len(m.user)),
    "false_alarms_per_agent_turn": lambda m: (len(m.false_alarms), len(m.agent)),
    "false_alarms_per_minute": lambda m: (len(m.false_alarms), sum(b - a for a, b in m.user) / 60),
    "interruption_rate": lambda m: (sum(b.user_onset != m.user[0][0] for b in m.barge_ins), max(len(m.user) - 1, 0)),
    "first_response_latency": lambda m: _latencies(m.responses[:1]),
    "early_rate": lambda m: _share(m.responses[:1], "early"),
    "no_response_rate": lambda m: _share(m.responses[:1], "no_response"),
    "response_latency": lambda m: _latencies(m.responses),
    "response_early_rate": lambda m: _share(m.responses, "early"),
    "response_missing_rate": lambda m: _share(m.responses, "no_response"),
}
#: Those of them that are shares of countable things, for which a Wilson interval is defined.
PROPORTIONS = {name for name in RATIOS if name.endswith("_rate")}


def _latencies(responses: Sequence[Response]) -> tuple[float, int]:
    timely = [r.latency for r in responses if r.status == "ok" and r.latency is not None]
    return sum(timely), len(timely)


def _share(responses: Sequence[Response], status: str) -> tuple[int, int]:
    return sum(r.status == status for r in responses), len(responses)


def pool(conversations: Sequence[TurnTaking]) -> dict[str, float | int | None]:
    """Counts and rates over the events of all conversations together.

    `mean_stop_latency` is the paper's: over successes only, so an agent can improve it by failing its slow ones. The
    restricted mean, min(latency, window) over every observable barge-in, cannot be improved in this way.
    """
    latencies = [b.stop_latency for m in conversations for b in m.successes if b.stop_latency is not None]
    restricted = [_restricted(b, m.rules.barge_in_window) for m in conversations for b in m.observable]
    counts = {
        "n_conversations": len(conversations),
        "n_user_turns": sum(len(m.user) for m in conversations),
        "n_agent_turns": sum(len(m.agent) for m in conversations),
        "n_short_user": sum(m.n_short_user for m in conversations),
        "n_barge_in": sum(len(m.barge_ins) for m in conversations),
        "n_observable": sum(len(m.observable) for m in conversations),
        "n_censored": sum(len(m.barge_ins) - len(m.observable) for m in conversations),
        "n_success": sum(len(m.successes) for m in conversations),
        "n_resumed": sum(b.resumed for m in conversations for b in m.barge_ins),
        "n_false_alarms": sum(len(m.false_alarms) for m in conversations),
        "n_false_alarms_excused": sum(len(m.false_alarms_excused) for m in conversations),
        "n_collisions": sum(len(m.collisions) for m in conversations),
        "n_user_turns_with_false_alarm": sum(m.n_user_turns_with_false_alarm for m in conversations),
    }
    rates = {name: _ratio(map(ratio, conversations)) for name, ratio in RATIOS.items()}
    return {
        **counts,
        **rates,
        "median_stop_latency": statistics.median(latencies) if latencies else None,
        "p90_stop_latency": _quantile(latencies, 0.9),
        "restricted_mean_stop_latency": statistics.fmean(restricted) if restricted else None,
    }


def estimates(conversations: Sequence[TurnTaking], seed: int = 0) -> dict[str, Estimate]:
    """The same rates with their number of events and 95 % intervals; conversations, not events, are resampled."""
    return {
        name: estimate_ratio([ratio(m) for m in conversations], proportion=name in PROPORTIONS, seed=seed)
        for name, ratio in RATIOS.items()
    }


def _restricted(barge_in: BargeIn, window: Seconds) -> Seconds:
    return window if barge_in.stop_latency is None else min(barge_in.stop_latency, window)


def _ratio(parts: Iterable[tuple[float, float]]) -> float | None:
    numerators, denominators = zip(*parts, (0, 0), strict=True)
    return sum(numerators) / sum(denominators) if sum(denominators) else None


def _quantile(values: Sequence[float], q: float) -> float | None:
    """The smallest value that at least a share `q` of them do not exceed."""
    return sorted(values)[math.ceil(q * len(values)) - 1] if values else None


def _ms(time: Seconds) -> int:
    return round(time * 1000)


def _seconds(time: int) -> Seconds:
    return time / 1000


def _spans(spans: Sequence[_Milliseconds]) -> tuple[Span, ...]:
    return tuple((_seconds(a), _seconds(b)) for a, b in spans)
