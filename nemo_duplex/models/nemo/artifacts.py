"""Copies of files that a model needs as long as it exists, such as its tokenizer, kept until the process ends."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from nemo_duplex.files.atomic import sha256


def kept_copy(path: str | Path) -> Path:
    """Copies the file at `path` and returns the copy, which stays until the process ends. The same content has one copy.

    NeMo unpacks the files of a `.nemo` only while the model is built; to save that model again it would need the first file.
    """
    path = Path(path)
    copy = kept_folder() / sha256(path)[:16] / path.name
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return copy


@functools.cache
def kept_folder() -> Path:
    """The folder of the copies, removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="nemo_duplex-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
