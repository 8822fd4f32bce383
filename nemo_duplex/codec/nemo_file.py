"""Reads a `.nemo` file of NeMo's codec class without building what it names: config and weights, checked.

NeMo's own `restore_from` would construct the discriminators and speech models that a codec was trained with, which download,
and it takes weights that do not fit without a word (NeMo 3.0, AudioCodecModel.load_state_dict).
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import torch
import yaml

from nemo_duplex.inputs import InputError, existing_file

_CONFIG = "model_config.yaml"
_WEIGHTS = "model_weights.ckpt"


def read_nemo_file(path: str | Path, class_name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The config and the weights (on the CPU) of the `.nemo` file at `path`, which must hold a model of class `class_name`.

    Raises:
        InputError: if the file is missing, truncated, no `.nemo`, or another class of model.
    """
    path = existing_file(path, "codec")
    try:
        with tarfile.open(path, "r:*") as archive:
            members = {Path(member.name).name: member for member in archive.getmembers() if member.isfile()}
            if missing := {_CONFIG, _WEIGHTS} - members.keys():
                raise InputError(f"codec: {path} is no .nemo file of a model: it lacks {' and '.join(sorted(missing))}.")
            config = yaml.safe_load(archive.extractfile(members[_CONFIG]))
            _require_class(config, class_name, path)
            stored = io.BytesIO(archive.extractfile(members[_WEIGHTS]).read())
            weights = torch.load(stored, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # tarfile, zlib, yaml and torch each have their own words for a broken file
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"codec: {path} is truncated or no .nemo file ({reason}). Copy or train it again.") from error
    return config, weights


def find_nemo_file(source: str | Path) -> Path:
    """`source` itself, if it is a path; for a Hugging Face id (`org/name`), the `.nemo` file of that name, downloaded once.

    Raises:
        InputError: if there is neither.
    """
    text = str(source)
    if Path(source).exists() or text.endswith(".nemo") or len(text.strip("/").split("/")) != 2 or text.startswith((".", "/")):
        return existing_file(source, "codec")
    from huggingface_hub import hf_hub_download  # only here may a download happen

    name = f"{text.split('/')[1]}.nemo"
    try:
        return Path(hf_hub_download(repo_id=text, filename=name))
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"codec: there is no file {text}, and no {name} from the Hugging Face model {text} ({reason}). "
            "Give a .nemo file, or a model id that can be reached."
        ) from error


def _require_class(config: Any, class_name: str, path: Path) -> None:
    target = str(config.get("target", "")) if isinstance(config, dict) else ""
    if target.rsplit(".")[-1] != class_name:
        raise InputError(f"codec: {path} is a model of class {target or 'unknown'}, expected NeMo's {class_name}.")
