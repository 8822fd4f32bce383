"""One of the many callers of a `DuplexEngine`: takes the user's audio at any time, gets a frame whenever the engine steps."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nemo_duplex.channels.transcript import Transcript
from nemo_duplex.conversation import Conversation
from nemo_duplex.data.text_tokenizer import written_tokens
from nemo_duplex.inputs import InputError
from nemo_duplex.streaming.control import AgentControl
from nemo_duplex.streaming.frame import AgentFrame
from nemo_duplex.streaming.recording.format import described
from nemo_duplex.streaming.recording.recorder import Recorder
from nemo_duplex.streaming.resampler import StreamResampler
from nemo_duplex.streaming.sampling import AgentSampling, checked_seed
from nemo_duplex.streaming.user_audio import ChunkQueue, UserActivity

if TYPE_CHECKING:
    from nemo_duplex.models.agent import DuplexAgent

#: Samples are -1..1, and some overshoot. What is louder than this, 40 dB over full scale, was not scaled at all.
LOUDEST = 100.0


class EngineSession:
    """A conversation of one caller. Made by `engine.open_session()`.

    `push`, `flush` and `close` only note what is to happen and may be called from any thread; frames come from `engine.step()`.

    Args:
        model: whose agent it talks with.
        sample_rate: of what is pushed, one of `CALLER_SAMPLE_RATES`, in Hz; None is the model's user_sample_rate.
        sampling: how the agent chooses, as `AgentSampling.of`; None is greedy.
        seed: of its chance; None takes a new one.
        system_prompt: text that the agent reads before the first frame and never forgets; of use with a language model that
            was trained with one.

    Attributes:
        sample_rate, sampling, seed: as chosen.
        prompt: tokens of the system prompt.
        control: what the caller makes the agent do, for the engine.
        recorder: what records it; None if nothing does.
        error: what ended this session, and only this one, while the engine made its frame; None if nothing did.

    Raises:
        InputError: for an option that is not possible.

    Examples:
        >>> engine = model.open_engine(max_sessions=1)
        >>> session = engine.open_session(seed=7, sampling={"text": {"temperature": 0.7}})
        >>> session.push(question)
        >>> session.mute(True)
        >>> frames = engine.run_until_idle()[session]
        >>> bool(frames[-1].audio.any())
        False
    """

    def __init__(
        self,
        model: DuplexAgent,
        sample_rate: int | None = None,
        sampling: AgentSampling | Mapping[str, Any] | None = None,
        seed: int | None = None,
        system_prompt: str | None = None,
    ) -> None:
        self.sampling, self.seed = AgentSampling.of(sampling), checked_seed(seed)
        self.prompt = model.prompt_tokens(system_prompt)
        self.control = AgentControl(model.layout, words_in_time=model.cfg.text_alignment == "word")
        self.recorder: Recorder | None = None
        self.error: Exception | None = None
        self._model = model
        rate = model.user_sample_rate
        self.sample_rate = rate if sample_rate is None else sample_rate
        self._resampler = None if self.sample_rate == rate else StreamResampler(self.sample_rate, rate)
        self._tokenizer = model.tokenizer
        self._activity = UserActivity(model.user_sample_rate, model.perception.samples_per_frame)
        self._active: deque[bool] = deque()  # whether the user spoke in the frames that are pending
        self._queue = ChunkQueue(model.perception)
        self._lock = Lock()  # of the order in which things are pushed, and the end comes
        self._transcript = Transcript(model.layout, model.tokenizer, model.perception.frame_rate)
        self._index = 0  # of the next frame
        self._pending = 0  # frames that were heard and not answered yet
        self._ended: str | None = None

    # ------------------------------------------------------------------ for the caller

    def push(self, audio: np.ndarray | Tensor) -> None:
        """Queues (S,) float32 samples at the session's sample rate, in -1..1. A push that is refused changes nothing.

        Raises:
            InputError: for another shape or type, samples that are not finite or not scaled, or a session that has ended.
        """
        samples = _checked(audio)
        with self._lock:
            self._check_open()
            if self.recorder:
                self.recorder.pushed(samples)
            self._queue.push(self._resampler.push(samples) if self._resampler else samples)

    def flush(self) -> None:
        """The user has nothing more to say: the engine makes the frames that are still owed, then the session is over."""
        with self._lock:
            self._check_open()
            self._ended = "flushed"
            if self.recorder:
                self.recorder.flushed()
            if self._resampler:
                self._queue.push(self._resampler.flush())
            self._queue.end()
            self._end_recording()

    def close(self) -> None:
        """Ends the conversation now, frames still owed or not; safe to call again."""
        with self._lock:
            self._ended = "closed"
            self._end_recording()

    def stop(self) -> None:
        """The agent falls silent in the next frame, and its turn ends; what it was to say is forgotten."""
        self._check_open()
        self.control.stop()

    def start(self) -> None:
        """The agent begins a turn in the next frame, unless it is in one."""
        self._check_open()
        self.control.start()

    def say(self, text: str) -> None:
        """The agent says `text`, after whatever else it was told to say; a turn of its own it breaks off.

        Raises:
            InputError: for no text, characters that the model's tokenizer has not, or a session that has ended.
        """
        self._check_open()
        self.control.say(written_tokens(text, self._tokenizer, "say"))

    def mute(self, muted: bool) -> None:
        """The agent goes on, unheard (True), or is heard again (False)."""
        self._check_open()
        self.control.mute(muted)

    @property
    def over(self) -> bool:
        """Whether no frame will come any more; the engine then gives its slot to the next caller."""
        return self._ended == "closed" or self._queue.total == self._index

    @property
    def transcript(self) -> Conversation:
        """The conversation so far: the agent's turns with their text, at the times at which they are heard."""
        return self._transcript.conversation(self._index)

    # ------------------------------------------------------------------ for the engine

    def record(self, folder: str | Path, engine: Mapping[str, Any]) -> None:
        """From now on, before anything was pushed, everything is recorded; a session that cannot be is closed.

        Args:
            folder: to be.
            engine: options of the engine.

        Raises:
            InputError: for a folder that cannot be made, or holds something.
        """
        try:
            self.recorder = Recorder(folder, self._model, described(self._model, self, engine))
        except InputError:
            self.close()
            raise
        self.control.wished = self.recorder.wished

    def hearing(self, entry: int, entries: int) -> None:
        """The encoder chunk that was taken is computed now, as one entry of a batch."""
        if self.recorder:
            self.recorder.heard(entry, entries)

    def speaking(self, row: int, rows: int) -> None:
        """The next frame is computed now, as one row of a batch."""
        if self.recorder:
            self.recorder.spoken(row, rows)

    @property
    def has_frame(self) -> bool:
        """Whether a frame can be made now."""
        return self._pending > 0

    def take_chunk(self, chunk: np.ndarray) -> bool:
        """Fills `chunk` (chunk_samples,) with what is heard next, if that is whole and all before it is answered."""
        if self._pending == 0:
            self._pending = self._queue.take(chunk)
            if self._pending:
                self._active = deque(self._activity.push(chunk))
            return self._pending > 0
        return False

    def answered(self, token: int, codes: np.ndarray, audio: np.ndarray) -> AgentFrame:
        """The agent's next frame: token, codes (K,), audio (samples_per_frame,)."""
        self._pending -= 1
        self.control.spoke(token, codes)
        text = self._transcript.add(self._index, token)
        frame = AgentFrame(self._index, text, token, codes, audio, user_active=self._active.popleft())
        self._index += 1
        if self.recorder:
            self.recorder.made(frame)
            self._end_recording()
        return frame

    def fail(self, error: Exception) -> None:
        """Ends this session, because of what went wrong in it alone."""
        self.error = error
        self.close()

    def _end_recording(self) -> None:
        if self.recorder and self.over:
            self.recorder.end()

    def _check_open(self) -> None:
        if self.error is not None:
            raise InputError(f"This session was ended by an error: {self.error}. Open another one.") from self.error
        if self._ended:
            raise InputError(f"This session was {self._ended}. Open another one with open_session().")


def _checked(audio: np.ndarray | Tensor) -> np.ndarray:
    """The samples, copied: the caller may use its buffer again."""
    if not isinstance(audio, np.ndarray | Tensor):
        raise InputError(f"A session hears a numpy array or a tensor of float32 samples, got {type(audio).__name__}.")
    if audio.ndim != 1 or audio.dtype not in (np.float32, torch.float32):
        whole = "Divide int16 by 32768." if "int16" in str(audio.dtype) else "Send one channel, scaled to -1..1."
        raise InputError(
            f"A session hears float32 samples of shape (S,), got {audio.dtype} of shape {tuple(audio.shape)}. {whole}"
        )
    samples = np.array(audio.detach().cpu() if isinstance(audio, Tensor) else audio)
    loudest = float(np.abs(samples).max(initial=0.0))
    if not math.isfinite(loudest):
        raise InputError("A session was pushed samples that are not finite (NaN or infinite). Repair the audio source.")
    if loudest > LOUDEST:
        raise InputError(
            f"A session hears samples in -1..1, got one of {loudest:.3g}. Scale them: divide those of 16 bits by 32768."
        )
    return samples
