"""A model as a repository of the Hugging Face Hub, or as a folder like one: its `.nemo`, a card for people, its config to read.

agent/
  agent.nemo      everything, named as the repository: where NeMo's own from_pretrained looks for it
  README.md       what it is and how to use it
  config.yaml     the config inside of agent.nemo, for people
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import yaml
from huggingface_hub import errors

from nemo_duplex.files.atomic import whole_folder
from nemo_duplex.files.nemo_file import read_nemo_config
from nemo_duplex.inputs import InputError, existing_file
from nemo_duplex.models.nemo.model_card import PublishedModel, model_card


def pretrained_file(source: str | Path, revision: str | None = None, token: str | None = None, refresh: bool = False) -> Path:
    """The `.nemo` of a model.

    Args:
        source: a `.nemo` file, a folder with one, or a Hugging Face id (`org/name`), which is downloaded once.
        revision: branch, tag or commit of the repository; None takes its main branch.
        token: of an account that may read it; None takes the one of `hf auth login`.
        refresh: whether to download it again.

    Raises:
        InputError: if there is no such thing, no `.nemo` in it or more than one, or it cannot be reached.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path / _the_nemo([p.name for p in path.iterdir()], path.resolve().name, str(path))
    text = str(source)
    if path.exists() or text.endswith(".nemo") or text.count("/") != 1 or text.startswith((".", "/", "~")):
        return existing_file(path, "model (a .nemo file, a folder, or a Hugging Face id org/name)")
    name = text.partition("/")[2]
    where: dict[str, Any] = {"repo_id": text, "revision": revision, "token": token}
    with _reaching(text):
        try:
            found = huggingface_hub.hf_hub_download(filename=f"{name}.nemo", force_download=refresh, **where)
        except errors.RemoteEntryNotFoundError:  # the repository is there, and calls it otherwise
            files = huggingface_hub.HfApi().list_repo_files(**where)
            found = huggingface_hub.hf_hub_download(filename=_the_nemo(files, name, text), force_download=refresh, **where)
    return Path(found)


def push_to_hub(
    model: PublishedModel,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "A nemo_duplex agent",
) -> str:
    """Uploads a model in one commit, into a repository that is made where there is none; returns the commit's address.

    A README.md that is there already stays: somebody may have written in it what no program knows, such as the licence.

    Args:
        repo_id: `org/name`.
        private: whether a new repository is private.
        token: of an account that may write to it; None takes the one of `hf auth login`.
        revision: a branch, made where there is none; None takes the main one.

    Raises:
        InputError: if the id is none, the account may not, or the hub cannot be reached. Then nothing has changed there.
    """
    if repo_id.count("/") != 1:
        raise InputError(f"{repo_id!r} is no id of a Hugging Face model; expected org/name.")
    api = huggingface_hub.HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        repository = write_repository(model, Path(folder) / "repository", repo_id)
        with _reaching(repo_id):
            api.create_repo(repo_id, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            if api.file_exists(repo_id, "README.md", revision=revision):
                (repository / "README.md").unlink()
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=str(repository), revision=revision, commit_message=commit_message
            )
    return str(commit.commit_url)


def write_repository(model: PublishedModel, folder: str | Path, repo_id: str) -> Path:
    """What `push_to_hub` uploads, as the folder `folder`, whole or not at all; `pretrained_file` takes it as it takes an id.

    Raises:
        InputError: if the folder holds something already.
    """
    name = repo_id.rpartition("/")[2]
    with whole_folder(folder) as part:
        model.save_to(str(part / f"{name}.nemo"))
        config = read_nemo_config(part / f"{name}.nemo", "model")
        (part / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
        (part / "README.md").write_text(model_card(model, repo_id), encoding="utf-8")
    return Path(folder)


# --- what can go wrong ------------------------------------------------------------------------------------------------


def _the_nemo(files: list[str], name: str, where: str) -> str:
    """Of the files in a repository the one `.nemo`: the one that is called as the repository, else the only one."""
    found = sorted(file for file in files if file.endswith(".nemo"))
    if f"{name}.nemo" in found:
        return f"{name}.nemo"
    if not found:
        raise InputError(f"model: there is no .nemo file in {where}. Give one that push_to_hub or save_to wrote.")
    if len(found) > 1:
        raise InputError(f"model: {where} has {len(found)} .nemo files ({', '.join(found[:3])}). Give the path of one.")
    return found[0]


@contextmanager
def _reaching(repo_id: str) -> Iterator[None]:
    """What the hub, the network and the disk raise, in one line each."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise InputError(f"model: {repo_id} on the Hugging Face Hub: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    if isinstance(error, errors.HFValidationError):
        return f"this is no id of a model ({reason}). Expected org/name."
    if isinstance(error, errors.RevisionNotFoundError):
        return "it has no such revision. Give a branch, tag or commit that is there."
    if isinstance(error, errors.LocalTokenNotFoundError) or status in (401, 403) or isinstance(error, errors.GatedRepoError):
        return f"no permission ({reason}). Run `hf auth login` with an account that has it, or give its token."
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such model, or none that this account may see. Check the id, or give a token."
    if isinstance(error, ConnectionError | errors.LocalEntryNotFoundError) or "Connect" in type(error).__name__:
        return f"it cannot be reached, and there is no copy in the cache ({reason}). Check the network, or give a .nemo file."
    return f"{type(error).__name__}: {reason}. Try again, or give a .nemo file."
