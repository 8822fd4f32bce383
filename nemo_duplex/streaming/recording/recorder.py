"""Writes a session down while it goes on, so that it can be computed again, bit for bit (`replay.py`).

    session = engine.open_session(record="talk")
    ...
    session.close()
    session.recorder.wait()          talk/cut.jsonl is there: a folder is whole or not there

Whoever pushes and whoever steps only leave bytes in memory; a thread of its own carries those of all sessions to the disk once
a second. A disk that is full or slow ends the recording, with one line in the log, and nothing else: the conversation goes on,
and `recover` makes a cut of what was written until then. So it does after a crash.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import time
from collections import defaultdict
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nemo_duplex.files.atomic import whole_file
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, existing_folder
from nemo_duplex.models.nemo.model_hash import model_hash
from nemo_duplex.streaming.frame import AgentFrame
from nemo_duplex.streaming.recording import format as files

if TYPE_CHECKING:
    from nemo_duplex.models.agent import DuplexAgent

_log = logging.getLogger(__name__)

# How often what has come together is written.
_INTERVAL: Seconds = 1.0
# Bytes of one session that may wait for the disk (minutes of conversation), and for how long more may while it takes nothing.
_MOST_WAITING, _PATIENCE = 64 << 20, 30.0


class Seat(NamedTuple):
    """Where in a batch something was computed, since bits may depend on it: `place` of `size`."""

    place: int
    size: int
    time: Seconds  # Unix time


class Recorder:
    """The recording of one session. Made by `open_session(record=...)`.

    Its methods take what happens, from any thread; they never wait for the disk. They may go on to be called when it has ended.

    Args:
        folder: to be; it may be there if it is empty.
        model: that the session is with.
        session: how it is held (`recording.py`), as far as it is known.

    Attributes:
        folder: where the recording will lie, once it is whole.
        part: where it lies until then.
        error: what ended the recording before the session; None if nothing did.

    Raises:
        InputError: if the folder cannot be made, or there is something in it.
    """

    def __init__(self, folder: str | Path, model: DuplexAgent, session: dict[str, Any]) -> None:
        self.folder = Path(folder).absolute()
        self.error: Exception | None = None
        self._model, self._session = model, session
        self._lock = Lock()  # of all that waits
        self._waiting: dict[str, list[bytes]] = defaultdict(list)
        self._bytes = self._frames = 0
        self._ended = self._too_slow = False
        self._taken = time.monotonic()  # when the clerk last took what was waiting
        self._done = Event()
        self._heard = self._spoken = Seat(0, 0, 0.0)
        self.part = _part_of(self.folder)
        self._files = files.recording_files(self.part, session)
        try:
            self.part.mkdir(parents=True)
            self._write_session()
            for file in self._files.values():
                file.begin()
        except OSError as error:
            shutil.rmtree(self.part, ignore_errors=True)
            raise InputError(
                f"record: {self.folder} cannot be written ({error.strerror}). Choose another folder, or make room."
            ) from error
        _CLERK.take(self)

    # ------------------------------------------------------------------ for the session

    def pushed(self, samples: np.ndarray) -> None:
        """The caller pushed (S,) float32; in the order in which they are heard."""
        with self._lock:
            push = np.array((time.time(), len(samples), self._frames), files.PUSH)
            self._note({files.USER: samples.tobytes(), files.PUSHES: push.tobytes()})

    def wished(self, frame: int, wish: str, value: Any = None) -> None:
        """The caller made the agent do something, from this frame on."""
        line = json.dumps({"frame": frame, "time": time.time(), "wish": wish, "value": value}) + "\n"
        with self._lock:
            self._note({files.WISHES: line.encode()})

    def flushed(self) -> None:
        """The caller has nothing more to say."""
        self.wished(self._frames, "flush")

    def heard(self, entry: int, entries: int) -> None:
        """The encoder chunk of the next frames is computed now, as one entry of a batch."""
        self._heard = Seat(entry, entries, time.time())

    def spoken(self, row: int, rows: int) -> None:
        """The next frame is computed now, as one row of a batch."""
        self._spoken = Seat(row, rows, time.time())

    def made(self, frame: AgentFrame) -> None:
        """That is what came of it."""
        heard, spoken = self._heard, self._spoken
        times, seats = (heard.time, spoken.time, time.time()), (spoken.place, spoken.size, heard.place, heard.size)
        step = np.array((*times, *seats, frame.user_active), files.STEP)
        with self._lock:
            self._note(
                {
                    files.AGENT: frame.audio.tobytes(),
                    files.TOKENS: files.TOKEN.type(frame.token).tobytes(),
                    files.CODES: frame.codes.astype(files.CODE).tobytes(),
                    files.STEPS: step.tobytes(),
                }
            )
            self._frames += not self._ended

    def end(self) -> None:
        """The session is over: the recording is made whole in the background. Safe to call again."""
        with self._lock:
            self._ended = True
        _CLERK.wake()

    def wait(self, timeout: Seconds | None = None) -> bool:
        """Waits until the recording is whole, or was ended by an error; whether it is, within `timeout`."""
        return self._done.wait(timeout)

    def _note(self, rows: dict[str, bytes]) -> None:
        if self._ended:
            return
        for name, row in rows.items():
            self._waiting[name].append(row)
            self._bytes += len(row)
        if self._bytes > _MOST_WAITING:  # audio that comes faster than in real time, or a disk that hangs
            _CLERK.wake()
            if time.monotonic() - self._taken > _PATIENCE:
                self._ended = self._too_slow = True  # the clerk says so as soon as it can

    # ------------------------------------------------------------------ for the clerk

    def write(self) -> bool:
        """Writes what waits, and makes the recording whole if the session is over; whether there is nothing left to do."""
        try:
            self._write()
        except Exception as error:  # the disk's, most likely; whatever it is, the session goes on
            self._break_off(error)
        return self._done.is_set()

    def _write(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, defaultdict(list)
            self._bytes, self._taken, ended = 0, time.monotonic(), self._ended
        for name, file in self._files.items():
            if name in waiting:
                file.append(b"".join(waiting[name]))
        if self._too_slow:
            raise OSError(f"the disk took nothing for {_PATIENCE:.0f} s")
        if not self._session["model"]["hash"]:  # takes seconds for a large model: here, nobody waits for it
            self._session["model"]["hash"] = model_hash(self._model)
            self._write_session()
        if ended:
            if files.complete(self.part, self.folder.name, self._model):
                os.replace(self.part, self.folder)
            else:
                shutil.rmtree(self.part)
                _log.warning("%s: nothing was recorded, as the session ended before its first frame.", self.folder)
            self._done.set()

    def _write_session(self) -> None:
        with whole_file(self.part / files.SESSION) as path:
            path.write_text(json.dumps(self._session))

    def _break_off(self, error: Exception) -> None:
        with self._lock:
            self._ended = True
            self._waiting.clear()
        self.error = error
        self._done.set()
        _log.warning(
            "The recording %s was ended by an error (%s); its session goes on. What was written lies in %s: make room for it, "
            "then `recover` it.",
            self.folder,
            error,
            self.part,
        )


def recover(part: str | Path, model: DuplexAgent, folder: str | Path | None = None) -> Path:
    """Makes a recording of what a crash or a full disk left behind; returns its folder.

    Args:
        part: the folder `.part-...` beside the one that the recording was to be.
        model: that the session was with.
        folder: where the recording is to lie; None is where it was to be.

    Raises:
        InputError: if there is no such folder, or not a single frame in it.
    """
    part = existing_folder(part, "recording")
    if not (part / files.SESSION).is_file():
        raise InputError(
            f"recording: {part} has no {files.SESSION}, so it is not what a recorder left. Give a folder .part-..."
        )
    folder = part.with_name(part.name.split("-", 2)[-1]) if folder is None else Path(folder)
    if folder.exists():
        raise InputError(f"recording: {folder} is there already. Give another folder to recover to.")
    if not files.complete(part, folder.name, model):
        raise InputError(f"recording: {part} holds no whole frame, so there is nothing to recover. Remove it.")
    os.replace(part, folder)
    return folder


def _part_of(folder: Path) -> Path:
    """The folder that is to become `folder`: beside it, so that a rename is enough."""
    if _CLERK.writes(folder):
        raise InputError(f"record: another session is being recorded to {folder}. Give each a folder of its own.")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"record: {folder} is there already and not empty. Choose another folder, or remove it.")
    return folder.with_name(f".part-{time.time_ns():x}-{folder.name}")


class _Clerk:
    """The thread that writes for all recorders; there is none while nobody records."""

    def __init__(self) -> None:
        self._lock, self._wake = Lock(), Event()
        self._recorders: list[Recorder] = []
        self._thread: Thread | None = None

    def take(self, recorder: Recorder) -> None:
        """Writes for one more, until it is done."""
        with self._lock:
            self._recorders.append(recorder)
            if self._thread is None:
                self._thread = Thread(target=self._run, name="recorder", daemon=True)
                self._thread.start()

    def wake(self) -> None:
        """There is something to do at once."""
        self._wake.set()

    def writes(self, folder: Path) -> bool:
        """Whether a recording becomes this folder."""
        with self._lock:
            return any(recorder.folder == folder for recorder in self._recorders)

    def finish(self) -> None:
        """The program ends, and so do sessions that nobody has closed."""
        with self._lock:
            recorders, thread = list(self._recorders), self._thread
        for recorder in recorders:
            recorder.end()
        if thread is not None:
            thread.join(_PATIENCE)

    def _run(self) -> None:
        while True:
            self._wake.wait(_INTERVAL)
            self._wake.clear()
            with self._lock:
                recorders = list(self._recorders)
            done = [recorder for recorder in recorders if recorder.write()]
            with self._lock:
                self._recorders = [recorder for recorder in self._recorders if recorder not in done]
                if not self._recorders:
                    self._thread = None
                    return


_CLERK = _Clerk()
atexit.register(_CLERK.finish)
