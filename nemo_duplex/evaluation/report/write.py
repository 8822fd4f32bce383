"""The files of an evaluation: report.json, events.csv, report.html, pictures and a recording."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import soundfile

from nemo_duplex.evaluation.picture import write_png
from nemo_duplex.evaluation.predictions import unique_file_name
from nemo_duplex.evaluation.report.events import COLUMNS, events
from nemo_duplex.evaluation.report.page import Example, write_html
from nemo_duplex.evaluation.report.tables import as_markdown, paper_tables
from nemo_duplex.evaluation.scores import Scored
from nemo_duplex.files.atomic import whole_file, whole_folder
from nemo_duplex.frames import USER_SAMPLE_RATE

#: What an evaluation writes into its folder.
FILES, FOLDERS = ("report.json", "report.html", "tables.md", "events.csv", "conversation.wav"), ("timelines",)


def write_report(out: Path, report: Mapping[str, Any], scored: Mapping[str, Sequence[Scored]], examples: int) -> None:
    """Writes all files, each whole or not at all.

    Args:
        report: the content of report.json but for its `conversations`.
        scored: the conversations of each set.
        examples: how many are shown with picture and sound.
    """
    shown = choose_examples(scored, examples)
    full = dict(report) | {"conversations": {name: [one.as_dict() for one in rows] for name, rows in scored.items()}}
    with whole_file(out / "report.json") as path:
        path.write_text(json.dumps(full, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    rows = [row for name, conversations in scored.items() for row in events(name, conversations)]
    with whole_file(out / "events.csv") as path, path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    with whole_file(out / "report.html") as path:
        write_html(path, report, shown, scored)
    with whole_file(out / "tables.md") as path:
        path.write_text(as_markdown(paper_tables(report)), encoding="utf-8", errors="replace")
    with whole_folder(out / "timelines", replace=True) as folder:
        for example in shown:
            name = unique_file_name(f"{example.set_name}-{example.scored.outcome.id}")
            write_png(folder / f"{name}.png", example.scored)
    if shown:
        outcome = min(shown, key=lambda e: e.scored.mistakes).scored.outcome
        with whole_file(out / "conversation.wav") as path:
            rate = outcome.agent_sound.sample_rate if outcome.agent_sound is not None else USER_SAMPLE_RATE
            soundfile.write(path, outcome.stereo(rate), rate)


def choose_examples(scored: Mapping[str, Sequence[Scored]], most: int) -> list[Example]:
    """The worst conversations of all sets first, then a third of faultless ones, those with most barge-ins."""
    rows = [Example(name, one) for name, row in scored.items() for one in row]
    bad = sorted((e for e in rows if e.scored.mistakes), key=lambda e: -e.scored.mistakes)
    good = sorted((e for e in rows if not e.scored.mistakes), key=lambda e: -len(e.scored.turn_taking.barge_ins))
    wanted_good = min(len(good), max(most - len(bad), -(-most // 3)))
    return [*bad[: most - wanted_good], *good[:wanted_good]]
