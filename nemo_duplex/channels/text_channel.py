"""Text on the frame grid: one token per 80 ms frame, aligned by turn or by word (paper, section 3.1).

`text_channel` writes it, on the time of the corpus; `targets.py` moves it ahead of the speech, and `transcript.py` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from nemo_duplex.conversation import Turn
from nemo_duplex.frames import FRAME_RATE, FrameRate
from nemo_duplex.inputs import InputError

#: By turn: all text at the start of its turn. By word: each word where it is said.
TextAlignment = Literal["turn", "word"]

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


def pad_of(tokenizer: TextTokenizer) -> int:
    """The id that fills frames without text: the tokenizer's pad, or its unk where it has none (as in NeMo's in-tree data)."""
    for name in ("pad", "pad_id", "unk_id"):
        found = getattr(tokenizer, name, None)
        if isinstance(found, int) and found >= 0:
            return found
    raise InputError("The tokenizer has neither pad nor unk: frames without text need an id of their own. Add a pad token.")


def text_channel(
    turns: Iterable[Turn],
    num_frames: int,
    tokenizer: PieceTokenizer,
    *,
    bos: int,
    eos: int,
    pad: int,
    frame_rate: FrameRate = FRAME_RATE,
    alignment: TextAlignment = "turn",
) -> Tensor:
    """Tokens (T,) of one speaker's turns: BOS at the frame where a turn starts, its text from the next frame on, EOS at the
    frame where it ends, pad everywhere else.

        frame   0    1    2    3    4    5    6    7
        token  pad  BOS   w1   w2  pad  pad  EOS  pad       a turn of 0.08 to 0.48 s

    Text that does not fit its turn ends at EOS: what would come later must not be learnt. The text runs ahead of the voice, so
    a turn that the user cuts off has its `full_text` up to the cut: when its words were written the cut was not known, and a
    model that had to leave out the unsaid ones would learn to stop writing at random.

    Every BOS has its EOS, except where the next BOS or the last frame comes first: from BOS to EOS the speaker speaks.

    - A turn that starts and ends in the same frame is left out.
    - Where a turn starts before the one before it ended, or in the frame where it ends, its BOS closes the earlier text. The
      EOS is where the last of them ends. Of turns that start in the same frame the longest is written.
    - A turn that runs past the last frame has no EOS; nor has one that is marked `unfinished` and ends with the last frame.

    Aligned by word, a token is at the frame where its word begins, or in the next free one, and a turn that was cut off
    has the words that were begun.

    Raises:
        InputError: aligned by word, for a turn with text and without word times.
    """
    tokens = torch.full((num_frames,), pad, dtype=torch.long)
    placed = [_Placed(frame_rate.nearest(turn.start), frame_rate.nearest(turn.end), turn) for turn in turns]
    placed = [p for p in placed if p.start < min(p.end, num_frames)]
    written = list({p.start: p for p in sorted(placed, key=lambda p: (p.start, p.end))}.values())
    end, unfinished = 0, False  # of the turn that ends last, of those that began
    for one, next_start in zip(written, [*(p.start for p in written[1:]), num_frames]):
        tokens[one.start] = bos
        if alignment == "word":
            text = words_at_frames(one.turn, tokenizer, frame_rate, first=one.start + 1)
        else:
            text = enumerate(tokenizer.text_to_ids(one.turn.full_text or one.turn.text), one.start + 1)
        for frame, token in text:
            if frame >= min(one.end, next_start):
                break
            tokens[frame] = token
        if one.end > end:
            end, unfinished = one.end, bool(one.turn.custom.get("unfinished"))
        if end < next_start and not (unfinished and end == num_frames - 1):
            tokens[end] = eos
    return tokens


class _Placed(NamedTuple):
    """A turn in the frames from `start` to the one before `end`."""

    start: int
    end: int
    turn: Turn


def words_at_frames(
    turn: Turn, tokenizer: PieceTokenizer, frame_rate: FrameRate = FRAME_RATE, first: int = 0
) -> Iterator[tuple[int, int]]:
    """(frame, token) of a turn's text, each word's tokens from the frame on in which the word begins, none before `first`.

    A token belongs to the word in which it ends.
    """
    if turn.text and not turn.words:
        raise InputError(
            f"The turn {turn.text[:40]!r} at {turn.start:.2f} s has no word times, which text_alignment=word needs. "
            "Make the corpus with examples/synthesize.py, align it, or take model.text_alignment=turn."
        )
    free = first
    for token, end in token_offsets(turn.text, tokenizer):
        word = max((w for w in turn.words if w.offset < end), key=lambda w: w.offset, default=turn.words[0])
        free = max(free, frame_rate.frame_at(word.start))
        yield free, token
        free += 1


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
