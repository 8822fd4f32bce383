"""Reads a recorded conversation (`format.py`), or says in one line what is wrong with it.

A recording may come from an untrusted source, and Lhotse runs commands or fetches URLs that a cut names as its audio. So this
file opens only the files of the format, in the cut's folder, and ignores the names in the cut.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from lhotse import MonoCut
from lhotse.serialization import deserialize_item

from nemo_duplex.frames import FrameRate
from nemo_duplex.inputs import InputError, existing_file
from nemo_duplex.streaming.commands import COMMANDS
from nemo_duplex.streaming.recording.format import (
    AGENT,
    CODE,
    CODES,
    CUT,
    FORMAT,
    PUSH,
    PUSHES,
    SESSION,
    STEP,
    STEPS,
    TOKEN,
    TOKENS,
    USER,
)

# An hour of conversation has some hundred kilobytes of turns and commands.
_MAX_CUT_BYTES = 64 << 20
# Fields of the cut, and their files.
_ARRAYS = {Path(name).stem: name for name in (TOKENS, CODES, STEPS, PUSHES)}
# The settings that are needed to compute a session again.
_NEEDED: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "sample_rate": int,
    "frame_rate": float,
    "sampling": dict,
    "seed": int,
    "prompt": list,
    "wishes": list,
    "model": dict,
    "version": dict,
    "machine": dict,
    "engine": dict,
}
_NEEDED_OF_MODEL = {"hash": str, "dtype": str, "agent_sample_rate": int, "num_codebooks": int}


@dataclass(frozen=True)
class SessionRecording:
    """A recorded conversation. Its arrays and audio stay on disk until they are used.

    Attributes:
        folder: of the cut and its files.
        name: id of its cut.
        session: its settings: the `custom` field of that name.
        tokens: (T,) text channel.
        codes: (T, K) speech channels, specials included.
        steps: (T,) columns `STEP`.
        pushes: (N,) columns `PUSH`.

    Examples:
        >>> session = model.open_session(record="talk")
        >>> _ = session.push(question)
        >>> session.close()
        >>> recording = SessionRecording.read("talk")
        >>> recording.tokens.shape[0] == recording.codes.shape[0] == len(recording.steps)
        True
    """

    folder: Path
    name: str
    session: dict[str, Any]
    tokens: np.ndarray
    codes: np.ndarray
    steps: np.ndarray
    pushes: np.ndarray

    @classmethod
    def read(cls, path: str | Path) -> SessionRecording:
        """The recording in a folder; its `cut.jsonl` may be given as well.

        Raises:
            InputError: if there is none, it is not complete, it names files elsewhere, or its format is newer.
        """
        path = Path(path)
        if (path / SESSION).is_file():
            target = "" if path.name.startswith(".part-") else f", {str(path) + '-complete'!r}"
            raise InputError(
                f"recording: {path} is not complete. Once its session has ended, complete it with "
                f"`recover({str(path)!r}, model{target})` of nemo_duplex.streaming.recording.recorder."
            )
        file = existing_file(path / CUT if path.is_dir() else path, "recording")
        cut, session = _session(file)
        _check_files(file, cut)
        folder, codebooks = file.parent, session["model"]["num_codebooks"]
        recording = cls(
            folder=folder,
            name=cut["id"],
            session=session,
            tokens=_array(folder / TOKENS, TOKEN),
            codes=_array(folder / CODES, CODE, codebooks),
            steps=_array(folder / STEPS, STEP),
            pushes=_array(folder / PUSHES, PUSH),
        )
        recording._check_lengths()
        return recording

    def __len__(self) -> int:
        """T, the number of frames."""
        return len(self.tokens)

    @property
    def sample_rate(self) -> int:
        """Of the user's audio, in Hz."""
        return self.session["sample_rate"]

    @property
    def agent_sample_rate(self) -> int:
        return self.session["model"]["agent_sample_rate"]

    @cached_property
    def frame_rate(self) -> FrameRate:
        return FrameRate(self.session["frame_rate"])

    @property
    def flushed(self) -> bool:
        """Whether the user's audio was ended by `flush`, so that the last frames were made of the rest."""
        return any(command["wish"] == "flush" for command in self.session["wishes"])

    def commands(self, frame: int) -> list[tuple[str, Any]]:
        """The commands from this frame on, in order: methods of `AgentCommands`, each with its argument or None."""
        return self._commands.get(frame, [])

    @cached_property
    def _commands(self) -> dict[int, list[tuple[str, Any]]]:
        found: dict[int, list[tuple[str, Any]]] = {}
        for command in self.session["wishes"]:
            if command["wish"] != "flush":
                found.setdefault(command["frame"], []).append((command["wish"], command.get("value")))
        return found

    def user_chunks(self) -> Iterator[np.ndarray]:
        """Each push, (S,) float32 at `sample_rate`."""
        with soundfile.SoundFile(self.folder / USER) as file:
            for samples in self.pushes["samples"].tolist():
                yield file.read(samples, dtype="float32")

    def agent_frames(self) -> Iterator[np.ndarray]:
        """The sound of each frame, (samples,) float32 at `agent_sample_rate`."""
        with soundfile.SoundFile(self.folder / AGENT) as file:
            for _ in range(len(self)):
                yield file.read(self.frame_rate.samples_per_frame(self.agent_sample_rate), dtype="float32")

    def user_audio(self, frame: int) -> np.ndarray:
        """The user's audio in one frame, (S,) float32 at `sample_rate`; shorter at the end."""
        start, end = (round(self.frame_rate.time(t) * self.sample_rate) for t in (frame, frame + 1))
        with soundfile.SoundFile(self.folder / USER) as file:
            file.seek(min(start, file.frames))
            return file.read(end - start, dtype="float32")

    @cached_property
    def cut(self) -> MonoCut:
        """The cut with whole paths, which Lhotse reads from any working directory."""
        cut, folder = deserialize_item(_session(self.folder / CUT)[0]), self.folder.resolve()
        custom = {name: cut.custom[name].with_path_prefix(folder) for name in ("target_audio", *_ARRAYS)}
        recording = cut.recording.with_path_prefix(folder)
        return replace(cut, recording=recording, features=None, custom=custom | {"session": self.session})

    def _check_lengths(self) -> None:
        frames = len(self)
        for name, given, expected in (
            (CODES, len(self.codes), frames),
            (STEPS, len(self.steps), frames),
            (AGENT, _samples(self.folder / AGENT), frames * self.frame_rate.samples_per_frame(self.agent_sample_rate)),
            (USER, _samples(self.folder / USER), int(self.pushes["samples"].sum())),
        ):
            if given != expected:
                raise _broken(self.folder / name, f"it has {given} rows, expected {expected}")
        for place, size in (("row", "rows"), ("entry", "entries")):
            if not ((self.steps[place] >= 0) & (self.steps[place] < self.steps[size])).all():
                raise _broken(self.folder / STEPS, f"a {place} is not one of its {size}")


