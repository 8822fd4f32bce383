"""From records to numbers: every conversation judged by itself, then all events of a set pooled."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.answers import Answer, answers, exact_match
from nemo_duplex.evaluation.confidence import Estimate
from nemo_duplex.evaluation.record import Record
from nemo_duplex.evaluation.speech import LABEL, BigramRecogniser, spoken_by_agent, spoken_by_reference, word_error_rate
from nemo_duplex.evaluation.turn_taking import Rules, TurnTaking, estimates, measure, pool
from nemo_duplex.frames import Seconds, Span

#: User turns come exact from the manifest. The agent is found by a VAD, whose pauses inside an answer are no new turns.
AUDIO_RULES = Rules(agent_merge_gap=0.5)
#: The agent's text channel says exactly where its turns are.
CHANNEL_RULES = Rules()
#: Merge gaps for which the headline is repeated: nothing else moves it as much.
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
class Judged:
    """One conversation with everything that was measured in it.

    Examples:
        >>> from nemo_duplex.evaluation.activity import energy_vad
        >>> from nemo_duplex.evaluation.generation import run_conversations
        >>> from nemo_duplex.evaluation.run import read_sets
        >>> records = run_conversations(model, read_sets(corpus, ["dev"], limit=1)["dev"], energy_vad)
        >>> len(judge(records[0]).turn_taking.responses) == len(records[0].questions)
        True
    """

    record: Record
    turn_taking: TurnTaking
    answers: tuple[Answer, ...]

    @property
    def mistakes(self) -> float:
        """For sorting, worst first: what a listener would mind, most of all."""
        failed = sum(b.status == "failure" for b in self.turn_taking.barge_ins)
        missing = sum(r.status == "no_response" for r in self.turn_taking.responses)
        wrong = sum(a.verdict == "wrong" for a in self.answers)
        return 4 * failed + 3 * len(self.turn_taking.false_alarms) + 2 * missing + wrong

    def as_dict(self) -> dict[str, Any]:
        taken = self.turn_taking
        return {
            "id": self.record.id,
            "duration": self.record.duration,
            "user": [_turn(q.turn) for q in self.record.questions],
            "agent": [_turn(t) | {"unfinished": bool(t.custom.get("unfinished"))} for t in self.record.agent],
            "speech": taken.agent,
            "barge_ins": [asdict(b) | {"success": b.success} for b in taken.barge_ins],
            "false_alarms": taken.false_alarms,
            "false_alarms_excused": taken.false_alarms_excused,
            "collisions": taken.collisions,
            "responses": [asdict(r) for r in taken.responses],
            "answers": [_marked(a) for a in self.answers],
            "mistakes": self.mistakes,
        }


def judge(record: Record, rules: Rules = AUDIO_RULES) -> Judged:
    """Turn-taking of what is heard, and the answers of what is written."""
    return Judged(record, measure(record.user, record.speech, record.duration, rules), tuple(answers(record)))


def summary(judged: Sequence[Judged], seed: int = 0) -> dict[str, Any]:
    """The numbers of one set. Every rate is {value, n, ci95, bootstrap95}; `n` is what it was counted over."""
    taken = [j.turn_taking for j in judged]
    pooled = pool(taken)
    rates: dict[str, Any] = {name: estimate.as_dict() for name, estimate in estimates(taken, seed).items()}
    loose = [_again(j.record, replace(AUDIO_RULES, fa_grace=_LOOSE_GRACE)) for j in judged]
    return rates | {
        "hours": sum(j.record.duration for j in judged) / 3600,
        "counts": {name: value for name, value in pooled.items() if name.startswith("n_")},
        "stop_latency": {name: pooled[f"{name}_stop_latency"] for name in ("mean", "median", "p90", "restricted_mean")},
        "latencies": {
            "stop": [b.stop_latency for m in taken for b in m.barge_ins if b.stop_latency is not None],
            "response": [r.latency for m in taken for r in m.responses if r.latency is not None],
        },
        "false_alarm_rate_grace_0.5": estimates(loose, seed)["false_alarm_rate"].as_dict(),
        "exact_match": _as_dicts(exact_match([j.answers for j in judged], seed)),
        "sensitivity": {f"{gap:g}": _headline([_again(j.record, replace(AUDIO_RULES, agent_merge_gap=gap)) for j in judged])
                        for gap in SENSITIVITY},
        "text_channel": _text_channel(judged),
    }  # fmt: skip


def spoken_text(judged: Sequence[Judged], recogniser: BigramRecogniser, most: int, seed: int = 0) -> dict[str, Any]:
    """Whether the agent's voice says its text: word error rates of the generated and of the original voice.

    Args:
        most: turns of each voice to listen to, drawn by `seed`.

    Returns:
        `spoken_wer` and `reference_wer` (value None where the corpus has no agent voice), and their difference in points.
    """
    rates: dict[str, Estimate] = {}
    for name, turns in (("spoken_wer", spoken_by_agent), ("reference_wer", spoken_by_reference)):
        utterances = [u for j in judged for u in turns(j.record)]
        chosen = random.Random(seed).sample(utterances, min(most, len(utterances)))
        rates[name] = word_error_rate(recogniser, chosen, seed)
    spoken, reference = rates["spoken_wer"].value, rates["reference_wer"].value
    gap = None if spoken is None or reference is None else 100 * (spoken - reference)
    found = {name: rate.as_dict() | {"backend": LABEL} for name, rate in rates.items()}
    return found | {"spoken_wer_gap_points": gap, "words_unknown_to_asr": recogniser.unknown}


def events(name: str, judged: Sequence[Judged]) -> Iterator[dict[str, Any]]:
    """Every event of a set as a row of events.csv, conversation by conversation in order of time."""
    for j in judged:
        taken = j.turn_taking
        rows: list[tuple[str, Seconds, str, Seconds | None, str]] = []
        rows += [("barge_in", b.user_onset, b.status, b.stop_latency, "resumed" if b.resumed else "") for b in taken.barge_ins]
        rows += [("false_alarm", t, "failure", None, "") for t in taken.false_alarms]
        rows += [("false_alarm", t, "excused", None, "") for t in taken.false_alarms_excused]
        rows += [("collision", t, "", None, "") for t in taken.collisions]
        rows += [("response", end, r.status, r.latency, "") for (_, end), r in zip(taken.user, taken.responses, strict=True)]
        rows += [("answer", a.question.turn.end, a.verdict, None, a.text) for a in j.answers]
        for kind, time, verdict, latency, detail in sorted(rows, key=lambda row: row[1]):
            yield {
                "set": name,
                "conversation": j.record.id,
                "time": round(time, 3),
                "event": kind,
                "verdict": verdict,
                "latency": "" if latency is None else round(latency, 3),
                "detail": detail,
            }


def _again(record: Record, rules: Rules) -> TurnTaking:
    return measure(record.user, record.speech, record.duration, rules)


def _headline(taken: Sequence[TurnTaking]) -> dict[str, Any]:
    pooled = pool(taken)
    return {name: pooled[name] for name in _HEADLINE}


def _text_channel(judged: Sequence[Judged]) -> dict[str, Any]:
    """The same metrics from the text channel, and how far it and the sound are apart."""
    taken = [measure(j.record.user, _written(j.record), j.record.duration, CHANNEL_RULES) for j in judged]
    both = [(_written(j.record), j.turn_taking.agent) for j in judged]
    pairs = [(turn, _overlapping(turn, heard)) for written, heard in both for turn in written]
    matched = [(turn, found) for turn, found in pairs if found is not None]
    return pool(taken) | {
        "unterminated": sum(j.record.unterminated for j in judged),
        "orphan_eos": sum(j.record.orphan_eos for j in judged),
        "onset_difference": _mean_absolute([found[0] - turn[0] for turn, found in matched]),
        "offset_difference": _mean_absolute([found[1] - turn[1] for turn, found in matched]),
        "written_but_not_heard": len(pairs) - len(matched),
        "heard_but_not_written": sum(_overlapping(span, written) is None for written, heard in both for span in heard),
    }


def _written(record: Record) -> list[Span]:
    """The turns of the text channel, as far as the recording lasts."""
    return [(t.start, min(t.end, record.duration)) for t in record.agent if t.start < record.duration]


def _overlapping(span: Span, others: Sequence[Span]) -> Span | None:
    return next((other for other in others if other[0] < span[1] and span[0] < other[1]), None)


def _mean_absolute(values: Sequence[float]) -> float | None:
    return statistics.fmean(map(abs, values)) if values else None


def _turn(turn: Turn) -> dict[str, Any]:
    return {"start": turn.start, "end": turn.end, "text": turn.text}


def _marked(answer: Answer) -> dict[str, Any]:
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
