"""Whether the numbers of a report are right: agents of which every score is known are scored by its own functions.

    agent                    number                             expected   measured
    silent                   response.missing_rate                 1.000      1.000
    always talking           barge_in.success_rate                 0.000      0.000
    oracle, 0.24 s late      each response latency               + 0.240    + 0.240

Expected values are worked out here from how the built-in conversations were made, by other means than those that they check.
No model and no torch; it takes seconds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nemo_duplex.evaluation.activity import energy_vad
from nemo_duplex.evaluation.controls.baseline import lengths_of_answers, never_listens, telling
from nemo_duplex.evaluation.controls.baseline_agents import (
    AGENTS,
    ECHO_DELAY,
    BaselineAgent,
    delayed_oracle,
    echo,
    oracle,
    played,
)
from nemo_duplex.evaluation.controls.built_in_conversations import built_in_outcomes
from nemo_duplex.evaluation.controls.expected_scores import DELAY, DELAYED, WINDOW, Fact, Numbers, expected_scores, facts_of
from nemo_duplex.evaluation.outcome import Outcome
from nemo_duplex.evaluation.readers.channel_checks import Channel, channel_facts
from nemo_duplex.evaluation.scores import Scored, score
from nemo_duplex.evaluation.sound import Sound
from nemo_duplex.frames import Seconds

#: The outcomes of a set -> its entry in report.json.
Metrics = Callable[[Sequence[Outcome]], Mapping[str, Any]]

_EXACT = 1e-6
_BY_EAR: Seconds = 0.03  # a voice activity detector errs by as much
_WITH_SOUND = 4  # conversations that are scored by ear, too
_MISSING = "not in the report"


@dataclass(frozen=True)
class Bracket:
    """A number of an agent of which it is known.

    Args:
        agent: who was scored.
        number: its place in report.json, or what else was measured.
        expected: None where it must be undefined.
        measured: what came out; a text where there is no such number.
        tolerance: by which the two may differ.
    """

    agent: str
    number: str
    expected: float | None
    measured: float | str | None
    tolerance: float = _EXACT

    @property
    def holds(self) -> bool:
        if self.expected is None or self.measured is None or isinstance(self.measured, str):
            return self.expected is None and self.measured is None
        return math.isfinite(self.measured) and abs(self.measured - self.expected) <= self.tolerance


def selftest(metrics: Metrics) -> list[Bracket]:
    """Scores the baseline agents.

    Args:
        metrics: what the report uses: outcomes -> the entry of a set in report.json.

    Examples:
        >>> from nemo_duplex.evaluation.scores import summary
        >>> found = selftest(lambda outcomes: summary([score(outcome) for outcome in outcomes]))
        >>> [one.holds for one in found if one.agent == "silent" and one.number == "barge_in.success_rate"]
        [True]
    """
    recorded = built_in_outcomes()
    facts = [fact for outcome in recorded for fact in facts_of(outcome)]
    found: list[Bracket] = []
    for name, agent in {**AGENTS, DELAYED: delayed_oracle(DELAY)}.items():
        outcomes = [played(agent, outcome) for outcome in recorded]
        measured = metrics(outcomes)
        found += [
            Bracket(name, place, value, _at(measured, place)) for place, value in expected_scores(name, facts, outcomes).items()
        ]
        if name in (DELAYED, "oracle"):
            found += _latencies(name, facts, measured)
        if name in ("oracle", "deaf oracle"):
            found += _beside_a_deaf_agent(name, facts, [score(outcome) for outcome in outcomes])
    return [*found, *_by_ear(metrics)]


def selftest_table(brackets: Sequence[Bracket]) -> str:
    """One line for each number, those that do not hold marked, and how many hold."""
    rows = [("", "agent", "number", "expected", "measured")]
    for one in brackets:
        rows.append(("" if one.holds else "WRONG", one.agent, one.number, _shown(one.expected), _shown(one.measured)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    held = sum(one.holds for one in brackets)
    return "\n".join([*lines, "", f"{held} of {len(brackets)} numbers are where they must be"])


def _latencies(name: str, facts: Sequence[Fact], measured: Mapping[str, Any]) -> Iterator[Bracket]:
    """How many single latencies are off, by a millisecond or more."""
    late = DELAY if name == DELAYED else 0.0
    right = {
        "response": [fact.gap + late for fact in facts],
        "stop": [fact.stop + late for fact in facts if fact.left is not None],
    }
    for kind, values in right.items():
        found = measured.get("latencies", {}).get(kind, [])
        equal = len(found) == len(values) and sum(round(1000 * (a - b)) == 0 for a, b in zip(found, values, strict=True))
        yield Bracket(name, f"latencies.{kind} that are right to the millisecond", len(values), equal)


def _beside_a_deaf_agent(name: str, facts: Sequence[Fact], scored: Sequence[Scored]) -> Iterator[Bracket]:
    """The baseline of barge-in success: whoever is scored, it is what the deaf agent scores."""
    lengths = lengths_of_answers(one.outcome.conversation for one in scored)
    left = [fact.left for fact in facts if fact.left is not None]
    long = [end for end in left if end > 1.0]
    in_time = sum(end <= WINDOW for end in left) / len(left)
    found, listens = telling(scored, lengths), name == "oracle"
    rates = {
        "never_listens.success_rate": (in_time, never_listens(scored, lengths)["success_rate"]),
        "telling.never_listens_rate": (sum(end <= WINDOW for end in long) / len(long), found["never_listens_rate"]),
        "telling.success_rate": (1 if listens else sum(end <= WINDOW for end in long) / len(long), found["success_rate"]),
        "telling.yield_rate": (1 if listens else 0, found["yield_rate"]),
    }
    yield from (Bracket(name, place, right, entry["value"]) for place, (right, entry) in rates.items())
    yield Bracket(name, "telling.success_rate, n", len(long), found["success_rate"]["n"])


def _by_ear(metrics: Metrics) -> Iterator[Bracket]:
    """The same with sound: by voice activity, and by the check for leaks."""
    recorded = built_in_outcomes(_WITH_SOUND, sounds=True)
    facts = [fact for outcome in recorded for fact in facts_of(outcome)]
    gaps, stops = [fact.gap for fact in facts], [fact.stop for fact in facts if fact.left is not None]
    right: Mapping[str, Numbers] = {
        "silent": {"barge_in.success_rate": None, "response.missing_rate": 1},
        "always talking": {"barge_in.success_rate": 0, "floor.agent_talk_ratio": 1},
        "oracle": {
            "barge_in.success_rate": 1,
            "barge_in.mean_stop_latency": statistics.fmean(stops),
            "response.latency": statistics.fmean(gaps),
            "token_channel.onset_difference": 0,
            "token_channel.offset_difference": 0,
        },
    }
    for name, numbers in right.items():
        measured = metrics([played(AGENTS[name], outcome, energy_vad) for outcome in recorded])
        yield from (Bracket(f"{name}, by ear", at, value, _at(measured, at), _BY_EAR) for at, value in numbers.items())
    for agent, leaks in ((echo, ECHO_DELAY), (oracle, None)):
        yield from (Bracket(f"{agent.__name__}, by ear", "leak_delay", leaks, _leak(agent, o), _BY_EAR) for o in recorded[:1])


def _leak(agent: BaselineAgent, outcome: Outcome) -> Seconds | None:
    """By how much later the user is heard in the agent's channel."""
    done = played(agent, outcome, energy_vad)
    assert done.user_sound is not None and done.agent_sound is not None, "Both have sound."
    return channel_facts(_channel(done.user_sound), _channel(done.agent_sound), done.user).leak_delay


def _channel(sound: Sound) -> Channel:
    return Channel(sound.samples(), sound.sample_rate)


def _at(measured: Mapping[str, Any], place: str) -> float | str | None:
    """The number at a place such as `barge_in.success_rate`."""
    entry: Any = measured
    for name in place.split("."):
        if not isinstance(entry, Mapping) or name not in entry:
            return _MISSING
        entry = entry[name]
    return entry["value"] if isinstance(entry, Mapping) else entry


def _shown(value: float | str | None) -> str:
    return "undefined" if value is None else value if isinstance(value, str) else f"{value:.3f}"
