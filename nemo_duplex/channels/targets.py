"""The agent's channels as a model is trained on them: text and speech laid out against each other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nemo_duplex.channels.layout import ChannelLayout


class AgentTargets(NamedTuple):
    """The agent's channels, laid out against each other (`channels/layout.py`)."""

    tokens: Tensor  # (B, T)
    codes: Tensor  # (B, K, T), specials included
    speaking: Tensor  # (B, T) bool: frames of a turn, its BOS and EOS included
    valid: Tensor  # (B, T) bool: frames with a target, those that are trained on


def lay_out(tokens: Tensor, codes: Tensor, valid: Tensor, layout: ChannelLayout) -> AgentTargets:
    """Moves text and speech against each other as drawn in `channels/layout.py`.

    Args:
        tokens: (B, T) text channel on the time of the corpus, BOS where a turn starts, EOS where it ends.
        codes: (B, K, T) codec codes on the time of the corpus.
        valid: (B, T) bool, frames that are no padding.
        layout: the special ids, the delay and the place of the marks.

    A turn that starts too early for its lead has its BOS in the first frame; if its EOS would be there too, or earlier, it has
    neither.
    """
    batch, frames = tokens.shape
    assert codes.shape[::2] == (batch, frames), f"Codes {tuple(codes.shape)} do not fit tokens {tuple(tokens.shape)}."
    tokens = tokens.where(valid, layout.text_pad)  # text moves ahead: no padding may come along
    starts, ends = tokens == layout.text_bos, tokens == layout.text_eos
    marked = _marks_beside if layout.turn_marks == "beside" else _marks_in_place
    speech, speaking = marked(codes, starts, ends, layout)

    text = _earlier(tokens, layout.text_shift, layout.text_pad)
    goes_on = _inside(starts, ends)[:, min(layout.text_shift, frames - 1)]  # in the frame whose text is the first now
    text[:, 0] = torch.where(goes_on, layout.text_bos, text[:, 0].where(text[:, 0] != layout.text_eos, layout.text_pad))
    if layout.turn_marks == "in_place":  # the frame after the last one is unknown
        valid = _earlier(valid, 1, False)
    return AgentTargets(text, speech, speaking, valid)


def _marks_beside(codes: Tensor, starts: Tensor, ends: Tensor, layout: ChannelLayout) -> tuple[Tensor, Tensor]:
    """Speech (B, K, T): codes inside of turns, BOS in the frame before, EOS in the frame after, pad elsewhere; and the frames
    of turns (B, T)."""
    inside = _inside(starts, ends)
    bos_frames = _earlier(starts, 1, False) & ~inside
    eos_frames = ends & ~bos_frames
    speech = torch.where(inside[:, None], codes, layout.speech_pad)
    speech = torch.where(bos_frames[:, None], layout.speech_bos, speech)
    speech = torch.where(eos_frames[:, None], layout.speech_eos, speech)
    return speech, inside | bos_frames | eos_frames


def _marks_in_place(codes: Tensor, starts: Tensor, ends: Tensor, layout: ChannelLayout) -> tuple[Tensor, Tensor]:
    """Speech (B, K, T): codes everywhere, except BOS and EOS where the text has them, `speech_lag` frames late; and the frames
    of turns (B, T)."""
    speech = torch.where(starts[:, None], layout.speech_bos, codes)
    speech = torch.where(ends[:, None], layout.speech_eos, speech)
    speaking = _inside(starts, ends) | ends
    lag = layout.speech_lag
    if lag > 0:  # before the first frame, the first frame repeats
        first = speech[:, :, :1].expand(-1, -1, lag)
        speech = torch.cat([first, speech[:, :, :-lag]], dim=2)
        speaking = torch.cat([speaking.new_zeros(len(speaking), lag), speaking[:, :-lag]], dim=1)
    elif lag < 0:
        speech = torch.cat([speech[:, :, 1:], speech[:, :, -1:]], dim=2)
        speaking = _earlier(speaking, 1, False)
    return speech, speaking


def _inside(starts: Tensor, ends: Tensor) -> Tensor:
    """(B, T) bool: from each start to the frame before the next end."""
    frame = torch.arange(starts.shape[1], device=starts.device).expand_as(starts)
    last_start = torch.where(starts, frame, -1).cummax(dim=1).values
    last_end = torch.where(ends, frame, -1).cummax(dim=1).values
    return last_start > last_end


def _earlier(row: Tensor, by: int, fill: int | bool) -> Tensor:
    """`row` (B, T) moved `by` frames ahead."""
    return torch.cat([row[:, by:], row.new_full((row.shape[0], min(by, row.shape[1])), fill)], dim=1) if by else row.clone()
