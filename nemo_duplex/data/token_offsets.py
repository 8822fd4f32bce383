"""Where in a text each of its tokens stands."""

from __future__ import annotations

from typing import Protocol

_WORD_START = "▁"  # how SentencePiece writes the space before a word


class TextTokenizer(Protocol):
    """What the text channel asks of a tokenizer; NeMo's tokenizers have it."""

    bos: int
    eos: int
    vocab_size: int

    def text_to_ids(self, text: str) -> list[int]: ...

    def ids_to_text(self, ids: list[int]) -> str: ...


class PieceTokenizer(TextTokenizer, Protocol):
    """A tokenizer whose tokens are pieces of the text, as NeMo's SentencePiece tokenizer; or one that has `text_offsets`."""

    def text_to_tokens(self, text: str) -> list[str]: ...

    def tokens_to_ids(self, tokens: list[str]) -> list[int]: ...


def token_offsets(text: str, tokenizer: PieceTokenizer) -> list[tuple[int, int]]:
    """Each token of `text` with the character at which it ends."""
    if hasattr(tokenizer, "text_offsets"):
        return tokenizer.text_offsets(text)
    pieces = tokenizer.text_to_tokens(text)
    offsets, end = [], -1 if pieces and pieces[0].startswith(_WORD_START) else 0  # the first word has no space before it
    for piece, token in zip(pieces, tokenizer.tokens_to_ids(pieces)):
        end += len(piece)
        offsets.append((token, end))
    return offsets