def _session(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cut as plain data, and the settings of the session."""
    if file.stat().st_size > _MAX_CUT_BYTES:
        raise InputError(f"recording: {file} has over {_MAX_CUT_BYTES >> 20} MB, more than any recorded conversation.")
    try:
        cut = json.loads(file.read_text())
        session = cut["custom"]["session"]
        version = session["format"]
        assert isinstance(cut["id"], str) and isinstance(version, int)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise InputError(
            f"recording: {file} is not the one cut of a recorded session. Record one with record=FOLDER, and give that folder."
        ) from error
    if version > FORMAT:
        raise InputError(f"recording: {file} has format {version}, nemo_duplex here reads up to {FORMAT}. Install a newer one.")
    for needed, given, of in ((_NEEDED, session, "session"), (_NEEDED_OF_MODEL, session.get("model"), "session.model")):
        for key, kind in needed.items():
            if not isinstance(given, dict) or not isinstance(given.get(key), kind):
                raise _broken(file, f"{of} has no {key} of the right kind")
    for command in session["wishes"]:
        if not _is_command(command):
            raise _broken(file, f"a wish reads {command!r:.60}")
    return cut, session


def _is_command(given: Any) -> bool:
    """Whether it is a method of `AgentCommands` with an argument that it takes, or the end of the user's audio."""
    if not isinstance(given, dict) or not isinstance(given.get("frame"), int) or given.get("wish") not in (*COMMANDS, "flush"):
        return False
    name, value = given["wish"], given.get("value")
    if name == "say":
        return isinstance(value, list) and all(isinstance(token, int) for token in value)
    return isinstance(value, bool) if name == "mute" else value is None


def _check_files(file: Path, cut: dict[str, Any]) -> None:
    """Refuses a cut that names other files than those of the format beside it."""
    try:
        custom, fits = cut["custom"], {}
        for name, audio in ((USER, cut["recording"]), (AGENT, custom["target_audio"])):
            fits[name] = [(source["type"], source["source"]) for source in audio["sources"]] == [("file", name)]
        for field, name in _ARRAYS.items():
            array = custom[field]
            fits[name] = (array["storage_type"], array["storage_path"], array["storage_key"]) == ("numpy_files", ".", name)
    except (KeyError, TypeError, IndexError) as error:
        raise _broken(file, f"it lacks {error}") from error
    for name, is_ours in fits.items():
        if not is_ours or (file.parent / name).is_symlink():
            raise InputError(
                f"recording: {file} is not safe to read: it takes another file for {name} than the one beside it. "
                "Take it from a source that you trust."
            )
        existing_file(file.parent / name, "recording")


def _array(path: Path, dtype: np.dtype, *shape: int) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy raises errors of several types for a broken file
        raise _broken(path, str(error)) from error
    if array.dtype != dtype or array.shape[1:] != shape or array.ndim != len(shape) + 1:
        raise _broken(path, f"it holds {array.dtype} of shape {array.shape}")
    return array


def _samples(path: Path) -> int:
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise _broken(path, error.error_string) from error
    return info.frames if info.channels == 1 else 0


def _broken(path: Path, reason: str) -> InputError:
    return InputError(f"recording: {path} is truncated or was changed ({' '.join(reason.split())[:120]}). Copy it again.")
