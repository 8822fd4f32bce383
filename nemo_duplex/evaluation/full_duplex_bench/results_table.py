"""Results as lines for a terminal, the published figures in grey below the measured ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_ARROWS = {"higher": "higher is better", "lower": "lower is better"}
_GREY, _PLAIN = "\033[90m", "\033[0m"


def results_table(results: Mapping[str, Any], colour: bool = False) -> str:
    """The content of `score.score_tree` as text.

    Args:
        colour: whether published figures are grey, as a terminal understands it.
    """
    lines = [f"Full-Duplex-Bench {results['version']}"]
    for folder, task in results["tasks"].items():
        lines += ["", f"{folder}: {task['scored']} of {task['samples']} samples"]
        lines += _metrics(task["metrics"])
        for system, row in task["published"].items():
            shown = ", ".join(f"{name} {value:g}" for name, value in row.items() if name in task["metrics"])
            line = f"  published, {system}: {shown}"
            lines.append(f"{_GREY}{line}{_PLAIN}" if colour else line)
        lines += [f"  note: {note}" for note in task["notes"]]
        for reason, found in task["odd"].items():
            lines.append(f"  left out: {found['count']} with {reason}, such as {found['first'][0]}")
    if results["other_folders"]:
        lines += ["", f"no tasks of this version: {', '.join(results['other_folders'])}"]
    return "\n".join(lines)


def _metrics(metrics: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    width = max(len(name) for name in metrics)
    for name, entry in metrics.items():
        if "not_run" in entry:
            yield f"  {name:<{width}}  not run: {entry['not_run']}"
        elif entry["value"] is None:
            yield f"  {name:<{width}}  nothing to measure"
        else:
            unit = f" {entry['unit']}" if entry["unit"] else ""
            interval = entry["ci95"] and " ({:.3f} to {:.3f})".format(*entry["ci95"]) or ""
            better = f", {_ARROWS[entry['better']]}" if entry["better"] else ""
            yield f"  {name:<{width}}  {entry['value']:.3f}{unit}{interval}, n {entry['n']:g}{better}"
