"""Tables 2 to 4 of the paper: its rows beside what was measured, as text for a terminal, as Markdown, and for report.html.

The paper's rows are of its own models, test sets, voices and scorers. They are marked, and shown for orientation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nemo_duplex.evaluation.paper import TABLE_2, TABLE_3, TABLE_4
from nemo_duplex.evaluation.report.number import Number, Unit, digits_of, interval, number, unit_of, written

#: Column of Table 2 -> (key in report.json, key of the paper's row; None where the paper has no such column).
COLUMNS_2 = {
    "Barge-in success ↑": ("barge_in.success_rate", "success_rate"),
    "False alarms ↓": ("false_alarm.rate", "false_alarm_rate"),
    "Stop latency ↓": ("barge_in.mean_stop_latency", "mean_stop_latency"),
    "1st response latency ↓": ("response.first_latency", "first_response_latency"),
    "UTMOS ↑": ("speech.utmos", "utmos"),
    "DistillMOS ↑": ("speech.distillmos", None),
}
#: Column of Table 4 -> (key of a codec's number, the paper's); None where one of them has no such number.
COLUMNS_4: Mapping[str, tuple[str | None, str | None]] = {
    "Bitrate, kbit/s": ("kbps", "kbps"),
    "Squim MOS ↑": ("squim", "mos"),
    "DistillMOS ↑": ("distillmos", None),
    "CER, % ↓": ("cer", "cer"),
    "WER, % ↓": ("wer", None),
    "SECS by ECAPA2 ↑": ("ecapa2_secs", "secs"),
    "SECS by Resemblyzer ↑": ("secs", None),
    "STOI ↑": ("stoi", None),
    "PESQ, wide band ↑": ("pesq", None),
    "SI-SDR, dB ↑": ("si_sdr", None),
    "Mel distance ↓": ("mel_distance", None),
    "Delay, ms": ("delay_ms", None),
    "S2S ASR-BLEU ↑": (None, "asr_bleu"),
}
THIS_AGENT, NEVER_LISTENS = "this agent", "if it never listened"
TELLING = "with over 1 s to go"
_OURS = (
    "Barge-ins, false alarms and latencies follow the paper's definitions; the boundaries that it leaves open are chosen here, "
    "and its test sets are its own: its rows stand beside for orientation and are not comparable one to one."
)
_PAIRED = "Second minus first: utterances are drawn with what both made of them (95 %). Unclear: the interval holds 0."


@dataclass(frozen=True)
class Cell:
    """A number of a table. `by`: what made it, and whether the paper's number is by the same. `why_not`: why there is none."""

    text: str = ""
    interval: str = ""
    n: str = ""
    by: str = ""
    why_not: str = ""

    @property
    def line(self) -> str:
        """The number with all that belongs to it, in one line."""
        if self.why_not:
            return f"not run: {self.why_not}"
        about = ", ".join(filter(None, [f"95 %: {self.interval}" if self.interval else "", self.n, self.by]))
        return f"{self.text} ({about})" if about else self.text


@dataclass(frozen=True)
class Row:
    """What one system scored. `reported`: by the paper."""

    set_name: str
    system: str
    cells: tuple[Cell, ...]
    reported: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the paper with measured rows. `columns`: titles of the cells of each row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def like(name: str, sets: Iterable[str]) -> str | None:
    """Which of the paper's sets a set of ours stands beside, by its name; None for none."""
    plain = "".join(filter(str.isalnum, name.casefold()))
    named = {"".join(filter(str.isalnum, one.casefold())): one for one in sets}
    found = next((one for key, one in named.items() if key in plain), None)
    return found or (named.get("ultrachat") if plain == "dev" else None)


def paper_tables(report: Mapping[str, Any]) -> list[Table]:
    """Table 2, and Table 3 where something was judged or could have been."""
    judged = any(key in groups for groups in report["sets"].values() for key in ("judge", "gt_llm"))
    return [table_2(report), *([table_3(report)] if judged else [])]


def table_2(report: Mapping[str, Any]) -> Table:
    """Turn-taking and speech quality of each set; beside each, what an agent that never listens would score."""
    rows: list[Row] = []
    for name, groups in report["sets"].items():
        rows.append(Row(name, THIS_AGENT, tuple(_cell(report, number(groups, key)) for key, _ in COLUMNS_2.values())))
        deaf = groups.get("barge_in", {}).get("never_listens", {})
        if deaf:
            entries = {"barge_in.success_rate": "success_rate", "barge_in.mean_stop_latency": "mean_stop_latency"}
            shown = [number(deaf, entries[key]) if key in entries else None for key, _ in COLUMNS_2.values()]
            rows.append(Row(name, NEVER_LISTENS, tuple(_cell(report, one) if one else Cell() for one in shown)))
        rows += _telling_rows(report, name, groups)
        beside = like(name, TABLE_2)
        for system, theirs in TABLE_2.get(beside or "", {}).items():
            cells = (_reported(theirs, paper, number(groups, key).unit) for key, paper in COLUMNS_2.values())
            rows.append(Row(name, f"{system} on {beside}, paper", tuple(cells), reported=True))
    verdicts = [
        f"{name}, with over 1 s to go: {_telling(groups)['verdict']}"
        for name, groups in report["sets"].items()
        if _telling(groups)
    ]
    notes = (_ours(report), *verdicts, *_scorer_notes(report, rows))
    return Table("Table 2: turn-taking and speech quality", tuple(COLUMNS_2), tuple(rows), notes)


