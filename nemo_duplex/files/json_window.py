"""JSON values one after the other, with the part of the text in memory that is being decoded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

#: Between values. A byte order mark stands inside a file where files were joined; NUL fills up what a crash left, U+001A ends
#: files of DOS.
BLANK = " \t\r\n\ufeff\0\x1a"
_BLANKS = re.compile(f"[{BLANK}]*")
_READ_AT_ONCE = 1 << 20  # characters


class JsonWindow:
    """A text of JSON of any length, read from its beginning to its end.

    Args:
        text: to read.
        decoder: of its values.

    Attributes:
        line: on which the next value begins, from 1, after `expect`.

    Examples:
        >>> import io
        >>> window = JsonWindow(io.StringIO('[1,\\n "two"]'), json.JSONDecoder())
        >>> [(window.line, window.value()[0]) for _ in window.elements()]
        [(1, 1), (2, 'two')]
    """

    def __init__(self, text: TextIO, decoder: json.JSONDecoder) -> None:
        self._text, self._decoder = text, decoder
        self._buffer, self._at, self.line = "", 0, 1

    def next(self) -> str:
        """The next character but blanks, which stays; "" at the end."""
        while True:
            found = _BLANKS.match(self._buffer, self._at)
            assert found is not None  # it matches no blanks too
            self._move(found.end())
            if self._at < len(self._buffer) or not self._read():
                return self._buffer[self._at : self._at + 1]

    def expect(self, characters: str) -> str:
        """Passes the next character but blanks, and returns it.

        Raises:
            ValueError: if it is none of `characters`.
        """
        character = self.next()
        if not character or character not in characters:
            raise ValueError(f"expected one of {' '.join(characters)}, found {character or 'the end'!r}")
        self._move(self._at + 1)
        return character

    def value(self) -> tuple[Any, str]:
        """The next value, and its text.

        Raises:
            ValueError: if it is not JSON.
        """
        self.next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
                if end < len(self._buffer) or not self._read():  # a number may go on
                    text = self._buffer[self._at : end]
                    self._move(end)
                    return value, text
            except json.JSONDecodeError:
                if not self._read():
                    raise

    def elements(self) -> Iterator[None]:
        """Goes through the elements of the next value, a list: the caller takes the `value` of each."""
        self.expect("[")
        if self.next() == "]":
            self.expect("]")
            return
        while True:
            self.next()
            yield
            if self.expect(",]") == "]":
                return

    def members(self) -> Iterator[tuple[str, Any]]:
        """The members of the next value, an object, one by one."""
        self.expect("{")
        if self.next() == "}":
            self.expect("}")
            return
        while True:
            key, _ = self.value()
            self.expect(":")
            yield key, self.value()[0]
            if self.expect(",}") == "}":
                return

    def _move(self, to: int) -> None:
        self.line += self._buffer.count("\n", self._at, to)
        self._at = to

    def _read(self) -> bool:
        """Reads as much again as is waiting, so that the time of a long value grows with its length."""
        more = self._text.read(max(_READ_AT_ONCE, len(self._buffer) - self._at))
        self._buffer, self._at = self._buffer[self._at :] + more, 0
        return bool(more)
