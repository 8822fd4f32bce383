"""Recordings of people that questions are asked about: found by their names in NeMo manifests, Lhotse cuts and Shar folders.

Nothing of the audio is read here but its header.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nemo_duplex.files.nemo_manifest import AUDIO_KEYS, audio_header, audio_path, manifest_row
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.text.row_files import row_files, rows_of
from nemo_duplex.synthesis.text.sources import too_long

_SHAR = "cuts.*.jsonl.gz"
_SLACK: Seconds = 0.1  # by as much a manifest may round up
_CUTS = "Write the cuts with Lhotse (`CutSet.to_file`), or as Shar."
_UNKNOWN = "Give the id of a recording: its id, its path as the manifest has it, or the name of its file."
# A name that is of one recording alone goes before the shorter ones of others; a name that two have alike finds neither ('').
_INSERT = """
INSERT INTO recordings VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET
  found = CASE WHEN excluded.is_short > is_short OR excluded.found = found THEN found
          WHEN excluded.is_short < is_short THEN excluded.found ELSE '' END,
  is_short = MIN(is_short, excluded.is_short)
"""


def recording_files(paths: Sequence[str | Path], what: str = "text.recordings") -> list[Path]:
    """The manifests that `paths` name, and of Shar folders the cuts.

    Raises:
        InputError: if one is missing; `what` names it.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        files += sorted(path.glob(_SHAR)) if path.is_dir() and any(path.glob(_SHAR)) else row_files([path], what)
    return files


class Recordings:
    """The recordings of manifests, by id; use it in a `with` block.

    Args:
        files: of `recording_files`.
        index: a file to write, removed at the end of the block.
        longest: recordings that last longer are refused.

    Attributes:
        odd: rows of the manifests that name no recording.

    Raises:
        InputError: if a manifest cannot be read, or none of its rows names a recording.
    """

    def __init__(self, files: Sequence[Path], index: Path, longest: Seconds) -> None:
        self._files, self._path, self._longest = files, index, longest
        self.odd = OddRows()

    def __enter__(self) -> Recordings:
        self._index = sqlite3.connect(self._path, isolation_level=None)
        self._index.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -16384;"
            "CREATE TABLE recordings (name BLOB PRIMARY KEY, found TEXT, is_short INTEGER) WITHOUT ROWID; BEGIN;"
        )
        for file in self._files:
            self._read(file)
        return self

    def __exit__(self, *_: object) -> None:
        self._index.close()
        self._path.unlink(missing_ok=True)

    def _read(self, file: Path) -> None:
        odd, count, inside = OddRows(), 0, _in_tar(file)
        for row in rows_of(file, "text.recordings"):
            try:
                if row.odd is not None:
                    raise row.odd
                names, found = names_of(row.value), _recording(row.value, file, inside)
                found["names"] = names
                for place, name in enumerate(names):
                    self._index.execute(_INSERT, (_hash(name), json.dumps(found), place > 0))
                count += 1
            except OddRow as reason:
                odd.add(reason, f"{file}:{row.line}")
        odd.check(f"text.recordings: {file}", count, most=1.0, key="max_odd_rows")
        self.odd.update(odd)

    def find(self, name: str) -> dict[str, Any]:
        """What is known about a recording, as it stands under `audio` of a turn.

        Raises:
            OddRow: if there is none of this name, or several, or its file is missing or not what it should be.
        """
        text = self._text(name)
        if text is None:
            raise OddRow("a recording that is not in text.recordings", f"it is {name!r}", _UNKNOWN)
        if not text:
            raise OddRow("a name that several recordings have", f"it is {name!r}", "Give every recording an id of its own.")
        found: dict[str, Any] = {"tar": None, "size": None, **json.loads(text)}
        found["id"] = min((own for own in found.pop("names") if self._text(own) == text), key=lambda own: (len(own), own))
        if found["tar"] is None:
            found |= _checked(found["path"], found["channel"], found["start"], found["duration"])
        if found["duration"] > self._longest:
            raise too_long(self._longest, f"the recording {name!r} lasts {found['duration']:.1f} s")
        return found

    def _text(self, name: str) -> str | None:
        """What is known of a recording, as JSON; "" if several have the name; None if none has."""
        row = self._index.execute("SELECT found FROM recordings WHERE name = ?", (_hash(name),)).fetchone()
        return None if row is None else row[0]


