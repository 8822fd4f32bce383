"""From outcomes to numbers: every conversation scored by itself, then all events of a set pooled."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.answers import Answer, answers, exact_match
from nemo_duplex.evaluation.asr import LABEL, BigramRecogniser, spoken_by_agent, spoken_by_reference, word_error_rate
from nemo_duplex.evaluation.confidence import Estimate
from nemo_duplex.evaluation.outcome import Outcome
from nemo_duplex.evaluation.turn_taking import Rules, TurnTaking, estimates, measure, pool
from nemo_duplex.frames import Seconds, Span

#: User turns are exact, from the manifest. The agent's come from a VAD, so pauses inside an answer are merged.
AUDIO_RULES = Rules(agent_merge_gap=0.5)
#: Turns of the agent's text channel are exact.
CHANNEL_RULES = Rules()
#: Merge gaps (Seconds) for which the headline is repeated: nothing else changes it as much.
SENSITIVITY = (0.2, 0.5, 1.5)
_HEADLINE = (
    "n_barge_in",
    "success_rate",
    "mean_stop_latency",
    "false_alarm_rate",
    "first_response_latency",
    "no_response_rate",
)
_LOOSE_GRACE = 0.5  # of FD-Bench, beside the paper's 0.1


@dataclass(frozen=True)
class Scored:
    """One conversation with everything that was measured in it.

    Examples:
        >>> from nemo_duplex.evaluation.activity import energy_vad
        >>> from nemo_duplex.evaluation.generation import run_conversations
        >>> from nemo_duplex.evaluation.run import read_sets
        >>> outcomes = run_conversations(model, read_sets(corpus, ["dev"], limit=1)["dev"], energy_vad)
        >>> len(score(outcomes[0]).turn_taking.responses) == len(outcomes[0].questions)
        True
    """

    outcome: Outcome
    turn_taking: TurnTaking
    answers: tuple[Answer, ...]

    @property
    def mistakes(self) -> float:
        """The weighted number of mistakes, to sort conversations by."""
        failed = sum(b.status == "failure" for b in self.turn_taking.barge_ins)
        missing = sum(r.status == "no_response" for r in self.turn_taking.responses)
        wrong = sum(a.verdict == "wrong" for a in self.answers)
        return 4 * failed + 3 * len(self.turn_taking.false_alarms) + 2 * missing + wrong

    def as_dict(self) -> dict[str, Any]:
        taken = self.turn_taking
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
            "mistakes": self.mistakes,
        }


def score(outcome: Outcome, rules: Rules = AUDIO_RULES) -> Scored:
    """Turn-taking of the agent's sound, and the answers on its text channel."""
    return Scored(outcome, measure(outcome.user, outcome.speech, outcome.duration, rules), tuple(answers(outcome)))


def summary(scored: Sequence[Scored], seed: int = 0) -> dict[str, Any]:
    """The numbers of one set.

    Returns:
        Each rate of `turn_taking.RATIOS`, `false_alarm_rate_grace_0.5` and the rates in `exact_match` are dicts of `value`,
        `n` (what it was counted over), `ci95` and `bootstrap95`. All other values are plain numbers, None where undefined:
        `hours`, `counts`, `stop_latency`, the lists in `latencies`, the headline in `sensitivity` (by merge gap in Seconds),
        and `text_channel`.
    """
    taken = [one.turn_taking for one in scored]
    pooled = pool(taken)
    rates: dict[str, Any] = {name: estimate.as_dict() for name, estimate in estimates(taken, seed).items()}
    loose = _measured_again(scored, replace(AUDIO_RULES, fa_grace=_LOOSE_GRACE))
    gaps = {f"{gap:g}": _measured_again(scored, replace(AUDIO_RULES, agent_merge_gap=gap)) for gap in SENSITIVITY}
    return rates | {
        "hours": sum(one.outcome.duration for one in scored) / 3600,
        "counts": {name: value for name, value in pooled.items() if name.startswith("n_")},
        "stop_latency": {name: pooled[f"{name}_stop_latency"] for name in ("mean", "median", "p90", "restricted_mean")},
        "latencies": {
            "stop": [b.stop_latency for m in taken for b in m.barge_ins if b.stop_latency is not None],
            "response": [r.latency for m in taken for r in m.responses if r.latency is not None],
        },
        "false_alarm_rate_grace_0.5": estimates(loose, seed)["false_alarm_rate"].as_dict(),
        "exact_match": _as_dicts(exact_match([one.answers for one in scored], seed)),
        "sensitivity": {gap: _headline(again) for gap, again in gaps.items()},
        "text_channel": _text_channel(scored),
    }


