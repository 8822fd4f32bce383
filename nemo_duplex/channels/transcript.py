"""The agent's turns, put together from the text channel while it is written.

The text of a turn while its tokens come, each at the same cost however long the turn has become.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.channels.text_channel import TextTokenizer
from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.frames import FRAME_RATE, FrameRate, Span

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


class Transcript:
    """Takes the text channel token by token; says what each token adds, and what was said in which turn.

    It is all that remains of what the model has forgotten, and all of a session that grows: text alone.
    """

    def __init__(self, layout: ChannelLayout, tokenizer: TextTokenizer, frame_rate: FrameRate = FRAME_RATE) -> None:
        self._layout, self._tokenizer, self._frame_rate = layout, tokenizer, frame_rate
        self._turns: list[Turn] = []
        self._text: TurnText | None = None  # of the turn that is being written
        self._start = 0

    def add(self, index: int, token: int) -> str:
        """Takes the token of frame `index`; returns the text that it adds."""
        layout = self._layout
        if token == layout.text_bos:
            rest = self._end_turn(index)
            self._begin_turn(index)
            return rest
        if token == layout.text_eos:
            return self._end_turn(index)
        if token == layout.text_pad:
            return ""
        text = self._text or self._begin_turn(index)  # text without a BOS before it is still text
        return text.add(token)

    def conversation(self, frames: int) -> Conversation:
        """What was said in the first `frames` frames, a turn that goes on included."""
        turns = list(self._turns)
        if self._text is not None:
            turns.append(self._turn(frames, self._text))
        rate = self._frame_rate
        return Conversation("session", max([rate.time(frames), *(t.end for t in turns)]), tuple(turns))

    def _begin_turn(self, index: int) -> TurnText:
        self._text, self._start = TurnText(self._tokenizer), index
        return self._text

    def _end_turn(self, index: int) -> str:
        """Returns what was held back of its text: half a character that nothing completes any more."""
        if self._text is None:
            return ""
        text, self._text = self._text, None
        self._turns.append(self._turn(index, text))
        return text.rest()

    def _turn(self, index: int, text: TurnText) -> Turn:
        """The turn that started at `_start` and has its EOS at `index`, at the time at which it is heard."""
        rate, layout = self._frame_rate, self._layout
        start, end = self._start + layout.text_lead, index + layout.text_tail
        return Turn("agent", rate.time(start), rate.time(max(start, end)), str(text))


@dataclass(frozen=True)
class ChannelTurn:
    """A turn on the text channel: frames from its BOS (inclusive) to its EOS (exclusive), and the text ids between."""

    start: int
    end: int
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class ChannelActivity:
    """The turns of a text channel, and how often its grammar was broken.

    `unterminated`: turns that no EOS ends (closed by the next BOS, or by the end of the recording);
    `orphan_eos`: EOS outside any turn.
    """

    turns: tuple[ChannelTurn, ...]
    unterminated: int
    orphan_eos: int

    def spans(self, frame_rate: FrameRate = FRAME_RATE, lead: int = 0, tail: int = 0) -> list[Span]:
        """When these turns are heard: from `lead` frames after their BOS to `tail` frames after their EOS (see
        channels/layout.py)."""
        return [(frame_rate.time(t.start + lead), frame_rate.time(max(t.start + lead, t.end + tail))) for t in self.turns]


def channel_activity(bos: Sequence[int], eos: Sequence[int], frames: int) -> ChannelActivity:
    """Turns from the frames of BOS and EOS: an EOS frame is not speech, a second BOS closes the turn before it."""
    turns, unterminated, orphans, opened = [], 0, 0, None
    for frame, kind in sorted([(f, "eos") for f in eos] + [(f, "bos") for f in bos], key=lambda mark: mark[0]):
        if kind == "eos" and opened is None:
            orphans += 1
            continue
        if opened is not None:
            turns.append(ChannelTurn(opened, frame))
        unterminated += kind == "bos" and opened is not None
        opened = frame if kind == "bos" else None
    if opened is not None:
        turns.append(ChannelTurn(opened, frames))
        unterminated += 1
    return ChannelActivity(tuple(turns), unterminated, orphans)


def read_channel(tokens: Sequence[int] | np.ndarray, layout: ChannelLayout) -> ChannelActivity:
    """Turns of a text channel with the ids that each says, pads left out.

    Args:
        tokens: (T,) text tokens of one conversation, one per frame.
    """
    tokens = np.asarray(tokens)
    marks = {layout.text_bos, layout.text_eos, layout.text_pad}
    bos, eos = (np.flatnonzero(tokens == mark).tolist() for mark in (layout.text_bos, layout.text_eos))
    activity = channel_activity(bos, eos, len(tokens))

    def written(turn: ChannelTurn) -> tuple[int, ...]:
        return tuple(i for i in tokens[turn.start : turn.end].tolist() if i not in marks)

    turns = tuple(ChannelTurn(t.start, t.end, written(t)) for t in activity.turns)
    return ChannelActivity(turns, activity.unterminated, activity.orphan_eos)
