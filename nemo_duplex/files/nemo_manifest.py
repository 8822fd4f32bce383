"""NeMo manifests of speech: which stretch of which file each row means, and what is said in it. The only reader and writer.

A manifest has one JSON object a line: `audio_filepath`, `duration`, `text`, optional `offset` (seconds), and any other keys.
What a row means is what it means to NeMo 3.0.0 (`collections/common/parts/preprocessing/manifest.py` and
`collections/common/data/lhotse/nemo_adapters.py`), except that one row which cannot be used does not end the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nemo_duplex.files.atomic import whole_file
from nemo_duplex.files.json_rows import json_rows
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.frames import Seconds

_SLACK: Seconds = 0.1  # by as much a manifest may round up
_LONGEST: Seconds = 1e6  # an offset beyond is no time; and by it a header without a length is known
_TEXTS = ("text", "normalized_text")
#: Keys of the path of a row, the first one before the others, as for NeMo.
AUDIO_KEYS = ("audio_filename", "audio_filepath", "audio_file")
_SHARD = re.compile(r"sharded_manifests/manifest_\d+\.json$|(^|/)tarred_audio_manifest\.json$")
_CHECK_PATHS = "Check the paths of the manifest: they begin at its folder, at this folder or at /."


@dataclass(frozen=True)
class AudioHeader:
    """What the header of an audio file says.

    Examples:
        >>> import soundfile
        >>> soundfile.write("a.wav", np.zeros((8000, 2)), 16000)
        >>> audio_header(Path("a.wav"))
        AudioHeader(channels=2, sample_rate=16000, duration=0.5, size=32044)
    """

    channels: int
    sample_rate: int
    duration: Seconds
    size: int  # bytes of the file


@dataclass(frozen=True)
class ManifestRow:
    """A stretch of a recording, and what is said in it.

    Args:
        path: of the audio file; absolute.
        offset: seconds at which the stretch begins.
        duration: of the stretch; None: to the end of the file, whose length is not known before `checked`.
        text: what is said; "" where nobody wrote it down.
        other: the other keys of the row, as they are.
        place: file and line of the row.

    Examples:
        >>> import soundfile
        >>> soundfile.write("a.wav", np.zeros(16000), 16000)
        >>> row = ManifestRow(Path("a.wav"), offset=0.75).checked()
        >>> row.duration, row.samples()[0].shape
        (0.25, (1, 4000))
    """

    path: Path
    offset: Seconds = 0.0
    duration: Seconds | None = None
    text: str = ""
    other: dict[str, Any] = field(default_factory=dict)
    place: str = ""

    def checked(self) -> ManifestRow:
        """The row with the duration that its file has, where the row has none or a wrong one. Reads the header of the file.

        A duration without an offset is of the whole file; if it is longer than the file, the file is right.

        Raises:
            OddRow: if the file is missing or no audio, or the stretch is not in it.
        """
        whole = audio_header(self.path).duration
        left = whole - self.offset
        duration = left if self.duration is None or self.duration <= 0 else self.duration
        if left <= 0 or (self.offset and duration > left + _SLACK):
            detail = f"{self.path} ends after {whole:.2f} s, asked for {self.offset:.2f} to {self.offset + duration:.2f} s"
            raise OddRow("a recording that is shorter than its manifest says", detail, "Write the manifest again.")
        return replace(self, duration=round(min(duration, left), 6))

    def samples(self) -> tuple[np.ndarray, int]:
        """The samples (C, S) float32 of the stretch, and their rate.

        Raises:
            OddRow: if they cannot be read.
        """
        import soundfile

        rate = audio_header(self.path).sample_rate
        try:
            with soundfile.SoundFile(self.path) as file:
                file.seek(min(round(self.offset * rate), file.frames))
                count = -1 if self.duration is None else round(self.duration * rate)
                return file.read(count, dtype="float32", always_2d=True).T, rate
        except soundfile.LibsndfileError as error:
            raise _unreadable(self.path, error.error_string) from None


class NemoManifest:
    """The usable rows of a manifest, one by one; the others are counted.

    Args:
        path: JSON lines, gzip or not.
        what: names the manifest in an error ("training data").

    Attributes:
        odd: rows that were left out, of the last pass.
        corrected: rows whose duration was not that of their file, of the last pass.
        num_usable: rows that were not left out, of the last pass.

    Raises:
        InputError: when it is iterated: if the file is missing, empty or no text.

    Examples:
        >>> import soundfile
        >>> soundfile.write("a.wav", np.zeros(16000), 16000)
        >>> write_manifest("all.jsonl", [{"audio_filepath": "a.wav", "text": "yes"}, {"audio_filepath": ""}])
        >>> manifest = NemoManifest("all.jsonl")
        >>> [(row.path.name, row.duration, row.text) for row in manifest]
        [('a.wav', 1.0, 'yes')]
        >>> print("\\n".join(manifest.summary()))
        all.jsonl: 1 recordings, 1 left out
          1 x no path of an audio file: all.jsonl:2: its keys are 'audio_filepath'
          1 x a duration that is not the file's, which is taken: all.jsonl:1: none, the file has 1.00 s
    """

    def __init__(self, path: str | Path, what: str = "manifest") -> None:
        self.path, self._what = Path(path), what
        self.odd, self.corrected, self.num_usable = OddRows(), OddRows(), 0

    def __iter__(self) -> Iterator[ManifestRow]:
        self.odd, self.corrected, self.num_usable = OddRows(), OddRows(), 0
        for found in json_rows(self.path, self._what):
            place = f"{self.path}:{found.line}"
            try:
                if found.odd is not None:
                    raise found.odd
                given = manifest_row(found.value, self.path, place)
                row = given.checked()
            except OddRow as odd:
                self.odd.add(odd, place)
                continue
            if given.duration is None or row.duration is None or abs(given.duration - row.duration) > _SLACK:
                said = "none" if given.duration is None else f"{given.duration:.2f} s"
                reason = "a duration that is not the file's, which is taken"
                self.corrected.add(OddRow(reason, f"{said}, the file has {row.duration:.2f} s"), place)
            self.num_usable += 1
            yield row

    def summary(self) -> list[str]:
        """What the last pass read and left out, as lines to print."""
        lines = [f"{self.path}: {self.num_usable} recordings, {len(self.odd)} left out"]
        reasons = [*self.odd.describe().items(), *self.corrected.describe().items()]
        return lines + [f"  {found['count']} x {reason}: {found['first'][0]}" for reason, found in reasons]


def manifest_row(row: Any, manifest: Path, place: str = "") -> ManifestRow:
    """What one row of a manifest means. Only names of files are looked at, no file is opened.

    A duration that is no number of seconds counts as none: the file has it.

    Args:
        row: as JSON has it.
        manifest: its file; a relative path is seen from the folder of it, else from the working folder.
        place: file and line of the row.

    Raises:
        OddRow: if it names no audio file, or its text or offset cannot be.

    Examples:
        >>> row = manifest_row({"audio_filepath": "/a/b.wav", "offset": 2.5, "text": "yes", "by": "ann"}, Path("all.jsonl"))
        >>> row.path.as_posix(), row.offset, row.duration, row.text, row.other
        ('/a/b.wav', 2.5, None, 'yes', {'by': 'ann'})
    """
    given = next((row[key] for key in AUDIO_KEYS if row.get(key)), None) if isinstance(row, dict) else None
    if not isinstance(given, str):
        keys = ", ".join(sorted(row)) if isinstance(row, dict) else repr(row)[:60]
        what = "several audio files in one row" if isinstance(given, list) else "no path of an audio file"
        raise OddRow(what, f"its keys are {keys!r}"[:100], "Give a NeMo manifest: one path as audio_filepath, and text.")
    if row.get("_skipme"):
        raise OddRow("a row that is marked with _skipme", cure="Remove the key to use it.")
    offset, duration = row.get("offset"), row.get("duration")
    if offset is not None and not _is_time(offset):
        raise OddRow("a time that is no number of seconds", f"offset is {offset!r}"[:60], "Give offset in seconds.")
    known = {*AUDIO_KEYS, *_TEXTS, "text_filepath", "offset", "duration"}
    return ManifestRow(
        audio_path(given, manifest),
        float(offset or 0.0),
        float(duration) if _is_time(duration) and duration > 0 else None,
        _text(row, manifest),
        {key: value for key, value in row.items() if key not in known},
        place,
    )


@contextlib.contextmanager
def manifest_writer(path: str | Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yields a function that adds a row to a manifest, which is whole when the block ends, and not there if it fails.

    A `Path` in `audio_filepath` is written as seen from the folder of the manifest.

    Raises:
        ValueError: for a number that JSON does not have.
    """
    folder = Path(path).absolute().parent
    with whole_file(path) as unfinished, open(unfinished, "w", encoding="utf-8", newline="\n") as file:

        def add(row: Mapping[str, Any]) -> None:
            audio = row["audio_filepath"]
            seen = Path(os.path.relpath(audio, folder)).as_posix() if isinstance(audio, Path) else audio
            file.write(json.dumps({**row, "audio_filepath": seen}, ensure_ascii=False, allow_nan=False) + "\n")

        yield add


