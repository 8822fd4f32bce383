"""The test sets of a corpus, and the Impatient set that any of them becomes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from lhotse.cut import Cut

from nemo_duplex.data.datamodule import shar_cuts
from nemo_duplex.inputs import InputError, existing_folder
from nemo_duplex.synthesis.impatient_cuts import write_impatient
from nemo_duplex.synthesis.timing import Rhythm


def read_sets(data: str | Path, names: Sequence[str], limit: int | None = None) -> dict[str, list[Cut]]:
    """The cuts of a corpus' sets, in its order.

    Args:
        data: corpus folder, as `examples/synthesize.py` writes it.
        limit: at most so many cuts of each set.

    Raises:
        InputError: if a folder is missing or holds no shards, a shard is missing or broken, or a set has no cuts.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit}: expected at least 1, or null for all conversations.")
    if not names:
        raise InputError("sets=[]: expected at least one set of the corpus, such as sets=[dev].")
    return {name: _cuts(_shar(data, name), name, limit) for name in names}


def impatient_sets(
    data: str | Path,
    names: Sequence[str],
    folder: Path,
    limit: int | None = None,
    workers: int | None = 1,
    overwrite: bool = False,
) -> dict[str, list[Cut]]:
    """The Impatient sets (paper, section 5.2) of sets of a corpus, as `NAME-impatient`: the silence between user turns is half
    as long, so that users interrupt more often.

    Args:
        folder: in which they are written, each once; a set that is there is read.
        overwrite: whether sets that are there, maybe of another corpus, are written again.
    """
    found = {}
    for name in names:
        source = existing_folder(existing_folder(data, "data") / name, f"set {name!r}")
        write_impatient(source, folder / name, Rhythm(), workers, overwrite=overwrite)
        found[f"{name}-impatient"] = _cuts(folder / name / "impatient" / "shar", f"{name}-impatient", limit)
    return found


def _shar(data: str | Path, name: str) -> Path:
    folder = existing_folder(existing_folder(data, "data") / name / "shar", f"set {name!r}")
    if not list(folder.glob("cuts.*.jsonl.gz")):
        raise InputError(
            f"set {name!r}: {folder} holds no Lhotse Shar (cuts.*.jsonl.gz). Write it with examples/synthesize.py."
        )
    return folder


def _cuts(folder: Path, name: str, limit: int | None) -> list[Cut]:
    cuts = list(itertools.islice(shar_cuts(folder, f"set {name!r}"), limit))
    if not cuts:
        raise InputError(f"set {name!r}: {folder} has no cuts. Write it again with examples/synthesize.py.")
    return cuts
