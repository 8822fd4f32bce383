"""The config of a model that comes in a file: what it may name, checked before anything is built from it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from nemo_duplex.files.nemo_file import config_values, is_part, missing_artifacts
from nemo_duplex.inputs import InputError

# hydra 0.x, which NeMo translates into `_target_`, and transformers' door to code that is no part of it.
_FOREIGN_KEYS = ("cls", "params", "auto_map", "trust_remote_code")


def check_restored_config(config: dict[str, Any], path: str | Path, files: Collection[str], classes: Collection[str]) -> None:
    """Accepts the config of a model that this project saved.

    Args:
        path: where it came from, for errors.
        files: the names of what came with it.
        classes: dotted names, one of which must be its `target`.

    Raises:
        InputError: for another model, for a class, a file, a download or a key that such a model does not have.
    """
    if config.get("target") not in classes:
        names = " or ".join(f"a {name.rpartition('.')[2]} ({name})" for name in classes)
        raise InputError(f"model: {path} is a model of class {config.get('target', 'unknown')}, expected {names}.")
    if "model" in config:  # NeMo would take what stands there instead, which is not what was looked at
        raise _refused(path, "model", "is a config inside of the config")
    for place, key, value in config_values(config):
        if key in _FOREIGN_KEYS:
            raise _refused(path, place, "belongs to no model of this project")
        if key == "_target_" and not is_part(value):
            raise _refused(path, place, f"names {str(value)[:100]!r}, which is no part of a model")
        if key in ("attn_implementation", "_attn_implementation") and "/" in str(value):
            raise _refused(path, place, f"names {value!r}, code on the Hugging Face Hub")
        if key.startswith("pretrained_") and isinstance(value, str):
            raise _refused(path, place, f"names {value!r}: a model that was saved holds its parts itself")
        if isinstance(value, str) and "${" in value:  # what we save is resolved; `${oc.env:...}` reads the environment
            raise _refused(path, place, f"is {value[:100]!r}, which stands for something else")
    tokenizer = config.get("tokenizer")
    if not isinstance(tokenizer, dict) or not str(tokenizer.get("model_path")).startswith("nemo:"):
        raise _refused(path, "tokenizer.model_path", "names no file of the archive (nemo:...)")
    if missing := missing_artifacts(config, files):
        raise _refused(path, missing[0], "names a file that is not in the archive")


def _refused(path: str | Path, place: str, wrong: str) -> InputError:
    return InputError(f"model: {path} is not restored: in its config, {place} {wrong}. Take a file that model.save_to wrote.")
