"""Many callers in one batched step per 80 ms frame.

    any thread     session.push(audio)      session.flush()      session.close()        only noted
    one thread     engine.step()            hears encoder chunks that are whole, makes one frame of each session with one due

A session's frames do not depend on who else is there: they are those of `offline_inference` on its audio.

Which caller sits in which row of the batch, and how many rows must be computed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.streaming.control import RowControls
from nemo_duplex.streaming.engine_session import EngineSession
from nemo_duplex.streaming.frame import AgentFrame
from nemo_duplex.streaming.rows import AgentRows, RowFrames
from nemo_duplex.streaming.rows_state import RowsState
from nemo_duplex.streaming.stages import StageRunner
from nemo_duplex.streaming.step_timer import StepTimer

if TYPE_CHECKING:
    from nemo_duplex.models.agent import DuplexAgent


Guest = TypeVar("Guest")


class Move(NamedTuple):
    """A row that is to be copied."""

    source: int
    target: int


class Slots(Generic[Guest]):
    """`capacity` rows and those who sit in them.

    The rows that are computed are always the first ones, and always one of few counts (`buckets`: 1, 2, 4, ... capacity), so
    that few shapes are ever run. Newcomers take the lowest free row; `gather` moves guests down when a smaller count would do.
    """

    def __init__(self, capacity: int) -> None:
        self._guests: list[Guest | None] = [None] * capacity
        self.buckets = (*(1 << i for i in range((capacity - 1).bit_length())), capacity)

    def __len__(self) -> int:
        """How many there are."""
        return sum(guest is not None for guest in self._guests)

    def __iter__(self) -> Iterator[tuple[int, Guest]]:
        """Each taken row with who sits there, in the order of the rows."""
        return ((row, guest) for row, guest in enumerate(self._guests) if guest is not None)

    def __getitem__(self, row: int) -> Guest:
        """Who sits in a row that is taken."""
        guest = self._guests[row]
        assert guest is not None, f"Nobody sits in row {row}."
        return guest

    def join(self, guest: Guest) -> int:
        """Takes the lowest free row for `guest`.

        Raises:
            InputError: if none is free.
        """
        if None not in self._guests:
            raise InputError(
                f"No free slot: all {len(self._guests)} sessions of this engine are open. Close one, or raise max_sessions."
            )
        row = self._guests.index(None)
        self._guests[row] = guest
        return row

    def leave(self, row: int) -> None:
        """Frees a row."""
        self._guests[row] = None

    def bucket(self, rows: int) -> int:
        """The smallest count that is at least `rows`."""
        return next(bucket for bucket in self.buckets if bucket >= rows)

    @property
    def rows(self) -> int:
        """How many rows must be computed so that every guest is among them: one of `buckets`, 0 with nobody there."""
        last = max((row for row, _ in self), default=-1)
        return self.bucket(last + 1) if last >= 0 else 0

    def gather(self) -> list[Move]:
        """Seats guests in lower rows where that lowers `rows`; the caller copies what these rows remember, in this order."""
        moves = []
        needed = self.bucket(len(self)) if len(self) else 0
        for row, guest in list(self):
            if row >= needed:
                target = self._guests.index(None)
                self._guests[target], self._guests[row] = guest, None
                moves.append(Move(row, target))
        return moves


_log = logging.getLogger(__name__)

#: Each session that was due, with its new frames; one that failed or was closed meanwhile has none.
Answers = dict[EngineSession, list[AgentFrame]]


class DuplexEngine:
    """A model that talks with many callers at once. Made by `model.open_engine()`.

    `step` and `run_until_idle` belong to one thread; everything else may be called from any.

    Args:
        model: in evaluation from now on.
        max_sessions: slots. Memory for all of them is taken now and never grows.
        timer: takes the times of steps and stages, from when the engine is open; without one, no clock is read.
        prompt_tokens: of the longest system prompt that a session may have. A model with an attention_window attends to that
            much more in every frame; one without it gives up as many of its most recent frames for as long a prompt.
        compile: whether torch.compile makes the stages faster. Opening then takes minutes; numbers change in the last digits.
        cuda_graphs: whether the stages are recorded and replayed on a GPU; None does so where the model is on one.
        int8: whether encoder and language model compute in 8 bits, on a CPU (`llm/int8_linear.py`): faster, and near to
            float32, not equal. The model stays as it is; memory grows by a quarter of the weights of these two.

    Attributes:
        options: what another engine must be given for its numbers to be the same to the bit.

    Raises:
        InputError: if there is no slot, the model cannot keep so long a prompt, or this machine cannot compute in such a way.

    Examples:
        >>> engine = model.open_engine(max_sessions=2)
        >>> alice, bob = engine.open_session(), engine.open_session()
        >>> alice.push(question)
        >>> bob.push(question)
        >>> heard = engine.run_until_idle()
        >>> [frame.token for frame in heard[alice]] == [frame.token for frame in heard[bob]]
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
        self.options: dict[str, Any] = {"prompt_tokens": prompt_tokens, "compile": compile, "int8": int8}
        run = StageRunner(model.device, timer, compile, cuda_graphs)
        self._rows = AgentRows(model, run, int8)
        self._timed = timer.step if timer else nullcontext
        self._slots: Slots[EngineSession] = Slots(max_sessions)
        self._lock = Lock()  # of the slots and of who has joined
        self._joined: list[int] = []  # rows that start anew in the next step
        self._prompt_tokens = prompt_tokens
        with torch.inference_mode():
            self._state = self._rows.init_state(max_sessions, prompt_tokens=prompt_tokens)
            self._newborn = self._rows.init_state(1, prompt_tokens=prompt_tokens)
            self._views = {bucket: self._state.first(bucket) for bucket in self._slots.buckets}
            if run.needs_warm_up:
                self._rows.warm_up(self._state, reversed(self._views.values()))
        if timer:
            timer.device = model.device
            timer.reset()
        self._encoder_chunks = np.zeros((max_sessions, self._rows.chunk_samples), np.float32)

    def open_session(self, record: str | Path | None = None, **options: Any) -> EngineSession:
        """A new caller, from the next step on.

        Args:
            record: a folder to be, which the session is recorded to (`recorder.py`).
            options: as `EngineSession`.

        Raises:
            InputError: if no slot is free, or for an option or a folder that is not possible.
        """
        session = EngineSession(self.model, **options)
        if len(session.prompt) > self._prompt_tokens:
            raise InputError(
                f"A system prompt of {len(session.prompt)} tokens, and this engine has room for {self._prompt_tokens}. "
                f"Shorten it, or open the engine with prompt_tokens={len(session.prompt)}."
            )
        with self._lock:
            self._dismiss()
            self._joined.append(self._slots.join(session))
        if record is not None:
            session.record(record, self.options)
        return session

    def __len__(self) -> int:
        """How many sessions are open."""
        with self._lock:
            self._dismiss()
            return len(self._slots)

    @torch.inference_mode()
    def step(self) -> Answers:
        """Everything that is due now, at most one frame of each session; empty if nothing was due."""
        with self._timed():
            return self._step()

    def _step(self) -> Answers:
        with self._lock:
            self._dismiss()
            self._seat()
            guests = [guest for guest in self._slots if guest[0] not in self._joined]
            rows = self._slots.rows
        self._hear(guests)
        due = [(row, session) for row, session in guests if session.has_frame]
        return self._answers(due, self._speak(due, rows)) if due else {}

    def run_until_idle(self) -> Answers:
        """Steps until nothing is due any more; all frames that this made."""
        answers: Answers = {}
        while (step := self.step()) or self._joined:
            for session, frames in step.items():
                answers.setdefault(session, []).extend(frames)
        return answers

    # ------------------------------------------------------------------ who sits where

    def _dismiss(self) -> None:
        """Frees the slots of sessions that are over."""
        for row, session in list(self._slots):
            if session.over:
                self._slots.leave(row)
                if row in self._joined:  # it went before the engine ever stepped
                    self._joined.remove(row)

    def _seat(self) -> None:
        """Rows of newcomers start anew; guests move down if fewer rows then have to be computed.

        A step reads one system prompt at most, so that nobody waits for the prompts of others; who is behind waits outside.
        """
        read = False
        while self._joined and not read:
            row = self._joined.pop(0)
            self._state.put(row, self._newcomer(row))
            read = bool(self._slots[row].prompt)
        if not self._joined:
            for move in self._slots.gather():
                self._state.put(move.target, self._state.row(move.source))

    def _newcomer(self, row: int) -> RowsState:
        """What a session remembers that has heard nothing: how it chooses, and its prompt."""
        session = self._slots[row]
        if session.sampling.greedy and not session.prompt:
            return self._newborn
        state = self._rows.init_state(1, session.sampling, session.seed, self._prompt_tokens)
        if session.prompt:
            self._rows.prompt(state, session.prompt)
        return state

    # ------------------------------------------------------------------ one step

    def _hear(self, guests: list[tuple[int, EngineSession]]) -> None:
        """The encoder chunks that are whole. Their rows alone are computed, filled up with idle ones to the next bucket."""
        heard: list[tuple[int, EngineSession]] = []
        for row, session in guests:
            if session.take_chunk(self._encoder_chunks[len(heard)]):
                heard.append((row, session))
        if heard:
            size = self._slots.bucket(len(heard))
            for entry, (_, session) in enumerate(heard):
                session.hearing(entry, size)
            self._hear_chunks({entry: row for entry, (row, _) in enumerate(heard)}, size)

    def _hear_chunks(self, rows: Mapping[int, int], size: int) -> None:
        """The encoder chunks at these entries of `_encoder_chunks`, which are of these rows, in a batch of `size`."""
        taken, device = set(rows.values()), self.model.device
        idle = (row for row in range(len(self._encoder_chunks)) if row not in taken)
        self._rows.hear(
            self._state,
            audio=torch.from_numpy(self._encoder_chunks[:size]).to(device),
            rows=torch.tensor([rows[entry] if entry in rows else next(idle) for entry in range(size)]).to(device),
            live=torch.tensor([entry in rows for entry in range(size)]).to(device),
        )

    def _speak(self, due: list[tuple[int, EngineSession]], rows: int) -> RowFrames:
        """The next frame of those who have one due, computed for the first `rows`."""
        for row, session in due:
            session.speaking(row, rows)
        live = torch.zeros(rows, dtype=torch.bool)
        live[[row for row, _ in due]] = True
        sampled = not all(session.sampling.greedy for _, session in due)
        return self._rows.speak(self._views[rows], live.to(self.model.device), self._controls(due, rows), sampled)

    def _controls(self, due: list[tuple[int, EngineSession]], rows: int) -> RowControls | None:
        """What callers make their agents do in this frame; None where nobody does."""
        controls = dict.fromkeys(range(rows)) | {row: session.control.next() for row, session in due}
        if not any(controls.values()):
            return None
        return RowControls.of(list(controls.values()), self.model.audio_codec.silence_codes)

    def _answers(self, due: list[tuple[int, EngineSession]], frames: RowFrames) -> Answers:
        """Hands each session its frame. What goes wrong there ends that session alone."""
        tokens = frames.tokens.tolist()
        codes, audio = frames.codes.cpu().numpy(), frames.audio.float().cpu().numpy()
        answers: Answers = {session: [] for _, session in due}
        for row, session in due:
            try:
                frame = session.answered(tokens[row], codes[row].copy(), audio[row].copy())
            except Exception as error:
                _log.exception("A session was ended by an error in its frame; the others go on.")
                session.fail(error)
            else:
                answers[session].append(frame)
        return answers
