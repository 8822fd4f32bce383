"""Where a speaker's recordings are: in a folder, a Lhotse Shar, a file of Lhotse cuts or a NeMo manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from lhotse import CutSet, Recording
from lhotse.cut import Cut
from lhotse.serialization import deserialize_item

from nemo_duplex.conversation import holds
from nemo_duplex.files.json_rows import json_rows
from nemo_duplex.files.nemo_manifest import ManifestRow, NemoManifest
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.inputs import InputError, existing_folder, one_line

# Names of audio. Those of the second line libsndfile cannot read; they are counted as unreadable, not passed over.
_SUFFIXES = frozenset(
    ".wav .wave .rf64 .w64 .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .snd .caf .sph "
    ".m4a .m4b .mp4 .aac .wma .webm .amr .3gp .mov .mkv .wv .ape".split()
)
# Files are read in blocks of so many seconds: a day of audio in one file takes no more memory than its 16-bit samples.
_BLOCK_SECONDS = 600
# Seconds by which a text may stick out of its cut and still be all of what is said there.
_SLACK = 0.1
# Where a Lhotse recording may be; Lhotse would run a command or open an address, too.
_KINDS_OF_SOURCE = ("file", "memory")

#: Samples (C, S) of full scale 1, and their rate.
Block = tuple[np.ndarray, int]


class Recorded(NamedTuple):
    """One recording.

    Attributes:
        name: cut id, path, or row of a manifest.
        text: what is said in it; "" where nobody wrote it down.
        read: reads the blocks of it; it raises an OddRow if it cannot be read.
    """

    name: str
    text: str
    read: Callable[[], Iterator[Block]]


@dataclass
class Source:
    """Recordings of one kind.

    Attributes:
        kind: what an error calls them: "files", "cuts" or "rows".
        recordings: one by one.
        left_out: rows that name no recording; complete when `recordings` is.
    """

    kind: str
    recordings: Iterator[Recorded]
    left_out: OddRows = field(default_factory=OddRows)


def open_source(data: str | Path, what: str = "training data") -> Source:
    """What `data` holds.

    Args:
        data: a corpus folder of `synthesize.py` (its `agent/shar`), a Lhotse Shar folder, a folder of audio files, a file of
            Lhotse cuts or recordings (JSON lines), or a NeMo manifest.
        what: names it in an error.

    Raises:
        InputError: if it is none of these. Iterating raises one for a file that is no JSON and for a broken Shar.
    """
    path = Path(data)
    if path.is_file():
        return _of_file(path, what)
    folder = existing_folder(path, what)
    shar = folder / "agent" / "shar"
    if not shar.is_dir():
        shar = folder
    if list(shar.glob("cuts.*.jsonl*")):
        return Source("cuts", _read_shar(shar, what))
    if files := audio_files(folder):
        return Source("files", map(_of_path, files))
    raise InputError(
        f"{what}: {folder} holds no agent/shar (a corpus of synthesize.py), no Shar (cuts.000000.jsonl.gz) and no audio files "
        "(wav, flac, ogg, mp3). Of a NeMo manifest or a file of Lhotse cuts give the file."
    )


def audio_files(folder: Path) -> list[Path]:
    """The files below a folder whose names are of audio, sorted; hidden ones are not looked at."""

    def is_audio(path: Path) -> bool:
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)  # macOS leaves a ._1.wav beside each 1.wav
        return path.suffix.lower() in _SUFFIXES and not hidden and path.is_file()

    return sorted(filter(is_audio, folder.rglob("*")))


def _of_file(path: Path, what: str) -> Source:
    if path.suffix.lower() in _SUFFIXES:
        raise InputError(f"{what}: {path} is a single recording, expected a folder of them. Give {path.parent}.")
    first = next((row.value for row in json_rows(path, what) if isinstance(row.value, dict)), {})
    left_out = OddRows()
    if "sources" in first or ("type" in first and "id" in first):
        return Source("cuts", _read_cuts(path, what, left_out), left_out)
    return Source("rows", _read_manifest(path, what, left_out), left_out)


def _read_manifest(path: Path, what: str, left_out: OddRows) -> Iterator[Recorded]:
    manifest = NemoManifest(path, what)
    for row in manifest:
        yield Recorded(f"{row.place} ({row.path})", row.text.strip(), partial(_read_row, row))
    left_out.update(manifest.odd)


def _read_row(row: ManifestRow) -> Iterator[Block]:
    assert row.duration is not None, "it is a checked row"
    for start in np.arange(0.0, row.duration, _BLOCK_SECONDS).tolist():
        yield replace(row, offset=row.offset + start, duration=min(_BLOCK_SECONDS, row.duration - start)).samples()


def _read_cuts(path: Path, what: str, left_out: OddRows) -> Iterator[Recorded]:
    for row in json_rows(path, what):
        try:
            if row.odd is not None:
                raise row.odd
            cut = _cut(row.value, path.parent)
        except OddRow as odd:
            left_out.add(odd, f"{path}:{row.line}")
            continue
        yield _of_cut(cut)


def _cut(row: Any, folder: Path) -> Cut:
    """The cut of a JSON row; paths that are relative to the working folder or to `folder` are found."""
    for source in _sources(row):
        if source.get("type") not in _KINDS_OF_SOURCE:
            raise OddRow("a recording that is no file", f"its type is {source.get('type')!r}"[:60], "Write it to a file.")
        place = source.get("source")
        if source["type"] == "file" and isinstance(place, str) and not Path(place).exists() and (folder / place).exists():
            source["source"] = str(folder / place)
    try:
        cut = deserialize_item(row)
    except Exception as error:  # Lhotse raises different ones
        raise OddRow("no Lhotse cut", one_line(error), "Give cuts, as Lhotse's CutSet.to_file writes them.") from error
    if isinstance(cut, Recording):
        return cut.to_cut()
    if not isinstance(cut, Cut):
        raise OddRow("no Lhotse cut", f"it is a {type(cut).__name__}", "Give cuts, as Lhotse's CutSet.to_file writes them.")
    return cut


def _sources(tree: Any) -> Iterator[dict[str, Any]]:
    """Every audio source in a JSON row, at any depth."""
    if isinstance(tree, dict):
        if isinstance(found := tree.get("sources"), list):
            yield from (source for source in found if isinstance(source, dict))
        tree = list(tree.values())
    if isinstance(tree, list):
        for item in tree:
            yield from _sources(item)


def _read_shar(folder: Path, what: str) -> Iterator[Recorded]:
    try:
        for cut in CutSet.from_shar(in_dir=str(folder)):
            yield _of_cut(cut)
    except Exception as error:
        raise InputError(
            f"{what}: {folder} is not a readable Shar folder ({one_line(error)}). Copy or write it again."
        ) from error


def _of_cut(cut: Cut) -> Recorded:
    """A cut with what is said in it: of one speaker, and as far as is known in nothing but this stretch."""
    said = sorted((one for one in cut.supervisions if one.text), key=attrgetter("start"))
    is_whole = all(one.start >= -_SLACK and one.end <= cut.duration + _SLACK for one in said)
    is_of_one = len({one.speaker for one in said}) <= 1
    text = " ".join(one.text.strip() for one in said) if is_whole and is_of_one else ""
    return Recorded(f"cut {cut.id}", text, partial(_read_cut, cut))


def _read_cut(cut: Cut) -> Iterator[Block]:
    if not holds(cut, "recording"):
        raise OddRow("no recording")
    try:
        audio = cut.load_audio()
    except Exception as error:  # lhotse and its backends raise different ones
        raise OddRow("not readable as audio", one_line(error)) from error
    yield audio, cut.sampling_rate


def _of_path(path: Path) -> Recorded:
    """A file with the text that stands beside it, in a file of the same name that ends in `.txt`."""
    try:
        text = path.with_suffix(".txt").read_text(encoding="utf-8-sig", errors="replace").strip()
    except OSError:
        text = ""  # none is needed
    return Recorded(os.fsencode(path).decode(errors="replace"), text, partial(_read_file, path))


def _read_file(path: Path) -> Iterator[Block]:
    cure = "Convert it to wav or flac, or remove it."
    try:
        with path.open("rb") as opened:  # libsndfile cannot open every name itself
            if not opened.seek(0, os.SEEK_END):
                raise OddRow("no samples", "0 bytes", "Remove it.")
            opened.seek(0)
            with soundfile.SoundFile(opened) as file:
                rate = file.samplerate
                for block in file.blocks(_BLOCK_SECONDS * rate, dtype="float32", always_2d=True):
                    yield block.T, rate
    except soundfile.LibsndfileError as error:
        raise OddRow("not readable as audio", error.error_string.rstrip("."), cure) from error
    except (soundfile.SoundFileError, OSError) as error:
        raise OddRow("not readable as audio", one_line(error), cure) from error
