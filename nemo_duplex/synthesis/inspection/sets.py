"""The sets of a corpus on disk, shard by shard: of one that `synthesize` wrote, of a single Shar folder, of somebody else's.

corpus/train/shar/cuts.000000.jsonl.gz      the set train
corpus/dev/cuts.000000.jsonl.gz             the set dev
folder/cuts.000000.jsonl.gz                 given as folder: the set folder
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhotse import CutSet, MonoCut
from lhotse.cut import Cut

from nemo_duplex.conversation import SPEAKERS, Speaker
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.inputs import InputError, existing_folder, one_line

#: The other channels of a cut, besides its recording.
AGENT_AUDIO, AGENT_CODES = "target_audio", "target_codes"
_MANIFEST = re.compile(r"cuts\.(\d+)\.jsonl(\.gz)?")
_SHARD = re.compile(r"([^.]+)\.(\d+)\.(tar|tar\.gz|jsonl|jsonl\.gz)")
_DEEPEST = 4  # folders below the one that is given, in which sets are looked for


@dataclass(frozen=True)
class SetShard:
    """One shard of a set: a file for each field, its manifest among them as `cuts`."""

    set_name: str
    number: str
    files: dict[str, Path]

    @property
    def name(self) -> str:
        return f"{self.set_name}, shard {self.number}"

    def manifest(self) -> Iterator[Cut]:
        """The cuts without audio.

        Raises:
            OddRow: if the manifest cannot be read to its end.
        """
        return self._cuts({"cuts": [str(self.files["cuts"])]})

    def cuts(self) -> Iterator[Cut]:
        """The cuts with what all files hold; not decoded before it is asked for.

        Raises:
            OddRow: if a file cannot be read to its end, or has fewer entries than the manifest.
        """
        return self._cuts({field: [str(path)] for field, path in self.files.items()})

    def _cuts(self, fields: dict[str, list[str]]) -> Iterator[Cut]:
        count, last = 0, ""
        try:
            for cut in CutSet.from_shar(fields=fields):
                if not isinstance(cut, MonoCut):
                    raise TypeError(f"a {type(cut).__name__}, expected cuts of one recording (MonoCut)")
                count, last = count + 1, cut.id
                yield cut
            expected = _lines(self.files["cuts"])
        except Exception as error:  # lhotse, tarfile, zlib and json raise different ones for a broken shard
            place = f"after the cut {last}" if last else "from its start"
            raise OddRow("a shard that cannot be read", f"{self.name}, {place}: {one_line(error)}") from error
        if count != expected:  # Lhotse ends a shard with its shortest file
            detail = f"{self.name}: its manifest has {expected} cuts, its shortest file {count}"
            raise OddRow("a shard with fewer entries than cuts", detail)


@dataclass(frozen=True)
class CorpusSet:
    """A set and its shards.

    Args:
        name: `train`, `dev`, ...
        folder: with the shards.
        shards: in order.
        fields: of the set: every field that at least one shard has.
        strangers: files in the folder that belong to no shard. Lhotse takes each for a field.
    """

    name: str
    folder: Path
    shards: tuple[SetShard, ...]
    fields: tuple[str, ...]
    strangers: tuple[str, ...]

    @property
    def is_train(self) -> bool:
        return any(part.startswith("train") for part in self.name.split("/"))

    def missing_files(self) -> list[str]:
        """Fields whose file is missing in a shard, as `dev: target_audio.000001`."""
        return [f"{s.set_name}: {field}.{s.number}" for s in self.shards for field in self.fields if field not in s.files]


def corpus_sets(folder: str | Path, what: str) -> list[CorpusSet]:
    """The sets of a folder, train before the others; `what` names it in the error ("check").

    Raises:
        InputError: if the folder is missing, or holds no Lhotse Shar.
    """
    root = existing_folder(folder, what)
    found = [path for path in _folders(root) if any(_MANIFEST.fullmatch(name.name) for name in path.iterdir())]
    if not found:
        raise InputError(
            f"{what}: {root} holds no Lhotse Shar (cuts.*.jsonl.gz), nor does a folder in it. Give a corpus of "
            "examples/synthesize.py, or a folder that Lhotse's SharWriter wrote."
        )
    sets = [_set(path, _name(path, root)) for path in found]
    return sorted(sets, key=lambda s: (not s.is_train, s.name))


def speakers_of(names: Mapping[str, str] | None) -> dict[str, Speaker]:
    """Which of the two each speaker of the supervisions is.

    Args:
        names: {name: `user` or `agent`}; empty: they are called `user` and `agent`.

    Raises:
        InputError: for another role, or if one of the two has no name.
    """
    roles = dict(names or dict(zip(SPEAKERS, SPEAKERS)))
    if set(roles.values()) != set(SPEAKERS):
        given = ", ".join(f"{name}: {role}" for name, role in roles.items())
        raise InputError(
            f"speakers={{{given}}}: expected who is the user and who the agent, such as {{Caller: user, Bot: agent}}."
        )
    return roles  # type: ignore[return-value]


def summary_of(folder: str | Path) -> dict[str, Any]:
    """What corpus.json of a corpus says; {} where there is none that can be read."""
    try:
        found = json.loads((Path(folder) / "corpus.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _folders(root: Path, depth: int = 0) -> Iterator[Path]:
    yield root
    if depth < _DEEPEST:
        for path in sorted(root.iterdir()):
            if path.is_dir() and not path.name.startswith((".", "part.")) and path.name != "state":
                yield from _folders(path, depth + 1)


def _name(path: Path, root: Path) -> str:
    """`train` for `root/train/shar`; the folder's own name where it was given itself."""
    parts = [part for part in path.relative_to(root).parts if part != "shar"]
    if parts:
        return "/".join(parts)
    whole = path.resolve()
    return whole.parent.name if whole.name == "shar" else whole.name


def _set(folder: Path, name: str) -> CorpusSet:
    shards: dict[str, dict[str, Path]] = {}
    strangers = []
    for path in sorted(folder.iterdir()):
        match = _SHARD.fullmatch(path.name)
        if match and path.is_file():
            shards.setdefault(match[2], {})[match[1]] = path
        elif path.name != "shar":
            strangers.append(path.name)
    fields = sorted({field for files in shards.values() for field in files})
    whole = tuple(SetShard(name, number, files) for number, files in sorted(shards.items()) if "cuts" in files)
    strangers += [path.name for files in shards.values() if "cuts" not in files for path in files.values()]
    return CorpusSet(name, folder, whole, tuple(fields), tuple(strangers))


def _lines(path: Path) -> int:
    opened = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
    with opened as file:
        return sum(1 for line in file if line.strip())
