"""A conversation of one caller: takes the user's audio at any time, gives the agent's frames.

    EngineSession     one of many callers of an engine; frames come from `engine.step()`
    Session           the only caller of an engine of its own; `push` and `flush` return the frames

For any audio in any chunks, the frames equal `offline_inference` on the whole audio.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nemo_duplex.channels.transcript import Transcript
from nemo_duplex.conversation import Conversation
from nemo_duplex.data.text_tokenizer import written_tokens
from nemo_duplex.inputs import InputError
from nemo_duplex.models.agent import DuplexAgent
from nemo_duplex.streaming.commands import AgentCommands
from nemo_duplex.streaming.recording.format import describe_session
from nemo_duplex.streaming.recording.recorder import SessionRecorder
from nemo_duplex.streaming.resampler import StreamResampler
from nemo_duplex.streaming.sampling import AgentSampling, checked_seed
from nemo_duplex.streaming.user_audio import ChunkQueue
from nemo_duplex.user_activity.detector import UserActivity

#: Samples are in -1..1, and some overshoot. Louder ones than this, 40 dB over full scale, were not scaled at all.
LOUDEST = 100.0
_PCM = "np.frombuffer(audio, np.int16).astype(np.float32) / 32768"
#: What makes float32 samples of another container.
_FROM: dict[Any, str] = {
    **dict.fromkeys((list, tuple), "np.asarray(audio, np.float32)"),
    **dict.fromkeys((bytes, bytearray, memoryview), _PCM),
}
#: What scales integer samples of a type to -1..1, once they are float32.
_FULL_SCALE = {"int16": " / 32768", "int32": " / 2147483648", "uint8": " / 128 - 1"}


@dataclass(frozen=True)
class AgentFrame:
    """What the agent does in one frame (80 ms), and whether the user spoke.

    Attributes:
        index: number of the frame, from 0.
        text: what this frame adds to the agent's text; empty in most frames.
        token: of the text channel.
        codes: (K,) int64, specials included.
        audio: (samples,) float32 at the model's agent_sample_rate.
        user_active: whether the user spoke since the frame before, up to the end of this one or as far as the encoder had
            heard when it was made; `session.user_activity` knows earlier.

    Examples:
        >>> frame = model.open_session().push(question)[0]
        >>> frame.index, frame.audio.shape, frame.codes.shape
        (0, (1764,), (2,))
    """

    index: int
    text: str
    token: int
    codes: np.ndarray
    audio: np.ndarray
    user_active: bool = False


class EngineSession:
    """A conversation of one of many callers. Made by `engine.open_session()`.

    `push`, `flush`, `close` and the commands may be called from any thread and return at once; frames come from
    `engine.step()`.

    Args:
        model: the agent.
        sample_rate: of the pushed audio, in Hz: one of `CALLER_SAMPLE_RATES` or 22050; None is the model's user_sample_rate.
        sampling: how the agent chooses, as `AgentSampling.of`; None is greedy.
        seed: of its random choices; None takes a new one.
        system_prompt: text that the agent reads before the first frame and never forgets; useful with a language model that
            was trained with one.

    Attributes:
        sample_rate, sampling, seed: as chosen.
        prompt: tokens of the system prompt.
        commands: what the caller makes the agent do, for the engine.
        recorder: records the session; None if it is not recorded.
        user_activity: whether the user speaks, by all audio that was pushed before the engine's latest step: `active`, `since`.
        error: the error that ended this session, and only this one, while the engine made its frame; None if there was none.

    Raises:
        InputError: for an option that cannot be used.

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
        self.commands = AgentCommands(model.layout, words_in_time=model.cfg.text_alignment == "word")
        self.recorder: SessionRecorder | None = None
        self.error: Exception | None = None
        self._model = model
        rate = model.user_sample_rate
        self.sample_rate = rate if sample_rate is None else sample_rate
        self._resampler = None if self.sample_rate == rate else StreamResampler(self.sample_rate, rate)
        self._tokenizer = model.tokenizer
        self.user_activity = UserActivity(rate)
        self._queue = ChunkQueue(model.perception)
        self._samples_per_frame = model.perception.samples_per_frame
        self._lock = Lock()  # of the order of pushes and the end
        self._transcript = Transcript(model.layout, model.tokenizer, model.perception.frame_rate)
        self._index = 0  # of the next frame
        self._pending = 0  # frames whose encoder chunk was taken and that are not answered yet
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
            self._hear(self._resampler.push(samples) if self._resampler else samples)

    def flush(self) -> None:
        """Ends the user's audio: the engine makes the remaining frames, then the session is over."""
        with self._lock:
            self._check_open()
            self._ended = "flushed"
            if self.recorder:
                self.recorder.flushed()
            if self._resampler:
                self._hear(self._resampler.flush())
            self._queue.end()
            self._end_recording()

    def close(self) -> None:
        """Ends the conversation now, without the remaining frames; safe to call again."""
        with self._lock:
            self._ended = "closed"
            self._end_recording()

    def stop(self) -> None:
        """The agent is silent from the next frame on, and its turn ends; texts of `say` that wait are dropped."""
        self._check_open()
        self.commands.stop()

    def start(self) -> None:
        """The agent begins a turn in the next frame, unless it is in one."""
        self._check_open()
        self.commands.start()

    def say(self, text: str) -> None:
        """The agent says `text`, after the texts of earlier calls; a turn of its own is cut off.

        Raises:
            InputError: for an empty text, characters that the model's tokenizer lacks, or a session that has ended.
        """
        self._check_open()
        self.commands.say(written_tokens(text, self._tokenizer, "say"))

    def mute(self, muted: bool) -> None:
        """The agent continues without sound (True), or with sound again (False)."""
        self._check_open()
        self.commands.mute(muted)

    @property
    def over(self) -> bool:
        """Whether no further frame will come; the engine then gives the slot to the next caller."""
        return self._ended == "closed" or self._queue.total == self._index

    @property
    def transcript(self) -> Conversation:
        """The conversation so far: the agent's turns with their text, at the times of their sound."""
        return self._transcript.conversation(self._index)

    # ------------------------------------------------------------------ for the engine

    def record(self, folder: str | Path, engine: Mapping[str, Any]) -> None:
        """Records everything from now on; call it before the first push. If it fails, the session is closed.

        Args:
            folder: a new or empty one.
            engine: options of the engine.

        Raises:
            InputError: if the folder cannot be made, or is not empty.
        """
        settings = describe_session(self._model, self.sample_rate, self.sampling, self.seed, self.prompt, engine)
        try:
            self.recorder = SessionRecorder(folder, self._model, settings)
        except InputError:
            self.close()
            raise
        self.commands.observer = self.recorder.command

    def chunk_begins(self, entry: int, entries: int) -> None:
        """The encoder chunk that was taken is computed now, as one entry of a batch."""
        if self.recorder:
            self.recorder.chunk_begins(entry, entries)

    def frame_begins(self, row: int, rows: int) -> None:
        """The next frame is computed now, as one row of a batch."""
        if self.recorder:
            self.recorder.frame_begins(row, rows)

    @property
    def has_frame(self) -> bool:
        """Whether a frame can be made now."""
        return self._pending > 0

    def take_chunk(self, chunk: np.ndarray) -> bool:
        """Fills `chunk` (chunk_samples,) with the next encoder chunk, if it is whole and all frames before it are answered."""
        if self._pending == 0:
            self._pending = self._queue.take(chunk)
            return self._pending > 0
        return False

    def take_frame(self, token: int, codes: np.ndarray, audio: np.ndarray) -> AgentFrame:
        """Takes the agent's next frame: token, codes (K,), audio (samples_per_frame,)."""
        self._pending -= 1
        self.commands.advance(token, codes)
        text = self._transcript.add(self._index, token)
        active = self.user_activity.spoke(min((self._index + 1) * self._samples_per_frame, self._queue.taken))
        frame = AgentFrame(self._index, text, token, codes, audio, active)
        self._index += 1
        if self.recorder:
            self.recorder.frame_made(token, codes, audio, frame.user_active)
            self._end_recording()
        return frame

    def fail(self, error: Exception) -> None:
        """Ends this session because of an error in it."""
        self.error = error
        EngineSession.close(self)  # a session of its own would wait for its recording

    def _hear(self, samples: np.ndarray) -> None:
        """Queues samples at the model's rate; `user_activity` first, so that it has all that is in an encoder chunk."""
        self.user_activity.push(samples)
        self._queue.push(samples)

    def _end_recording(self) -> None:
        if self.recorder and self.over:
            self.recorder.end()

    def _check_open(self) -> None:
        if self.error is not None:
            raise InputError(f"This session was ended by an error: {self.error}. Open another one.") from self.error
        if self._ended:
            raise InputError(f"This session was {self._ended}. Open another one with open_session().")


