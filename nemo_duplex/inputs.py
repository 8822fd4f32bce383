"""What a user, a file or a peer can get wrong, said in one line."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class InputError(ValueError):
    """Wrong input: the message says what was given, what was expected and what to do. Scripts print it as one line.

    Examples:
        >>> from nemo_duplex.inputs import existing_file
        >>> existing_file("agent.nemo", "model")                            # doctest: +ELLIPSIS
        Traceback (most recent call last):
        nemo_duplex.inputs.InputError: model: there is no file agent.nemo. Check the path (this folder is ...).
    """


class NotInstalled(InputError):
    """A package is missing that something optional needs; the message names both, and the cure."""


def one_line(error: BaseException, limit: int = 200) -> str:
    """The message of a library's error, its runs of white space made single blanks; the error's class if it says nothing."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


def did_you_mean(key: str, known: Iterable[str]) -> str:
    """ " Did you mean 'y'?" with the known key nearest to `key`; "" if none is near.

    A dotted key is nearest to one with the same last part (`every` to `steps.every`).
    """
    known = list(known)
    same_end = [k for k in known if k.rsplit(".")[-1] == key.rsplit(".")[-1]]
    near = same_end[:1] or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def refuse_unknown(given: Iterable[str], known: Iterable[str], section: str) -> None:
    """Checks that each key that was `given` is one of the `known` keys of `section` ("model").

    Raises:
        InputError: for the first that is not, with the key nearest to it, or with all keys if none is near.
    """
    known = list(known)
    for key in given:
        if key not in known:
            advice = did_you_mean(str(key), known) or f" Expected {', '.join(known) or 'no keys'}."
            raise InputError(f"{section}: unknown key {key!r}.{advice}")


def plain(section: Any) -> dict[str, Any]:
    """A section of a configuration (an OmegaConf one or a mapping) as a dict of plain data, its interpolations resolved."""
    from omegaconf import OmegaConf

    config = section if OmegaConf.is_config(section) else OmegaConf.create(dict(section))
    return OmegaConf.to_container(config, resolve=True)


def at_home(path: str, what: str) -> str:
    """`path` with the home folder for a leading `~` or `~user`; `what` names it in the error ("out").

    Raises:
        InputError: if there is no such user.
    """
    found = os.path.expanduser(path)
    if found.startswith("~"):
        user = path.split("/")[0][1:]
        raise InputError(f"{what}={path}: there is no user {user!r}. If a name begins with '~': {what}=./{path}")
    return found


def existing_file(path: str | Path, what: str) -> Path:
    """`path`, if it is a file that is not empty; `what` names it in the error ("user audio", "model")."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{what}: {path} is a folder, expected a file.")
    if not path.exists():
        raise InputError(f"{what}: there is no file {path}. {_advice(path)}")
    if path.stat().st_size == 0:
        raise InputError(f"{what}: {path} is empty. Write or copy it again.")
    return path


def existing_folder(path: str | Path, what: str) -> Path:
    """`path`, if it is a folder with something in it; `what` names it in the error ("training data")."""
    path = Path(path)
    if path.is_file():
        raise InputError(f"{what}: {path} is a file, expected a folder.")
    if not path.exists():
        raise InputError(f"{what}: there is no folder {path}. {_advice(path)}")
    if not any(path.iterdir()):
        raise InputError(f"{what}: the folder {path} is empty. Check the path.")
    return path


def _advice(path: Path) -> str:
    if str(path).startswith("~"):
        return f"Python leaves '~' as it is: give os.path.expanduser({str(path)!r})."
    return f"Check the path (this folder is {Path.cwd()})."


def read_mono(path: str | Path, sample_rate: int, what: str = "audio") -> np.ndarray:
    """The samples (S,) float32 of a mono audio file, resampled to `sample_rate`; `what` names it in the error.

    Raises:
        InputError: for a file that is missing, empty, unreadable or not mono, or whose samples are not finite.
    """
    import numpy as np
    import soundfile
    import soxr

    path = existing_file(path, what)
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"{what}: {path} cannot be read as audio ({error.error_string}). Convert it to wav or flac."
        ) from error
    if samples.shape[1] != 1:
        raise InputError(f"{what}: {path} has {samples.shape[1]} channels, expected one. Keep the speaker's channel.")
    if len(samples) == 0:
        raise InputError(f"{what}: {path} holds no samples.")
    if not np.isfinite(samples).all():
        raise InputError(f"{what}: {path} holds samples that are not finite. Write it again.")
    return samples[:, 0] if rate == sample_rate else soxr.resample(samples[:, 0], rate, sample_rate)
