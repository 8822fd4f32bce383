r"""What a caller makes the agent do: stop now, start now, say these words, be muted.

The agent then continues as if it had chosen so itself: the next frame sees what was forced as its previous frame, and marks are
on the channels as in training (drawn in `channels/layout.py`). Only the sound does not wait for the marks:

                                stop                                       start, or say("w1 w2")
                                 |                                          |
    text      ... pad pad pad   EOS                   text                 BOS   w1    w2  |pad...   EOS| the model says when
    speech    ... c   c   c      s    s   EOS  pad    speech (beside)      pad   BOS   c    c  ...            free, but for BOS
    sound     ~~~~~~~~~~~~~~~~~~\__________________   s: codes of silence

At a stop the sound fades out over 20 ms, and the codec's decoder is reset, so that no sound follows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError

#: Duration of a fade out or in.
GAIN_FADE: Seconds = 0.02
#: Nothing is forced.
FREE = -1
# In a model that writes each word when it is spoken, a word of `say` and the end of the turn are written when the model prefers
# them to pad; after this many frames (about a second a token) they are forced.
_MOST_FRAMES_OFFERED = 12

#: The commands: methods of `AgentCommands`.
COMMANDS = ("stop", "start", "say", "mute")


@dataclass(frozen=True)
class FrameCommand:
    """What one agent must do in one frame; by default nothing."""

    token: int = FREE  # forced text token
    offer: int = FREE  # text token that is written if the model prefers it to pad; else pad
    code: int = FREE  # special id forced on all codebooks
    silent: bool = False  # the codec's codes of silence are forced
    gain: float = 1.0  # of the sound, reached after the fade
    gain_before: float = 1.0
    restart: bool = False  # the decoder is reset after this frame


@dataclass
class RowCommands:
    """The commands of one frame of B rows, as the batched step takes them."""

    tokens: Tensor  # (B,) int64, FREE or forced
    offers: Tensor  # (B,) int64, FREE or the one alternative to pad
    codes: Tensor  # (B, K) int64, FREE or forced
    gains: Tensor  # (B, 2) before and after the fade
    restart: Tensor  # (B,) bool

    @classmethod
    def of(cls, frames: Sequence[FrameCommand | None], silence: Tensor) -> RowCommands:
        """The commands of each row, None where it is free; `silence` (K,) are the codec's codes of silence."""
        rows = [frame or FrameCommand() for frame in frames]
        device = silence.device
        codes = torch.tensor([[row.code] for row in rows], device=device).expand(-1, len(silence))
        silent = torch.tensor([[row.silent] for row in rows], device=device)
        return cls(
            tokens=torch.tensor([row.token for row in rows], device=device),
            offers=torch.tensor([row.offer for row in rows], device=device),
            codes=torch.where(silent, silence, codes),
            gains=torch.tensor([[row.gain_before, row.gain] for row in rows], device=device),
            restart=torch.tensor([row.restart for row in rows], device=device),
        )

    def text(self, tokens: Tensor, logits: Tensor, pad: int) -> Tensor:
        """Text tokens (B,): those of `tokens` (B,) where nothing is commanded; given the logits (B, V) and the id of pad."""
        offered = logits.gather(1, self.offers.clamp(min=0)[:, None])[:, 0]
        taken = torch.where(offered > logits[:, pad], self.offers, pad)
        tokens = torch.where(self.offers >= 0, taken, tokens)
        return torch.where(self.tokens >= 0, self.tokens, tokens)

    def speech(self, codes: Tensor) -> Tensor:
        """Codes (B, K): those of `codes` where nothing is commanded."""
        return torch.where(self.codes >= 0, self.codes, codes)

    def sound(self, audio: Tensor, sample_rate: int) -> Tensor:
        """Audio (B, S) with gain and fades applied: unchanged to the bit where the gain stays 1."""
        fade = round(GAIN_FADE * sample_rate)
        at = ((torch.arange(audio.shape[1], device=audio.device) + 1) / fade).clamp(max=1)
        rise = 0.5 - 0.5 * torch.cos(torch.pi * at)
        before, after = self.gains[:, :1], self.gains[:, 1:]
        return audio * (before + (after - before) * rise).to(audio.dtype)


