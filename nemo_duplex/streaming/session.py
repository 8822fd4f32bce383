"""One caller's live conversation: PCM in chunks of any size in, the agent's frames out.

For any audio in any chunks, what `push` and `flush` return equals `offline_inference` on the whole audio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.inputs import InputError

if TYPE_CHECKING:
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel


#: As which a tokenizer of bytes writes a character of which it has not all bytes yet.
_HALF_A_CHARACTER = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class AgentFrame:
    """What the agent does in one frame (80 ms)."""

    index: int
    text: str  # what this frame adds to the agent's text; empty in most frames
    token: int  # of the text channel
    codes: np.ndarray  # (K,) int64, specials included
    audio: np.ndarray  # (samples,) float32 at the model's agent_sample_rate


class Session:
    """A conversation of one caller with a model. Made by `model.open_session()`; not safe to share between threads."""

    def __init__(self, model: DuplexS2SModel) -> None:
        self._model = model.eval()
        self._perception = model.perception.init_state(1, model.device)
        self._state = model.lm.init_state(1)
        self._decoder = model.audio_codec.streaming_decoder()
        self._codec_state = self._decoder.init_state(1)
        self._transcript = _Transcript(model)
        self._index = 0
        self._ended: str | None = None

    @torch.inference_mode()
    def push(self, audio: np.ndarray | Tensor) -> list[AgentFrame]:
        """Hears (S,) float32 samples at the model's user_sample_rate, in -1..1; returns the frames that they complete.

        Raises:
            InputError: for another shape or type, samples that are not finite, or a session that has ended.
        """
        return self._hear(self._checked(audio), final=False)

    @torch.inference_mode()
    def flush(self) -> list[AgentFrame]:
        """The user has nothing more to say: the frames that are still owed. After it, only `close` and `transcript`."""
        self._check_open()
        frames = self._hear(torch.zeros(1, 0, device=self._model.device), final=True)
        self._ended = "flushed"
        return frames

    def close(self) -> None:
        """Ends the conversation; safe to call again."""
        self._ended = "closed"

    @property
    def transcript(self) -> Conversation:
        """The conversation so far: the agent's turns with their text, at the times at which they are heard."""
        return self._transcript.conversation(self._index)

    def _hear(self, audio: Tensor, final: bool) -> list[AgentFrame]:
        user, self._perception = self._model.perception.step(audio, self._perception, final=final)
        return [self._frame(user[:, t]) for t in range(user.shape[1])]

    def _frame(self, user: Tensor) -> AgentFrame:
        """One step of the language model and of the codec: user embedding (1, H) -> frame."""
        output, self._state = self._model.lm.step(user, self._state)
        audible = self._model.audible(output.codes[:, :, None])
        audio, self._codec_state = self._decoder.step(audible, self._codec_state)
        token = int(output.tokens[0])
        frame = AgentFrame(
            index=self._index,
            text=self._transcript.add(self._index, token),
            token=token,
            codes=output.codes[0].cpu().numpy(),
            audio=audio[0].float().cpu().numpy(),
        )
        self._index += 1
        return frame

    def _checked(self, audio: np.ndarray | Tensor) -> Tensor:
        self._check_open()
        audio = torch.as_tensor(audio)
        if audio.dim() != 1 or audio.dtype != torch.float32:
            raise InputError(
                f"A session hears float32 samples of shape (S,), got {audio.dtype} of shape {tuple(audio.shape)}. "
                "Send one channel, scaled to -1..1."
            )
        if not torch.isfinite(audio).all():
            raise InputError("A session was pushed samples that are not finite (NaN or infinite). Repair the audio source.")
        return audio[None].to(self._model.device)

    def _check_open(self) -> None:
        if self._ended:
            raise InputError(f"This session was {self._ended}. Open another one with model.open_session().")


class _Transcript:
    """The agent's turns, put together from the text channel."""

    def __init__(self, model: DuplexS2SModel) -> None:
        self._model = model
        self._turns: list[Turn] = []
        self._tokens: list[int] | None = None  # of the turn that is being written
        self._text = ""
        self._shown = ""  # of that text, what frames have returned
        self._start = 0

    def add(self, index: int, token: int) -> str:
        """Takes the token of frame `index`; returns the text that it adds."""
        layout = self._model.layout
        if token == layout.text_bos:
            rest = self._end_turn(index)
            self._begin_turn(index)
            return rest
        if token == layout.text_eos:
            return self._end_turn(index)
        return self._write(index, token) if token != layout.text_pad else ""

    def _write(self, index: int, token: int) -> str:
        if self._tokens is None:  # text without a BOS before it is still text
            self._begin_turn(index)
        self._tokens = [*(self._tokens or ()), token]
        self._text = self._model.tokenizer.ids_to_text(self._tokens)
        return self._show(self._text.rstrip(_HALF_A_CHARACTER))

    def _show(self, text: str) -> str:
        """What `text` adds to that which was shown of this turn."""
        shown, self._shown = self._shown, text
        return text[len(shown) :] if text.startswith(shown) else text

    def conversation(self, frames: int) -> Conversation:
        """What was said in the first `frames` frames, a turn that goes on included."""
        turns = list(self._turns)
        if self._tokens is not None:
            turns.append(self._turn(frames))
        rate = self._model.perception.frame_rate
        return Conversation("session", max([rate.time(frames), *(t.end for t in turns)]), tuple(turns))

    def _begin_turn(self, index: int) -> None:
        self._tokens, self._text, self._shown, self._start = [], "", "", index

    def _end_turn(self, index: int) -> str:
        """Returns what was held back of its text: half a character that nothing completes any more."""
        if self._tokens is None:
            return ""
        self._turns.append(self._turn(index))
        self._tokens = None
        return self._show(self._text)

    def _turn(self, index: int) -> Turn:
        """The turn that started at `_start` and has its EOS at `index`, at the time at which it is heard."""
        rate, layout = self._model.perception.frame_rate, self._model.layout
        start, end = self._start + layout.text_lead, index + layout.text_tail
        return Turn("agent", rate.time(start), rate.time(max(start, end)), self._text)