def imported_audio(audio: Any, role: str, longest: Seconds) -> dict[str, Any]:
    """Checks what a turn that was imported before says about its recording, and returns it.

    Args:
        audio: of the key `audio`.
        role: of the turn.
        longest: recordings that last longer are refused.

    Raises:
        OddRow: if it is nothing that an import wrote.
    """
    kinds: dict[str, Callable[[Any], bool]] = {
        "id": lambda value: isinstance(value, str),
        "path": lambda value: isinstance(value, str),
        "start": _is_time,
        "duration": lambda value: _is_time(value) and value > 0,
        "text": lambda value: isinstance(value, str) and any(map(str.isalnum, value)),
        "words": lambda value: isinstance(value, list) and all(map(_is_word, value)),
        "channel": lambda value: value is None or _is_whole(value),
        "tar": lambda value: value is None or (isinstance(value, list) and len(value) == 2 and all(map(_is_whole, value))),
        "size": lambda value: value is None or _is_whole(value),
    }
    wrong = "it is no object" if not isinstance(audio, dict) else ""
    if not wrong and audio.keys() != kinds.keys():
        wrong = f"missing or unknown keys: {', '.join(map(repr, sorted(audio.keys() ^ kinds.keys())))}"
    wrong = wrong or next((f"{key!r} is {audio[key]!r}" for key, is_right in kinds.items() if not is_right(audio[key])), "")
    wrong = wrong or ("the agent says it" if role != "user" else "")
    if wrong:
        cure = "Import the question with text.recordings=[manifest], or leave the key out."
        raise OddRow("a turn whose 'audio' is no recording that was imported", wrong[:80], cure)
    if audio["duration"] > longest:
        raise too_long(longest, f"the recording {audio['id']!r} lasts {audio['duration']:.1f} s")
    return audio


def names_of(row: Any) -> list[str]:
    """The names of the recording in a row of a NeMo manifest or of Lhotse cuts.

    The first is of it alone: its id (`utt_id`, `id`, the id of a cut), else its path as it is written, with `@offset` where the
    row has an offset. The others are shorter, and several recordings may have them: the file's name without its ending, with
    and without the offset; of a cut, the ids of its recording and its supervision. [] if it has none.

    Examples:
        >>> names_of({"audio_filepath": "a/b.wav", "offset": 2.5})
        ['a/b.wav@2.5', 'b@2.5', 'a/b.wav', 'b']
    """
    if not isinstance(row, dict):
        return []
    if "supervisions" in row or "recording" in row:
        recording, said = row.get("recording"), row.get("supervisions")
        parts = [recording] if isinstance(recording, dict) else []
        parts += [part for part in said[:1] if isinstance(part, dict)] if isinstance(said, list) else []
        return _distinct(row.get("id"), *(part.get("id") for part in parts)) if _distinct(row.get("id")) else []
    if ids := _distinct(row.get("utt_id"), row.get("id")):
        return ids
    path, offset = next((row[key] for key in AUDIO_KEYS if row.get(key)), None), row.get("offset")
    if not isinstance(path, str) or not path:
        return []
    stem = Path(path).stem
    if offset is None or not _is_time(offset):
        return _distinct(path, stem)
    return _distinct(f"{path}@{float(offset)}", f"{stem}@{float(offset)}", f"{stem}@{offset:g}", path, stem)


def _distinct(*names: Any) -> list[str]:
    """Those that are names, as texts, each once."""
    given = (str(name) for name in names if isinstance(name, str | int) and not isinstance(name, bool) and name != "")
    return list(dict.fromkeys(given))


def _hash(name: str) -> bytes:
    return hashlib.md5(name.encode(errors="replace")).digest()


def tar_of(cuts: Path) -> Path:
    """Where the audio of a Shar is, beside its cuts."""
    return cuts.with_name(cuts.name.replace("cuts.", "recording.", 1).removesuffix(".jsonl.gz") + ".tar")


def _in_tar(cuts: Path) -> dict[str, list[int]]:
    """{name: [first byte, bytes]} of the audio beside the cuts of a Shar; {} for other files."""
    tar = tar_of(cuts)
    if not (cuts.name.startswith("cuts.") and tar.is_file()):
        return {}
    try:
        with tarfile.open(tar) as archive:
            return {m.name.rpartition(".")[0]: [m.offset_data, m.size] for m in archive if not m.name.endswith(".json")}
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"text.recordings: {tar} is damaged ({error}). Copy or write it again.") from None


