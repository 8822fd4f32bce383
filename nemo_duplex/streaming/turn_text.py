"""The text of a turn while its tokens come, each at the same cost however long the turn has become."""

from __future__ import annotations

import os

from nemo_duplex.data.token_offsets import TextTokenizer

#: As which a tokenizer of bytes writes a character of which it has not all bytes yet.
_HALF_A_CHARACTER = "\N{REPLACEMENT CHARACTER}"
#: Tokens whose text may still change with those that follow. A character has 4 bytes at most.
_OPEN = 32


class TurnText:
    """Takes token by token; says what each adds, and what they say together.

    The text of tokens is not that of each of them in a row: pieces of a word join, and bytes make a character. So the last
    tokens are always decoded together; those before them are decoded once and for all.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._settled: list[str] = []
        self._open: list[int] = []  # the tokens behind it
        self._text = ""  # of those
        self._shown = ""  # of that text, what has been returned

    def add(self, token: int) -> str:
        """The text that the next token adds; half a character is held back."""
        self._open.append(token)
        self._text = self._tokenizer.ids_to_text(self._open)
        added = self._show(self._text.rstrip(_HALF_A_CHARACTER))
        if len(self._open) < 2 * _OPEN or self._settle():
            return added
        added += self.rest()  # bytes that make no characters, whatever follows
        self._settled.append(self._text)
        self._open, self._text, self._shown = [], "", ""
        return added

    def rest(self) -> str:
        """What was held back and nothing completes any more."""
        shown, self._shown = self._shown, self._text
        return self._text[len(os.path.commonprefix([shown, self._text])) :]

    def __str__(self) -> str:
        return "".join(self._settled) + self._text

    def _show(self, text: str) -> str:
        """What `text` adds to that which was shown of the open tokens.

        Nothing while the text is another one: some tokenizers take back the characters before one that is not whole yet.
        """
        if not text.startswith(self._shown):
            return ""
        shown, self._shown = self._shown, text
        return text[len(shown) :]

    def _settle(self) -> bool:
        """Closes half of the open tokens or a few more, where the text of the others is the end of all of it."""
        for first in range(_OPEN, len(self._open)):
            rest = self._tokenizer.ids_to_text(self._open[first:])
            settled = self._text.removesuffix(rest)
            if rest and settled != self._text and self._shown.startswith(settled):
                self._settled.append(settled)
                self._open, self._text, self._shown = self._open[first:], rest, self._shown.removeprefix(settled)
                return True
        return False