class AgentCommands:
    """The commands of one session. They come from any thread; the engine asks what they mean for the next frame.

        command = commands.next()           FrameCommand, or None where the agent is free
        commands.advance(token, codes)      the frame that was made

    Args:
        layout: vocabularies, special ids and delays of the channels.
        words_in_time: whether the model writes each word when it is spoken, and not the whole turn at once.

    Attributes:
        observer: called with each command: the first frame for which it holds, the method's name, and its argument or None.
    """

    def __init__(self, layout: ChannelLayout, words_in_time: bool = False) -> None:
        self._layout, self._words_in_time = layout, words_in_time
        self.observer: Callable[[int, str, Any], None] = lambda frame, command, value: None
        self._lock = Lock()  # of the commands
        self._asked = 0  # calls of `next`
        self._stop = self._start = self._muted = False
        self._lines: deque[list[int]] = deque()
        self._frame = 0  # the next one
        self._text_open = False  # a turn is open in the text channel
        self._speech_open = False  # a turn is open in the speech channels
        self._bos = self._eos = -(1 << 30)  # frames of the latest marks in the text channel
        self._forced_turn = False  # the open turn was begun by a command
        self._opens = self._quiet_until = -1  # frames of speech BOS and EOS of the latest stopped turn
        self._plan: deque[tuple[int, int]] = deque()  # of `say`: token, and frames for which pad may be written instead
        self._gain = 1.0

    # ------------------------------------------------------------------ commands

    def stop(self) -> None:
        """The agent is silent from the next frame on, and its turn ends; texts of `say` that wait are dropped."""
        with self._lock:
            self._stop, self._start = True, False
            self._lines.clear()
            self.observer(self._asked, "stop", None)

    def start(self) -> None:
        """The agent begins a turn in the next frame, unless it is in one."""
        with self._lock:
            self._start = True
            self.observer(self._asked, "start", None)

    def say(self, tokens: Sequence[int]) -> None:
        """The agent says these text tokens, after those of earlier calls; a turn of its own is cut off.

        Raises:
            InputError: if there are no tokens, or marks of the text channel among them.
        """
        layout = self._layout
        if not tokens:
            raise InputError("There is nothing to say. Give a text of at least one word.")
        if {layout.text_pad, layout.text_bos, layout.text_eos} & set(tokens):
            raise InputError("The text to say holds a mark of the text channel (pad, BOS or EOS). Take it out.")
        with self._lock:
            self._lines.append(list(tokens))
            self.observer(self._asked, "say", list(tokens))

    def mute(self, muted: bool) -> None:
        """The agent continues without sound (True), or with sound again (False)."""
        with self._lock:
            self._muted = bool(muted)
            self.observer(self._asked, "mute", self._muted)

    # ------------------------------------------------------------------ for the engine

    def next(self) -> FrameCommand | None:
        """What the commands mean for the next frame. Called once for each frame, and followed by `advance`."""
        with self._lock:
            self._asked += 1
            token, offer, cut = self._text()
            code, silent = self._speech(token)
            gain = 0.0 if self._muted or cut else 1.0
        command = FrameCommand(token, offer, code, silent, gain, self._gain, restart=cut)
        self._gain = gain
        return None if command == FrameCommand() else command

    def advance(self, token: int, codes: np.ndarray) -> None:
        """Takes the text token and the codes (K,) of that frame."""
        layout = self._layout
        if token == layout.text_bos:
            self._text_open, self._bos = True, self._frame
        elif token == layout.text_eos:
            self._text_open, self._eos, self._forced_turn = False, self._frame, False
        if (codes == layout.speech_bos).any():
            self._speech_open = True
        elif (codes == layout.speech_eos).any():
            self._speech_open = False
        elif layout.turn_marks == "beside":
            self._speech_open = bool((codes < layout.codebook_size).all())
        if self._plan:
            head, frames = self._plan.popleft()
            if token != head:
                self._plan.appendleft((head, frames - 1))
        self._frame += 1

    # ------------------------------------------------------------------ the channels

    def _text(self) -> tuple[int, int, bool]:
        """Token and offer of the next frame, and whether its sound is cut."""
        if self._stop:
            self._stop = False
            self._plan.clear()
            return self._cut()
        if not self._plan and self._lines:
            self._start = False
            if self._text_open:
                return self._cut()
            self._plan = self._planned(self._lines.popleft())
        if self._plan:
            token, frames = self._plan[0]
            self._start, self._forced_turn = False, True
            return (FREE, token, False) if frames > 0 else (token, FREE, False)
        if self._start:
            self._start = False
            if not self._text_open:
                self._forced_turn = True
                return self._layout.text_bos, FREE, False
        return FREE, FREE, False

    def _cut(self) -> tuple[int, int, bool]:
        """Ends the turn in the next frame: text EOS unless it was written, and silence until the speech EOS that follows."""
        layout, frame = self._layout, self._frame
        token, cut = FREE, True
        if self._text_open:
            token, self._quiet_until = layout.text_eos, frame + layout.text_tail
        elif frame <= self._eos + layout.text_tail:
            self._quiet_until = self._eos + layout.text_tail
        elif self._speech_open:
            self._quiet_until = frame
        else:
            cut = False  # no turn is open
        self._opens = self._bos + layout.speech_delay
        return token, FREE, cut

    def _speech(self, token: int) -> tuple[int, bool]:
        """Special id forced on the next frame's codes, given its forced text token; and whether they are silence."""
        layout, frame = self._layout, self._frame
        opens = (frame if token == layout.text_bos else self._bos) + layout.speech_delay
        if frame == opens and (self._forced_turn or frame <= self._quiet_until):
            return layout.speech_bos, False
        if frame == self._quiet_until:
            return layout.speech_eos, False
        if frame > self._quiet_until:
            return FREE, False
        if frame == self._opens:
            return layout.speech_bos, False
        unopened = frame < self._opens and layout.turn_marks == "beside"
        return (layout.speech_pad, False) if unopened else (FREE, True)

    def _planned(self, tokens: list[int]) -> deque[tuple[int, int]]:
        """The plan for `tokens`: BOS, the tokens, and EOS when they have been spoken."""
        frames = _MOST_FRAMES_OFFERED if self._words_in_time else 0
        words = [(token, frames) for token in tokens]
        return deque([(self._layout.text_bos, 0), *words, (self._layout.text_eos, _MOST_FRAMES_OFFERED * (len(tokens) + 2))])