def _recording(row: Any, file: Path, inside: dict[str, list[int]]) -> dict[str, Any]:
    """What is known about the recording in a row of a manifest."""
    if isinstance(row, dict) and row.get("type") == "MonoCut" and isinstance(row.get("recording"), dict):
        return _of_cut(row, file, inside)
    if not (isinstance(row, dict) and any(key in row for key in AUDIO_KEYS)):
        keys = ", ".join(sorted(row)) if isinstance(row, dict) else repr(row)[:60]
        cure = "Give a NeMo manifest (audio_filepath, text) or Lhotse MonoCuts."
        raise OddRow("no recording in the row", f"its keys are {keys!r}", cure)
    said = manifest_row(row, file)
    found = {"path": str(said.path.resolve()), "start": said.offset, "duration": said.duration}
    return found | {"channel": None, "text": _text(said.text), "words": []}


def _of_cut(cut: dict[str, Any], file: Path, inside: dict[str, list[int]]) -> dict[str, Any]:
    if not names_of(cut):
        raise OddRow("a cut without an id", cure=_CUTS)
    said = cut.get("supervisions") or []
    if not isinstance(said, list) or not all(isinstance(part, dict) for part in said):
        raise OddRow("a supervision that is no object", f"cut {cut['id']}", _CUTS)
    text = _text(" ".join(part["text"] for part in said if isinstance(part.get("text"), str)))
    found: dict[str, Any] = {
        "start": _seconds(cut.get("start")),
        "duration": _seconds(cut.get("duration")),
        "text": text,
        "words": [word for part in said for word in _aligned(part, cut["id"])],
    }
    if (place := inside.get(str(cut["id"]))) is not None:
        return found | {"path": str(tar_of(file).resolve()), "tar": place, "channel": None, "start": 0.0}
    sources = cut["recording"].get("sources")
    source = sources[0] if isinstance(sources, list) and len(sources) == 1 else None
    if not isinstance(source, dict) or source.get("type") != "file" or not isinstance(source.get("source"), str):
        raise OddRow("a cut whose audio is in no file", f"cut {cut['id']}", "Write the cuts as Shar, or with files of audio.")
    channel = cut.get("channel", 0)
    if not _is_whole(channel):
        raise OddRow("a cut without a channel", f"cut {cut['id']}: it is {channel!r}"[:60], _CUTS)
    channels = source.get("channels", [channel])
    if not isinstance(channels, list) or channel not in channels:
        raise OddRow("a recording without the channel of its cut", f"cut {cut['id']}: {channel} of {channels!r}"[:80], _CUTS)
    return found | {"path": str(audio_path(source["source"], file).resolve()), "channel": channels.index(channel)}


def _aligned(part: dict[str, Any], cut: Any) -> list[list[Any]]:
    """[word, start, end] of each aligned word of a supervision."""
    alignment = part.get("alignment") or {}
    items = alignment.get("word") or [] if isinstance(alignment, dict) else None
    words = []
    for item in items if isinstance(items, list) else [None]:
        item = list(item.values()) if isinstance(item, dict) else item  # as Lhotse wrote it once
        if not (isinstance(item, list) and len(item) > 2 and isinstance(item[0], str) and all(map(_is_number, item[1:3]))):
            raise OddRow("an alignment that is no list of words and times", f"cut {cut}: {item!r}"[:80], _CUTS)
        words += [[item[0], item[1], item[1] + item[2]]] if item[0].strip() else []
    return words


def _text(text: Any) -> str:
    if not isinstance(text, str) or not any(map(str.isalnum, text)):
        raise OddRow("a recording without its text", f"it is {text!r}"[:60], "Give what is said in it under 'text'.")
    return " ".join(text.split())


def _seconds(value: Any) -> Seconds:
    if _is_time(value):
        return float(value)
    raise OddRow("a time that is no number of seconds", f"it is {value!r}"[:60], "Give offset and duration in seconds.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e6 < value < 1e6


def _is_time(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_word(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and isinstance(value[0], str) and all(map(_is_number, value[1:]))


def _checked(path: str, channel: int | None, start: Seconds, duration: Seconds | None) -> dict[str, Any]:
    """The duration and size of a recording whose file is as it should be."""
    header = audio_header(Path(path))
    if channel is None and header.channels > 1:
        detail = f"{path} has {header.channels}"
        raise OddRow("a recording of several channels", detail, "Keep the speaker's channel, or give Lhotse cuts of one.")
    if channel is not None and channel >= header.channels:
        raise OddRow("a recording without the channel of its cut", f"{path}: channel {channel} of {header.channels}")
    length = header.duration - start if duration is None else duration
    if length <= 0 or start + length > header.duration + _SLACK:
        detail = f"{path} ends after {header.duration:.2f} s, asked for {start:.2f} to {start + length:.2f} s"
        raise OddRow("a recording that is shorter than its manifest says", detail, "Write the manifest again.")
    return {"duration": round(length, 6), "size": header.size}
