"""One caller's live conversation: PCM in chunks of any size in, the agent's frames out.

For any audio in any chunks, what `push` and `flush` return equals `offline_inference` on the whole audio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from nemo_duplex.conversation import Conversation
from nemo_duplex.streaming.engine import DuplexEngine
from nemo_duplex.streaming.frame import AgentFrame

if TYPE_CHECKING:
    from nemo_duplex.models.agent import DuplexAgent


class Session:
    """A conversation of one caller with a model: an engine of one slot, stepped whenever there is something to hear.

    Made by `model.open_session()`; not safe to share between threads.

    Args:
        model: in evaluation from now on.
        options: as `DuplexEngine.open_session`.

    Examples:
        >>> session = model.open_session()
        >>> frames = session.push(question[:1000]) + session.push(question[1000:]) + session.flush()
        >>> session.close()
        >>> len(frames) == -(-len(question) // 1280)                        # 1280 samples are 80 ms
        True
        >>> [frame.index for frame in frames[:3]]
        [0, 1, 2]
    """

    def __init__(self, model: DuplexAgent, **options: Any) -> None:
        prompt = model.prompt_tokens(options.get("system_prompt"))
        # Without CUDA graphs: to record them takes longer than opening a session should.
        self._engine = DuplexEngine(model, max_sessions=1, prompt_tokens=len(prompt), cuda_graphs=False)
        self._session = self._engine.open_session(**options)

    def push(self, audio: np.ndarray | Tensor) -> list[AgentFrame]:
        """Hears (S,) float32 samples at the session's sample rate, in -1..1; returns the frames that they complete.

        Raises:
            InputError: for another shape or type, samples that are not finite or not scaled, or a session that has ended.
        """
        self._session.push(audio)
        return self._frames()

    def flush(self) -> list[AgentFrame]:
        """The user has nothing more to say: the frames that are still owed. After it, only `close` and `transcript`."""
        self._session.flush()
        return self._frames()

    def stop(self) -> None:
        """The agent falls silent in the next frame, and its turn ends; what it was to say is forgotten."""
        self._session.stop()

    def start(self) -> None:
        """The agent begins a turn in the next frame, unless it is in one."""
        self._session.start()

    def say(self, text: str) -> None:
        """The agent says `text`, after whatever else it was told to say; a turn of its own it breaks off.

        Raises:
            InputError: for no text, characters that the model's tokenizer has not, or a session that has ended.
        """
        self._session.say(text)

    def mute(self, muted: bool) -> None:
        """The agent goes on, unheard (True), or is heard again (False)."""
        self._session.mute(muted)

    def close(self) -> None:
        """Ends the conversation, and waits until its recording is whole; safe to call again."""
        self._session.close()
        if self._session.recorder:
            self._session.recorder.wait()

    @property
    def transcript(self) -> Conversation:
        """The conversation so far: the agent's turns with their text, at the times at which they are heard."""
        return self._session.transcript

    def _frames(self) -> list[AgentFrame]:
        frames = self._engine.run_until_idle().get(self._session, [])
        if self._session.error is not None:
            raise self._session.error
        return frames
