"""The only reader of the text channel: which turns are on it, in which frames, and what they say.

    frame   0    1    2    3    4    5    6    7    8    9
    token  pad  BOS   w1   w2  pad  EOS  pad  BOS   w3  pad      two turns: frames 1 to 5, and from 7 on without EOS (yet)

`ChannelReader` knows this grammar, and everything else here is built on it: `read_channel` for the evaluation, `decode_text`
for the text of `offline_inference`, `Transcript` for a live session. `text_channel.py` says how turns are written, `layout.py`
when they are heard.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.channels.text_channel import TextTokenizer
from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.frames import FRAME_RATE, FrameRate, Span

#: What a byte tokenizer writes for a character of which bytes are missing.
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
#: Last tokens of a turn, whose text may still change with the tokens that follow. A character has 4 bytes at most.
_OPEN_TOKENS = 32


@dataclass(frozen=True)
class ChannelTurn:
    """A turn on the text channel.

    Args:
        start: frame of its BOS, or of its first text where it has no BOS.
        end: the frame that ends it and is not part of it: its EOS, the next BOS, or the number of frames read.
        ids: its text ids, without pads.
        has_bos, has_eos: whether a BOS began it and an EOS ended it.
    """

    start: int
    end: int
    ids: tuple[int, ...] = ()
    has_bos: bool = True
    has_eos: bool = True

    def span(self, layout: ChannelLayout, frame_rate: FrameRate = FRAME_RATE) -> Span:
        """When the turn is heard (Seconds): from `text_lead` frames after its BOS to `text_tail` frames after its EOS."""
        start, end = self.start + layout.text_lead, self.end + layout.text_tail
        return frame_rate.time(start), frame_rate.time(max(start, end))


class ChannelReader:
    """Reads a text channel frame by frame: BOS begins a turn, EOS or the next BOS ends it, pad means nothing.

    Text with no BOS before it begins a turn too.

    Args:
        layout: the special ids.
    """

    def __init__(self, layout: ChannelLayout) -> None:
        self._layout = layout
        self._start: int | None = None  # of the open turn; None between turns
        self._has_bos = False
        self._ids: list[int] = []
        self.orphan_eos = 0  # EOS that no BOS precedes

    def add(self, frame: int, token: int) -> ChannelTurn | None:
        """Takes the token of `frame`; returns the turn that it ends. Frames come in order, pads may be left out."""
        if token == self._layout.text_bos:
            ended = self._end(frame, has_eos=False)
            self._start, self._has_bos = frame, True
            return ended
        if token == self._layout.text_eos:
            self.orphan_eos += not self._has_bos
            return self._end(frame, has_eos=True)
        if token != self._layout.text_pad:
            if self._start is None:
                self._start = frame
            self._ids.append(token)
        return None

    def open_turn(self, frames: int) -> ChannelTurn | None:
        """The turn that is open after `frames` frames, as far as it was written."""
        return None if self._start is None else ChannelTurn(self._start, frames, tuple(self._ids), self._has_bos, False)

    def _end(self, frame: int, has_eos: bool) -> ChannelTurn | None:
        if self._start is None:
            return None
        ended = ChannelTurn(self._start, frame, tuple(self._ids), self._has_bos, has_eos)
        self._start, self._has_bos, self._ids = None, False, []
        return ended


@dataclass(frozen=True)
class ChannelActivity:
    """The turns of a whole text channel, and how often its grammar was broken.

    Args:
        turns: in order; text that no BOS precedes is left out.
        orphan_eos: EOS tokens that no BOS precedes.
    """

    turns: tuple[ChannelTurn, ...]
    orphan_eos: int = 0

    @property
    def unterminated(self) -> int:
        """Turns that no EOS ends: the next BOS ended them, or the recording."""
        return sum(not turn.has_eos for turn in self.turns)


def read_channel(tokens: Sequence[int] | np.ndarray, layout: ChannelLayout) -> ChannelActivity:
    """The turns of a text channel, one token (T,) per frame."""
    reader = ChannelReader(layout)
    turns = tuple(turn for turn in _turns(tokens, reader) if turn.has_bos)
    return ChannelActivity(turns, reader.orphan_eos)


def decode_turns(tokens: Sequence[int] | np.ndarray, layout: ChannelLayout, tokenizer: TextTokenizer) -> list[str]:
    """The text of each turn of a text channel (T,) that says something, text that no BOS precedes included."""
    return [tokenizer.ids_to_text(list(turn.ids)) for turn in _turns(tokens, ChannelReader(layout)) if turn.ids]


def decode_text(tokens: Sequence[int] | np.ndarray, layout: ChannelLayout, tokenizer: TextTokenizer) -> str:
    """The text of a text channel (T,), turns separated by a space. Text between an EOS and the next BOS continues its turn."""
    texts: list[list[int]] = [[]]
    for turn in _turns(tokens, ChannelReader(layout)):
        if turn.has_bos:
            texts.append([])
        texts[-1] += turn.ids
    return " ".join(tokenizer.ids_to_text(ids) for ids in texts if ids)


def _turns(tokens: Sequence[int] | np.ndarray, reader: ChannelReader) -> Iterator[ChannelTurn]:
    tokens = np.asarray(tokens)
    for frame, token in enumerate(tokens.tolist()):
        if (ended := reader.add(frame, token)) is not None:
            yield ended
    if (last := reader.open_turn(len(tokens))) is not None:
        yield last


class Transcript:
    """What is said in a live session: takes the text channel token by token, each at the same cost.

    It keeps the text of the turns and nothing else, so it is all of a session that grows.

    Args:
        layout: the special ids, and when a turn is heard.
        tokenizer: turns ids back into text.
        frame_rate: of the model.
    """

    def __init__(self, layout: ChannelLayout, tokenizer: TextTokenizer, frame_rate: FrameRate = FRAME_RATE) -> None:
        self._layout, self._tokenizer, self._frame_rate = layout, tokenizer, frame_rate
        self._reader = ChannelReader(layout)
        self._turns: list[Turn] = []
        self._text = TurnText(tokenizer)  # of the turn that is being written

    def add(self, index: int, token: int) -> str:
        """Takes the token of frame `index`; returns the text that it adds."""
        layout, added = self._layout, ""
        if (ended := self._reader.add(index, token)) is not None:
            added = self._text.rest()
            self._turns.append(self._heard(ended))
            self._text = TurnText(self._tokenizer)
        if token not in (layout.text_pad, layout.text_bos, layout.text_eos):
            added += self._text.add(token)
        return added

    def conversation(self, frames: int) -> Conversation:
        """What was said in the first `frames` frames, an open turn included."""
        turns, last = list(self._turns), self._reader.open_turn(frames)
        if last is not None:
            turns.append(self._heard(last))
        return Conversation("session", max([self._frame_rate.time(frames), *(t.end for t in turns)]), tuple(turns))

    def _heard(self, turn: ChannelTurn) -> Turn:
        return Turn("agent", *turn.span(self._layout, self._frame_rate), str(self._text))


class TurnText:
    """The text of one turn while its tokens come, at the same cost per token however long the turn has become.

    The text of several tokens is not the text of each of them in a row: pieces of a word join, and bytes make a character. So
    the last tokens are always decoded together, and the tokens before them once and for all.

    Args:
        tokenizer: turns ids back into text.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._settled: list[str] = []
        self._open: list[int] = []  # tokens after the settled text
        self._text = ""  # text of the open tokens
        self._shown = ""  # the part of that text that has been returned

    def add(self, token: int) -> str:
        """The text that the next token adds; an incomplete character is held back."""
        self._open.append(token)
        self._text = self._tokenizer.ids_to_text(self._open)
        added = self._show(self._text.rstrip(_INCOMPLETE))
        if len(self._open) < 2 * _OPEN_TOKENS or self._settle():
            return added
        added += self.rest()  # bytes that make no character, whatever follows
        self._settled.append(self._text)
        self._open, self._text, self._shown = [], "", ""
        return added

    def rest(self) -> str:
        """The text that was held back, once no further token can complete it."""
        shown, self._shown = self._shown, self._text
        return self._text[len(os.path.commonprefix([shown, self._text])) :]

    def __str__(self) -> str:
        return "".join(self._settled) + self._text

    def _show(self, text: str) -> str:
        """What `text` adds to the text that was returned of the open tokens.

        Nothing while `text` does not continue it: some tokenizers change the characters before one that is incomplete.
        """
        if not text.startswith(self._shown):
            return ""
        shown, self._shown = self._shown, text
        return text[len(shown) :]

    def _settle(self) -> bool:
        """Settles half of the open tokens, or a few more, where the rest decodes to the end of the whole text."""
        for first in range(_OPEN_TOKENS, len(self._open)):
            rest = self._tokenizer.ids_to_text(self._open[first:])
            settled = self._text.removesuffix(rest)
            if rest and settled != self._text and self._shown.startswith(settled):
                self._settled.append(settled)
                self._open, self._text, self._shown = self._open[first:], rest, self._shown.removeprefix(settled)
                return True
        return False
