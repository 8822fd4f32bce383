"""From outcomes to numbers: every conversation scored by itself, then all events of a set pooled."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation import conduct
from nemo_duplex.evaluation.answers import Answer, answers, exact_match
from nemo_duplex.evaluation.conduct import Conduct, measure_conduct
from nemo_duplex.evaluation.confidence import estimate_quantile
from nemo_duplex.evaluation.outcome import Outcome
from nemo_duplex.evaluation.scorer import not_run
from nemo_duplex.evaluation.time_left import Lengths, own_ends
from nemo_duplex.evaluation.turn_taking import RATIOS, Rules, TurnTaking, estimates, measure, pool, stop_latencies
from nemo_duplex.frames import Span

#: User turns are exact, from the manifest. The agent's come from a VAD, so pauses inside an answer are merged.
AUDIO_RULES = Rules(agent_merge_gap=0.5)
#: Turns of the agent's text channel are exact.
CHANNEL_RULES = Rules()
#: Merge gaps (Seconds) for which the headline is repeated: nothing else changes it as much.
SENSITIVITY = (0.2, 0.5, 1.5)
_LOOSE_GRACE = 0.5  # of FD-Bench, beside the paper's 0.1

#: Where the rates of `turn_taking.RATIOS` stand in report.json: group -> name -> rate.
TURN_TAKING: Mapping[str, Mapping[str, str]] = {
    "barge_in": {
        "success_rate": "success_rate",
        "sustained_success_rate": "sustained_success_rate",
        "interruption_rate": "interruption_rate",
        "mean_stop_latency": "mean_stop_latency",
        "restricted_mean_stop_latency": "restricted_mean_stop_latency",
    },
    "false_alarm": {
        "rate": "false_alarm_rate",
        "per_agent_turn": "false_alarms_per_agent_turn",
        "per_minute": "false_alarms_per_minute",
    },
    "response": {
        "first_latency": "first_response_latency",
        "first_early_rate": "early_rate",
        "first_missing_rate": "no_response_rate",
        "rate": "response_rate",
        "latency": "response_latency",
        "early_rate": "response_early_rate",
        "missing_rate": "response_missing_rate",
    },
}
#: The same the other way round: rate -> (group, name).
PLACES = {rate: (group, name) for group, names in TURN_TAKING.items() for name, rate in names.items()}
_HEADLINE = ("success_rate", "mean_stop_latency", "false_alarm_rate", "first_response_latency", "no_response_rate")


@dataclass(frozen=True)
class Scored:
    """One conversation with everything that was measured in it.

    Examples:
        >>> from nemo_duplex.evaluation.activity import energy_vad
        >>> from nemo_duplex.evaluation.generation import run_conversations
        >>> from nemo_duplex.evaluation.sets import read_sets
        >>> outcomes = run_conversations(model, read_sets(corpus, ["dev"], limit=1)["dev"], energy_vad)
        >>> len(score(outcomes[0]).turn_taking.responses) == len(outcomes[0].questions)
        True
    """

    outcome: Outcome
    turn_taking: TurnTaking
    answers: tuple[Answer, ...]
    conduct: Conduct

    @property
    def mistakes(self) -> float:
        """The weighted number of mistakes, to sort conversations by."""
        failed = sum(b.status == "failure" for b in self.turn_taking.barge_ins)
        missing = sum(r.status == "no_response" for r in self.turn_taking.responses)
        wrong = sum(a.verdict == "wrong" for a in self.answers)
        return 4 * failed + 3 * len(self.turn_taking.false_alarms) + 2 * missing + wrong

    def as_dict(self) -> dict[str, Any]:
        taken, found = self.turn_taking, self.conduct
        return {
            "id": self.outcome.id,
            "duration": self.outcome.duration,
            "user": [_turn(q.turn) for q in self.outcome.questions],
            "agent": [_turn(t) | {"unfinished": bool(t.custom.get("unfinished"))} for t in self.outcome.agent],
            "speech": taken.agent,
            "barge_ins": [asdict(b) | {"success": b.success} for b in taken.barge_ins],
            "false_alarms": taken.false_alarms,
            "false_alarms_excused": taken.false_alarms_excused,
            "collisions": taken.collisions,
            "responses": [r.as_dict() for r in taken.responses],
            "answers": [_answer(a) for a in self.answers],
            "pauses": [asdict(pause) for pause in found.behaviour.pauses],
            "reactions": [asdict(reaction) for reaction in found.behaviour.reactions],
            "echoes": [asdict(echo) for echo in found.behaviour.echoes],
            "unprompted": [asdict(turn) for turn in found.behaviour.unprompted],
            "runaways": found.floor.runaways,
            "mistakes": self.mistakes,
            "parts": parts(self),
        }


def score(outcome: Outcome, rules: Rules = AUDIO_RULES, lengths: Lengths | None = None) -> Scored:
    """Turn-taking of the agent's sound, what it makes of pauses and other sounds, and the answers on its text channel.

    Args:
        lengths: how long answers take (`lengths_of_answers`): an agent that has said its answer has not stopped at a sound.

    Raises:
        InputError: naming the conversation, if a pause or an event of its corpus has no times.
    """
    found = tuple(answers(outcome))
    return Scored(
        outcome=outcome,
        turn_taking=measure(outcome.user, outcome.speech, outcome.duration, rules),
        answers=found,
        conduct=measure_conduct(outcome.conversation, outcome.speech, own_ends(found, lengths or {})),
    )


def summary(scored: Sequence[Scored], seed: int = 0) -> dict[str, Any]:
    """The numbers of one set.

    Returns:
        Groups of rates, each of them a dict of `value`, `n` (what it was counted over), `ci95` and `bootstrap95`: `barge_in`,
        `false_alarm`, `response`, `floor`, `behaviour`, `turn_ends` and `answers` (of these, `families` by
        name). Plain numbers, None where undefined: `hours`,
        `counts`, the lists in `latencies`, and the headline in `sensitivity` (by merge gap in Seconds). `token_channel`: the
        same groups from the text channel, and how far it and the sound are apart; `not_run` for a model without one.
    """
    taken = [one.turn_taking for one in scored]
    found = _turn_taking(taken, seed)
    loose = _measured_again(scored, replace(AUDIO_RULES, fa_grace=_LOOSE_GRACE))
    gaps = {f"{gap:g}": _measured_again(scored, replace(AUDIO_RULES, agent_merge_gap=gap)) for gap in SENSITIVITY}
    found["false_alarm"]["rate_grace_0.5"] = estimates(loose, seed)["false_alarm_rate"].as_dict()
    return {
        "hours": sum(one.outcome.duration for one in scored) / 3600,
        "counts": {name: value for name, value in pool(taken).items() if name.startswith("n_")},
        **found,
        **conduct.summary([one.conduct for one in scored], seed),
        "answers": _as_dicts(exact_match([one.answers for one in scored], seed)),
        "token_channel": _token_channel(scored, seed),
        "latencies": {
            "stop": [b.stop_latency for m in taken for b in m.barge_ins if b.stop_latency is not None],
            "response": [r.latency for m in taken for r in m.responses if r.latency is not None],
        },
        "sensitivity": {gap: _headline(again) for gap, again in gaps.items()},
    }


def rate_of(summary: Mapping[str, Any], rate: str) -> dict[str, Any]:
    """The entry of a rate of `turn_taking.RATIOS` in what `summary` returns."""
    group, name = PLACES[rate]
    return summary[group][name]


def parts(one: Scored) -> dict[str, tuple[float, float]]:
    """What one conversation adds to each rate: (what is counted, over what), by its place in report.json.

    Two evaluations of the same conversations are compared by it.
    """
    found = {f"{group}.{name}": RATIOS[rate](one.turn_taking) for rate, (group, name) in PLACES.items()}
    found |= conduct.parts(one.conduct)
    whole = [answer for answer in one.answers if not answer.cut_off]
    return found | {"answers.all": (sum(answer.verdict == "right" for answer in whole), len(whole))}


def _turn_taking(taken: Sequence[TurnTaking], seed: int) -> dict[str, dict[str, Any]]:
    rates = estimates(taken, seed)
    found = {group: {name: rates[rate].as_dict() for name, rate in names.items()} for group, names in TURN_TAKING.items()}
    latencies = [stop_latencies(m) for m in taken]
    for name, quantile in (("median", 0.5), ("p90", 0.9)):
        found["barge_in"][f"{name}_stop_latency"] = estimate_quantile(latencies, quantile, seed).as_dict()
    return found


def _measured_again(scored: Sequence[Scored], rules: Rules) -> list[TurnTaking]:
    """Turn-taking of the same sound by other rules."""
    return [measure(one.outcome.user, one.outcome.speech, one.outcome.duration, rules) for one in scored]


def _headline(taken: Sequence[TurnTaking]) -> dict[str, Any]:
    pooled = pool(taken)
    return {"n_barge_in": pooled["n_barge_in"]} | {".".join(PLACES[name]): pooled[name] for name in _HEADLINE}


def _token_channel(scored: Sequence[Scored], seed: int) -> dict[str, Any]:
    """The same groups from the text channel, and how far it and the sound are apart."""
    if not any(one.outcome.writes for one in scored):
        return not_run("the model has no text channel")
    taken: list[TurnTaking] = []
    pairs: list[tuple[Span, Span | None]] = []  # each written turn, and the sound that overlaps it
    not_written = 0
    for one in scored:
        written, spoken = _channel_spans(one.outcome), one.turn_taking.agent
        taken.append(measure(one.outcome.user, written, one.outcome.duration, CHANNEL_RULES))
        pairs += [(turn, _overlapping(turn, spoken)) for turn in written]
        not_written += sum(_overlapping(span, written) is None for span in spoken)
    matched = [(turn, sound) for turn, sound in pairs if sound is not None]
    return {
        "counts": {name: value for name, value in pool(taken).items() if name.startswith("n_")},
        **_turn_taking(taken, seed),
        "unterminated": sum(one.outcome.unterminated for one in scored),
        "orphan_eos": sum(one.outcome.orphan_eos for one in scored),
        "onset_difference": _mean_absolute([sound[0] - turn[0] for turn, sound in matched]),
        "offset_difference": _mean_absolute([sound[1] - turn[1] for turn, sound in matched]),
        "written_but_not_heard": len(pairs) - len(matched),
        "heard_but_not_written": not_written,
    }


def _channel_spans(outcome: Outcome) -> list[Span]:
    """The turns of the text channel, as far as the recording lasts."""
    return [(t.start, min(t.end, outcome.duration)) for t in outcome.agent if t.start < outcome.duration]


def _overlapping(span: Span, others: Sequence[Span]) -> Span | None:
    return next((other for other in others if other[0] < span[1] and span[0] < other[1]), None)


def _mean_absolute(values: Sequence[float]) -> float | None:
    return statistics.fmean(map(abs, values)) if values else None


def _turn(turn: Turn) -> dict[str, Any]:
    return {"start": turn.start, "end": turn.end, "text": turn.text}


def _answer(answer: Answer) -> dict[str, Any]:
    return {
        "question": answer.question.turn.text,
        "expected": list(answer.reference.texts),
        "said": answer.text,
        "verdict": answer.verdict,
        "cut_off": answer.cut_off,
        "family": answer.reference.family,
        "seen": answer.reference.seen,
    }


def _as_dicts(tree: dict[str, Any]) -> dict[str, Any]:
    return {name: _as_dicts(value) if isinstance(value, dict) else value.as_dict() for name, value in tree.items()}
