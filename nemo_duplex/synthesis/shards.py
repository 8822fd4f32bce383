"""Shards of a corpus on disk: written completely, marked as done, not written again.

<out>/<set>/shar/     cuts.000000.jsonl.gz  recording.000000.tar  target_audio.000000.tar   and nothing else,
                      because Lhotse takes every file there for a field
<out>/<set>/state/    000000.json: what the shard holds and the hash of each of its files
<out>/<set>/part.*    a shard being written; if a run is killed, the next one removes it
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lhotse import MonoCut
from lhotse.shar import SharWriter

from nemo_duplex.files.atomic import sha256, whole_file
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
            check_content: whether to compare the hashes of the files, or only to check that they exist.

        Raises:
            InputError: if it was made with other settings.
        """
        path = self.marker(out)
        if not path.is_file():
            return None
        try:
            marker = json.loads(path.read_text())
            made_by, files = marker["shard"]["fingerprint"], marker["sha256"]
        except (ValueError, KeyError, TypeError):
            return None
        if made_by != self.fingerprint:
            raise InputError(
                f"{out / self.set_name} was made with other settings than these (or another version): "
                "choose another folder, or make it again with overwrite=true and without slice."
            )
        folder = out / self.set_name / "shar"
        whole = all((folder / name).is_file() for name in files)
        if check_content:
            whole = whole and all(sha256(folder / name) == digest for name, digest in files.items())
        return marker if whole else None

    def write(self, out: Path, cuts: Iterable[MonoCut], fields: tuple[str, ...], content: dict[str, Any]) -> dict[str, Any]:
        """Writes the shard and then its marker, which it returns.

        Args:
            out: folder of the corpus.
            cuts: of the shard, made one by one.
            fields: audio fields of the cuts.
            content: goes into the marker; `cuts` may fill it.
        """
        part, folder = out / self.set_name / f"part.{self.number:06d}", out / self.set_name / "shar"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        folder.mkdir(exist_ok=True)
        try:
            formats = {name: "flac" for name in fields}
            suffix = f".{self.number:06d}"
            with (
                held_back() as let_through,
                SharWriter(str(part), formats, shard_size=None, shard_suffix=suffix, warn_unused_fields=False) as writer,
            ):
                for cut in cuts:
                    writer.write(cut)
                    let_through()
            if (manifest := part / f"cuts{suffix}.jsonl.gz").exists():  # Lhotse writes none if there are no cuts
                _forget_time(manifest)
            files = sorted(part.iterdir())
            marker = {"shard": asdict(self), "sha256": {f.name: sha256(f) for f in files}, **content}
            for file in files:
                os.replace(file, folder / file.name)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        with whole_file(self.marker(out)) as path:
            path.write_text(json.dumps(marker, indent=1))
        return marker


def shards_of(set_name: str, num_items: int, shard_size: int, fingerprint: str) -> list[Shard]:
    """The shards of a set of `num_items`; the last one may be smaller."""
    return [
        Shard(set_name, number, first, min(shard_size, num_items - first), fingerprint)
        for number, first in enumerate(range(0, num_items, shard_size))
    ]


def clear(out: Path, set_name: str) -> None:
    """Removes a set."""
    for name in ("shar", "state"):
        shutil.rmtree(out / set_name / name, ignore_errors=True)
    for part in (out / set_name).glob("part.*"):
        shutil.rmtree(part, ignore_errors=True)


def _forget_time(path: Path) -> None:
    """Zeroes the time of writing in a gzip header (RFC 1952: bytes 4 to 7), so that the same content gives the same bytes."""
    with open(path, "r+b") as file:
        file.seek(4)
        file.write(bytes(4))