def _telling(groups: Mapping[str, Any]) -> Mapping[str, Any]:
    """The barge-ins that leave over a second of the answer unsaid; empty where there are none."""
    found = groups.get("barge_in", {}).get("telling", {})
    return found if found and found["success_rate"]["n"] else {}


def _telling_rows(report: Mapping[str, Any], name: str, groups: Mapping[str, Any]) -> Iterator[Row]:
    for title, key in ((TELLING, "success_rate"), (f"{TELLING}, {NEVER_LISTENS}", "never_listens_rate")):
        if told := _telling(groups):
            success = _cell(report, number(told, key))
            yield Row(name, title, tuple(success if at == "barge_in.success_rate" else Cell() for at, _ in COLUMNS_2.values()))


def table_3(report: Mapping[str, Any]) -> Table:
    """GPT scores, 0 to 10: of the agent, and of its backbone alone (GT+LLM); a column for each set."""
    sets = report["sets"]
    theirs = list(dict.fromkeys(name for row in TABLE_3.values() for name in row))
    beside = {name: like(name, theirs) for name in sets}
    others = [name for name in theirs if name not in beside.values()]
    columns = [f"{name} ({beside[name]})" if beside[name] and beside[name] != name else name for name in sets]
    rows = [
        Row("", system, (*(_cell(report, number(groups, key)) for groups in sets.values()), *(Cell() for _ in others)))
        for system, key in ((THIS_AGENT, "judge.score"), ("GT+LLM, its backbone", "gt_llm.score"))
    ]
    for system, row in TABLE_3.items():
        names = [*beside.values(), *others]
        cells = tuple(_reported(row, name, "") if name else Cell() for name in names)
        rows.append(Row("", f"{system}, paper", cells, reported=True))
    return Table("Table 3: GPT score, 0 to 10", (*columns, *others), tuple(rows), tuple(_scorer_notes(report, rows)))


def table_4(codecs: Mapping[str, Mapping[str, Any]], scorers: Mapping[str, Any]) -> Table:
    """Codecs: what reconstruction keeps.

    Args:
        codecs: name -> entries of numbers by the keys of `COLUMNS_4`; bit rate and delay are plain numbers. What an entry of
            them lacks (the originals have no similarity to themselves) is a dash.
        scorers: name -> scorer, as in report.json.
    """
    report = {"scorers": scorers, "provenance": {}}
    rows = [
        Row(
            "",
            name,
            tuple(
                Cell("–")
                if key is None or key not in entries
                else _cell(report, number(entries, key), in_paper=paper is not None)
                for key, paper in COLUMNS_4.values()
            ),
        )
        for name, entries in codecs.items()
    ]
    for name, row in TABLE_4.items():
        rows.append(Row("", f"{name}, paper", tuple(_reported(row, key, "") for _, key in COLUMNS_4.values()), reported=True))
    return Table("Table 4: codecs", tuple(COLUMNS_4), tuple(rows), tuple(_scorer_notes(report, rows)))


def differences_table(differences: Sequence[Mapping[str, Any]]) -> Table:
    """How far rows of Table 4 are apart: the second minus the first, of the same utterances.

    Args:
        differences: of a codec table.
    """
    columns = {title: key for title, (key, _) in COLUMNS_4.items() if any(key in one["scores"] for one in differences)}
    rows = [
        Row("", f"{one['second']} − {one['first']}", tuple(_apart(key, one["scores"].get(key)) for key in columns.values()))
        for one in differences
    ]
    return Table("Differences, on the same utterances", tuple(columns), tuple(rows), (_PAIRED,))


def _apart(key: str | None, one: Mapping[str, Any] | None) -> Cell:
    if key is None or one is None or one["value"] is None:
        return Cell("–")
    points, digits = unit_of(key) == "%", digits_of(key)
    text = f"{100 * one['value']:+.1f} points" if points else f"{one['value']:+.{digits}f}"
    found = interval(one, unit_of(key), digits).replace("%", "points")
    return Cell(f"{text} {one['verdict']}", found, f"n {one['n']}")


def _cell(report: Mapping[str, Any], one: Number, in_paper: bool = True) -> Cell:
    """`in_paper`: whether the paper has such a number, which may be by another scorer."""
    if one.why_not:
        return Cell(why_not=one.why_not)
    counted = "" if one.n is None else f"n {one.n:g}"
    by = ""
    if one.scorer:
        about = report.get("scorers", {}).get(one.scorer, {})
        by = " ".join(filter(None, [one.scorer, about.get("version")]))
        by += "" if about.get("comparable") or not in_paper else ", not the paper's scorer"
    if one.not_trusted:
        by += f", not to be trusted: {one.not_trusted}"
    return Cell(one.text, one.interval, counted, by)


