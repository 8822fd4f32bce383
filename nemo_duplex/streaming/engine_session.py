"""One of the many callers of a `DuplexEngine`: takes the user's audio at any time, gets a frame whenever the engine steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nemo_duplex.conversation import Conversation
from nemo_duplex.inputs import InputError
from nemo_duplex.streaming.burst_queue import BurstQueue
from nemo_duplex.streaming.frame import AgentFrame
from nemo_duplex.streaming.transcript import Transcript

if TYPE_CHECKING:
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel


class EngineSession:
    """A conversation of one caller. Made by `engine.open_session()`.

    `push`, `flush` and `close` only note what is to happen and may be called from any thread; frames come from `engine.step()`.

    Attributes:
        error: what ended this session, and only this one, while the engine made its frame; None if nothing did.

    Raises:
        InputError: for an option that is not possible.
    """

    def __init__(self, model: DuplexS2SModel, sample_rate: int | None = None) -> None:
        if sample_rate not in (None, model.user_sample_rate):
            raise InputError(f"A session hears {model.user_sample_rate} Hz, got sample_rate={sample_rate}.")
        self.error: Exception | None = None
        self._queue = BurstQueue(model.perception)
        self._transcript = Transcript(model)
        self._index = 0  # of the next frame
        self._pending = 0  # frames that were heard and not answered yet
        self._ended: str | None = None

    # ------------------------------------------------------------------ for the caller

    def push(self, audio: np.ndarray | Tensor) -> None:
        """Queues (S,) float32 samples at the session's sample rate, in -1..1. A push that is refused changes nothing.

        Raises:
            InputError: for another shape or type, samples that are not finite, or a session that has ended.
        """
        self._check_open()
        self._queue.push(_checked(audio))

    def flush(self) -> None:
        """The user has nothing more to say: the engine makes the frames that are still owed, then the session is over."""
        self._check_open()
        self._ended = "flushed"
        self._queue.end()

    def close(self) -> None:
        """Ends the conversation now, frames still owed or not; safe to call again."""
        self._ended = "closed"

    @property
    def over(self) -> bool:
        """Whether no frame will come any more; the engine then gives its slot to the next caller."""
        return self._ended == "closed" or (self._pending == 0 and self._queue.exhausted)

    @property
    def transcript(self) -> Conversation:
        """The conversation so far: the agent's turns with their text, at the times at which they are heard."""
        return self._transcript.conversation(self._index)

    # ------------------------------------------------------------------ for the engine

    @property
    def has_frame(self) -> bool:
        """Whether a frame can be made now."""
        return self._pending > 0

    def take_burst(self, burst: np.ndarray) -> bool:
        """Fills `burst` (burst_samples,) with what is to be heard next, if that is whole and all before it is answered."""
        if self._pending == 0:
            self._pending = self._queue.take(burst)
            return self._pending > 0
        return False

    def answered(self, token: int, codes: np.ndarray, audio: np.ndarray) -> AgentFrame:
        """The agent's next frame: token, codes (K,), audio (samples_per_frame,)."""
        self._pending -= 1
        frame = AgentFrame(self._index, self._transcript.add(self._index, token), token, codes, audio)
        self._index += 1
        return frame

    def fail(self, error: Exception) -> None:
        """Ends this session, because of what went wrong in it alone."""
        self.error = error
        self.close()

    def _check_open(self) -> None:
        if self.error is not None:
            raise InputError(f"This session was ended by an error: {self.error}. Open another one.") from self.error
        if self._ended:
            raise InputError(f"This session was {self._ended}. Open another one with open_session().")


def _checked(audio: np.ndarray | Tensor) -> np.ndarray:
    """The samples, copied: the caller may use its buffer again."""
    samples = torch.as_tensor(audio)
    if samples.dim() != 1 or samples.dtype != torch.float32:
        raise InputError(
            f"A session hears float32 samples of shape (S,), got {samples.dtype} of shape {tuple(samples.shape)}. "
            "Send one channel, scaled to -1..1."
        )
    copied = np.array(samples.detach().cpu())
    if not np.isfinite(copied).all():
        raise InputError("A session was pushed samples that are not finite (NaN or infinite). Repair the audio source.")
    return copied
