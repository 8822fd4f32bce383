"""What a check finds: errors and warnings, counted by kind, with the first places of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nemo_duplex.files.odd_rows import OddRow, OddRows


@dataclass
class Findings:
    """Errors and warnings.

    Examples:
        >>> found = Findings()
        >>> found.error("agent turns that overlap", "dev-0: 3.20 to 5.00 s and 4.80 s")
        >>> print(*found.lines(), sep="\\n")
        error: 1 x agent turns that overlap: dev-0: 3.20 to 5.00 s and 4.80 s
    """

    errors: OddRows = field(default_factory=OddRows)
    warnings: OddRows = field(default_factory=OddRows)

    def error(self, kind: str, place: str) -> None:
        """What makes a corpus unfit. `kind`: the same words for all of a kind; `place`: the cut and what is there."""
        self.errors.add(OddRow(kind), place)

    def warning(self, kind: str, place: str) -> None:
        """What may be meant as it is."""
        self.warnings.add(OddRow(kind), place)

    def update(self, other: Findings) -> None:
        """Adds what was found elsewhere."""
        self.errors.update(other.errors)
        self.warnings.update(other.warnings)

    def lines(self, places: int = 3) -> Iterator[str]:
        """One line a kind, errors first, each with its count and the first `places`."""
        for level, rows in (("error", self.errors), ("warning", self.warnings)):
            for kind, found in rows.describe().items():
                more = "; ..." if found["count"] > places else ""
                yield f"{level}: {found['count']} x {kind}: {'; '.join(found['first'][:places])}{more}"

    def describe(self) -> dict[str, Any]:
        """{errors, warnings}, each {kind: {count, the first places}}."""
        return {"errors": self.errors.describe(), "warnings": self.warnings.describe()}
