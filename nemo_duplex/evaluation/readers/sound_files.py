"""Folders of sound files whose names tell who speaks, in the layouts that people use:

    ID_user.wav + ID_agent.wav      user_ID.wav + agent_ID.wav      (also - and . between the two)
    user/ID.wav + agent/ID.wav      at any depth
    ID/user.wav + ID/agent.wav
    ID.wav                          two channels: the user, then the agent; one channel: the agent alone

The user may be called user or input, the agent agent, output, assistant or model. Any format that libsndfile reads, any rates.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import soundfile

from nemo_duplex.evaluation.readers.found_rows import FoundRow
from nemo_duplex.files.odd_rows import OddRow, OddRows

_USER, _AGENT, _BOTH = "user_audio", "agent_audio", "audio"  # keys of a row
_ROLES = {"user": _USER, "input": _USER, "agent": _AGENT, "output": _AGENT, "assistant": _AGENT, "model": _AGENT}
_NAMES = "|".join(_ROLES)
_AT_END = re.compile(rf"(?P<rest>.+)[-_. ](?P<role>{_NAMES})", re.IGNORECASE)
_AT_START = re.compile(rf"(?P<role>{_NAMES})[-_. ](?P<rest>.+)", re.IGNORECASE)
_OF_REPORT = "conversation.wav"  # beside report.json: what an evaluation wrote
_NOT_BY_NAME = {".raw"}  # libsndfile knows it, and needs to be told its rate
_EXTENSIONS = {f".{name.lower()}" for name in soundfile.available_formats()} | {".aif", ".opus", ".ogg", ".oga"}


@dataclass
class SoundFiles:
    """The sounds in a folder, by conversation.

    Args:
        sounds: id -> key of a row -> file. An id has the folders above the file in it, with `/` between them.
        odd: files that cannot be used, with why.
    """

    sounds: dict[str, dict[str, Path]] = field(default_factory=dict)
    odd: list[tuple[OddRow, Path]] = field(default_factory=list)

    def of(self, set_name: str, conversation: str) -> dict[str, Path]:
        """The files of a conversation: under its id, or its id in the folder of its set, or with `_` for `/`."""
        names = map(_composed, (conversation, f"{set_name}/{conversation}", conversation.replace("/", "_")))
        return next((self.sounds[name] for name in names if name in self.sounds), {})


def is_sound(path: Path) -> bool:
    """Whether a file is a sound, by its name."""
    return path.suffix.lower() in _EXTENSIONS - _NOT_BY_NAME and not path.name.startswith(".")


def sounds_below(folder: Path) -> Iterator[Path]:
    """The sounds in a folder and below, also in folders that are linked there, each folder once; not that of a report."""
    seen = set()
    for at, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(at)) in seen:
            folders.clear()
            continue
        seen.add(real)
        names = [name for name in names if name != _OF_REPORT or "report.json" not in names]
        yield from (path for name in names if is_sound(path := Path(at, name)) and path.is_file())


def _composed(name: str) -> str:
    """A name with its accents composed: some file systems take them apart."""
    return unicodedata.normalize("NFC", name)


def sound_files(folder: Path, ids: Collection[str] = ()) -> SoundFiles:
    """The sounds in a folder and below.

    Args:
        ids: of conversations, where they are known: a file of that name is that conversation, whatever else its name says.
    """
    found, known = SoundFiles(), set(map(_composed, ids))
    paths = sorted(sounds_below(folder))
    roles = {path: _role(Path(_composed(path.relative_to(folder).as_posix()))) for path in paths}
    plain = {path: _composed(path.relative_to(folder).with_suffix("").as_posix()) for path in paths}
    there = set(roles.values())
    for path in paths:
        role, key = roles[path]
        other = _AGENT if role == _USER else _USER
        if plain[path] in known or role is None or ((other, key) not in there and _num_channels(path) == 2):
            role, key = _BOTH if _num_channels(path) == 2 else _AGENT, plain[path]
        sounds = found.sounds.setdefault(key, {})
        if role in sounds or (sounds and _BOTH in (role, *sounds)):
            other_file = sounds.get(role) or next(iter(sounds.values()))
            cure = "Keep one sound of each speaker, or one of both."
            found.odd.append((OddRow("two sounds for one channel", f"beside {other_file.name}", cure), path))
        else:
            sounds[role] = path
    return found


def rows_of_sounds(folder: Path, odd: OddRows) -> Iterator[FoundRow]:
    """A row for every conversation of a folder without JSONL; its user turns are unknown.

    Where all of them lie in folders of their own, the first folder names the set.
    """
    found = sound_files(folder)
    for reason, path in found.odd:
        odd.add(reason, str(path))
    by_set = all("/" in name for name in found.sounds)
    for name, sounds in found.sounds.items():
        set_name, conversation = name.split("/", 1) if by_set else (folder.resolve().name, name)
        row = {"id": conversation} | {key: str(path.resolve()) for key, path in sounds.items()}
        yield FoundRow(set_name, str(next(iter(sounds.values()))), row, folder)


def _role(path: Path) -> tuple[str | None, str]:
    """The key of a row, and the conversation; None where the name does not tell."""
    folders, stem = path.parent.parts, path.stem
    if stem.lower() in _ROLES and folders:
        return _ROLES[stem.lower()], "/".join(folders)
    for index, name in reversed(list(enumerate(folders))):
        if name.lower() in _ROLES:
            return _ROLES[name.lower()], "/".join((*folders[:index], *folders[index + 1 :], stem))
    if match := _AT_END.fullmatch(stem) or _AT_START.fullmatch(stem):
        return _ROLES[match["role"].lower()], "/".join((*folders, match["rest"]))
    return None, "/".join((*folders, stem))


def _num_channels(path: Path) -> int:
    """Of a file; 0 where it cannot be read: whoever opens it says so."""
    try:
        return soundfile.info(path).channels
    except (soundfile.LibsndfileError, OSError, TypeError, ValueError):  # the last one of a name that is no UTF-8
        return 0
