"""The fields of a row of somebody's JSONL file, each checked as it is taken; what is wrong is an `OddRow` that names it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.frames import Seconds

_LARGEST: Seconds = 1e9  # no time is larger; whole numbers of JSON may be
_NEAR = 0.8  # a key this similar to a known one is a misspelt one


class RowFields:
    """One JSON object of a row.

    Args:
        value: the object.
        name: what it is called in errors: "" for the row itself, `user_turns[2]` for a part of it.

    Raises:
        OddRow: if it is no object. So do all methods, for a value that cannot be used.

    Examples:
        >>> fields = RowFields({"id": "a", "start": "1.5"}, "user_turns[0]")
        >>> fields.text("id"), fields.text("text")
        ('a', None)
        >>> fields.time("start")
        Traceback (most recent call last):
        nemo_duplex.files.odd_rows.OddRow: a value of the wrong kind (user_turns[0].start is '1.5', expected a number)
    """

    def __init__(self, value: Any, name: str = "") -> None:
        self.name = name
        if not isinstance(value, dict):
            raise self._wrong(name or "the row", value, "an object")
        self._value: dict[str, Any] = value

    def has(self, key: str) -> bool:
        """Whether the key is there, and not null."""
        return self._value.get(key) is not None

    def text(self, key: str) -> str | None:
        return self._of_kind(key, str, "a text")

    def flag(self, key: str, default: bool = False) -> bool:
        found = self._of_kind(key, bool, "true or false")
        return default if found is None else found

    def count(self, key: str) -> int | None:
        """A whole number from 0 on."""
        found = self._value.get(key)
        if isinstance(found, bool) or not isinstance(found, int | None) or (found or 0) < 0:
            raise self._wrong(self.path(key), found, "a whole number from 0 on")
        return found

    def time(self, key: str) -> Seconds | None:
        """A finite number, as it is written."""
        found = self._value.get(key)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, (int, float)) or not abs(found) <= _LARGEST:
            raise self._wrong(self.path(key), found, "a number")
        return found

    def needed_time(self, key: str) -> Seconds:
        """A number that must be there."""
        found = self.time(key)
        if found is None:
            raise OddRow("a value is missing", f"{self.path(key)}", f"Give {key} in seconds.")
        return found

    def items(self, key: str) -> list[Any]:
        """A list of anything; empty if the key is not there."""
        return self._of_kind(key, list, "a list") or []

    def objects(self, key: str) -> Iterator[RowFields]:
        """The objects of a list; none if the key is not there."""
        for index, value in enumerate(self.items(key)):
            yield RowFields(value, f"{self.path(key)}[{index}]")

    def object(self, key: str) -> dict[str, Any]:
        """An object as it is written; empty if the key is not there."""
        return self._of_kind(key, dict, "an object") or {}

    def others(self, known: Iterable[str]) -> dict[str, Any]:
        """The fields with other keys than the `known` ones. Raises OddRow for one that is a misspelt known key."""
        known = set(known)
        rest = {key: value for key, value in self._value.items() if key not in known}
        for key in rest:
            if near := difflib.get_close_matches(key, known, n=1, cutoff=_NEAR):
                raise OddRow(f"an unknown key {key!r}", cure=f"Did you mean {near[0]!r}? Rename it.")
        return rest

    def path(self, key: str) -> str:
        """What a field is called in errors."""
        return f"{self.name}.{key}" if self.name else key

    def _of_kind(self, key: str, kind: type, expected: str) -> Any:
        found = self._value.get(key)
        if found is not None and not isinstance(found, kind):
            raise self._wrong(self.path(key), found, expected)
        return found

    @staticmethod
    def _wrong(what: str, found: Any, expected: str) -> OddRow:
        cure = "Write it as docs/how-to/score-any-model.md shows."
        return OddRow("a value of the wrong kind", f"{what} is {found!r:.40}, expected {expected}", cure)


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value."""
    return {key: value for key, value in fields.items() if value is not None}
