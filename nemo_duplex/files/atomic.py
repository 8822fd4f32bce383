"""Files and folders that are either whole or not there: a run that ends early leaves nothing half-written."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nemo_duplex.inputs import InputError

# With less space left, a failed write counts as a full disk, whatever the library calls it (torch.save: "unexpected pos",
# libsndfile: "error : system error").
_FULL_BYTES = 1 << 20
_ABANDONED = 3600.0  # seconds without a write
_PART = re.compile(r"\.(part|old)-(?P<here>[^-]+)-(?P<pid>\d+)-.+")


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; it becomes `path` when the block ends without an error, else it is removed.

    It has the same suffix, because writers choose their format by it. An older `path` stays until it is replaced in one
    step. Missing parent folders are made.

    Raises:
        InputError: if `path` is a folder.
        OSError: with errno ENOSPC if the block failed on a full disk.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder, expected the name of a file to write.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part_of(path)
    with removed_on_failure(part, lambda: part.unlink(missing_ok=True)):
        yield part
        assert part.is_file(), f"whole_file: nothing was written to {part}."
        os.replace(part, path)


@contextlib.contextmanager
def whole_folder(path: str | Path, replace: bool = False) -> Iterator[Path]:
    """Yields an empty folder beside `path` to fill; it becomes `path` when the block ends without an error.

    Otherwise it is removed.

    Args:
        path: the new folder. Missing parents are made.
        replace: whether to replace a folder that is not empty; it stays until the new one is complete.

    Raises:
        InputError: if `path` is a file, or is a folder that is not empty and `replace` is False.
        OSError: with errno ENOSPC if the block failed on a full disk.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file, expected the name of a folder to write.")
    if path.is_dir() and any(path.iterdir()) and not replace:
        raise InputError(f"The folder {path} holds something already: choose another one, or remove it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part, old = _part_of(path), _part_of(path, "old")
    with removed_on_failure(part, lambda: shutil.rmtree(part, ignore_errors=True)):
        part.mkdir()
        yield part
        if path.is_dir():
            os.replace(path, old)
        os.replace(part, path)
    shutil.rmtree(old, ignore_errors=True)


def require_writable(folder: str | Path, what: str, files: Sequence[str] = (), folders: Sequence[str] = ()) -> None:
    """Checks that `folder` can be written, or made: before work whose results go there. Leaves nothing behind.

    Args:
        folder: may not exist yet; `what` names it in the error ("out").
        files, folders: names of what will be written into it, and replaced where it is there.

    Raises:
        InputError: if a file is in the way, or the folder, or the one in which it would be made, cannot be written.
    """
    folder = Path(folder).absolute()
    try:
        existing = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
        if not existing.is_dir():
            kind = "a file" if existing.is_file() else "no folder"
            raise InputError(f"{what}: {existing} is {kind}, expected a folder to write. Choose another name.")
        tempfile.TemporaryFile(dir=existing).close()
        for name in folder.relative_to(existing).parts:
            with contextlib.suppress(FileNotFoundError):
                _part_of(existing / name).lstat()  # fails for a name that is too long
    except OSError as error:
        raise InputError(f"{what}: {folder} cannot be written ({error.strerror}). Choose another folder.") from error
    if in_the_way := next((folder / name for name in files if (folder / name).is_dir()), None):
        raise InputError(f"{what}: {in_the_way} is a folder, expected the name of a file to write. Choose another {what}.")
    if in_the_way := next((folder / name for name in folders if (folder / name).is_file()), None):
        raise InputError(f"{what}: {in_the_way} is a file, expected the name of a folder to write. Choose another {what}.")


def require_new_folder(path: str | Path, what: str, replace: bool = False) -> None:
    """Checks that `whole_folder(path, replace)` can make its folder: before the work that fills it.

    Raises:
        InputError: if it holds something and `replace` is False, or as `require_writable`.
    """
    path = Path(path)
    if path.is_dir() and any(path.iterdir()) and not replace:
        raise InputError(f"{what}: the folder {path} holds something already. Choose another one.")
    require_writable(path, what)


def require_space(folder: str | Path, num_bytes: int) -> None:
    """Checks that the disk of `folder`, which may not exist yet, has space for `num_bytes`.

    Raises:
        InputError: with both sizes, if it has too little.
    """
    folder = Path(folder)
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise InputError(
            f"{folder}: this needs about {_size(num_bytes)}, and the disk has {_size(free)} free. "
            "Free some space, or write to another disk."
        )


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def flush_to_disk(path: str | Path) -> None:
    """Returns when a file, or the names in a folder, are on the disk, so that no loss of power takes them back."""
    with contextlib.suppress(PermissionError):  # Windows opens no folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system that cannot
                raise
        finally:
            os.close(descriptor)


def part_folder(path: str | Path) -> Path:
    """Makes an empty folder beside `path`, in which what becomes part of `path` is made; see `remove_abandoned`."""
    part = _part_of(Path(path))
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    return part


def remove_abandoned(folder: str | Path) -> None:
    """Removes the unfinished files and folders in `folder` whose process has ended without doing so (SIGKILL, a lost machine).

    Those of another machine are known by their age: nothing was written to them for an hour.
    """
    for part in Path(folder).glob(".*-*-*-*"):
        if not (match := _PART.fullmatch(part.name)):
            continue
        here, pid = match["here"] == _here(), int(match["pid"])
        if pid != os.getpid() and not _is_alive(pid) if here else _idle_seconds(part) > _ABANDONED:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(part) if part.is_dir() else part.unlink()


def _part_of(path: Path, kind: str = "part") -> Path:
    """A hidden name beside `path`, on the same disk (so that a rename is enough), unique to this process."""
    return path.with_name(f".{kind}-{_here()}-{os.getpid()}-{path.name}")


@functools.cache
def _here() -> str:
    """Names this machine; a container with process numbers of its own is one of its own."""
    try:
        numbers = f"{os.stat('/proc/self/ns/pid').st_ino:x}"
    except OSError:
        numbers = "0"
    return f"{re.sub('[^0-9A-Za-z]', '_', socket.gethostname())[:40]}.{numbers}"


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # where asking would send Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _idle_seconds(part: Path) -> float:
    times = [0.0]
    for path in (part, *part.glob("*")):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return time.time() - max(times)


@contextlib.contextmanager
def removed_on_failure(part: Path, remove: Callable[[], None]) -> Iterator[None]:
    """Calls `remove` when the block fails, by Ctrl-C too. A full disk is an OSError that names the folder."""
    try:
        yield
    except BaseException as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        with contextlib.suppress(OSError):
            full = full or shutil.disk_usage(part.parent).free < _FULL_BYTES
        remove()
        if full and isinstance(error, Exception):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part.parent)) from error
        raise


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"
