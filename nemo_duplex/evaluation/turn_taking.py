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
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from nemo_duplex.evaluation.confidence import Estimate, Ratio, estimate_each, ratio_of_sums
from nemo_duplex.evaluation.spans import MsSpan, in_seconds, length_ms, normalise, to_ms, to_seconds
from nemo_duplex.frames import Seconds, Span


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
        InputError: if a span ends before it starts, or a time is no finite number.
    """
    end = length_ms(duration)
    users, short = normalise(user, end, to_ms(rules.user_merge_gap), to_ms(rules.min_user_dur))
    agents, _ = normalise(agent, end, to_ms(rules.agent_merge_gap), to_ms(rules.min_agent_dur))
    onsets = [start for start, _ in agents]
    alarms, excused, collisions, turns_with_alarm = _onsets_inside(users, onsets, to_ms(rules.fa_grace))
    return TurnTaking(
        rules=rules,
        duration=to_seconds(end),
        user=in_seconds(users),
        agent=in_seconds(agents),
        n_short_user=short,
        barge_ins=tuple(b for u in users if (b := _barge_in(u, agents, end, rules)) is not None),
        false_alarms=tuple(map(to_seconds, alarms)),
        false_alarms_excused=tuple(map(to_seconds, excused)),
        collisions=tuple(map(to_seconds, collisions)),
        n_user_turns_with_false_alarm=turns_with_alarm,
        responses=_responses(users, onsets, end, to_ms(rules.fa_grace)),
    )


def _barge_in(user: MsSpan, agents: Sequence[MsSpan], end: int, rules: Rules) -> BargeIn | None:
    """The event that this user turn is, if the agent speaks across its onset: there is at most one, agent turns being apart."""
    onset, user_end = user
    for start, stop in agents:
        if not (start < onset < stop and stop - onset > to_ms(rules.min_overlap)):
            continue
        in_time, unseen = stop - onset <= to_ms(rules.barge_in_window), stop == end
        status: Literal["success", "failure", "censored"] = "failure"
        if in_time:
            status = "censored" if unseen else "success"
        resumed = any(stop <= t < user_end - to_ms(rules.fa_grace) for t, _ in agents)
        return BargeIn(to_seconds(onset), status, None if unseen else to_seconds(stop - onset), resumed)
    return None


def _onsets_inside(users: Sequence[MsSpan], onsets: Sequence[int], grace: int) -> tuple[list, list, list, int]:
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


def _responses(users: Sequence[MsSpan], onsets: Sequence[int], end: int, grace: int) -> tuple[Response, ...]:
    """The response to every user turn; what the agent says before the first one (a greeting) answers nothing."""
    responses = []
    for i, (start, stop) in enumerate(users):
        following = users[i + 1][0] if i + 1 < len(users) else end
        time_to_answer = to_seconds(following - stop)
        onset = next((t for t in onsets if start < t < following), None)
        if onset is None:
            responses.append(Response("no_response", None, time_to_answer))
        else:
            status: Literal["early", "ok"] = "early" if stop - onset > grace else "ok"
            responses.append(Response(status, to_seconds(onset - stop), time_to_answer))
    return tuple(responses)


#: What is counted over what, conversation by conversation.
RATIOS: dict[str, Ratio[TurnTaking]] = {
    "success_rate": lambda m: (len(m.successes), len(m.observable)),
    "sustained_success_rate": lambda m: (sum(not b.resumed for b in m.successes), len(m.observable)),
    "mean_stop_latency": lambda m: (sum(b.stop_latency or 0.0 for b in m.successes), len(m.successes)),
    "restricted_mean_stop_latency": lambda m: (
        sum(_restricted(b, m.rules.barge_in_window) for b in m.observable),
        len(m.observable),
    ),
    "false_alarm_rate": lambda m: (m.n_user_turns_with_false_alarm, len(m.user)),
    "false_alarms_per_agent_turn": lambda m: (len(m.false_alarms), len(m.agent)),
    "false_alarms_per_minute": lambda m: (len(m.false_alarms), sum(b - a for a, b in m.user) / 60),
    "interruption_rate": lambda m: (sum(b.user_onset != m.user[0][0] for b in m.barge_ins), max(len(m.user) - 1, 0)),
    "first_response_latency": lambda m: _latencies(m.responses[:1]),
    "early_rate": lambda m: _share(m.responses[:1], "early"),
    "no_response_rate": lambda m: _share(m.responses[:1], "no_response"),
    "response_latency": lambda m: _latencies(m.responses),
    "response_rate": lambda m: (sum(r.latency is not None for r in m.responses), len(m.responses)),
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
    latencies = [latency for m in conversations for latency in stop_latencies(m)]
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
    rates = {name: ratio_of_sums(map(ratio, conversations)) for name, ratio in RATIOS.items()}
    return {
        **counts,
        **rates,
        "median_stop_latency": statistics.median(latencies) if latencies else None,
        "p90_stop_latency": _quantile(latencies, 0.9),
    }


def estimates(conversations: Sequence[TurnTaking], seed: int = 0) -> dict[str, Estimate]:
    """The same rates with their number of events and 95 % intervals; conversations, not events, are resampled."""
    return estimate_each(RATIOS, PROPORTIONS, conversations, seed)


def _restricted(barge_in: BargeIn, window: Seconds) -> Seconds:
    return window if barge_in.stop_latency is None else min(barge_in.stop_latency, window)


def stop_latencies(m: TurnTaking) -> list[Seconds]:
    """Of the successes: what median and 90th percentile are taken of."""
    return [b.stop_latency for b in m.successes if b.stop_latency is not None]


def _quantile(values: Sequence[float], q: float) -> float | None:
    """The smallest value that at least a share `q` of them do not exceed."""
    return sorted(values)[math.ceil(q * len(values)) - 1] if values else None