class Session(EngineSession):
    """A conversation with an engine of its own, which is stepped in `push` and `flush`. Made by `model.open_session()`.

    Not safe to share between threads.

    Args:
        model: the agent.
        step: steps the engine until nothing is due.
        options: as `EngineSession`.

    Examples:
        >>> session = model.open_session()
        >>> frames = session.push(question[:1000]) + session.push(question[1000:]) + session.flush()
        >>> session.close()
        >>> len(frames) == -(-len(question) // 1280)                        # 1280 samples are 80 ms
        True
        >>> [frame.index for frame in frames[:3]]
        [0, 1, 2]
    """

    def __init__(
        self, model: DuplexAgent, step: Callable[[], Mapping[EngineSession, list[AgentFrame]]], **options: Any
    ) -> None:
        super().__init__(model, **options)
        self._step = step

    def push(self, audio: np.ndarray | Tensor) -> list[AgentFrame]:  # type: ignore[override]
        """As `EngineSession.push`; returns the frames that the samples complete."""
        super().push(audio)
        return self._frames()

    def flush(self) -> list[AgentFrame]:  # type: ignore[override]
        """Ends the user's audio; returns the remaining frames. After it, use only `close` and `transcript`."""
        super().flush()
        return self._frames()

    def close(self) -> None:
        """Ends the conversation, and waits until its recording is written; safe to call again."""
        super().close()
        if self.recorder:
            self.recorder.wait()

    def _frames(self) -> list[AgentFrame]:
        frames = self._step().get(self, [])
        if self.error is not None:
            raise self.error
        return frames


