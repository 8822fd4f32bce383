"""Saves and restores a `.nemo` more strictly than NeMo: no code of the file is run, errors are one line, files are whole.

The config in a file is checked before anything is built from it: what it may name and what it may not.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from nemo.core.classes import ModelPT
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector
from nemo.utils.app_state import AppState
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from nemo_duplex.files.atomic import require_space, whole_file
from nemo_duplex.files.nemo_file import (
    CONFIG,
    WEIGHTS,
    config_values,
    is_part,
    missing_artifacts,
    overriding_config,
    parse_config,
    read_weights,
    unpacked_nemo,
)
from nemo_duplex.inputs import InputError, one_line

# hydra 0.x keys, which NeMo translates into `_target_`, and transformers' keys for code that is not part of it.
_FOREIGN_KEYS = ("cls", "params", "auto_map", "trust_remote_code")


def check_restored_config(config: dict[str, Any], path: str | Path, files: Collection[str], classes: Collection[str]) -> None:
    """Refuses a config that no model of this project could have been saved with.

    Args:
        path: of the `.nemo`, for errors.
        files: names of the other files in it.
        classes: dotted names, one of which must be its `target`.

    Raises:
        InputError: for another model; for a class, a file, a download or a key that such a model does not have.
    """
    if config.get("target") not in classes:
        names = " or ".join(f"a {name.rpartition('.')[2]} ({name})" for name in classes)
        raise InputError(f"model: {path} is a model of class {config.get('target', 'unknown')}, expected {names}.")
    if "model" in config:  # NeMo would use this one instead of the one that is checked
        raise _refused(path, "model", "is a config inside the config")
    for place, key, value in config_values(config):
        if key in _FOREIGN_KEYS:
            raise _refused(path, place, "is not a key of a model of this project")
        if key == "_target_" and not is_part(value):
            raise _refused(path, place, f"names {str(value)[:100]!r}, which is not part of a model")
        if key in ("attn_implementation", "_attn_implementation") and "/" in str(value):
            raise _refused(path, place, f"names {value!r}, code on the Hugging Face Hub")
        if key.startswith("pretrained_") and isinstance(value, str):
            raise _refused(path, place, f"names {value!r}, but a saved model contains its parts")
        if isinstance(value, str) and "${" in value:  # we save resolved values; `${oc.env:...}` would read the environment
            raise _refused(path, place, f"is {value[:100]!r}, expected a plain value")
    tokenizer = config.get("tokenizer")
    if not isinstance(tokenizer, dict) or not str(tokenizer.get("model_path")).startswith("nemo:"):
        raise _refused(path, "tokenizer.model_path", "does not name a file of the archive (nemo:...)")
    if missing := missing_artifacts(config, files):
        raise _refused(path, missing[0], "names a file that is not in the archive")


def _refused(path: str | Path, place: str, wrong: str) -> InputError:
    return InputError(f"model: {path} is not restored: in its config, {place} {wrong}. Take a file that model.save_to wrote.")


class RestoreConnector(SaveRestoreConnector):
    """NeMo's connector, but it checks the whole file before it builds a model, never unpickles code, and writes whole files.

    NeMo still handles the artifacts of a model that is being built.

    Args:
        base: the class whose models, and those of whose subclasses, are restored.
        format_version: the newest one that `base` can read.
    """

    def __init__(self, base: type[ModelPT], format_version: int) -> None:
        super().__init__()
        self._base, self._format_version = base, format_version

    @classmethod
    def instead_of(cls, nemos: SaveRestoreConnector | None, base: type[ModelPT], format_version: int) -> SaveRestoreConnector:
        """A RestoreConnector in place of NeMo's default one; another connector, or one for an unpacked folder, is kept."""
        if nemos is not None and (type(nemos) is not SaveRestoreConnector or nemos.model_extracted_dir is not None):
            return nemos
        own = cls(base, format_version)
        own.pack_nemo_file = nemos is None or nemos.pack_nemo_file
        return own

    def load_config_and_state_dict(
        self,
        calling_cls: type[ModelPT],
        restore_path: str,
        override_config_path: str | DictConfig | None = None,
        map_location: Any = None,
        strict: bool = True,
        return_config: bool = False,
        trainer: Trainer | None = None,
        validate_access_integrity: bool = True,
    ) -> DictConfig | tuple[DictConfig, ModelPT, dict[str, Tensor]]:
        """The config, a model built from it, and the weights to load into it; only the config if `return_config`.

        Raises:
            InputError: for a file that is broken, not safe or of a newer format, from which no model can be built, or whose
                weights do not fit the model: another shape; and, if `strict`, one missing or left over.
        """
        with unpacked_nemo(restore_path, "model", artifacts=True) as (found, folder):
            check_restored_config(found, restore_path, os.listdir(folder), _names(calling_cls, self._base))
            _check_format(found, restore_path, self._format_version)
            config = OmegaConf.create(
                found if override_config_path is None else overriding_config(override_config_path, "model")
            )
            if return_config:
                return config
            weights = read_weights(folder / WEIGHTS, restore_path, "model")
            OmegaConf.set_struct(config, True)
            calling_cls._set_model_restore_state(is_being_restored=True, folder=str(folder))
            try:
                model = calling_cls(cfg=config, trainer=trainer)
            except Exception as error:  # what NeMo, transformers and omegaconf raise for a wrong value
                raise InputError(f"model: {restore_path} cannot be built: {one_line(error)}") from error
        _check_weights(model.state_dict(), weights, restore_path, strict)
        return config, model.to(map_location or ("cuda" if torch.cuda.is_available() else "cpu")), weights

    def save_to(self, model: ModelPT, save_path: str) -> None:
        """Writes the `.nemo`, whole or not at all.

        Raises:
            InputError: if the disk has no space for the weights, which are written twice: to a temporary file, then to the
                archive.
            OSError: if writing fails for another reason.
        """
        num_bytes = sum(weight.numel() * weight.element_size() for weight in model.state_dict().values())
        for folder in (Path(tempfile.gettempdir()), Path(save_path).parent):
            require_space(folder, num_bytes)
        super().save_to(model, save_path)

    @staticmethod
    def _save_state_dict_to_disk(state_dict: Mapping[str, Tensor], filepath: str) -> None:
        try:
            torch.save(state_dict, filepath)
        except RuntimeError as error:  # torch's error for a full disk
            raise OSError(errno.EIO, f"the weights could not be written ({one_line(error)})", filepath) from error

    @staticmethod
    def _make_nemo_file_from_folder(filename: str, source_dir: str) -> None:
        pack_nemo(source_dir, filename)


