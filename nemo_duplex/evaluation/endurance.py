"""Compares the end of a long session with its start: quality, memory and cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nemo_duplex.channels.transcript import decode_turns
from nemo_duplex.conversation import Conversation
from nemo_duplex.evaluation.confidence import paired_difference
from nemo_duplex.evaluation.long_session import Playlist, SessionLog
from nemo_duplex.evaluation.outcome import Outcome, questions
from nemo_duplex.evaluation.scores import PLACES, Scored, score, summary
from nemo_duplex.evaluation.turn_taking import RATIOS

if TYPE_CHECKING:
    from nemo_duplex.models.agent import DuplexAgent

#: What is compared of turn-taking, by its name in `turn_taking.RATIOS`.
_TURN_TAKING = (
    "success_rate",
    "mean_stop_latency",
    "false_alarm_rate",
    "first_response_latency",
    "response_latency",
    "response_missing_rate",
)


def _taken(name: str, scored: Scored) -> tuple[float, float]:
    return RATIOS[name](scored.turn_taking)


def _right(cut_off: bool, scored: Scored) -> tuple[float, float]:
    counted = [answer for answer in scored.answers if answer.cut_off == cut_off]
    return sum(answer.verdict == "right" for answer in counted), len(counted)


#: What is compared: of each conversation, a numerator and a denominator.
COMPARED: Mapping[str, Callable[[Scored], tuple[float, float]]] = {
    **{name: partial(_taken, name) for name in _TURN_TAKING},
    "exact_match": partial(_right, False),
    "exact_match_cut_off": partial(_right, True),
}


_ANSWERS = {"exact_match": ("answers", "all"), "exact_match_cut_off": ("answers", "cut_off")}


def score_session(log: SessionLog) -> list[Scored]:
    """Every conversation, scored; the agent's text comes from the session's transcript at its end."""
    assert log.transcript is not None, "The session has not ended."
    turns, rows = log.transcript.agent, []
    for played in log.played:
        start, end = played.start, played.start + played.cut.duration
        agent = tuple(turn.shifted(-start) for turn in turns if start <= turn.start < end)
        conversation = Conversation.from_cut(played.cut)
        rows.append(score(Outcome(conversation, questions(conversation), agent, played.speech)))
    return rows


def soak_report(model: DuplexAgent, playlist: Playlist, log: SessionLog, seed: int = 0) -> dict[str, Any]:
    """Compares the start and the end of a session.

    Returns:
        `first`, `last`: `scores.summary` of these minutes. `difference`: of each metric, last minus first, with its interval
        over the paired conversations, and whether that holds 0 (`within_noise`). `memory`: at some minutes. `cost`: minute by
        minute. `transcript`: its turns, and whether they are all that the text channel holds.
    """
    rows, edge = score_session(log), len(playlist.edge)
    first, last = rows[:edge], rows[-edge:]
    differences = {}
    for name, part in COMPARED.items():
        estimate = paired_difference([part(one) for one in first], [part(one) for one in last], seed=seed)
        within = estimate.ci95[0] <= 0 <= estimate.ci95[1] if estimate.ci95 else None
        differences[name] = estimate.as_dict() | {"within_noise": within}
    return {
        "minutes": playlist.duration / 60,
        "compared": sum(cut.duration for cut in playlist.edge) / 60,
        "conversations": {"compared": edge, "all": len(rows)},
        "first": summary(first, seed),
        "last": summary(last, seed),
        "difference": differences,
        "memory": log.memory,
        "cost": _cost_by_minute(log),
        "transcript": _transcript(model, log),
    }


def _cost_by_minute(log: SessionLog) -> list[dict[str, float]]:
    """Milliseconds per frame."""
    minutes = np.array(log.times) // 60
    rows = []
    for minute in range(int(minutes.max(initial=0)) + 1):
        wall, work = (1000 * np.array(costs)[minutes == minute] for costs in (log.costs, log.work))
        if len(wall):
            p50, p99 = np.percentile(wall, [50, 99])
            rows.append({"minute": minute + 1, "cpu_mean": work.mean(), "p50": p50, "p99": p99, "max": wall.max()})
    return [{name: round(float(value), 3) for name, value in row.items()} for row in rows]


def _transcript(model: DuplexAgent, log: SessionLog) -> dict[str, Any]:
    assert log.transcript is not None
    written = decode_turns(log.tokens, model.layout, model.tokenizer)
    kept = [turn.text for turn in log.transcript.agent if turn.text]
    return {"turns": len(kept), "written": len(written), "complete": kept == written}


# ---------------------------------------------------------------------- for a terminal


def soak_table(found: Mapping[str, Any]) -> str:
    """The report in a few lines."""
    minutes = f"{found['compared']:.1f} min"
    lines = [f"{'':22}{'first ' + minutes:>32}{'last ' + minutes:>32}   last - first (95 %)"]
    for name, difference in found["difference"].items():
        if difference["value"] is not None:
            first, last = (_estimate(found[edge], name) for edge in ("first", "last"))
            low, high = difference["ci95"]
            verdict = "within noise" if difference["within_noise"] else "CHANGED"
            lines.append(f"{name:22}{first:>32}{last:>32}   {difference['value']:+.3f} ({low:+.3f}, {high:+.3f}) {verdict}")
    for mark in found["memory"]:
        lines.append(f"minute {mark['minute']:<4g} {mark['tensors_mb']:.2f} MB of tensors, {mark['process_mb']:.0f} MB in all")
    for row in (found["cost"][0], *found["cost"][-2:-1]):  # the last minute is none
        times = f"p50 {row['p50']:.2f}, p99 {row['p99']:.2f}, most {row['max']:.2f} ms"
        lines.append(f"minute {row['minute']:<4.0f} {row['cpu_mean']:.2f} ms of CPU per frame; on the clock {times}")
    script = found["transcript"]
    complete = "complete" if script["complete"] else "BROKEN"
    return "\n".join([*lines, f"transcript: {script['turns']} of {script['written']} turns, {complete}"])


def _estimate(summary: Mapping[str, Any], name: str) -> str:
    group, place = _ANSWERS.get(name) or PLACES[name]
    estimate = summary[group][place]
    interval = "" if not estimate["ci95"] else " ({:.3f}, {:.3f})".format(*estimate["ci95"])
    return "–" if estimate["value"] is None else f"{estimate['value']:.3f}{interval} n {estimate['n']:g}"
