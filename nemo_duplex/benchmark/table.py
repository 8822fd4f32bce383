"""Figures as a table: lines to read on a screen, or Markdown for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """A title, what was measured (any number of lines), names of columns, and rows of as many cells."""

    title: str
    about: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """The first column to the left, the others to the right."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        body = ["  ".join([f"{line[0]:<{widths[0]}}", *(f"{c:>{w}}" for c, w in zip(line[1:], widths[1:]))]) for line in lines]
        return "\n".join([self.title, *self.about, "", *(line.rstrip() for line in body)])

    def markdown(self) -> str:
        """A heading of the third level, a list, a table."""
        rule = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = [f"| {' | '.join(line)} |" for line in (self.columns, rule, *self.rows)]
        about = [*(f"- {line}" for line in self.about), ""] if self.about else []
        return "\n".join([f"### {self.title}", "", *about, *lines])


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds, with three significant digits."""
    value = 1e3 * seconds
    return f"{value:.3g} ms" if value < 100 else f"{value:,.0f} ms"


def percentiles(times: Mapping[str, float]) -> tuple[str, str, str]:
    """p50, p95 and p99 as milliseconds."""
    return milliseconds(times["p50"]), milliseconds(times["p95"]), milliseconds(times["p99"])


def callers_in_words(number: int) -> str:
    """`1 caller`, `2 callers`."""
    return f"{number} caller{'s' * (number > 1)}"


def measured_on(result: Mapping[str, Any]) -> str:
    """Date and machine of a streaming benchmark."""
    return f"{result['date']}, {result['machine']}"
