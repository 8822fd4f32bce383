"""A recorded conversation on disk: one Lhotse cut, with all that is needed to compute the conversation again.

    talk/cut.jsonl           the cut; below, what Lhotse gives of it
    talk/user.wav            cut.recording                 as it was pushed: float32, at the caller's rate
    talk/agent.wav           cut.target_audio              the agent's sound, at the agent's rate
    talk/agent_tokens.npy    cut.load_agent_tokens()       (T,) text channel
    talk/agent_codes.npy     cut.load_agent_codes()        (T, K) speech channels, specials included
    talk/agent_steps.npy     cut.load_agent_steps()        (T,) columns `STEP`: when and where each frame was computed
    talk/user_pushes.npy     cut.load_user_pushes()        (N,) columns `PUSH`: what came when
                             cut.session                   seed, sampling, prompt, commands ("wishes"), model, versions, ...
                             cut.supervisions              the agent's turns, and when the user spoke, without words

The cut names its files without a folder, so that a recording can be moved. Lhotse looks for such names in the working
directory; `SessionRecording.read(folder).cut` has whole paths.

During the conversation, the same files are in a folder `.part-...` beside it, with `session.json` and `wishes.jsonl` in
place of the cut. A crash leaves all but the last second there: WAVs play as they are, `recover` makes a cut of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import MonoCut, Recording
from lhotse.array import Array
from lhotse.audio import AudioSource

from nemo_duplex.channels.transcript import Transcript
from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.frames import FrameRate, Seconds
from nemo_duplex.models.agent import DuplexAgent
from nemo_duplex.models.nemo.model_hash import model_hash
from nemo_duplex.streaming.recording.environment import current_environment
from nemo_duplex.streaming.recording.growing_files import GrowingFile, growing_array, growing_wav
from nemo_duplex.streaming.sampling import AgentSampling

#: Raised with every change that an older reader would misread.
FORMAT = 1
# Commands are called wishes in files of format 1.
CUT, SESSION, COMMANDS = "cut.jsonl", "session.json", "wishes.jsonl"
USER, AGENT = "user.wav", "agent.wav"
TOKENS, CODES, STEPS, PUSHES = "agent_tokens.npy", "agent_codes.npy", "agent_steps.npy", "user_pushes.npy"

#: One frame: when its encoder chunk was begun, the frame begun and made (Unix time); its row, of how many rows were computed;
#: its encoder chunk's entry, of how many were computed at once; whether the user spoke.
STEP = np.dtype(
    [
        ("heard", "<f8"),
        ("begun", "<f8"),
        ("made", "<f8"),
        ("row", "<i4"),
        ("rows", "<i4"),
        ("entry", "<i4"),
        ("entries", "<i4"),
        ("user_active", "?"),
    ]
)
#: One push: when it came (Unix time), its samples, and how many frames had been made.
PUSH = np.dtype([("arrived", "<f8"), ("samples", "<i8"), ("frame", "<i8")])
TOKEN = CODE = np.dtype("<i4")


def describe_session(
    model: DuplexAgent,
    sample_rate: int,
    sampling: AgentSampling,
    seed: int,
    prompt: Sequence[int],
    engine: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the settings of a session as plain data: the field `session` of the cut, without commands and the model's hash.

    Args:
        sample_rate: of the user's audio, in Hz.
        prompt: tokens of the system prompt.
        engine: options of the engine.
    """
    found = current_environment(model)
    channels = {"agent_sample_rate": model.agent_sample_rate, "num_codebooks": model.layout.num_codebooks}
    return {
        "format": FORMAT,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "sample_rate": int(sample_rate),
        "frame_rate": float(model.perception.frame_rate.hz),
        "sampling": asdict(sampling),
        "seed": seed,
        "prompt": [int(token) for token in prompt],
        "engine": dict(engine),
        **found,
        "model": {"hash": None, **found["model"], **channels},
    }


def recording_files(folder: Path, session: Mapping[str, Any]) -> dict[str, GrowingFile]:
    """The files that grow, by name, in the order in which they must be written: the input of a frame before the frame."""
    model = session["model"]
    return {
        USER: growing_wav(folder / USER, session["sample_rate"]),
        PUSHES: growing_array(folder / PUSHES, PUSH),
        COMMANDS: GrowingFile(folder / COMMANDS, 1, lambda rows: b""),
        AGENT: growing_wav(folder / AGENT, model["agent_sample_rate"]),
        TOKENS: growing_array(folder / TOKENS, TOKEN),
        CODES: growing_array(folder / CODES, CODE, model["num_codebooks"]),
        STEPS: growing_array(folder / STEPS, STEP),
    }


