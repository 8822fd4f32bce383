"""Computes a recorded session again and compares: tokens, codes and sound, bit for bit.

    replay("talk", model).identical              or the first frame that differs, and the frames around it

The bits of float32 depend on the size of the batch. So each frame is computed in the row in which it was recorded, among as
many rows; what is in the other rows does not matter. A caller of a busy server is replayed alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from nemo_duplex.inputs import InputError
from nemo_duplex.models.agent import DuplexAgent
from nemo_duplex.models.nemo.model_hash import model_hash
from nemo_duplex.streaming.recording.environment import current_environment, differences
from nemo_duplex.streaming.recording.reader import SessionRecording
from nemo_duplex.streaming.rows import AgentRows, ChunkBatch
from nemo_duplex.streaming.session import AgentFrame, EngineSession
from nemo_duplex.streaming.stage_runner import StageRunner
from nemo_duplex.user_activity.detector import listen

#: Frames that are kept on either side of the first one that differs.
AROUND = 12
# The options of an engine that decide on bits.
_OPTIONS = {"prompt_tokens", "compile", "int8", "max_sessions"}


class FramePair(NamedTuple):
    """A frame as it was recorded, and as it is now (None if the replay ended before it)."""

    recorded: AgentFrame
    replayed: AgentFrame | None

    @property
    def differing(self) -> list[str]:
        """Those of token, codes and audio that are not the same to the bit; or `end`."""
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
        """The largest difference between samples."""
        return 0.0 if self.replayed is None else float(np.abs(self.recorded.audio - self.replayed.audio).max(initial=0.0))


@dataclass(frozen=True)
class Replay:
    """The result of a replay.

    Attributes:
        recording: what was replayed.
        frames: number of frames that were compared.
        first: for each of token, codes, audio and end that differs, the first frame in which it does.
        distance: the largest difference between samples.
        environment: what differs from the recorded environment (weights, machine, versions), each in a few words.
        around: the frames around `frame`; empty if all are identical.

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
    environment: list[str]
    around: list[FramePair]

    @property
    def identical(self) -> bool:
        """Whether every frame is the same to the bit."""
        return not self.first

    @property
    def frame(self) -> int | None:
        """The first frame whose token or codes differ, or if none does, whose sound differs; None if all are identical."""
        chosen = [frame for name, frame in self.first.items() if name != "audio"]
        return min(chosen or self.first.values(), default=None)


def replay(source: SessionRecording | str | Path, model: DuplexAgent) -> Replay:
    """Replays a recording with a model, the one of the recording or another one.

    Args:
        source: the recording, or its folder.

    Raises:
        InputError: if there is no complete recording, or the model has other channels than the recorded one.
    """
    recording = source if isinstance(source, SessionRecording) else SessionRecording.read(source)
    _check_channels(recording, model)
    _check_options(recording)
    count, first, distance = 0, dict[str, int](), 0.0
    before: deque[FramePair] = deque(maxlen=AROUND)
    around: list[FramePair] = []
    wanted = 0  # frames still to be kept, the one that differs included
    with _threads(recording.session["machine"].get("threads")):
        now = current_environment(model)
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


@torch.inference_mode()
def _replayed(recording: SessionRecording, model: DuplexAgent) -> Iterator[AgentFrame]:
    """The frames of a recording, computed again, each where in the batch it was computed."""
    steps, settings = recording.steps, recording.session
    options = settings["engine"]
    run = StageRunner(model.device, compile=options.get("compile", False), cuda_graphs=False)  # graphs do not change bits
    rows = AgentRows(model, run, options.get("prompt_tokens", 0), options.get("int8", False), options.get("max_sessions", 1))
    session = EngineSession(model, recording.sample_rate, settings["sampling"], settings["seed"])
    num_rows = max(int(steps[column].max(initial=1)) for column in ("rows", "entries"))
    state, row = rows.init_state(num_rows), 0
    state.put(row, rows.blank_row(session.sampling, session.seed, settings["prompt"]))
    audio = np.zeros((num_rows, rows.chunk_samples), np.float32)
    made = 0
    for samples in chain(recording.user_chunks(), [None] if recording.flushed else []):
        if samples is None:
            session.flush()
        else:
            session.push(samples)
        while made < len(recording):
            step = steps[made]

            # 1 hear
            entry = int(step["entry"])
            if session.take_chunk(audio[entry]):
                listen([session.user_activity])
                rows.hear(state, ChunkBatch.of(audio[: step["entries"]], {entry: row}, num_rows, model.device))
            if not session.has_frame:
                break

            # 2 think
            if step["row"] != row:
                state.put(int(step["row"]), state.row(row))
                row = int(step["row"])
            for command, value in recording.commands(made):
                getattr(session.commands, command)(*([] if value is None else [value]))
            first, live = state.first(int(step["rows"])), torch.arange(int(step["rows"])) == row
            live = live.to(model.device)
            given = session.commands.next()
            commands = rows.commands([given if other == row else None for other in range(len(live))])
            tokens, codes = rows.think(first, live, commands, not session.sampling.greedy)

            # 3 speak
            sound = rows.speak(first, codes, live, commands)

            yield session.take_frame(int(tokens[row]), codes[row].cpu().numpy(), sound[row].float().cpu().numpy())
            made += 1


def _pairs(recording: SessionRecording, model: DuplexAgent) -> Iterator[FramePair]:
    """Each recorded frame, with the frame that is computed now."""
    replayed = _replayed(recording, model)
    for index, audio in enumerate(recording.agent_frames()):
        recorded = AgentFrame(index, "", int(recording.tokens[index]), recording.codes[index].astype(np.int64), audio)
        yield FramePair(recorded, next(replayed, None))


def _check_channels(recording: SessionRecording, model: DuplexAgent) -> None:
    """Refuses a model whose frames cannot be compared with the recorded ones."""
    rate = model.perception.frame_rate
    given = (model.layout.num_codebooks, model.agent_sample_rate, float(rate.hz))
    recorded = (recording.codes.shape[1], recording.agent_sample_rate, float(recording.frame_rate.hz))
    if given != recorded:
        raise InputError(
            f"recording: {recording.folder} is of {_channels(*recorded)}, and this model has {_channels(*given)}. "
            "Replay it with a model of its kind."
        )


def _check_options(recording: SessionRecording) -> None:
    """Refuses the recording of an engine with options that are not known here."""
    if unknown := recording.session["engine"].keys() - _OPTIONS:
        raise InputError(
            f"recording: {recording.folder} is of an engine with {', '.join(sorted(unknown))}, which this one does not have. "
            f"Replay it with nemo_duplex {recording.session['version'].get('nemo_duplex')}."
        )


def _channels(codebooks: int, sample_rate: int, frame_rate: float) -> str:
    return f"{codebooks} codebooks at {sample_rate} Hz, {frame_rate:g} frames a second"


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Uses as many threads as the recording: the order of sums may depend on them."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