def pack_nemo(folder: str | Path, path: str | Path) -> None:
    """Writes the files of a folder as the `.nemo` at `path`, whole or not at all."""
    with whole_file(Path(path).absolute()) as part:
        SaveRestoreConnector._make_nemo_file_from_folder(str(part), str(folder))


def check_what_nemo_restores(cls: type[ModelPT], base: type[ModelPT]) -> None:
    """The same checks when NeMo's own `ModelPT.restore_from` restores a model; called by the constructor of `base`.

    NeMo has its own defences (a list of allowed targets, a tar filter, torch's `weights_only`), but the list includes functions
    that write files, and `weights_only` is off where TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set.

    Raises:
        InputError: if the file is not safe.
    """
    state = AppState()
    if not state.is_model_being_restored or not state.nemo_file_folder:
        return
    folder, path = Path(state.nemo_file_folder), state.model_restore_path
    config = parse_config((folder / CONFIG).read_bytes() if (folder / CONFIG).exists() else b"", path, "model")
    names = _names(cls, base)
    if config.get("target") not in names and "model" not in config:
        return  # the file of another model that has one of ours as a part, and checks it itself
    check_restored_config(config, path, os.listdir(folder), names)
    read_weights(folder / WEIGHTS, path, "model")


def _names(cls: type, base: type) -> list[str]:
    """The targets that a file for `cls` may have: itself, or a class that it derives from, down to `base`."""
    return [f"{c.__module__}.{c.__qualname__}" for c in cls.__mro__ if issubclass(c, base)]


def _check_format(config: Mapping[str, Any], path: str | Path, newest: int) -> None:
    version = config.get("format_version", newest)
    if not isinstance(version, int) or version > newest:
        raise InputError(
            f"model: {path} has format {version!r}, nemo_duplex here reads up to {newest}. Install a newer nemo_duplex."
        )


def _check_weights(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: str | Path, strict: bool) -> None:
    problems = {"have another shape": {k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape}}
    if strict:
        problems |= {"are missing": own.keys() - weights.keys(), "are not in the model": weights.keys() - own.keys()}
    if found := [f"{len(keys)} {problem} (such as {min(keys)})" for problem, keys in problems.items() if keys]:
        raise InputError(
            f"model: {path}: config and weights do not fit each other: of {len(own)} weights, {', '.join(found)}. "
            "Take the file as model.save_to wrote it, without another config, or the version of nemo_duplex that saved it."
        )
