"""The thread that runs the model: one engine step for all calls, never on the event loop.

After a step it pauses for a quarter of what the step took, 10 ms at least: the engine computes all calls in every step, so
that frames which come in the meantime are made together, and the machine keeps time for the network.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

import torch

from nemo_duplex.data.text_tokenizer import written_tokens
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError
from nemo_duplex.models.agent import DuplexAgent
from nemo_duplex.serving.call import FAILED, FINISHED, Call, CallFrame
from nemo_duplex.serving.metrics import Metrics
from nemo_duplex.streaming.engine import Answers, DuplexEngine

_log = logging.getLogger(__name__)

#: Characters of the longest text that a caller may let the agent say: about two minutes of speech.
MOST_SAID = 2000

#: A thread that shows no progress for so long is stuck.
STALLED: Seconds = 30.0
# A pause after a step: this share of the step, and not less than so long. Measured with 16 and 24 callers on two cores: without
# any, messages wait for Python's lock; with as much as the step, callers wait for the next one.
_PAUSE, _SHORTEST_PAUSE = 0.25, 0.01
# It shows progress at least so often.
_HEARTBEAT: Seconds = 1.0


@dataclass
class _News:
    """What the event loop is told of one call after a step."""

    frames: list[CallFrame] = field(default_factory=list)
    ended: str | None = None
    error: Exception | None = None


class ModelWorker:
    """Runs the calls of a server through one engine.

    Args:
        model: the agent.
        callers: calls at once.
        metrics: are told of every step.
        engine: further options of `DuplexEngine`.

    Attributes:
        frame_seconds: duration of a frame.
        layout: of the agent's channels.
        failures: engine steps that raised an error, one after the other; each ended all calls, and a new engine was opened.
            A step that makes frames begins anew at 0.
        heartbeat: when the thread last showed that it goes on, by `time.monotonic`.
    """

    def __init__(self, model: DuplexAgent, callers: int, metrics: Metrics, **engine: Any) -> None:
        self.model, self.layout = model, model.layout
        self.frame_seconds: Seconds = model.perception.frame_rate.seconds
        self.failures = 0
        self._callers, self._options, self._metrics = callers, engine, metrics
        self._engine: DuplexEngine | None = self._new_engine()
        self.heartbeat = time.monotonic()
        self._calls: set[Call] = set()
        self._asked: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._began: list[tuple[Call, Future[None]]] = []  # calls that begin in the next step
        self._wake, self._stopping = Event(), False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = Thread(target=self._run, name="model", daemon=True)

    # ------------------------------------------------------------------ for the event loop

    def run_in_background(self) -> None:
        """Starts the thread, for calls of the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def close(self) -> None:
        """Stops the thread; calls that are open end without a word."""
        self._stopping = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs, and has made progress lately."""
        return self._thread.is_alive() and time.monotonic() - self.heartbeat < STALLED

    def samples_ahead(self, sample_rate: int) -> int:
        """The most samples that the engine needs beyond its frames: an encoder chunk, what it hears ahead, a frame."""
        perception = self.model.perception
        seconds = (perception.chunk_samples + perception.lead_samples) / self.model.user_sample_rate + self.frame_seconds
        return round(seconds * sample_rate)

    def check_said(self, text: str) -> None:
        """Refuses what the agent cannot say, before it is asked to.

        Raises:
            InputError: if the text is longer than `MOST_SAID`, or has characters that the agent cannot write, or none.
        """
        if len(text) > MOST_SAID:
            raise InputError(f"say: a text of {len(text)} characters, expected at most {MOST_SAID}. Say it in parts.")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError("say: the text has half of a character (a lone surrogate). Send whole characters.")
        written_tokens(text, self.model.tokenizer, "say")

    async def begin(self, call: Call, **options: Any) -> None:
        """Gives a call its session; returns after the step in which it began. Options and errors as `open_session`."""
        begun: Future[None] = Future()
        self._asked.put(lambda: self._open(call, begun, options))
        self._wake.set()
        await asyncio.wrap_future(begun)

    def ask(self, call: Call, command: str, *values: Any) -> None:
        """Makes the agent of a call do something: `stop`, `start`, `say` or `mute`, before its next frame."""
        self._asked.put(lambda: self._command(call, command, *values))
        self._wake.set()

    def leave(self, call: Call) -> None:
        """Frees the slot of a call."""
        self._asked.put(lambda: self._leave(call))
        self._wake.set()

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    # ------------------------------------------------------------------ on the thread

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(timeout=self.frame_seconds / 2 if self._calls else _HEARTBEAT)
            self._wake.clear()
            started = self.heartbeat = time.monotonic()
            try:
                self._serve()
            except Exception as error:
                self._fail(error)
            took = time.monotonic() - started
            if not self._stopping:
                time.sleep(min(max(_SHORTEST_PAUSE, took * _PAUSE), self.frame_seconds))
        for call in list(self._calls):
            self._leave(call)
        self._do_what_was_asked()  # to begin a call is refused now

    def _serve(self) -> None:
        """What was asked for, then one frame of every call that has one due."""
        self._do_what_was_asked()
        if self._engine is None:
            return
        now = time.monotonic()
        for call in list(self._calls):
            try:
                call.feed(now)
            except Exception as error:
                _log.exception("a call was ended by an error in its audio; the others continue", extra={"id": call.id})
                self._tell({call: _News(ended=FAILED, error=error)})
                self._leave(call)
        answers = self._engine.step()
        done = time.monotonic()
        for _, future in self._began:
            future.set_result(None)
        self._began.clear()
        self._answer(answers, done, done - now)

    def _do_what_was_asked(self) -> None:
        while True:
            try:
                asked = self._asked.get_nowait()
            except Empty:
                return
            asked()

    def _answer(self, answers: Answers, done: float, step: Seconds) -> None:
        """Hands the frames to their calls, and ends the calls whose sessions are over."""
        by_session = {call.session: call for call in self._calls}
        news: dict[Call, _News] = {}
        for session, frames in answers.items():
            call = by_session.get(session)
            if call is not None and frames:
                news[call] = _News([call.frame(frame, done, step) for frame in frames])
        for call in [call for call in self._calls if call.session is not None and call.session.over]:
            assert call.session is not None
            error = call.session.error
            told = news.setdefault(call, _News())
            told.ended, told.error = (FINISHED if error is None else FAILED), error
            self._calls.discard(call)
        if answers:
            self.failures = 0
            self._metrics.stepped(step, [frame.lateness for told in news.values() for frame in told.frames])
            self._metrics.heard([call.new_gaps() for call in news])
            self._wake.set()  # more may be due
        self._tell(news)

    def _tell(self, news: dict[Call, _News]) -> None:
        """Hands everything to the event loop at once."""
        if not news or self._loop is None or self._loop.is_closed():
            return

        def deliver() -> None:
            for call, told in news.items():
                call.deliver(told.frames, told.ended, told.error)

        self._loop.call_soon_threadsafe(deliver)

    def _open(self, call: Call, begun: Future[None], options: dict[str, Any]) -> None:
        if not begun.set_running_or_notify_cancel():  # nobody waits for it any more
            return
        try:
            if call.ended is not None:
                raise InputError(f"Call {call.id} ended before it began.")
            if self._stopping:
                raise InputError("The server shuts down.")
            if self._engine is None:
                self._engine = self._new_engine()
            call.session = self._engine.open_session(**options)
        except Exception as error:
            begun.set_exception(error)
        else:
            self._calls.add(call)
            self._began.append((call, begun))

    def _command(self, call: Call, command: str, *values: Any) -> None:
        if call not in self._calls:
            return
        try:
            getattr(call.session, command)(*values)
        except Exception as error:
            # without its message, which may quote what a caller said
            _log.warning("command was not possible", extra={"id": call.id, "command": command, "error": type(error).__name__})

    def _leave(self, call: Call) -> None:
        self._calls.discard(call)
        if call.session is not None:
            call.session.close()

    def _fail(self, error: Exception) -> None:
        """An engine step raised: its state cannot be trusted any more. All calls end, and a new engine serves the next ones."""
        self.failures += 1
        self._metrics.failures.inc()
        calls, began = list(self._calls), list(self._began)
        _log.error("engine failed", exc_info=error, extra={"calls": len(calls), "failures": self.failures})
        self._began.clear()
        for call in calls:
            self._leave(call)
        self._tell({call: _News(ended=FAILED, error=error) for call in calls})
        for _, future in began:
            future.set_exception(error)
        self._engine = None  # its memory is free before the next one takes as much
        try:
            self._engine = self._new_engine()
        except Exception:
            _log.exception("another engine could not be opened; the next call tries again")

    def _new_engine(self) -> DuplexEngine:
        try:
            return DuplexEngine(self.model, max_sessions=self._callers, **self._options)
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
                raise
            raise InputError(
                f"callers={self._callers}: the memory of this machine does not hold so many calls. Give fewer, such as "
                f"callers={max(1, self._callers // 2)}."
            ) from error