def write_manifest(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a manifest, whole or not at all; see `manifest_writer`."""
    with manifest_writer(path) as add:
        for row in rows:
            add(row)


def audio_header(path: Path) -> AudioHeader:
    """What the header of an audio file says.

    Raises:
        OddRow: if it is missing, cannot be read as audio, or has no samples.
    """
    try:
        with open(path, "rb") as file:  # for the system's reason, which libsndfile does not tell
            about = os.fstat(file.fileno())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise OddRow("a recording whose file is missing", f"{path}: {reason}", _CHECK_PATHS) from None
    return _header(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=256)
def _header(path: Path, size: int, written: int) -> AudioHeader:
    """The header of a file with this size, written at this time."""
    import soundfile

    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise _unreadable(path, error.error_string) from None
    if not 0 < info.frames < _LONGEST * info.samplerate:
        raise OddRow("a recording without samples, or of unknown length", f"{path}", "Write it again, or remove it.")
    return AudioHeader(info.channels, info.samplerate, info.frames / info.samplerate, size)


def _unreadable(path: Path, why: str) -> OddRow:
    return OddRow("a recording that cannot be read as audio", f"{path}: {why.rstrip('.')}", "Convert it to wav or flac.")


def audio_path(given: str, manifest: Path) -> Path:
    """An absolute path: in the folder of the manifest, unless a file is only there as it is given.

    Raises:
        OddRow: if it can be none, is on another machine, or in the tar of a tarred data set.
    """
    if "://" in given:
        raise OddRow("a recording on another machine", given[:80], "Copy it to this one, and write its path.")
    try:
        beside, as_given = manifest.parent / given, Path(os.path.expanduser(given))
        is_beside = beside.is_file()
        if not is_beside and "/" not in given and _SHARD.search(manifest.as_posix()):
            cure = f"Unpack the tars into its folder: for t in audio_*.tar; do tar -xf $t -C {manifest.parent}; done"
            raise OddRow("a recording inside a tar of a tarred data set", given[:80], cure)
        return (as_given if not is_beside and as_given.is_file() else beside).absolute()
    except (OSError, ValueError) as error:  # too long, or with a zero byte
        raise OddRow("a recording whose file is missing", f"{given!r}: {error}"[:80], _CHECK_PATHS) from None


def _text(row: Mapping[str, Any], manifest: Path) -> str:
    if row.get("text") is None and isinstance(file := row.get("text_filepath"), str):
        try:
            return audio_path(file, manifest).read_text(encoding="utf-8-sig").strip()
        except (OSError, ValueError) as error:
            raise OddRow("a text whose file cannot be read", f"{file!r}: {error}"[:80], _CHECK_PATHS) from None
    text = next((row[key] for key in _TEXTS if row.get(key) is not None), "")
    if not isinstance(text, str):
        raise OddRow("a text that is no string", f"it is {text!r}"[:60], "Give what is said under 'text', in quotes.")
    return text


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LONGEST
