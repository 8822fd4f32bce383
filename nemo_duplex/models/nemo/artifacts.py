"""Files that a model needs as long as it lives, such as its tokenizer: kept by the process, whatever becomes of the first."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from nemo_duplex.files.atomic import sha256


def kept_copy(path: str | Path) -> Path:
    """A copy of the file at `path` that stays until the process ends; the same content has one copy.

    NeMo unpacks the files of a `.nemo` for the constructor alone, and to save such a model again it would need the first file.
    """
    path = Path(path)
    copy = kept_folder() / sha256(path)[:16] / path.name
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return copy


@functools.cache
def kept_folder() -> Path:
    """A folder that is removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="nemo_duplex-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
