"""Which caller sits in which row of the batch, and how many rows must be computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

from nemo_duplex.inputs import InputError

Guest = TypeVar("Guest")


class Move(NamedTuple):
    """A row that is to be copied."""

    source: int
    target: int


class Slots(Generic[Guest]):
    """`capacity` rows and those who sit in them.

    The rows that are computed are always the first ones, and always one of few counts (`buckets`: 1, 2, 4, ... capacity), so
    that few shapes are ever run. Newcomers take the lowest free row; `gather` moves guests down when a smaller count would do.
    """

    def __init__(self, capacity: int) -> None:
        self._guests: list[Guest | None] = [None] * capacity
        self.buckets = (*(1 << i for i in range((capacity - 1).bit_length())), capacity)

    def __len__(self) -> int:
        """How many there are."""
        return sum(guest is not None for guest in self._guests)

    def __iter__(self) -> Iterator[tuple[int, Guest]]:
        """Each taken row with who sits there, in the order of the rows."""
        return ((row, guest) for row, guest in enumerate(self._guests) if guest is not None)

    def __getitem__(self, row: int) -> Guest:
        """Who sits in a row that is taken."""
        guest = self._guests[row]
        assert guest is not None, f"Nobody sits in row {row}."
        return guest

    def join(self, guest: Guest) -> int:
        """Takes the lowest free row for `guest`.

        Raises:
            InputError: if none is free.
        """
        if None not in self._guests:
            raise InputError(
                f"No free slot: all {len(self._guests)} sessions of this engine are open. Close one, or raise max_sessions."
            )
        row = self._guests.index(None)
        self._guests[row] = guest
        return row

    def leave(self, row: int) -> None:
        """Frees a row."""
        self._guests[row] = None

    def bucket(self, rows: int) -> int:
        """The smallest count that is at least `rows`."""
        return next(bucket for bucket in self.buckets if bucket >= rows)

    @property
    def rows(self) -> int:
        """How many rows must be computed so that every guest is among them: one of `buckets`, 0 with nobody there."""
        last = max((row for row, _ in self), default=-1)
        return self.bucket(last + 1) if last >= 0 else 0

    def gather(self) -> list[Move]:
        """Seats guests in lower rows where that lowers `rows`; the caller copies what these rows remember, in this order."""
        moves = []
        needed = self.bucket(len(self)) if len(self) else 0
        for row, guest in list(self):
            if row >= needed:
                target = self._guests.index(None)
                self._guests[target], self._guests[row] = guest, None
                moves.append(Move(row, target))
        return moves
