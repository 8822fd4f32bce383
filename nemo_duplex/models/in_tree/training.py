"""A YAML file of NeMo's examples/speechlm2 as the configuration of our own training script."""

from __future__ import annotations

import logging
import math
import shlex
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_duplex.inputs import InputError, existing_file, one_line
from nemo_duplex.models.in_tree.config import in_tree_run
from nemo_duplex.scripts.values import KeyType

_log = logging.getLogger(__name__)

# The keys that replace their exp_manager.
_INSTEAD = "out, checkpoint and wandb of conf/duplex_in_tree.yaml"


def in_tree_training(cfg: DictConfig) -> DictConfig:
    """The configuration of `conf/duplex_in_tree.yaml` in the form of `conf/duplex_paper.yaml`.

    Args:
        cfg: `yaml`, their file; `model`, `data`, `trainer`, `exp_manager`, keys that replace those of the file; `out`, `seed`,
            `threads`, `wandb`, `checkpoint`, as in our own configurations.

    Raises:
        InputError: if the file is missing, is not YAML, or has a key that is not supported.
    """
    path = existing_file(cfg.yaml, "yaml")
    sections = ("model", "data", "trainer", "exp_manager")
    try:
        theirs = OmegaConf.load(path)
        if not isinstance(theirs, DictConfig):
            raise InputError(f"yaml: {path} holds a list, expected the sections {', '.join(sections)}.")
        merged = OmegaConf.merge(theirs, {name: cfg[name] for name in sections})
        _complete(merged, path)
        run = in_tree_run(KeyType().with_home("yaml", OmegaConf.to_container(merged, resolve=True)))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise InputError(f"yaml: {path} is not readable ({one_line(error)}).") from error
    if run.pop("exp_manager"):
        _log.info("exp_manager of %s is replaced by %s.", path.name, _INSTEAD)
    own = {key: cfg[key] for key in ("out", "seed", "threads", "wandb", "checkpoint")}
    return OmegaConf.create({"minutes": None, "cooldown": 0.0, "listen": 0, **run, **own})


def _complete(merged: DictConfig, path: Path) -> None:
    """Refuses a configuration in which keys are left open (`???`), by their names."""
    missing: Any = sorted(OmegaConf.missing_keys(merged))
    if missing:
        cures = dict.fromkeys(_cure(key, merged) for key in missing)
        raise InputError(f"yaml: {path} leaves open {', '.join(missing)}. Add {' '.join(cures)}")


def _cure(key: str, merged: DictConfig) -> str:
    """What to add to the command line for an open key; of a key in a list, the whole list: its elements have no keys."""
    place, in_list, _ = key.partition("[")
    if not in_list:
        return f"{key}=..."
    content = OmegaConf.to_container(OmegaConf.select(merged, place))
    written = yaml.safe_dump(content, default_flow_style=True, sort_keys=False, width=math.inf).strip()
    return shlex.quote(f"{place}={written}".replace("'???'", "..."))