def spoken_text(scored: Sequence[Scored], recogniser: BigramRecogniser, most: int, seed: int = 0) -> dict[str, Any]:
    """Whether the agent's voice says its text: word error rates of the generated and of the original voice.

    Args:
        most: turns of each voice to transcribe, drawn by `seed`.

    Returns:
        `spoken_wer` and `reference_wer` (value None where the corpus has no agent voice), and their difference in points.
    """
    rates: dict[str, Estimate] = {}
    for name, turns in (("spoken_wer", spoken_by_agent), ("reference_wer", spoken_by_reference)):
        spoken_turns = [u for one in scored for u in turns(one.outcome)]
        chosen = random.Random(seed).sample(spoken_turns, min(most, len(spoken_turns)))
        rates[name] = word_error_rate(recogniser, chosen, seed)
    spoken, reference = rates["spoken_wer"].value, rates["reference_wer"].value
    gap = None if spoken is None or reference is None else 100 * (spoken - reference)
    found = {name: rate.as_dict() | {"backend": LABEL} for name, rate in rates.items()}
    return found | {"spoken_wer_gap_points": gap, "words_unknown_to_asr": recogniser.unknown}


def events(name: str, scored: Sequence[Scored]) -> Iterator[dict[str, Any]]:
    """Every event of a set as a row of events.csv, conversation by conversation in order of time."""
    for one in scored:
        taken = one.turn_taking
        rows: list[tuple[str, Seconds, str, Seconds | None, str]] = []
        rows += [("barge_in", b.user_onset, b.status, b.stop_latency, "resumed" if b.resumed else "") for b in taken.barge_ins]
        rows += [("false_alarm", t, "failure", None, "") for t in taken.false_alarms]
        rows += [("false_alarm", t, "excused", None, "") for t in taken.false_alarms_excused]
        rows += [("collision", t, "", None, "") for t in taken.collisions]
        rows += [("response", end, r.status, r.latency, "") for (_, end), r in zip(taken.user, taken.responses, strict=True)]
        rows += [("answer", a.question.turn.end, a.verdict, None, a.text) for a in one.answers]
        for kind, time, verdict, latency, detail in sorted(rows, key=lambda row: row[1]):
            yield {
                "set": name,
                "conversation": one.outcome.id,
                "time": round(time, 3),
                "event": kind,
                "verdict": verdict,
                "latency": "" if latency is None else round(latency, 3),
                "detail": detail,
            }


def _measured_again(scored: Sequence[Scored], rules: Rules) -> list[TurnTaking]:
    """Turn-taking of the same sound by other rules."""
    return [measure(one.outcome.user, one.outcome.speech, one.outcome.duration, rules) for one in scored]


def _headline(taken: Sequence[TurnTaking]) -> dict[str, Any]:
    pooled = pool(taken)
    return {name: pooled[name] for name in _HEADLINE}


def _text_channel(scored: Sequence[Scored]) -> dict[str, Any]:
    """The same metrics from the text channel, and how far it and the sound are apart."""
    taken: list[TurnTaking] = []
    pairs: list[tuple[Span, Span | None]] = []  # each written turn, and the sound that overlaps it
    not_written = 0
    for one in scored:
        written, spoken = _channel_spans(one.outcome), one.turn_taking.agent
        taken.append(measure(one.outcome.user, written, one.outcome.duration, CHANNEL_RULES))
        pairs += [(turn, _overlapping(turn, spoken)) for turn in written]
        not_written += sum(_overlapping(span, written) is None for span in spoken)
    matched = [(turn, sound) for turn, sound in pairs if sound is not None]
    return pool(taken) | {
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
