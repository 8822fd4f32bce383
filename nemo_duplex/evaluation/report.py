"""report.html: the numbers, pictures and sound of an evaluation in one file that needs no other."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import soundfile

from nemo_duplex.evaluation.scores import Scored
from nemo_duplex.evaluation.timeline import timeline_svg

#: Table 2 of the paper (Interspeech 2025): its own test sets and model. Shown beside our numbers, never mixed with them.
PAPER = {
    "UltraChat": {"success_rate": 0.83, "mean_stop_latency": 0.52, "false_alarm_rate": 0.0, "first_response_latency": 0.72},
    "Impatient": {"success_rate": 0.945, "mean_stop_latency": 0.69, "false_alarm_rate": 0.0, "first_response_latency": 0.92},
}
#: Which of the paper's sets a set of ours is like.
LIKE = {"impatient": "Impatient", "dev": "UltraChat"}

_AUDIO_RATE = 16000
_TITLES = {
    "success_rate": "Barge-in success",
    "mean_stop_latency": "Stop latency",
    "false_alarm_rate": "False alarms",
    "first_response_latency": "First response",
}
_EXPLAINED = {
    "success_rate": "stops within 1.5 s when the user starts to speak",
    "mean_stop_latency": "from the user's onset to silence, over successes",
    "false_alarm_rate": "user turns that the agent broke into",
    "first_response_latency": "from the end of the first user turn to the agent's voice",
}


@dataclass(frozen=True)
class Example:
    """A conversation to show, and the set it is from."""

    set_name: str
    scored: Scored


def write_html(path: Path, report: Mapping[str, Any], examples: Sequence[Example]) -> None:
    """Writes the page.

    Args:
        report: what `evaluate` returns.
        examples: conversations with picture and sound; each takes about 30 kB per second.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"percent": percent, "seconds": seconds, "interval": interval}
    here = files("nemo_duplex.evaluation")
    template = environment.from_string((here / "report.html").read_text(encoding="utf-8"))
    page = template.render(
        report=report,
        sets=report["sets"],
        paper=PAPER,
        like=LIKE,
        cards=_cards(report["sets"]),
        examples=[_shown(example) for example in examples],
        style=(here / "report.css").read_text(encoding="utf-8"),
        script=(here / "report.js").read_text(encoding="utf-8"),
    )
    path.write_text(page, encoding="utf-8")


def table(report: Mapping[str, Any]) -> str:
    """The headline as a few lines of text for a terminal."""
    sets = report["sets"]

    def ours(title: str, cell: Callable[[Mapping[str, Any]], str]) -> list[str]:
        return [title, *map(cell, sets.values()), *("" for _ in PAPER)]

    def beside_the_paper(metric: str) -> list[str]:
        shown = _formatter(metric)
        cells = [_with_count(values[metric], shown) for values in sets.values()]
        return [_TITLES[metric], *cells, *(shown(theirs[metric]) for theirs in PAPER.values())]

    rows = [
        ["", *sets, *(f"paper, {name}" for name in PAPER)],
        beside_the_paper("success_rate"),
        ours("(success if it never listened)", lambda values: percent(values["never_listens"]["success_rate"]["value"])),
        ours("Breaks off its answer", lambda values: _with_count(values["yield_rate"], percent)),
        beside_the_paper("mean_stop_latency"),
        beside_the_paper("false_alarm_rate"),
        beside_the_paper("first_response_latency"),
        ours("No response", lambda values: percent(values["no_response_rate"]["value"])),
        ours("Exact answers, seen", lambda values: _with_count(values["exact_match"]["seen"], percent)),
        ours("Exact answers, unseen", lambda values: _with_count(values["exact_match"]["unseen"], percent)),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *_controls(report)])


def _controls(report: Mapping[str, Any]) -> list[str]:
    """How many controls hold, fail, and cannot tell; then those that do not hold, with their reasons."""
    if not report["controls"]:
        return []
    found = report["control_counts"]
    head = f"controls: {found['passed']} hold, {found['failed']} fail, {found['inconclusive']} inconclusive"
    head += ": they do not tell whether the agent listens" if not found["passed"] + found["failed"] else ""
    failed = [f"control fails: {c['name']}: {c['detail']}" for c in report["controls"] if c["passed"] is False]
    unknown = [f"control inconclusive: {c['name']}: {c['detail']}" for c in report["controls"] if c["passed"] is None]
    return [head, *failed, *unknown]


def _with_count(estimate: Mapping[str, Any], shown: Callable[[float | None], str]) -> str:
    return f"{shown(estimate['value'])} (n {estimate['n']:g})"


def _formatter(metric: str) -> Callable[[float | None], str]:
    return seconds if metric.endswith("latency") else percent


def percent(value: float | None, digits: int = 1) -> str:
    """A share as "94.5 %"; a dash where it is undefined."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def seconds(value: float | None) -> str:
    """A time as "0.69 s"; a dash where it is undefined."""
    return "–" if value is None else f"{value:.2f} s"


def interval(estimate: Mapping[str, Any], unit: str) -> str:
    """A 95 % interval as "94.1 to 99.8 %"; empty where there is none."""
    if not estimate["ci95"]:
        return ""
    low, high = estimate["ci95"]
    return f"{100 * low:.1f} to {100 * high:.1f} %" if unit == "%" else f"{low:.2f} to {high:.2f} s"


def _cards(sets: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The headline: the four numbers of the paper's table, on the hardest set there is."""
    name = "impatient" if "impatient" in sets else next(iter(sets))
    like = LIKE.get(name, "UltraChat")
    cards = []
    for metric, title in _TITLES.items():
        unit, shown = "s" if metric.endswith("latency") else "%", _formatter(metric)
        estimate = sets[name][metric]
        value, theirs = estimate["value"], PAPER[like][metric]
        cards.append(
            {
                "title": title,
                "value": shown(value),
                "interval": interval(estimate, unit),
                "explained": _EXPLAINED[metric],
                "paper": shown(theirs),
                "like": like,
                "set": name,
            }
        )
    return cards


def _shown(example: Example) -> dict[str, Any]:
    scored = example.scored
    return {
        "id": scored.outcome.id,
        "set": example.set_name,
        "duration": scored.outcome.duration,
        "svg": timeline_svg(scored),
        "audio": _data_url(scored),
        "answers": scored.answers,
        "faultless": not scored.mistakes,
        "faults": _faults(scored),
        "barge_ins": len(scored.turn_taking.barge_ins),
    }


def _faults(scored: Scored) -> list[str]:
    taken = scored.turn_taking
    counts = {
        "talked on": sum(b.status == "failure" for b in taken.barge_ins),
        "false alarm": len(taken.false_alarms),
        "no response": sum(r.status == "no_response" for r in taken.responses),
        "wrong answer": sum(a.verdict == "wrong" for a in scored.answers),
    }
    return [f"{count} × {name}" if count > 1 else name for name, count in counts.items() if count]


def _data_url(scored: Scored) -> str:
    """Both channels as FLAC inside the page: the user left, the agent right."""
    file = io.BytesIO()
    soundfile.write(file, scored.outcome.stereo(_AUDIO_RATE), _AUDIO_RATE, format="FLAC", subtype="PCM_16")
    return "data:audio/flac;base64," + base64.b64encode(file.getvalue()).decode("ascii")
