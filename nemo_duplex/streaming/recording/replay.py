"""Computes a recorded session again and compares: tokens, codes and sound, bit for bit.

    replay("talk", model).identical              or which frame is the first that differs, with frames around it

The bits of float32 depend on the size of the batch that something was computed in. So each frame is computed in the row in
which it was recorded, among as many rows; who sits in those does not matter. A caller of a busy server is replayed alone.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from nemo_duplex.inputs import InputError
from nemo_duplex.models.nemo.model_hash import model_hash
from nemo_duplex.streaming.engine import DuplexEngine
from nemo_duplex.streaming.frame import AgentFrame
from nemo_duplex.streaming.recording.environment import differences, surroundings
from nemo_duplex.streaming.recording.reader import SessionRecording

if TYPE_CHECKING:
    from nemo_duplex.models.agent import DuplexAgent

#: Frames that are kept on either side of the first one that differs.
AROUND = 12


class FramePair(NamedTuple):
    """What was recorded of a frame, and what came of it now (None if the replay ended before it)."""

    recorded: AgentFrame
    replayed: AgentFrame | None

    @property
    def differing(self) -> list[str]:
        """What is not the same to the bit: of token, codes, audio; or end."""
        old, new = self
        if new is None:
            return ["end"]
        same = {
            "token": old.token == new.token,
            "codes": np.array_equal(old.codes, new.codes),
            "audio": old.audio.tobytes() == new.audio.tobytes(),
        }
        return [name for name, is_same in same.items() if not is_same]

    @property
    def distance(self) -> float:
        """By how much the sound differs at most."""
        return 0.0 if self.replayed is None else float(np.abs(self.recorded.audio - self.replayed.audio).max(initial=0.0))


@dataclass(frozen=True)
class Replay:
    """What came of a replay.

    Attributes:
        recording: what was replayed.
        frames: how many were compared.
        first: of token, codes, audio and end: the first frame in which it differs.
        distance: by how much the sound differs at most.
        surroundings: what is not as it was recorded: other weights, machine or versions, each in a few words.
        around: the frames around the one to look at; empty if all are identical.

    Examples:
        >>> session = model.open_session(record="talk")
        >>> _ = session.push(question)
        >>> session.close()
        >>> replay("talk", model).identical
        True
    """

    recording: SessionRecording
    frames: int
    first: dict[str, int]
    distance: float
    surroundings: list[str]
    around: list[FramePair]

    @property
    def identical(self) -> bool:
        """Whether every frame is, to the bit."""
        return not self.first

    @property
    def frame(self) -> int | None:
        """The first frame that differs: in what was chosen if that ever does, else in sound; None if all are identical."""
        chosen = [frame for name, frame in self.first.items() if name != "audio"]
        return min(chosen or self.first.values(), default=None)


def replay(source: SessionRecording | str | Path, model: DuplexAgent) -> Replay:
    """Replays a recording with a model, which need not be the one that it was recorded with.

    Args:
        source: the recording, or where it lies.

    Raises:
        InputError: if there is no whole recording, or the model has other channels than the one that was recorded.
    """
    recording = source if isinstance(source, SessionRecording) else SessionRecording.read(source)
    _check_channels(recording, model)
    count, first, distance = 0, dict[str, int](), 0.0
    before: deque[FramePair] = deque(maxlen=AROUND)
    around: list[FramePair] = []
    wanted = 0  # of the frames from the one that differs on
    with _threads(recording.session["machine"].get("threads")):
        now = surroundings(model)
        now["model"]["hash"] = model_hash(model)
        for pair in tqdm(_pairs(recording, model), "replay", len(recording), unit=" frames", delay=5, leave=False):
            news = [name for name in pair.differing if name not in first]
            if news and (not first or set(first) == {"audio"}):
                around, wanted = list(before), AROUND + 1
            first |= dict.fromkeys(news, pair.recorded.index)
            distance = max(distance, pair.distance)
            if wanted:
                around.append(pair)
                wanted -= 1
            before.append(pair)
            count += 1
    return Replay(recording, count, first, distance, list(differences(recording.session, now)), around)


class _ReplayEngine(DuplexEngine):
    """An engine of one session, which is computed where it was computed when it was recorded."""

    def __init__(self, model: DuplexAgent, recording: SessionRecording) -> None:
        steps, session = recording.steps, recording.session
        if unknown := session["engine"].keys() - inspect.signature(DuplexEngine).parameters.keys():
            raise InputError(
                f"recording: {recording.folder} is of an engine with {', '.join(sorted(unknown))}, which this one has not. "
                f"Replay it with nemo_duplex {session['version'].get('nemo_duplex')}."
            )
        capacity = max(int(steps[column].max(initial=1)) for column in ("rows", "entries"))
        super().__init__(model, capacity, cuda_graphs=False, **session["engine"])  # graphs change nothing, and take time
        self._recording = recording
        self._session = self.open_session(sample_rate=recording.sample_rate, sampling=session["sampling"], seed=session["seed"])
        self._session.prompt = session["prompt"]
        self._row = self._made = 0

    @torch.inference_mode()
    def replayed(self) -> Iterator[AgentFrame]:
        """The frames of the recording, computed again."""
        self._seat()
        for chunk in self._recording.user_chunks():
            self._session.push(chunk)
            yield from self._due()
        if self._recording.flushed:
            self._session.flush()
            yield from self._due()

    def _due(self) -> Iterator[AgentFrame]:
        """The frames that can be made now."""
        chunk = np.zeros(self._encoder_chunks.shape[1], np.float32)
        while self._made < len(self._recording):
            seat = self._recording.steps[self._made]
            if self._session.take_chunk(chunk):
                self._encoder_chunks[seat["entry"]] = chunk
                self._hear_chunks({int(seat["entry"]): self._row}, int(seat["entries"]))
            if not self._session.has_frame:
                return
            self._move(int(seat["row"]))
            for wish, value in self._recording.wishes(self._made):
                getattr(self._session.control, wish)(*([] if value is None else [value]))
            due = [(self._row, self._session)]
            frames = self._answers(due, self._speak(due, int(seat["rows"])))[self._session]
            if self._session.error:
                raise self._session.error
            self._made += 1
            yield from frames

    def _move(self, row: int) -> None:
        if row != self._row:
            self._state.put(row, self._state.row(self._row))
            self._row = row


def _pairs(recording: SessionRecording, model: DuplexAgent) -> Iterator[FramePair]:
    """Each recorded frame, with what comes of it now."""
    replayed = _ReplayEngine(model, recording).replayed()
    for index, audio in enumerate(recording.agent_frames()):
        recorded = AgentFrame(index, "", int(recording.tokens[index]), recording.codes[index].astype(np.int64), audio)
        yield FramePair(recorded, next(replayed, None))


def _check_channels(recording: SessionRecording, model: DuplexAgent) -> None:
    """Refuses a model whose frames cannot be held against the recorded ones."""
    rate = model.perception.frame_rate
    given = (model.layout.num_codebooks, model.agent_sample_rate, float(rate.hz))
    recorded = (recording.codes.shape[1], recording.agent_sample_rate, float(recording.frame_rate.hz))
    if given != recorded:
        raise InputError(
            f"recording: {recording.folder} is of {_channels(*recorded)}, and this model has {_channels(*given)}. "
            "Replay it with a model of its kind."
        )


def _channels(codebooks: int, sample_rate: int, frame_rate: float) -> str:
    return f"{codebooks} codebooks at {sample_rate} Hz, {frame_rate:g} frames a second"


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """As many threads as when it was recorded: sums may be split by them."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    yield
    torch.set_num_threads(before)
