"""Reads `.nemo` files without building what they name: a whole file of the right class, or one clear line.

A `.nemo` is a tar of `model_config.yaml` (with the `target` class), `model_weights.ckpt` and artifacts. NeMo finds out late,
and in many words, that one is truncated or of another class, and building some models downloads what they were trained with.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from nemo_duplex.inputs import InputError, existing_file

if TYPE_CHECKING:
    from torch import Tensor

_CONFIG = "model_config.yaml"
_WEIGHTS = "model_weights.ckpt"


def read_nemo_config(path: str | Path, what: str, class_name: str | None = None) -> dict[str, Any]:
    """The config of the `.nemo` at `path`.

    Args:
        what: names the file in errors ("codec", "model").
        class_name: the class of model that it must hold; None takes any.

    Raises:
        InputError: if the file is missing, truncated, no `.nemo`, or holds another class of model.
    """
    return yaml.safe_load(_read(path, what, class_name, _CONFIG))


def read_nemo_file(path: str | Path, what: str, class_name: str | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """As `read_nemo_config`, with the weights on the CPU; nothing that is pickled in the file is run."""
    import torch

    config = read_nemo_config(path, what, class_name)
    try:
        weights = torch.load(io.BytesIO(_read(path, what, class_name, _WEIGHTS)), map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # torch, zipfile and pickle each have their own words for a broken file
        raise _broken(path, what, error) from error
    return config, weights


def find_nemo_file(source: str | Path, what: str) -> Path:
    """`source` itself, if it is a path; for a Hugging Face id (`org/name`), the `.nemo` file of that name, downloaded once.

    Raises:
        InputError: if there is neither.
    """
    text = str(source)
    if Path(source).exists() or text.endswith(".nemo") or len(text.strip("/").split("/")) != 2 or text.startswith((".", "/")):
        return existing_file(source, what)
    from huggingface_hub import hf_hub_download  # only here may a download happen

    name = f"{text.split('/')[1]}.nemo"
    try:
        return Path(hf_hub_download(repo_id=text, filename=name))
    except Exception as error:  # the hub, the network and the disk each raise their own
        raise InputError(
            f"{what}: there is no file {text}, and no {name} from the Hugging Face model {text} ({_reason(error)}). "
            "Give a .nemo file, or a model id that can be reached."
        ) from error


def _read(path: str | Path, what: str, class_name: str | None, member: str) -> bytes:
    """One member of the archive, after its class has been checked."""
    path = existing_file(path, what)
    try:
        with tarfile.open(path, "r:*") as archive:
            files = {Path(m.name).name: m for m in archive.getmembers() if m.isfile()}
            if missing := {_CONFIG, _WEIGHTS} - files.keys():
                raise InputError(f"{what}: {path} is no .nemo file of a model: it lacks {' and '.join(sorted(missing))}.")
            config = yaml.safe_load(_content(archive, files[_CONFIG]))
            target = str(config.get("target", "")) if isinstance(config, dict) else ""
            if class_name is not None and target.rsplit(".")[-1] != class_name:
                raise InputError(f"{what}: {path} is a model of class {target or 'unknown'}, expected a {class_name}.")
            return _content(archive, files[member])
    except InputError:
        raise
    except Exception as error:  # tarfile, zlib and yaml each have their own words for a broken file
        raise _broken(path, what, error) from error


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None, f"{member.name} is a regular file"
    return file.read()


def _broken(path: str | Path, what: str, error: Exception) -> InputError:
    return InputError(f"{what}: {path} is truncated or no .nemo file ({_reason(error)}). Copy or train it again.")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
