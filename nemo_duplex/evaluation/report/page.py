"""report.html: the numbers, pictures and sound of an evaluation in one file that needs no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_duplex.evaluation.paper import TABLE_2
from nemo_duplex.evaluation.report.conversation_list import conversation_rows, script_json
from nemo_duplex.evaluation.report.distribution import distribution_svg
from nemo_duplex.evaluation.report.events import faults_of
from nemo_duplex.evaluation.report.number import Number, interval, number, numbers, percent, seconds, written
from nemo_duplex.evaluation.report.tables import COLUMNS_2, like, paper_tables
from nemo_duplex.evaluation.report.timeline import timeline_svg
from nemo_duplex.evaluation.scores import Scored
from nemo_duplex.frames import Seconds
from nemo_duplex.pages.parts import ENVIRONMENT, beside, player, sound_url, style

_AUDIO_RATE = 16000
#: What is seen and heard of an example; longer ones are shown from their start.
LONGEST: Seconds = 180.0
#: With fewer events, a number of the headline is said to tell little.
FEW = 10
_CARDS = {
    "Barge-in success ↑": "stops within 1.5 s when the user starts to speak",
    "Stop latency ↓": "from the user's onset to silence, over successes",
    "False alarms ↓": "user turns that the agent broke into",
    "1st response latency ↓": "from the end of the first user turn to the agent's voice",
}
#: Groups of report.json that have tables of their own on the page, or are no numbers of the agent.
_NOT_LISTED = {"hours", "answers", "sensitivity", "latencies"}
_GROUPS = {
    "counts": "Counts",
    "barge_in": "Barge-ins",
    "false_alarm": "False alarms",
    "response": "Responses",
    "floor": "Who holds the floor",
    "behaviour": "Pauses, backchannels, side talk, echo",
    "turn_ends": "Turn ends and interruptions found",
    "token_channel": "The same from the text channel",
    "speech": "Speech",
    "judge": "GPT score",
    "gt_llm": "GPT score of the backbone alone",
    "fd_bench": "FD-Bench (delays in milliseconds)",
}


@dataclass(frozen=True)
class Example:
    """A conversation to show, and the set it is from."""

    set_name: str
    scored: Scored


def write_html(
    path: Path, report: Mapping[str, Any], examples: Sequence[Example], scored: Mapping[str, Sequence[Scored]]
) -> None:
    """Writes the page.

    Args:
        report: what `evaluate` returns.
        examples: conversations with picture and sound; each takes about 30 kB per second.
        scored: all conversations of each set, for the list; each takes about 2 kB per minute.
    """
    environment = ENVIRONMENT.overlay()
    environment.filters = ENVIRONMENT.filters | {
        "percent": percent,
        "seconds": seconds,
        "interval": interval,
        "written": written,
    }
    template = environment.from_string(beside("nemo_duplex.evaluation.report", "report.html"))
    page = template.render(
        report=report,
        sets=report["sets"],
        cards=_cards(report["sets"]),
        few=FEW,
        longest=LONGEST,
        tables=paper_tables(report),
        distributions=_distributions(report["sets"]),
        groups=_groups(report["sets"]),
        examples=[_shown(example) for example in examples],
        rows=script_json(conversation_rows(scored, [(one.set_name, one.scored) for one in examples])),
        style=style() + beside("nemo_duplex.evaluation.report", "report.css"),
        script=player() + beside("nemo_duplex.evaluation.report", "report.js"),
    )
    path.write_text(page, encoding="utf-8", errors="replace")  # a text may hold what is no character


def _cards(sets: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The headline: four numbers of the paper's Table 2, on the hardest set there is."""
    name = next((one for one in sets if like(one, TABLE_2) == "Impatient"), next(iter(sets)))
    beside_it = like(name, TABLE_2)
    cards = []
    for title, explained in _CARDS.items():
        key, paper = COLUMNS_2[title]
        found = number(sets[name], key)
        theirs = TABLE_2[beside_it]["SALM-Duplex"][paper or ""] if beside_it else None
        deaf = number(sets[name], "barge_in.never_listens.success_rate") if key == "barge_in.success_rate" else None
        cards.append(
            {
                "title": title[:-2],
                "number": found,
                "explained": explained,
                "never_listens": deaf.text if deaf and deaf.value is not None else "",
                "paper": written(theirs, found.unit) if beside_it else "",
                "like": beside_it,
                "set": name,
            }
        )
    return cards


def _distributions(sets: Mapping[str, Any]) -> list[dict[str, str]]:
    """The latencies of each set: captions and drawings."""
    kinds = {
        "stop": ("every stop, seconds after the user's onset", "dashed: 1.5 s", 0.0, 3.0, 1.5),
        "response": ("every response, seconds after the user's end", "dashed: 0 s", -1.0, 3.5, 0.0),
    }
    found = []
    for name, groups in sets.items():
        for kind, (what, line, low, high, at) in kinds.items():
            if values := groups.get("latencies", {}).get(kind):
                drawn = distribution_svg(values, low, high, at, f"{name}: {what}")
                found.append({"caption": f"{name}: {what}", "line": f"{line}, dotted: the median", "svg": drawn})
    return found


def _groups(sets: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every number of every group: a row for each key, with its entry in each set."""
    found = {name: numbers(groups) for name, groups in sets.items()}
    keys = dict.fromkeys(key for one in found.values() for key in one)
    names = dict.fromkeys(key.split(".")[0] for key in keys)
    order = [*(name for name in _GROUPS if name in names), *(name for name in names if name not in _GROUPS)]
    return [
        {
            "name": name,
            "title": _GROUPS.get(name, name.replace("_", " ")),
            "rows": [
                (key, [one.get(key, Number(key, why_not="not measured")) for one in found.values()])
                for key in keys
                if key.split(".")[0] == name
            ],
        }
        for name in order
        if name not in _NOT_LISTED
    ]


def _shown(example: Example) -> dict[str, Any]:
    scored = example.scored
    faults = faults_of(scored)
    length = min(scored.outcome.duration, LONGEST)
    return {
        "id": scored.outcome.id,
        "set": example.set_name,
        "duration": scored.outcome.duration,
        "cut": scored.outcome.duration > LONGEST,
        "svg": timeline_svg(scored, length),
        "audio": sound_url(scored.outcome.stereo(_AUDIO_RATE)[: round(length * _AUDIO_RATE)], _AUDIO_RATE),
        "answers": scored.answers,
        "faultless": not faults,
        "faults": faults,
        "barge_ins": len(scored.turn_taking.barge_ins),
    }
