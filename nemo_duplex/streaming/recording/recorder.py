"""Records a running session, so that it can be computed again, bit for bit (`replay.py`).

    session = engine.open_session(record="talk")
    ...
    session.close()
    session.recorder.wait()          talk/cut.jsonl is there: a folder is complete or does not exist

The threads that push and step only leave bytes in memory; one writer thread writes those of all sessions to the disk once a
second. A disk that is full or slow ends the recording, with one line in the log, and nothing else: the conversation continues,
and `recover` makes a cut of what was written until then, as it does after a crash.
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
from typing import Any, NamedTuple

import numpy as np

from nemo_duplex.files.atomic import whole_file
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, existing_folder
from nemo_duplex.models.agent import DuplexAgent
from nemo_duplex.models.nemo.model_hash import model_hash
from nemo_duplex.streaming.recording import format as files

_log = logging.getLogger(__name__)

# Time between two writes.
_INTERVAL: Seconds = 1.0
# Bytes of one session that may wait for the disk (minutes of conversation), and for how long more may wait while nothing is
# written.
_MOST_WAITING, _WRITE_TIMEOUT = 64 << 20, 30.0


class BatchPlace(NamedTuple):
    """Where in a batch something was computed, since bits may depend on it: `place` of `size`."""

    place: int
    size: int
    time: Seconds  # Unix time


class SessionRecorder:
    """Records one session. Made by `open_session(record=...)`.

    Its methods may be called from any thread, also after the end; they never wait for the disk.

    Args:
        folder: a new or empty one.
        model: the agent.
        session: its settings (`format.describe_session`).

    Attributes:
        folder: of the recording, once it is complete.
        part: its folder until then.
        error: the error that ended the recording before the session; None if there was none.

    Raises:
        InputError: if the folder cannot be made, or is not empty.
    """

    def __init__(self, folder: str | Path, model: DuplexAgent, session: dict[str, Any]) -> None:
        self.folder = Path(folder).absolute()
        self.error: Exception | None = None
        self._model, self._session = model, session
        self._lock = Lock()  # of all that waits to be written
        self._waiting: dict[str, list[bytes]] = defaultdict(list)
        self._bytes = self._frames = 0
        self._ended = self._too_slow = False
        self._taken = time.monotonic()  # when the writer thread last took what was waiting
        self._done = Event()
        self._chunk_place = self._frame_place = BatchPlace(0, 0, 0.0)
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
                f"record: {self.folder} cannot be written ({error.strerror}). Choose another folder, or free some space."
            ) from error
        _WRITER.take(self)

    # ------------------------------------------------------------------ for the session

    def pushed(self, samples: np.ndarray) -> None:
        """The caller pushed (S,) float32 samples."""
        with self._lock:
            push = np.array((time.time(), len(samples), self._frames), files.PUSH)
            self._note({files.USER: samples.tobytes(), files.PUSHES: push.tobytes()})

    def command(self, frame: int, name: str, value: Any = None) -> None:
        """The caller gave a command, which holds from this frame on."""
        line = json.dumps({"frame": frame, "time": time.time(), "wish": name, "value": value}) + "\n"
        with self._lock:
            self._note({files.COMMANDS: line.encode()})

    def flushed(self) -> None:
        """The caller ended the user's audio."""
        self.command(self._frames, "flush")

    def chunk_begins(self, entry: int, entries: int) -> None:
        """The encoder chunk of the next frames is computed now, as one entry of a batch."""
        self._chunk_place = BatchPlace(entry, entries, time.time())

    def frame_begins(self, row: int, rows: int) -> None:
        """The next frame is computed now, as one row of a batch."""
        self._frame_place = BatchPlace(row, rows, time.time())

    def frame_made(self, token: int, codes: np.ndarray, audio: np.ndarray, user_active: bool) -> None:
        """The frame that was computed: text token, codes (K,), audio (samples,) float32, and whether the user spoke."""
        chunk, frame = self._chunk_place, self._frame_place
        times, places = (chunk.time, frame.time, time.time()), (frame.place, frame.size, chunk.place, chunk.size)
        step = np.array((*times, *places, user_active), files.STEP)
        with self._lock:
            self._note(
                {
                    files.AGENT: audio.tobytes(),
                    files.TOKENS: files.TOKEN.type(token).tobytes(),
                    files.CODES: codes.astype(files.CODE).tobytes(),
                    files.STEPS: step.tobytes(),
                }
            )
            self._frames += 1

    def end(self) -> None:
        """The session is over: the recording is completed in the background. Safe to call again."""
        with self._lock:
            self._ended = True
        _WRITER.wake()

    def wait(self, timeout: Seconds | None = None) -> bool:
        """Waits until the recording is complete or was ended by an error; returns whether that was so within `timeout`."""
        return self._done.wait(timeout)

    def _note(self, rows: dict[str, bytes]) -> None:
        if self._ended:
            return
        for name, row in rows.items():
            self._waiting[name].append(row)
            self._bytes += len(row)
        if self._bytes > _MOST_WAITING:  # audio that comes faster than in real time, or a disk that hangs
            _WRITER.wake()
            if time.monotonic() - self._taken > _WRITE_TIMEOUT:
                self._ended = self._too_slow = True  # the writer thread logs it as soon as it can

    # ------------------------------------------------------------------ for the writer thread

    def write(self) -> bool:
        """Writes what waits; completes the recording if the session is over. Returns whether there is nothing left to do."""
        try:
            self._write()
        except Exception as error:  # most likely of the disk; in any case the session continues
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
            raise OSError(f"nothing could be written for {_WRITE_TIMEOUT:.0f} s")
        if not self._session["model"]["hash"]:  # takes seconds for a large model, but no caller waits for this thread
            self._session["model"]["hash"] = model_hash(self._model)
            self._write_session()
        if ended:
            if files.complete(self.part, self.folder.name, self._model):
                os.replace(self.part, self.folder)
            else:
                shutil.rmtree(self.part)
                _log.warning("%s: nothing was recorded, because the session ended before its first frame.", self.folder)
            self._done.set()

    def _write_session(self) -> None:
        with whole_file(self.part / files.SESSION) as path:
            path.write_text(json.dumps(self._session))

    def _break_off(self, error: Exception) -> None:
        with self._lock:
            self._ended = True
            self._waiting.clear()
            self._bytes = 0
        self.error = error
        self._done.set()
        _log.warning(
            "The recording %s was ended by an error (%s); its session continues. What was written is in %s: free space "
            "on the disk, then `recover` it.",
            self.folder,
            error,
            self.part,
        )


