"""Finds models: in a file, in a folder, or on the Hugging Face Hub. What can go wrong is an error of one line.

Only here does anything that is not a test start a download from the hub; transformers and NeMo start theirs inside `reading`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants, errors

from nemo_duplex.inputs import InputError, existing_file, existing_folder, one_line


def nemo_file(
    source: str | Path, what: str, revision: str | None = None, token: str | None = None, refresh: bool = False
) -> Path:
    """The path of the `.nemo` file of a model.

    Args:
        source: a `.nemo` file, a folder with one, or a Hugging Face id (`org/name`), which is downloaded once.
        what: names it in errors ("model", "codec").
        revision: branch, tag or commit of the repository; None takes its main branch.
        token: of an account that may read it; None takes the one of `hf auth login`.
        refresh: whether to download it again.

    Raises:
        InputError: if there is no such file or model, it has no `.nemo` file or more than one, or the hub cannot be reached.
    """
    path, text = Path(source).expanduser(), str(source)
    if path.is_dir():
        return path / _only_nemo([p.name for p in path.iterdir()], path.resolve().name, text, what)
    if path.exists() or text.endswith(".nemo") or text.count("/") != 1 or text.startswith((".", "/", "~")):
        return existing_file(path, f"{what} (a .nemo file, a folder, or a Hugging Face id org/name)")
    name = text.partition("/")[2]
    where: dict[str, Any] = {"repo_id": text, "revision": revision, "token": token}
    with reading(text, what):
        try:
            found = huggingface_hub.hf_hub_download(filename=f"{name}.nemo", force_download=refresh, **where)
        except errors.RemoteEntryNotFoundError:  # the repository exists, and its file has another name
            filename = _only_nemo(huggingface_hub.HfApi().list_repo_files(**where), name, text, what)
            found = huggingface_hub.hf_hub_download(filename=filename, force_download=refresh, **where)
    return Path(found)


def local_folder(source: str, what: str) -> Path | None:
    """The folder that `source` names, or None where it is an id of the hub; `what` names it in the error ("pretrained_llm").

    Raises:
        InputError: for a path to a folder that does not exist, is a file or is empty.
    """
    path = Path(source).expanduser()
    looks_local = path.is_absolute() or source.startswith((".", "~")) or len(path.parts) > 2
    return existing_folder(path, what) if looks_local or path.exists() else None


@contextmanager
def reading(source: str, what: str) -> Iterator[None]:
    """Turns what is raised while the model `source` (a path or an id) is read, downloaded or uploaded into one line.

    The hub, the network, transformers and NeMo raise dozens of kinds, over several lines, and none names the key of our config.

    Raises:
        InputError: for any of them.
        OSError: with errno ENOSPC, as it is, on a full disk.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        if Path(source).expanduser().exists():
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise InputError(f"{what}: {source} cannot be read ({reason}). Save or download it again.") from error
        raise InputError(f"{what}: {source} on the Hugging Face Hub: {_cause(_hub_error(error))}") from error


def _only_nemo(files: Sequence[str], name: str, where: str, what: str) -> str:
    """The one `.nemo` among the files of a repository: the one with the repository's name, else the only one."""
    found = sorted(file for file in files if file.endswith(".nemo"))
    if f"{name}.nemo" in found:
        return f"{name}.nemo"
    if not found:
        raise InputError(f"{what}: there is no .nemo file in {where}. Give one that push_to_hub or save_to wrote.")
    if len(found) > 1:
        raise InputError(
            f"{what}: {where} has {len(found)} .nemo files ({', '.join(found[:3])}). "
            "Give the path of one, downloaded if need be."
        )
    return found[0]


_HUB_ERRORS = (
    errors.HfHubHTTPError,
    errors.HFValidationError,
    errors.LocalEntryNotFoundError,
    errors.LocalTokenNotFoundError,
    errors.OfflineModeIsEnabled,
)


def _hub_error(error: BaseException) -> BaseException:
    """The hub's own error, where a library (transformers) raised another one because of it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, _HUB_ERRORS):
            return cause
        cause = cause.__cause__
    return error


def _cause(error: BaseException) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = one_line(error)
    if isinstance(error, errors.HFValidationError):
        return f"this is not an id of a model ({reason}). Expected org/name."
    if isinstance(error, errors.RevisionNotFoundError):
        return "it has no such revision. Give a branch, tag or commit that exists."
    if isinstance(error, errors.LocalTokenNotFoundError) or status in (401, 403) or isinstance(error, errors.GatedRepoError):
        return f"no permission ({reason}). Run `hf auth login` with an account that has it, or set HF_TOKEN to its token."
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such model, or none that this account may see. Check the id, or run `hf auth login`."
    if isinstance(error, ConnectionError | errors.LocalEntryNotFoundError) or "Connect" in type(error).__name__:
        offline = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name)]
        advice = f"Unset {' and '.join(offline)}" if constants.HF_HUB_OFFLINE and offline else "Check the network"
        return f"it cannot be reached, and there is no copy in the cache ({reason}). {advice}, or give a path."
    return f"{type(error).__name__}: {reason}. Try again, or give a path."
