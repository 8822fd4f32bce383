"""An agent's answer to a recording: streamed as to a live caller, and written as both channels and a transcript."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
import soxr

from nemo_duplex.files.atomic import require_new_folder, whole_folder
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, existing_file, read_mono

if TYPE_CHECKING:
    from nemo_duplex.models.agent import DuplexAgent

_MOST_SECONDS = 3600


@dataclass(frozen=True)
class Answering:
    """What is answered, and where the answer goes; checked when it is made, before a model is loaded.

    Args:
        user: audio file of what the user says.
        out: folder to write agent.wav, conversation.wav (user left, agent right) and transcript.txt to.
        record: folder to record the session to, or None.
        chunk: seconds that are pushed at a time.
        tail: seconds of silence after the recording.
        overwrite: whether to replace what `out` holds.

    Raises:
        InputError: if `user` is not there, a folder cannot be written, or a number is out of range.

    Examples:
        >>> Answering(user="question.wav", out="answer", tail=-1)
        Traceback (most recent call last):
        nemo_duplex.inputs.InputError: tail=-1: expected seconds, 0 to 3600.
    """

    user: str
    out: str
    record: str | None = None
    chunk: Seconds = 0.08
    tail: Seconds = 4.0
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.chunk <= _MOST_SECONDS:
            raise InputError(f"chunk={self.chunk}: expected seconds, more than 0 and up to {_MOST_SECONDS}.")
        if not 0 <= self.tail <= _MOST_SECONDS:
            raise InputError(f"tail={self.tail}: expected seconds, 0 to {_MOST_SECONDS}.")
        existing_file(self.user, "user")
        require_new_folder(self.out, "out", replace=self.overwrite)
        if self.record is not None:
            require_new_folder(self.record, "record")
            out, record = Path(self.out).resolve(), Path(self.record).resolve()
            if out.is_relative_to(record) or record.is_relative_to(out):
                raise InputError(f"record={self.record}: expected a folder beside out={self.out}, neither inside the other.")

    def answer(self, model: DuplexAgent, sampling: Mapping[str, Any] | None = None, seed: int = 0) -> list[str]:
        """Streams the recording through the agent and writes what it says. Returns lines to print: its turns, its speed.

        Raises:
            InputError: for audio that is not readable or not mono.
        """
        user = read_mono(self.user, model.user_sample_rate, "user")
        heard = np.concatenate([user, np.zeros(round(self.tail * model.user_sample_rate), np.float32)])
        session = model.open_session(record=self.record, sampling=sampling, seed=seed)
        frames, started = [], time.perf_counter()
        chunk = max(1, round(self.chunk * model.user_sample_rate))
        for start in range(0, len(heard), chunk):
            frames += session.push(heard[start : start + chunk])
        frames += session.flush()
        seconds = time.perf_counter() - started
        session.close()
        agent, rate = np.concatenate([frame.audio for frame in frames]), model.agent_sample_rate
        left = soxr.resample(heard, model.user_sample_rate, rate)[: len(agent)]
        left = np.pad(left, (0, len(agent) - len(left)))
        turns = [f"{turn.start:7.2f} {turn.end:7.2f}  {turn.text}" for turn in session.transcript.agent]
        with whole_folder(self.out, replace=self.overwrite) as out:
            soundfile.write(out / "agent.wav", agent, rate)
            soundfile.write(out / "conversation.wav", np.stack([left, agent], axis=1), rate)
            (out / "transcript.txt").write_text("\n".join(turns) + "\n", encoding="utf-8")
        length = len(heard) / model.user_sample_rate
        speed = f"{length:.1f} s of conversation in {seconds:.1f} s (real-time factor {seconds / length:.2f})"
        return [*(turns or ["The agent said nothing."]), f"{self.out}: {speed}"]
