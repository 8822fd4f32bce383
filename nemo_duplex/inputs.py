"""What a user, a file or a peer can get wrong, said in one line."""

from __future__ import annotations

from pathlib import Path


class InputError(ValueError):
    """Wrong input: the message says what was given, what was expected and what to do. Scripts print it as one line."""


def existing_file(path: str | Path, what: str) -> Path:
    """`path`, if it is a file that is not empty; `what` names it in the error ("user audio", "model")."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{what}: {path} is a folder, expected a file.")
    if not path.exists():
        raise InputError(f"{what}: there is no file {path}. Check the path (this folder is {Path.cwd()}).")
    if path.stat().st_size == 0:
        raise InputError(f"{what}: {path} is empty. Write or copy it again.")
    return path


def existing_folder(path: str | Path, what: str) -> Path:
    """`path`, if it is a folder with something in it; `what` names it in the error ("training data")."""
    path = Path(path)
    if path.is_file():
        raise InputError(f"{what}: {path} is a file, expected a folder.")
    if not path.exists():
        raise InputError(f"{what}: there is no folder {path}. Check the path (this folder is {Path.cwd()}).")
    if not any(path.iterdir()):
        raise InputError(f"{what}: the folder {path} is empty.")
    return path
