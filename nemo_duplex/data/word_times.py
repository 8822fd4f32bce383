"""When each token of a turn is spoken, from the word times that a synthesiser knows."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from nemo_duplex.channels.text_channel import PieceTokenizer, token_offsets
from nemo_duplex.conversation import Turn
from nemo_duplex.frames import FRAME_RATE, FrameRate, Seconds


def token_times(turn: Turn, tokenizer: PieceTokenizer) -> list[tuple[int, Seconds]]:
    """Each token of the turn's text with the time at which its last character has been spoken.

    Within a word, characters are taken to last equally long; what stands between words belongs to the one before it.
    Empty for a turn without word times.
    """
    if not turn.words:
        return []
    return [(token, _spoken(turn, end)) for token, end in token_offsets(turn.text, tokenizer)]


def token_path(
    turns: Iterable[Turn],
    num_frames: int,
    tokenizer: PieceTokenizer,
    blank: int,
    since: Seconds = 0.0,
    rate: FrameRate = FRAME_RATE,
) -> Tensor:
    """Tokens (T,) at the frames in which they are spoken, `blank` elsewhere: the right one of the paths that CTC sums over.

    Frame 0 starts at the time `since`, and no turn before it. A token whose frame is taken goes into the next free one; those
    for which none is left are dropped.
    """
    path = torch.full((num_frames,), blank, dtype=torch.long)
    free = 0
    for turn in turns:
        for token, time in token_times(turn, tokenizer):
            frame = max(free, rate.frame_at(time - since))
            if frame < num_frames:
                path[frame] = token
            free = frame + 1
    return path


def _spoken(turn: Turn, position: int) -> Seconds:
    """When the first `position` characters of the turn's text have been spoken."""
    time = turn.start
    for word in turn.words:
        if position <= word.offset:
            break
        share = min(1.0, (position - word.offset) / len(word.text))
        time = word.start + share * (word.end - word.start)
    return time
