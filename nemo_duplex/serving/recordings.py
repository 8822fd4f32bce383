"""Calls whose callers asked for it, on the disk: one folder a call, handed out as a zip file, deleted by size and age.

folder/<id of the call>/              as the engine's recorder writes it (docs/how-to/record-and-replay.md)
folder/.part-...-<id of the call>/    while the call goes on
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from nemo_duplex.inputs import InputError
from nemo_duplex.serving.admission import RefusedError
from nemo_duplex.serving.config import RecordingRules

_log = logging.getLogger(__name__)

# The id of a call is what `secrets.token_urlsafe(12)` makes; a protocol may put a word and _ before it.
_ID = re.compile(r"(?:\w+_)?([\w-]{16})")
_PIECE = 1 << 18  # bytes that are read at a time


class Recordings:
    """The recordings of one server.

    Args:
        rules: folder, and what is kept.

    Raises:
        InputError: if the folder cannot be written.
    """

    def __init__(self, rules: RecordingRules) -> None:
        self._rules, self._folder = rules, rules.folder
        if self._folder is not None:
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"recordings.folder: {self._folder} cannot be made ({error.strerror}).") from error
            if not os.access(self._folder, os.W_OK):
                raise InputError(f"recordings.folder: {self._folder} cannot be written. Choose another one.")

    def place(self, call_id: str) -> Path | None:
        """The new folder for a call; None if nothing is recorded here."""
        return None if self._folder is None else self._folder / call_id

    def archive(self, name: str) -> Iterator[bytes]:
        """A recording as the bytes of a zip file, piece by piece; WAV files, of any length, are not held in memory.

        Args:
            name: id of the call, or what a protocol made of it.

        Raises:
            RefusedError: if there is none.
        """
        if self._folder is None:
            raise RefusedError("This server records nothing. Serve it with recordings.folder=FOLDER.", 404)
        match = _ID.fullmatch(name)
        folder = self._folder / match[1] if match else None
        if match and folder is not None and folder.is_dir():
            return _zipped(folder)
        if match and next(self._folder.glob(f".part-*-{match[1]}"), None) is not None:
            raise RefusedError("The recording is not complete yet: the call goes on, or has just ended.", 409, retry_after=1)
        raise RefusedError("There is no such recording: the call was not recorded, or it is too old.", 404)

    def tidy(self, now: float) -> None:
        """Deletes recordings that are too old at this Unix time, and the oldest ones where there is too much of them."""
        if self._folder is None:
            return
        found = [(path.stat().st_mtime, path) for path in self._folder.iterdir() if path.is_dir() and _is_ours(path)]
        sizes = {path: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for _, path in found}
        total = sum(sizes.values())
        for changed, path in sorted(found):
            if path.name.startswith(".part-"):
                continue
            if now - changed > self._rules.days * 86400 or total > self._rules.gigabytes * 1e9:
                shutil.rmtree(path, ignore_errors=True)
                total -= sizes[path]
                _log.info("recording deleted", extra={"id": path.name})

    async def answer(self, request: Request) -> Response:
        """Answers GET /api/recordings/{name}.zip."""
        name = request.path_params["name"]
        pieces = self.archive(name)  # here, so that a refusal is one
        headers = {"Content-Disposition": f'attachment; filename="call-{name}.zip"', "Cache-Control": "private, no-store"}
        return StreamingResponse(pieces, media_type="application/zip", headers=headers)


def _is_ours(path: Path) -> bool:
    return re.fullmatch(r"(?:\.part-[0-9a-f]+-)?[\w-]{16}", path.name) is not None


class _Pieces:
    """What a zip file is written to, when it is read at the same time."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing: `take` has all."""

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def _zipped(folder: Path) -> Iterator[bytes]:
    pieces = _Pieces()
    with zipfile.ZipFile(pieces, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for path in sorted(file for file in folder.rglob("*") if file.is_file()):
            info = zipfile.ZipInfo(
                f"{folder.name}/{path.relative_to(folder).as_posix()}", time.localtime(path.stat().st_mtime)[:6]
            )
            with path.open("rb") as file, archive.open(info, "w", force_zip64=True) as entry:
                while data := file.read(_PIECE):
                    entry.write(data)
                    yield pieces.take()
    yield pieces.take()