def _reported(row: Mapping[str, float | None], key: str | None, unit: Unit) -> Cell:
    """A number of the paper, written as there; "n/a" is its own word."""
    if key is None or key not in row:
        return Cell("–")
    value = row[key]
    if value is None:
        return Cell("n/a")
    return Cell(written(value, unit) if unit else f"{value:.1f}" if value == int(value) else f"{value:g}")


def _ours(report: Mapping[str, Any]) -> str:
    vad = report["provenance"].get("vad")
    return f"{_OURS} The agent's speech was found by {vad} voice activity detection." if vad else _OURS


def _scorer_notes(report: Mapping[str, Any], rows: Iterable[Row]) -> Iterator[str]:
    """What each scorer of a table is."""
    used = " ".join(cell.by for row in rows for cell in row.cells)
    for name, about in report.get("scorers", {}).items():
        if name in used.replace(",", "").split():
            said = f": {about['about']}" if about.get("about") else ""
            yield f"{name} {about.get('version', '')}{said}"


def as_text(table: Table) -> str:
    """For a terminal: a column for each system, so that lines stay short; a block for each set."""
    lines = [table.title]
    for name in dict.fromkeys(row.set_name for row in table.rows):
        rows = [row for row in table.rows if row.set_name == name]
        grid = [[name, *(row.system for row in rows)]]
        whys: dict[str, list[str]] = {}
        for i, title in enumerate(table.columns):
            grid.append([title, *(_short(row.cells[i]) for row in rows)])
            for why in dict.fromkeys(row.cells[i].why_not for row in rows if row.cells[i].why_not):
                whys.setdefault(why, []).append(title.rstrip(" ↑↓"))
        lines += ["", *aligned(grid)]
        lines += [f"not run: {', '.join(titles)}: {why}" for why, titles in whys.items()]
    return "\n".join(lines)


def _short(cell: Cell) -> str:
    return "not run" if cell.why_not else f"{cell.text} ({cell.n})" if cell.n else cell.text


def aligned(grid: Sequence[Sequence[str]]) -> list[str]:
    """Rows of texts as lines whose columns stand below one another."""
    widths = [max(len(row[i]) for row in grid) for i in range(len(grid[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in grid]


def as_markdown(tables: Iterable[Table]) -> str:
    """tables.md: the tables as they stand in the paper; its rows are in italics."""
    parts = []
    for table in tables:
        sets = any(row.set_name for row in table.rows)
        head = [*(["Set"] if sets else []), "System", *table.columns]
        lines = [f"## {table.title}", "", _md(head), _md(["---"] * len(head))]
        for row in table.rows:
            cells = [*([row.set_name] if sets else []), row.system, *(cell.line for cell in row.cells)]
            cells = [_escaped(cell) for cell in cells]
            lines.append(_md([f"*{cell}*" if row.reported and cell else cell for cell in cells]))
        parts.append("\n".join([*lines, "", *(f"{_escaped(note)}\n" for note in table.notes)]))
    return "\n".join(parts)


def _md(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Names and reasons come from outside: they must not break a row, nor be read as markup."""
    one_line = " ".join(text.split())
    for sign in "\\`*_[]<>|":
        one_line = one_line.replace(sign, f"\\{sign}")
    return one_line


def table(report: Mapping[str, Any]) -> str:
    """What a terminal shows of an evaluation: the paper's tables, then the controls."""
    return "\n".join(["\n\n".join(map(as_text, paper_tables(report))), *_further(report), *_controls(report)])


def _further(report: Mapping[str, Any]) -> list[str]:
    """What explains the tables, and is not in them."""
    titles = {
        "barge_in.yield_rate": "Breaks off its answer",
        "response.first_missing_rate": "No first response",
        "answers.seen": "Exact answers, seen",
        "answers.unseen": "Exact answers, unseen",
    }
    sets = report["sets"]
    grid = [["", *sets]]
    for key, title in titles.items():
        found = [number(groups, key) for groups in sets.values()]
        grid.append([title, *("not run" if one.why_not else f"{one.text} (n {one.n:g})" for one in found)])
    return ["", *aligned(grid)]


def _controls(report: Mapping[str, Any]) -> list[str]:
    """How many controls hold, fail, and cannot tell; then those that do not hold, with their reasons."""
    if not report["controls"]:
        return []
    found = report["control_counts"]
    head = f"controls: {found['passed']} hold, {found['failed']} fail, {found['inconclusive']} inconclusive"
    head += ": they do not tell whether the agent listens" if not found["passed"] + found["failed"] else ""
    failed = [f"control fails: {c['name']}: {c['detail']}" for c in report["controls"] if c["passed"] is False]
    unknown = [f"control inconclusive: {c['name']}: {c['detail']}" for c in report["controls"] if c["passed"] is None]
    return ["", head, *failed, *unknown]