def _checked(audio: np.ndarray | Tensor) -> np.ndarray:
    """The samples, copied: the caller may reuse its buffer."""
    if not isinstance(audio, np.ndarray | Tensor):
        cure = f" Convert it: {_FROM[type(audio)]}." if type(audio) in _FROM else ""
        raise InputError(f"A session takes a numpy array or a tensor of float32 samples, got {type(audio).__name__}.{cure}")
    if audio.ndim != 1 or audio.dtype not in (np.float32, torch.float32):
        raise InputError(
            f"A session takes float32 samples of shape (S,), got {audio.dtype} of shape {tuple(audio.shape)}. {_cure(audio)}"
        )
    samples = np.array(audio.detach().cpu() if isinstance(audio, Tensor) else audio)
    loudest = float(np.abs(samples).max(initial=0.0))
    if not math.isfinite(loudest):
        raise InputError(
            "A session got samples that are not finite (NaN or infinite). Repair the audio source, or send 0 in their place."
        )
    if loudest > LOUDEST:
        raise InputError(
            f"A session takes samples in -1..1, got one of {loudest:.3g}. Scale them: divide 16-bit samples by 32768, 24-bit "
            "ones by 8388608, 32-bit ones by 2147483648."
        )
    return samples


def _cure(audio: np.ndarray | Tensor) -> str:
    """What makes float32 samples (S,) in -1..1 of an array of another type or shape."""
    if audio.ndim != 1:
        return f"Send one channel: the same array with one dimension, instead of {audio.ndim}."
    tensor, full_scale = isinstance(audio, Tensor), _FULL_SCALE.get(str(audio.dtype).removeprefix("torch."))
    convert = "audio.float()" if tensor else "audio.astype(np.float32)"
    return f"Convert it: {convert}{full_scale or ''}."
