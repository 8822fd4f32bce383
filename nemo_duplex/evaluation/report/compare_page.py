"""compare.html: what changed between two evaluations, as a forest plot of differences, in one file that needs no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_duplex.evaluation.report.compare import Comparison, Pairs, cells_of, note, paired_lines
from nemo_duplex.evaluation.report.number import better, unit_of
from nemo_duplex.pages.parts import ENVIRONMENT, beside, style

_HALF = 100.0  # half the width of a plot, in the units of its viewBox


def write_comparison(
    path: Path,
    names: tuple[str, str],
    reports: tuple[Mapping[str, Any], Mapping[str, Any]],
    pairs: Mapping[str, Pairs],
    found: Sequence[Comparison],
) -> None:
    """Writes the page.

    Args:
        names: of the two sides, as given on the command line.
        reports, pairs, found: as `compare.read_report` and `compare.compare` return them.
    """
    page = ENVIRONMENT.from_string(beside("nemo_duplex.evaluation.report", "compare.html")).render(
        names=names,
        created=[report["provenance"].get("created", "") for report in reports],
        paired=[line for name, one in pairs.items() for line in paired_lines(name, one)],
        sets={name: [_row(c, _scale(c, found)) for c in found if c.set_name == name] for name in pairs},
        counts={verdict: sum(c.verdict == verdict for c in found) for verdict in ("better", "worse", "changed")},
        note=note(found),
        style=style() + beside("nemo_duplex.evaluation.report", "report.css"),
    )
    path.write_text(page, encoding="utf-8")


def _row(c: Comparison, scale: float) -> dict[str, Any]:
    """A rate with the places of its difference and interval in the plot, -100 to 100; None where there is nothing to draw."""
    first, second, difference, interval, conversations, said = cells_of(c)
    low, high = c.difference.ci95 or (None, None)
    return {
        "key": c.key,
        "direction": {"larger": "↑", "smaller": "↓", None: ""}[better(c.key)],
        "first": first,
        "second": second,
        "difference": difference,
        "interval": interval,
        "conversations": conversations,
        "said": said,
        "verdict": c.verdict,
        "at": None if c.difference.value is None else _place(c.difference.value, scale),
        "low": None if low is None else _place(low, scale),
        "high": None if high is None else _place(high, scale),
    }


def _scale(c: Comparison, found: Sequence[Comparison]) -> float:
    """What the half width of the plot stands for: the farthest end of all intervals of shares, of times, or of this row."""
    unit = unit_of(c.key)
    alike = [other for other in found if unit_of(other.key) == unit] if unit else [c]
    ends = [abs(end) for other in alike for end in (*(other.difference.ci95 or ()), other.difference.value or 0.0)]
    return max(ends, default=0.0) or 1.0


def _place(difference: float, scale: float) -> float:
    return round(_HALF * max(-1.0, min(1.0, difference / scale)), 1)
