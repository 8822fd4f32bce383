"""A call: one caller's conversation with the agent, as every protocol sees it.

    protocol (event loop)                                        model worker (its own thread)
    await call.push(samples)  -> CallerAudio (bounded)   ->      call.feed          engine.step for all calls
    async for frame in call   <- frames (bounded)        <-      call.deliver       one CallFrame per 80 ms
    call.stop() start() say() mute() end()

A protocol never meets the engine, and the worker never meets a socket.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.frames import Seconds
from nemo_duplex.serving.agent_turns import AgentTurns
from nemo_duplex.serving.caller_audio import AudioRules, CallerAudio, Gaps
from nemo_duplex.streaming.session import AgentFrame, EngineSession

#: Why a call ended.
HUNG_UP, FINISHED, TOO_LONG, IDLE, SLOW, DRAINED, FAILED = (
    "hung_up",  # the caller left
    "finished",  # the caller ended its audio, and all was answered
    "too_long",  # the longest duration of a call was reached
    "idle",  # the caller sent nothing for too long
    "slow",  # the caller did not take what was sent to it
    "drained",  # the server shuts down
    "failed",  # the model raised an error
)

# A turn in which the agent says nothing for so long is ended: an agent that was made to speak does not always find its end.
_LONGEST_SILENCE: Seconds = 4.0
_SILENT = 1e-3  # of full scale


class Gone(Exception):
    """The caller's connection is over.

    Args:
        reason: why the call ends by it: HUNG_UP, or SLOW.
    """

    def __init__(self, reason: str = HUNG_UP) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class CallFrame:
    """What happens in one frame (80 ms) of a call.

    Attributes:
        index: number of the frame, from 0.
        audio: (samples,) float32, the agent's sound at the model's agent_sample_rate.
        text: what the frame adds to the agent's text; empty in most frames.
        turn_started: a turn of the agent begins in this frame.
        turn_ended: a turn of the agent ends with this frame; if it also starts one, the one before ends.
        speaking: the frame belongs to a turn of the agent.
        user_active: the user speaks in this frame.
        user_started, user_stopped: the user began to speak in this frame, or had ended before it; at least three frames apart.
        user_level: of the user's audio that was taken for this frame, root mean square in 0..1.
        lateness: seconds from when the newest audio that was taken for it had come, until the frame was made.
        step: seconds that the engine took for it and for the frames of all other calls.
        skipped: seconds of the caller's audio that were skipped so far.
        heard: seconds of the caller's audio up to the end of the frame: those that were skipped included, silence in the place
            of missing audio not.
    """

    index: int
    audio: np.ndarray
    text: str
    turn_started: bool
    turn_ended: bool
    speaking: bool
    user_active: bool
    user_started: bool
    user_stopped: bool
    user_level: float = 0.0
    lateness: Seconds = 0.0
    step: Seconds = 0.0
    skipped: Seconds = 0.0
    heard: Seconds = 0.0


class Worker(Protocol):
    """What a call needs of the `ModelWorker`."""

    layout: ChannelLayout
    frame_seconds: Seconds

    async def begin(self, call: Call, **options: Any) -> None: ...

    def ask(self, call: Call, command: str, *values: Any) -> None: ...

    def leave(self, call: Call) -> None: ...

    def wake(self) -> None: ...

    def samples_ahead(self, sample_rate: int) -> int: ...

    def check_said(self, text: str) -> None: ...


class Call:
    """One caller. Made by `CallServer.call`; belongs to one event loop.

    Args:
        worker: runs the model.
        sample_rate: of the caller's audio, in Hz: one of `CALLER_SAMPLE_RATES`.
        rules: when audio is missing, late or too much.
        most_unsent: seconds of the agent's frames that may wait for the protocol; then the model waits for it.

    Attributes:
        id: of the call, in logs, recordings and answers; not guessable.
        ended: why the call is over, one of the words above; None while it goes on.
        error: what the model raised, if that ended the call.
        recording: the new folder to which the call is recorded; None: it is not.
        last_push: when the caller sent audio last, by `time.monotonic`.
    """

    def __init__(self, worker: Worker, sample_rate: int, rules: AudioRules, most_unsent: Seconds = 10.0) -> None:
        self.id = secrets.token_urlsafe(12)
        self.sample_rate = sample_rate
        self.ended: str | None = None
        self.error: Exception | None = None
        self.recording: Path | None = None
        self.opened = self.last_push = time.monotonic()
        self._worker = worker
        self._lock = Lock()  # of the audio
        self._audio = CallerAudio(sample_rate, rules)
        self._room = asyncio.Event()  # set when audio was taken
        self._frames: deque[CallFrame] = deque()  # of the event loop
        self._news = asyncio.Event()  # set when a frame came, or the call ended
        self._most_unsent = max(1, round(most_unsent / worker.frame_seconds))
        self._taken = 0  # frames that the protocol took
        self._finishing = False
        # of the worker's thread:
        self.session: EngineSession | None = None
        self._turns = AgentTurns(worker.layout)
        self._fed = 0  # samples that the engine got
        self._marks = deque([(0, 0)])  # samples that it got, and samples of the caller up to there; the latest ones
        self._made = 0  # frames that it made
        self._flushed = False
        self._active = False
        self._level = 0.0
        self._silent = 0  # frames of the agent's turn since it said something
        self._muted = False  # whether that cannot be heard
        self._gaps = Gaps(0, 0.0, 0.0)

    # ------------------------------------------------------------------ for protocols, on the event loop

    async def begin(self, **options: Any) -> None:
        """Gives the call its place in the engine; returns when the model can answer. Audio may be pushed before.

        Args:
            options: as `EngineSession`: sampling, seed, system_prompt.

        Raises:
            InputError: for an option that cannot be used.
        """
        await self._worker.begin(self, record=self.recording, sample_rate=self.sample_rate, **options)
        with self._lock:
            self._audio.ready(time.monotonic())

    @property
    def has_begun(self) -> bool:
        """Whether the call has its place in the engine."""
        return self.session is not None

    @property
    def made(self) -> int:
        """How many frames the model has made."""
        return self._made

    @property
    def next_unheard(self) -> int:
        """The first frame that hears nothing of the audio that was pushed so far."""
        with self._lock:
            samples = self._fed + round(self._audio.waiting * self.sample_rate)
        return math.ceil(samples / (self._worker.frame_seconds * self.sample_rate) - 1e-6)

    async def push(self, samples: np.ndarray) -> None:
        """Takes (S,) float32 samples in -1..1; waits while too many of them wait already, so that the caller is not read.

        What is not finite becomes 0, and what is louder than full scale becomes full scale.
        """
        samples = np.clip(np.nan_to_num(samples, posinf=1.0, neginf=-1.0), -1.0, 1.0).astype(np.float32, copy=False)
        step = max(1, self.sample_rate)  # a push of any length waits for room second by second
        for start in range(0, len(samples), step):
            while self._audio.is_full and self.ended is None:
                self._room.clear()
                await self._room.wait()
            if self.ended is not None or self._finishing:
                return
            now = self.last_push = time.monotonic()
            with self._lock:
                self._audio.push(samples[start : start + step], now)
            self._worker.wake()

    def idle(self, now: float) -> Seconds:
        """How long the caller has sent nothing, and none of its audio waited, at this time of `time.monotonic`."""
        if self._finishing or self._audio.is_full:
            self.last_push = now
        return now - self.last_push

    def summary(self) -> dict[str, Any]:
        """What the log says of the call when it is over."""
        audio = self._audio
        told: dict[str, Any] = {"frames": self._made, "skipped": round(audio.skipped, 2), "filled": round(audio.filled, 2)}
        return told if self.error is None else told | {"error": type(self.error).__name__}

    def pause(self) -> None:
        """The caller waits for the agent: silence takes the place of audio that does not come, without much patience."""
        with self._lock:
            self._audio.pause(time.monotonic())
        self._worker.wake()

    def finish(self) -> None:
        """Ends the caller's audio: what waits is answered, then the call is `FINISHED`."""
        self._finishing = True
        with self._lock:
            self._audio.finish()
        self._worker.wake()

    def stop(self) -> None:
        """The agent is silent from the next frame on."""
        if self.session is not None and self.ended is None:
            self._worker.ask(self, "stop")

    def start(self) -> None:
        """The agent begins a turn in the next frame, unless it is in one."""
        if self.session is not None and self.ended is None:
            self._worker.ask(self, "start")

    def say(self, text: str) -> None:
        """The agent says `text`.

        Raises:
            InputError: if the text is too long, or the agent cannot write it.
        """
        if self.session is not None and self.ended is None:
            self._worker.check_said(text)
            self._worker.ask(self, "say", text)

    def check_said(self, text: str) -> None:
        """Raises InputError if `say` would."""
        self._worker.check_said(text)

    def mute(self, muted: bool) -> None:
        """The agent continues without sound (True), or with sound again (False)."""
        if self.session is not None and self.ended is None:
            self._worker.ask(self, "mute", muted)
            self._muted = muted

    def end(self, reason: str = HUNG_UP) -> None:
        """Ends the call now; safe to call again. The first reason stays."""
        if self.ended is None:
            self.ended = reason
            self._worker.leave(self)
            self._news.set()
            self._room.set()

    def __aiter__(self) -> AsyncIterator[CallFrame]:
        return self

    async def __anext__(self) -> CallFrame:
        """The next frame. The frames that were made before a call ended still come, but for calls that the caller left."""
        while not self._frames:
            if self.ended is not None:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        if self.ended == HUNG_UP:
            raise StopAsyncIteration
        if self.waits_for_protocol:
            self._worker.wake()
        self._taken += 1
        return self._frames.popleft()

    def deliver(self, frames: list[CallFrame], ended: str | None = None, error: Exception | None = None) -> None:
        """Takes frames from the worker, and the end of the call."""
        self._frames.extend(frames)
        self._room.set()
        self._news.set()
        if ended is not None and self.ended is None:
            self.ended, self.error = ended, error

    # ------------------------------------------------------------------ for the worker, on its thread

    @property
    def waits_for_protocol(self) -> bool:
        """Whether so many frames are unsent that the model makes no more."""
        return self._made - self._taken >= self._most_unsent

    def feed(self, now: float) -> None:
        """Gives the engine what it needs for the next frames, and not more."""
        session = self.session
        assert session is not None
        if self.waits_for_protocol or self._flushed:
            return
        answered = self._made * self._worker.frame_seconds * self.sample_rate
        room = self._worker.samples_ahead(self.sample_rate) - (self._fed - round(answered))
        with self._lock:
            samples = self._audio.take(max(0, room), now)
            waiting = self._audio.waiting
            self._fed += len(samples)
        if len(samples):
            self._marks.append((self._fed, self._audio.taken))
            self._level = float(np.sqrt(np.mean(np.square(samples))))
            session.push(samples)
        if self._finishing and not waiting:
            self._flushed = True
            session.flush()

    def new_gaps(self) -> Gaps:
        """What went wrong with the caller's audio since this was asked last."""
        with self._lock:
            now = Gaps(self._audio.gaps, self._audio.filled, self._audio.skipped)
        before, self._gaps = self._gaps, now
        return Gaps(now.gaps - before.gaps, now.filled - before.filled, now.skipped - before.skipped)

    def frame(self, made: AgentFrame, now: float, step: Seconds) -> CallFrame:
        """What the frame that the engine made means for the call."""
        edges, active, before = self._turns.add(made.token), made.user_active, self._active
        self._active = active
        self._made += 1
        says = self._muted or bool(made.text) or bool(np.abs(made.audio).max(initial=0.0) > _SILENT)
        self._silent = self._silent + 1 if edges.speaking and not says else 0
        if self._silent * self._worker.frame_seconds >= _LONGEST_SILENCE:
            self._silent = 0
            self.stop()
        return CallFrame(
            index=made.index,
            audio=made.audio,
            text=made.text,
            turn_started=edges.started,
            turn_ended=edges.ended,
            speaking=edges.speaking,
            user_active=active,
            user_started=active and not before,
            user_stopped=before and not active,
            user_level=self._level,
            lateness=max(0.0, now - self._audio.newest),
            step=step,
            skipped=self._audio.skipped,
            heard=self._heard(made.index + 1) / self.sample_rate,
        )

    def _heard(self, frames: int) -> float:
        """Samples of the caller up to the end of so many frames."""
        end, marks = frames * self._worker.frame_seconds * self.sample_rate, self._marks
        while len(marks) > 1 and marks[1][0] < end:
            marks.popleft()
        fed, taken = marks[min(1, len(marks) - 1)]
        return min(taken, max(marks[0][1], taken - (fed - end)))
