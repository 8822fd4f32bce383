"""Shards of a corpus on disk: written completely, marked as done, not written again.

<out>/<set>/shar/     cuts.000000.jsonl.gz  recording.000000.tar  target_audio.000000.tar   and nothing else,
                      because Lhotse takes every file there for a field
<out>/<set>/state/    000000.json: what the shard holds, the size and the hash of each of its files
<out>/<set>/.part-*   a shard being written, by one process of one machine; if it is killed, the next run removes it

Files are on the disk before the marker says so. Several jobs may write the same shard at once: each writes the same bytes, and
the last one stays.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lhotse import MonoCut
from lhotse.shar import SharWriter

from nemo_duplex.files.atomic import flush_to_disk, part_folder, remove_abandoned, removed_on_failure, sha256, whole_file
from nemo_duplex.files.interrupts import held_back
from nemo_duplex.inputs import InputError


@dataclass(frozen=True)
class Shard:
    """A part of a set.

    Args:
        set_name: of the set.
        number: of the shard.
        first, count: its items: `count` of them from number `first` on.
        fingerprint: of the settings that the set is made with; shards of other settings are refused.
    """

    set_name: str
    number: int
    first: int
    count: int
    fingerprint: str

    def marker(self, out: Path) -> Path:
        """The file that says that the shard is done."""
        return out / self.set_name / "state" / f"{self.number:06d}.json"

    def done(self, out: Path, check_content: bool = True) -> dict[str, Any] | None:
        """What the marker says, if the shard is complete; None if it has to be written.

        Args:
            check_content: whether to compare the hashes of the files, or only their sizes.

        Raises:
            InputError: if it was made with other settings.
        """
        marker = _read(self.marker(out))
        if marker is None:
            return None
        if marker["shard"]["fingerprint"] != self.fingerprint:
            raise _other_settings(out / self.set_name)
        folder, sizes = out / self.set_name / "shar", marker.get("bytes", {})
        for name, digest in marker["sha256"].items():
            try:
                size = (folder / name).stat().st_size
            except OSError:
                return None
            if size != sizes.get(name, size) or (check_content and sha256(folder / name) != digest):
                return None
        return marker

    def write(self, out: Path, cuts: Iterable[MonoCut], fields: tuple[str, ...], content: dict[str, Any]) -> dict[str, Any]:
        """Writes the shard and then its marker, which it returns.

        Args:
            out: folder of the corpus.
            cuts: of the shard, made one by one.
            fields: audio fields of the cuts.
            content: goes into the marker; `cuts` may fill it.
        """
        folder, marker_path = out / self.set_name / "shar", self.marker(out)
        part = part_folder(out / self.set_name / f"{self.number:06d}")
        folder.mkdir(exist_ok=True)
        try:
            with removed_on_failure(part, lambda: shutil.rmtree(part, ignore_errors=True)):
                self._write(part, cuts, fields)
                files = sorted(part.iterdir())
                facts = {"bytes": {f.name: f.stat().st_size for f in files}, "sha256": {f.name: sha256(f) for f in files}}
                for file in files:
                    flush_to_disk(file)
                for file in files:
                    os.replace(file, folder / file.name)
            flush_to_disk(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        marker = {"shard": asdict(self), **facts, **content}
        with whole_file(marker_path) as path:
            path.write_text(json.dumps(marker, indent=1))
        return marker

    def _write(self, part: Path, cuts: Iterable[MonoCut], fields: tuple[str, ...]) -> None:
        formats, suffix = {name: "flac" for name in fields}, f".{self.number:06d}"
        with (
            held_back() as let_through,
            SharWriter(str(part), formats, shard_size=None, shard_suffix=suffix, warn_unused_fields=False) as writer,
        ):
            for cut in cuts:
                writer.write(cut)
                let_through()
        if (manifest := part / f"cuts{suffix}.jsonl.gz").exists():  # Lhotse writes none if there are no cuts
            _forget_time(manifest)


def shards_of(set_name: str, num_items: int, shard_size: int, fingerprint: str) -> list[Shard]:
    """The shards of a set of `num_items`; the last one may be smaller."""
    return [
        Shard(set_name, number, first, min(shard_size, num_items - first), fingerprint)
        for number, first in enumerate(range(0, num_items, shard_size))
    ]


def begin(out: Path, set_name: str, fingerprint: str) -> None:
    """Removes what a killed run has left of a set unfinished.

    Args:
        out: folder of the corpus.
        set_name: of the set.
        fingerprint: of the settings that its shards are to be made with.

    Raises:
        InputError: if the set was made with other settings.
    """
    state = out / set_name / "state"
    for folder in (out, out / set_name, state):
        remove_abandoned(folder)
    numbers = _numbers(state)
    for number in (*numbers[:1], *numbers[-1:]):  # each of those that are planned is looked at when its turn comes
        marker = _read(state / f"{number:06d}.json")
        if marker is not None and marker["shard"]["fingerprint"] != fingerprint:
            raise _other_settings(out / set_name)


def require_slices_stay(overwrite: bool, slice: tuple[int, int]) -> None:
    """Refuses `overwrite` for one of several jobs on one folder.

    Raises:
        InputError: if both are given.
    """
    if overwrite and slice != (0, 1):
        raise InputError("overwrite=true would remove what the other slices make: use an empty folder, or leave slice out.")


def are_marked(out: Path, shards: Sequence[Shard]) -> bool:
    """Whether all shards of a set have a marker, as far as the names of files tell."""
    return not shards or {s.number for s in shards} <= set(_numbers(out / shards[0].set_name / "state"))


def markers_of(out: Path, shards: Sequence[Shard]) -> Iterator[dict[str, Any]] | None:
    """The markers of a whole set, read one after the other: all together are large. None if a shard is missing.

    Files of shards beyond the set (of a run with other settings that was killed before their marker) are removed, for Lhotse
    would read them.

    Raises:
        InputError: if one was made with other settings.
    """
    if not shards or not are_marked(out, shards) or any(shard.done(out, check_content=False) is None for shard in shards):
        return None
    for path in (out / shards[0].set_name / "shar").iterdir():
        if (match := re.search(r"\.(\d{6,})\.", path.name)) and int(match[1]) >= len(shards):
            path.unlink()
    return (marker for shard in shards if (marker := _read(shard.marker(out))) is not None)


def clear(out: Path, set_name: str) -> None:
    """Removes a set."""
    for name in ("shar", "state"):  # markers last: while they are there, other settings are refused
        shutil.rmtree(out / set_name / name, ignore_errors=True)
    for part in (out / set_name).glob(".part-*"):
        shutil.rmtree(part, ignore_errors=True)


def _numbers(state: Path) -> list[int]:
    """Of the markers in a folder, sorted."""
    return sorted(int(path.stem) for path in state.glob("*.json") if path.stem.isdigit())


def _read(path: Path) -> dict[str, Any] | None:
    """What a marker says; None if there is none that is whole."""
    try:
        marker = json.loads(path.read_text())
        whole = isinstance(marker["shard"]["fingerprint"], str) and isinstance(marker["sha256"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return marker if whole else None


def _other_settings(folder: Path) -> InputError:
    return InputError(
        f"{folder} was made with other settings than these (or another version): choose another folder, or make it again "
        "with overwrite=true and without slice."
    )


def _forget_time(path: Path) -> None:
    """Zeroes the time of writing in a gzip header (RFC 1952: bytes 4 to 7), so that the same content gives the same bytes."""
    with open(path, "r+b") as file:
        file.seek(4)
        file.write(bytes(4))
