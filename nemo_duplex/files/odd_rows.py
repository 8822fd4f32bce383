"""Rows of people's files that cannot be used: left out, counted by reason, and an error where they are too many."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from nemo_duplex.inputs import InputError

_NUM_EXAMPLES = 20  # places that are kept of each reason


class OddRow(Exception):
    """Why one row cannot be used.

    Args:
        reason: the same words for every such row, because rows are counted by it.
        detail: what it is in this row.
        cure: what to do about it, as one or more sentences.

    Examples:
        >>> str(OddRow("the agent speaks first", "turn 1 is by 'assistant'"))
        "the agent speaks first (turn 1 is by 'assistant')"
    """

    def __init__(self, reason: str, detail: str = "", cure: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason, self.detail, self.cure = reason, detail, cure


@dataclass
class _Counted:
    count: int = 0
    first: list[str] = field(default_factory=list)
    cure: str = ""


class OddRows:
    """Counts the rows that are left out, by reason, and keeps the first places of each.

    Examples:
        >>> odd = OddRows()
        >>> odd.add(OddRow("the agent speaks first", "turn 1 is by 'assistant'"), "chat.jsonl:3 (dialogue x)")
        >>> odd.describe()
        {'the agent speaks first': {'count': 1, 'first': ["chat.jsonl:3 (dialogue x): turn 1 is by 'assistant'"]}}
        >>> odd.check("source", num_usable=9, most=0.5, key="max_odd_rows")
    """

    def __init__(self) -> None:
        self._reasons: dict[str, _Counted] = {}

    def __len__(self) -> int:
        return sum(counted.count for counted in self._reasons.values())

    def add(self, odd: OddRow, place: str) -> None:
        """Counts a row; `place` is its file and line, and its id where it has one."""
        counted = self._reasons.setdefault(odd.reason, _Counted(cure=odd.cure))
        counted.count += 1
        if len(counted.first) < _NUM_EXAMPLES:
            counted.first.append(f"{place}: {odd.detail}" if odd.detail else place)

    def update(self, other: OddRows) -> None:
        """Counts the rows of `other` too."""
        for reason, theirs in other._reasons.items():
            counted = self._reasons.setdefault(reason, _Counted(cure=theirs.cure))
            counted.count += theirs.count
            counted.first = (counted.first + theirs.first)[:_NUM_EXAMPLES]

    def describe(self) -> dict[str, dict[str, Any]]:
        """{reason: {count, the first places}}, the most frequent reason first."""
        by_count = sorted(self._reasons.items(), key=lambda item: -item[1].count)
        return {reason: {"count": counted.count, "first": counted.first} for reason, counted in by_count}

    def state(self) -> list[list[Any]]:
        """All that is kept, as plain data for `of_state`."""
        return [[reason, found.count, found.first, found.cure] for reason, found in self._reasons.items()]

    @classmethod
    def of_state(cls, state: list[list[Any]]) -> OddRows:
        """The counts whose `state` this is."""
        rows = cls()
        rows._reasons = {reason: _Counted(count, list(first), cure) for reason, count, first, cure in state}
        return rows

    def most_frequent(self) -> str:
        """The most frequent reason with its count, its first place and its cure, as sentences; "" if no row is odd."""
        if not self._reasons:
            return ""
        reason, counted = max(self._reasons.items(), key=lambda item: item[1].count)
        which = "All of them" if counted.count == len(self) > 1 else f"{counted.count} of them"
        return f"{which}: {reason}, such as {counted.first[0].rstrip('.')}. {counted.cure}".rstrip()

    def check(self, what: str, num_usable: int, most: float, key: str, rows: str = "rows") -> None:
        """Ends a run that would go on without most of what it was given.

        Args:
            what: names the rows in the error ("source").
            num_usable: rows that are not odd.
            most: largest share of all rows that may be odd, 0 to 1.
            key: of the configuration, in which `most` was given.
            rows: what the error calls them ("files").

        Raises:
            InputError: if no row is usable, or the share of odd rows is larger than `most`.
        """
        num_odd = len(self)
        if num_odd and not num_usable:
            raise InputError(f"{what}: none of {num_odd} {rows} can be used. {self.most_frequent()}")
        share = num_odd / max(1, num_odd + num_usable)
        if share > most:
            enough = math.ceil(100 * share) / 100
            raise InputError(
                f"{what}: {num_odd} of {num_odd + num_usable} {rows} cannot be used, more than {key}={most:g} allows. "
                f"{self.most_frequent()} To go on with the other {num_usable}, set {key}={enough:g}."
            )