def complete(folder: Path, name: str, model: DuplexAgent) -> int:
    """Makes a cut of the files in a `.part-...` folder, as far as all of them reach; returns its number of frames.

    If there is no whole frame it returns 0, and the folder stays as it is.

    Args:
        name: becomes the cut's id.
        model: the agent.
    """
    session = json.loads((folder / SESSION).read_text())
    files, rate = recording_files(folder, session), FrameRate(session["frame_rate"])
    samples_per_frame = rate.samples_per_frame(session["model"]["agent_sample_rate"])
    frames = min(files[AGENT].rows // samples_per_frame, *(files[f].rows for f in (TOKENS, CODES, STEPS)))
    if frames == 0:
        return 0
    rows = {AGENT: frames * samples_per_frame, TOKENS: frames, CODES: frames, STEPS: frames}
    for file in files.values():
        file.finish(rows.get(file.path.name, file.rows))
    session["wishes"] = list(_commands(folder / COMMANDS, frames))
    session["model"]["hash"] = session["model"]["hash"] or model_hash(model)
    duration = min(files[USER].rows / session["sample_rate"], rate.time(frames))
    turns = [*_agent_turns(folder, model), *_user_turns(folder, rate)]
    cut = _cut(_within(duration, name, turns), session, {f: file.rows for f, file in files.items()})
    (folder / CUT).write_text(json.dumps(cut.to_dict()) + "\n")
    for part in (SESSION, COMMANDS):
        (folder / part).unlink()
    return frames


def _commands(path: Path, frames: int) -> Iterator[dict[str, Any]]:
    """The commands whose line is whole and whose frame was made; the end of the user's audio comes after all frames."""
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            command = json.loads(line)
            if command["frame"] < frames or command["wish"] == "flush":
                yield command


def _agent_turns(folder: Path, model: DuplexAgent) -> tuple[Turn, ...]:
    """What the agent said, read from its tokens."""
    tokens = np.load(folder / TOKENS, mmap_mode="r")
    transcript = Transcript(model.layout, model.tokenizer, model.perception.frame_rate)
    for frame in np.flatnonzero(tokens != model.layout.text_pad).tolist():
        transcript.add(frame, int(tokens[frame]))
        time.sleep(0)  # this may run beside an engine: hand it the interpreter whenever it waits for it
    return transcript.conversation(len(tokens)).turns


def _user_turns(folder: Path, rate: FrameRate) -> Iterator[Turn]:
    """When the user spoke; the words are not known."""
    active = np.load(folder / STEPS, mmap_mode="r")["user_active"].astype(np.int8)
    edges = np.flatnonzero(np.diff(active, prepend=0, append=0)).tolist()
    for start, end in zip(edges[::2], edges[1::2]):
        yield Turn("user", rate.time(start), rate.time(end))


def _within(duration: Seconds, name: str, turns: list[Turn]) -> Conversation:
    """The audible part of the turns, without those of no length (such as a turn that was stopped before it sounded)."""
    audible = [replace(turn, end=min(turn.end, duration)) for turn in turns if turn.start < duration]
    return Conversation(name, duration, tuple(turn for turn in audible if turn.duration > 0))


def _cut(conversation: Conversation, session: Mapping[str, Any], rows: Mapping[str, int]) -> MonoCut:
    name = conversation.id

    def audio(file: str, name: str, rate: int) -> Recording:
        return Recording(name, [AudioSource("file", [0], file)], rate, rows[file], rows[file] / rate)

    def array(file: str, *shape: int) -> Array:
        return Array("numpy_files", ".", file, [rows[file], *shape])

    arrays = {"agent_tokens": array(TOKENS), "agent_codes": array(CODES, session["model"]["num_codebooks"])}
    arrays |= {"agent_steps": array(STEPS), "user_pushes": array(PUSHES)}
    agent = audio(AGENT, f"{name}-agent", session["model"]["agent_sample_rate"])
    return MonoCut(
        id=name,
        start=0.0,
        duration=conversation.duration,
        channel=0,
        recording=audio(USER, name, session["sample_rate"]),
        supervisions=conversation.to_supervisions(),
        custom={**arrays, "target_audio": agent, "session": dict(session)},
    )
