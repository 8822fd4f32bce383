"""Publishes a model as a repository of the Hugging Face Hub, or as a folder like one.

agent/
  agent.nemo      everything; named as the repository, as NeMo's own from_pretrained expects
  README.md       the card: what the model is and how to use it
  config.yaml     the config inside agent.nemo, to read
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import huggingface_hub
import yaml

from nemo_duplex.files.atomic import whole_folder
from nemo_duplex.files.hub import reading
from nemo_duplex.files.nemo_file import read_nemo_config
from nemo_duplex.inputs import InputError
from nemo_duplex.models.nemo.model_card import PublishedModel, model_card


def push_to_hub(
    model: PublishedModel,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "A nemo_duplex agent",
) -> str:
    """Uploads a model in one commit and returns the commit's address. Creates the repository if it does not exist.

    A README.md of the repository is kept: its author may have added what no program knows, such as the licence.

    Args:
        repo_id: `org/name`.
        private: whether a new repository is private.
        token: of an account that may write to it; None takes the one of `hf auth login`.
        revision: a branch, created if it does not exist; None takes the main branch.

    Raises:
        InputError: if the id is not `org/name`, the account has no permission, or the hub cannot be reached. Then no model was
            uploaded.
    """
    if repo_id.count("/") != 1:
        raise InputError(f"{repo_id!r} is not the id of a Hugging Face model, expected org/name.")
    api = huggingface_hub.HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        repository = write_repository(model, Path(folder) / "repository", repo_id)
        with reading(repo_id, "model"):
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
    """Writes the folder that `push_to_hub` uploads, whole or not at all; `from_pretrained` reads it like an id.

    Raises:
        InputError: if the folder is not empty.
    """
    name = repo_id.rpartition("/")[2]
    with whole_folder(folder) as part:
        model.save_to(str(part / f"{name}.nemo"))
        config = read_nemo_config(part / f"{name}.nemo", "model")
        (part / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
        (part / "README.md").write_text(model_card(model, repo_id), encoding="utf-8")
    return Path(folder)
