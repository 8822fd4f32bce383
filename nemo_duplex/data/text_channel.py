"""Text on the frame grid: one token per 80 ms frame, aligned by turn (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from nemo_duplex.conversation import Turn
from nemo_duplex.frames import FRAME_RATE, FrameRate


class TextTokenizer(Protocol):
    """What the text channel asks of a tokenizer; NeMo's tokenizers have it."""

    def text_to_ids(self, text: str) -> list[int]: ...

    def ids_to_text(self, ids: list[int]) -> str: ...


def text_channel(
    turns: Iterable[Turn],
    num_frames: int,
    tokenizer: TextTokenizer,
    *,
    bos: int,
    eos: int,
    pad: int,
    frame_rate: FrameRate = FRAME_RATE,
) -> Tensor:
    """Tokens (T,) of one speaker's turns: BOS at the frame where a turn starts, its text from the next frame on, EOS at the
    frame where it ends, pad everywhere else.

        frame   0    1    2    3    4    5    6    7
        token  pad  BOS   w1   w2  pad  pad  EOS  pad       a turn of 0.08 to 0.48 s

    Text that does not fit its turn ends at EOS: what would come later must not be learnt. The text runs ahead of the voice, so
    a turn that the user cuts off has its `full_text` up to the cut: when its words were written nobody knew of the cut, and a
    model that had to leave out the unsaid ones would learn to stop writing at random. A turn that is marked `unfinished` or
    runs past the last frame has no EOS. Where a turn starts before the one before it ended, its BOS closes the earlier one.
    """
    tokens = torch.full((num_frames,), pad, dtype=torch.long)
    for turn in turns:
        start, end = frame_rate.nearest(turn.start), frame_rate.nearest(turn.end)
        if start >= num_frames:
            continue  # rounding at the very end of a cut; a conversation never holds a later turn
        stop = min(end, num_frames)
        tokens[start:stop] = pad
        text = [bos, *tokenizer.text_to_ids(turn.full_text or turn.text)][: max(1, stop - start)]
        tokens[start : start + len(text)] = torch.tensor(text)
        if end < num_frames and end > start and not turn.custom.get("unfinished", False):
            tokens[end] = eos
    return tokens


def overflowing_frames(turn: Turn, tokenizer: TextTokenizer, frame_rate: FrameRate = FRAME_RATE) -> int:
    """Frames by which a turn's text is longer than the turn, 0 where it fits."""
    room = frame_rate.nearest(turn.end) - frame_rate.nearest(turn.start) - 1
    return max(0, len(tokenizer.text_to_ids(turn.text)) - room)
