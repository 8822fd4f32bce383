"""Many callers in one batched step per 80 ms frame.

    any thread     session.push(audio)      session.flush()      session.close()        only queued
    one thread     engine.step()            one frame of every session that has one due

One frame, from `push` to the AgentFrame:

    session.py    push        checks the samples, resamples and queues them                 resampler.py, user_audio.py
    engine.py     step        the three stages below, of all sessions at once
    rows.py       1 hear      audio of an encoder chunk -> embeddings of its frames         perception/stream.py
                  2 think     embedding and previous frame -> text token and codes          models/duplex_lm.py, llm/backbone.py
                  3 speak     codes -> sound                                                codec/streaming_decoder.py
    session.py    take_frame  AgentFrame, with the text that it completes                   channels/transcript.py

A session's frames do not depend on the other sessions: they are those of `offline_inference` on its audio.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.models.agent import DuplexAgent
from nemo_duplex.streaming.rows import AgentRows, ChunkBatch
from nemo_duplex.streaming.session import AgentFrame, EngineSession, Session
from nemo_duplex.streaming.stage_runner import StageRunner
from nemo_duplex.streaming.step_timer import StepTimer
from nemo_duplex.user_activity.detector import listen

_log = logging.getLogger(__name__)

#: Each session that was due, with its new frames; a session that failed or was closed meanwhile has none.
Answers = dict[EngineSession, list[AgentFrame]]


class DuplexEngine:
    """A model that talks with many callers at once. Made by `model.open_engine()`.

    `step` and `run_until_idle` belong to one thread; everything else may be called from any.

    Args:
        model: in evaluation from now on.
        max_sessions: slots. Memory for all of them is taken now and never grows.
        timer: takes the times of steps and stages, from when the engine is open; without one, no clock is read.
        prompt_tokens: length of the longest system prompt that a session may have. A model with an attention_window attends to
            that many more frames; one without it gives up as many of its most recent frames for a prompt of that length.
        compile: whether to use torch.compile; not with int8. Opening then takes minutes; numbers change in the last digits.
        cuda_graphs: whether to use CUDA graphs; None does so if the model is on a GPU.
        int8: whether to be faster than exact, on a CPU: encoder and language model in 8 bits, with 16 sessions and more in
            bfloat16, and the codec in bfloat16, where this CPU multiplies that faster (`kernels/`). Near to float32, not equal.
            The model itself does not change; memory grows by a quarter of the weights, in bfloat16 by half of them.

    Attributes:
        options: those options that another engine needs to compute the same bits.

    Raises:
        InputError: if there is no slot, the model cannot keep so long a prompt, this machine lacks what an option needs, or
            compile and int8 are both asked for.

    Examples:
        >>> engine = model.open_engine(max_sessions=2)
        >>> alice, bob = engine.open_session(), engine.open_session()
        >>> alice.push(question)
        >>> bob.push(question)
        >>> answers = engine.run_until_idle()
        >>> [frame.token for frame in answers[alice]] == [frame.token for frame in answers[bob]]
        True
        >>> bob.close()
        >>> len(engine)
        1
    """

    def __init__(
        self,
        model: DuplexAgent,
        max_sessions: int = 64,
        timer: StepTimer | None = None,
        prompt_tokens: int = 0,
        compile: bool = False,
        cuda_graphs: bool | None = None,
        int8: bool = False,
    ) -> None:
        if not isinstance(max_sessions, int) or max_sessions < 1:
            raise InputError(f"An engine needs max_sessions of 1 or more, got {max_sessions!r}.")
        self.model = model
        self.options: dict[str, Any] = {
            "prompt_tokens": prompt_tokens,
            "compile": compile,
            "int8": int8,
            "max_sessions": max_sessions,
        }
        run = StageRunner(model.device, timer, compile, cuda_graphs)
        self._rows = AgentRows(model, run, prompt_tokens, int8, max_sessions)
        self._timed = timer.step if timer else nullcontext
        self._slots: Slots[EngineSession] = Slots(max_sessions)
        self._lock = Lock()  # of the slots and of `_new`
        self._new: list[int] = []  # rows of sessions that begin in the next step
        with torch.inference_mode():
            self._state = self._rows.init_state(max_sessions)
            self._views = {bucket: self._state.first(bucket) for bucket in self._slots.buckets}
            if run.needs_warm_up:
                self._rows.warm_up(self._state, reversed(self._views.values()))
        if timer:
            timer.device = model.device
            timer.reset()
        self._chunks = np.zeros((max_sessions, self._rows.chunk_samples), np.float32)
        self._heard_at_once = self._rows.chunk_samples + model.perception.samples_per_frame

    def open_session(self, record: str | Path | None = None, **options: Any) -> EngineSession:
        """A new caller, from the next step on.

        Args:
            record: a new folder to record the session to (`recording/recorder.py`).
            options: as `EngineSession`.

        Raises:
            InputError: if no slot is free, or an option or the folder cannot be used.
        """
        session = EngineSession(self.model, **options)
        self.join(session, record)
        return session

    def join(self, session: EngineSession, record: str | Path | None = None) -> None:
        """Gives a session a slot, and records it; arguments and errors as `open_session`."""
        most = self.options["prompt_tokens"]
        if len(session.prompt) > most:
            raise InputError(
                f"A system prompt of {len(session.prompt)} tokens, but this engine takes at most {most}. "
                f"Shorten it, or open the engine with prompt_tokens={len(session.prompt)}."
            )
        with self._lock:
            self._free_slots()
            self._new.append(self._slots.join(session))
        if record is not None:
            session.record(record, self.options)

    def __len__(self) -> int:
        """How many sessions are open."""
        with self._lock:
            self._free_slots()
            return len(self._slots)

    @torch.inference_mode()
    def step(self) -> Answers:
        """Everything that is due now, at most one frame of each session; empty if nothing was due."""
        with self._timed():
            sessions, num_rows = self._seated()

            # 1 hear: encoder chunks that are whole -> embeddings of their frames, which wait in the state; who speaks now
            chunks = self._take_chunks(sessions)
            listen([session.user_activity for _, session in sessions], self._heard_at_once)
            if chunks is not None:
                self._rows.hear(self._state, chunks)

            # 2 think: the next embedding of each session, and its previous frame -> text token and codes
            due = [(row, session) for row, session in sessions if session.has_frame]
            if not due:
                return {}
            for row, session in due:
                session.frame_begins(row, num_rows)
            state, live = self._views[num_rows], torch.zeros(num_rows, dtype=torch.bool)
            live[[row for row, _ in due]] = True
            live = live.to(self.model.device)
            given = {row: session.commands.next() for row, session in due}
            commands = self._rows.commands([given.get(row) for row in range(num_rows)])
            sampled = not all(session.sampling.greedy for _, session in due)
            tokens, codes = self._rows.think(state, live, commands, sampled)

            # 3 speak: codes -> sound
            audio = self._rows.speak(state, codes, live, commands)

            return _answers(due, tokens.tolist(), codes.cpu().numpy(), audio.float().cpu().numpy())

    def run_until_idle(self) -> Answers:
        """Steps until nothing is due any more; all frames that this made."""
        answers: Answers = {}
        while (step := self.step()) or self._new:
            for session, frames in step.items():
                answers.setdefault(session, []).extend(frames)
        return answers

    def _seated(self) -> tuple[list[tuple[int, EngineSession]], int]:
        """The sessions that have begun, each with its row, and how many rows must be computed.

        Frees the slots of sessions that are over, begins new ones, and moves sessions down if fewer rows then have to be
        computed. A step reads one system prompt at most, so that others wait for one prompt at most; the sessions behind it
        begin in a later step.
        """
        with self._lock:
            self._free_slots()
            prompt_read = False
            while self._new and not prompt_read:
                row = self._new.pop(0)
                session = self._slots[row]
                self._state.put(row, self._rows.blank_row(session.sampling, session.seed, session.prompt))
                prompt_read = bool(session.prompt)
            if not self._new:
                for move in self._slots.gather():
                    self._state.put(move.target, self._state.row(move.source))
            return [(row, session) for row, session in self._slots if row not in self._new], self._slots.rows

    def _free_slots(self) -> None:
        for row, session in list(self._slots):
            if session.over:
                self._slots.leave(row)
                if row in self._new:  # it was closed before it began
                    self._new.remove(row)

    def _take_chunks(self, sessions: list[tuple[int, EngineSession]]) -> ChunkBatch | None:
        """The encoder chunks that are whole, filled up to the next bucket with idle rows; None if there are none."""
        taken: list[tuple[int, EngineSession]] = []
        for row, session in sessions:
            if session.take_chunk(self._chunks[len(taken)]):
                taken.append((row, session))
        if not taken:
            return None
        size = self._slots.bucket(len(taken))
        for entry, (_, session) in enumerate(taken):
            session.chunk_begins(entry, size)
        rows = {entry: row for entry, (row, _) in enumerate(taken)}
        return ChunkBatch.of(self._chunks[:size], rows, len(self._chunks), self.model.device)


def open_session(model: DuplexAgent, record: str | Path | None = None, **options: Any) -> Session:
    """One caller in an engine of its own; what `model.open_session` is. Arguments and errors as `DuplexEngine.open_session`."""
    prompt = model.prompt_tokens(options.get("system_prompt"))
    # Without CUDA graphs: to capture them takes longer than opening a session should.
    engine = DuplexEngine(model, max_sessions=1, prompt_tokens=len(prompt), cuda_graphs=False)
    session = Session(model, engine.run_until_idle, **options)
    engine.join(session, record)
    return session


def _answers(due: list[tuple[int, EngineSession]], tokens: list[int], codes: np.ndarray, audio: np.ndarray) -> Answers:
    """Hands each session the frame in its row. An error there ends that session alone."""
    answers: Answers = {session: [] for _, session in due}
    for row, session in due:
        try:
            frame = session.take_frame(tokens[row], codes[row].copy(), audio[row].copy())
        except Exception as error:
            _log.exception("A session was ended by an error in its frame; the others continue.")
            session.fail(error)
        else:
            answers[session].append(frame)
    return answers


# ---------------------------------------------------------------------- slots

Caller = TypeVar("Caller")


class Move(NamedTuple):
    """A row that is to be copied."""

    source: int
    target: int


class Slots(Generic[Caller]):
    """`capacity` rows and the callers in them.

    The rows that are computed are always the first ones, and always one of few counts (`buckets`: 1, 2, 4, ... capacity), so
    that few shapes are ever run. A new caller takes the lowest free row; `gather` moves callers down if fewer rows would do.
    """

    def __init__(self, capacity: int) -> None:
        self._callers: list[Caller | None] = [None] * capacity
        self.buckets = (*(1 << i for i in range((capacity - 1).bit_length())), capacity)

    def __len__(self) -> int:
        """How many callers there are."""
        return sum(caller is not None for caller in self._callers)

    def __iter__(self) -> Iterator[tuple[int, Caller]]:
        """Each taken row with its caller, in the order of the rows."""
        return ((row, caller) for row, caller in enumerate(self._callers) if caller is not None)

    def __getitem__(self, row: int) -> Caller:
        """The caller in a taken row."""
        caller = self._callers[row]
        assert caller is not None, f"Row {row} is free."
        return caller

    def join(self, caller: Caller) -> int:
        """Gives a caller the lowest free row, and returns it.

        Raises:
            InputError: if none is free.
        """
        if None not in self._callers:
            raise InputError(
                f"No free slot: all {len(self._callers)} sessions of this engine are open. Close one, or raise max_sessions."
            )
        row = self._callers.index(None)
        self._callers[row] = caller
        return row

    def leave(self, row: int) -> None:
        """Frees a row."""
        self._callers[row] = None

    def bucket(self, rows: int) -> int:
        """The smallest count that is at least `rows`."""
        return next(bucket for bucket in self.buckets if bucket >= rows)

    @property
    def rows(self) -> int:
        """How many rows must be computed to reach every caller: one of `buckets`, or 0 without callers."""
        last = max((row for row, _ in self), default=-1)
        return self.bucket(last + 1) if last >= 0 else 0

    def gather(self) -> list[Move]:
        """Moves callers to lower rows if that lowers `rows`. Copy the state of these rows in this order."""
        moves = []
        needed = self.bucket(len(self)) if len(self) else 0
        for row, caller in list(self):
            if row >= needed:
                target = self._callers.index(None)
                self._callers[target], self._callers[row] = caller, None
                moves.append(Move(row, target))
        return moves