def recover(part: str | Path, model: DuplexAgent, folder: str | Path | None = None) -> Path:
    """Completes a recording that a crash or a full disk left incomplete; returns its folder.

    Args:
        part: the folder `.part-...` beside the one that was asked for.
        model: the agent.
        folder: of the recording; None is the one that was asked for.

    Raises:
        InputError: if there is no such folder, or no whole frame in it.
    """
    part = existing_folder(part, "recording")
    if not (part / files.SESSION).is_file():
        raise InputError(
            f"recording: {part} has no {files.SESSION}, so it is not an incomplete recording. Give a folder .part-..."
        )
    folder = part.with_name(part.name.split("-", 2)[-1]) if folder is None else Path(folder)
    if folder.exists():
        raise InputError(f"recording: {folder} is there already. Give another one: recover(part, model, folder).")
    if not files.complete(part, folder.name, model):
        raise InputError(f"recording: {part} holds no whole frame, so there is nothing to recover. Remove it.")
    os.replace(part, folder)
    return folder


def _part_of(folder: Path) -> Path:
    """The folder that is renamed to `folder` at the end: beside it, so that a rename is enough."""
    if _WRITER.writes(folder):
        raise InputError(f"record: another session is being recorded to {folder}. Give each a folder of its own.")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"record: {folder} is there already and not empty. Choose another folder, or remove it.")
    return folder.with_name(f".part-{time.time_ns():x}-{folder.name}")


class _Writer:
    """The thread that writes for all recorders; it runs only while something is recorded."""

    def __init__(self) -> None:
        self._lock, self._wake = Lock(), Event()
        self._recorders: list[SessionRecorder] = []
        self._thread: Thread | None = None

    def take(self, recorder: SessionRecorder) -> None:
        """Writes for one more recorder, until it is done."""
        with self._lock:
            self._recorders.append(recorder)
            if self._thread is None:
                self._thread = Thread(target=self._run, name="recording writer", daemon=True)
                self._thread.start()

    def wake(self) -> None:
        """Lets the thread write now."""
        self._wake.set()

    def writes(self, folder: Path) -> bool:
        """Whether a session is being recorded to this folder."""
        with self._lock:
            return any(recorder.folder == folder for recorder in self._recorders)

    def finish(self) -> None:
        """Ends all recordings, because the program ends."""
        with self._lock:
            recorders, thread = list(self._recorders), self._thread
        for recorder in recorders:
            recorder.end()
        if thread is not None:
            thread.join(_WRITE_TIMEOUT)

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


_WRITER = _Writer()
atexit.register(_WRITER.finish)
