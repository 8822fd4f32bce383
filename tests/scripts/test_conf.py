"""Every configuration loads through the door, explains each of its keys, and belongs to a script."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from nemo_duplex.scripts.config import REQUIRED, ScriptConfig, conf_folder

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(p.stem for p in conf_folder().glob("*.yaml"))


def test_the_checkout_is_where_configurations_come_from():
    assert conf_folder() == ROOT / "conf"
    assert CONFIGS, "there are no configurations"


@pytest.mark.parametrize("name", CONFIGS)
def test_it_loads_once_its_required_keys_are_given(name):
    required = [key for key, value in ScriptConfig(name).leaves() if value == REQUIRED]
    cfg = ScriptConfig(name, [f"{key}=given" for key in required]).checked()
    assert OmegaConf.missing_keys(cfg) == set()
    assert all(OmegaConf.select(cfg, key) == "given" for key in required)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_key_is_explained(name):
    config = ScriptConfig(name)
    silent = [key for key, _ in config.leaves() if not config.explanation(key)]
    assert silent == [], f"conf/{name}.yaml: say in a comment what these keys are, and in which unit."


@pytest.mark.parametrize("name", CONFIGS)
def test_every_key_is_known_to_the_door(name):
    """The door checks overrides against what it reads from the files: it must not miss a key that hydra composes."""
    config = ScriptConfig(name)
    assert {key for key, _ in config.leaves()} <= set(config.keys)


def test_every_script_has_its_configuration():
    for script in sorted((ROOT / "examples").glob("*.py")):
        named = re.findall(r'^@script\("(\w+)"\)$', script.read_text(), re.MULTILINE)
        assert len(named) == 1, f"{script.name} has no door: @script(...) of nemo_duplex.scripts.cli."
        assert named[0] in CONFIGS, f"{script.name} reads conf/{named[0]}.yaml, which does not exist."
