"""Every configuration loads as a script loads it, explains each of its keys, and belongs to a script."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import lightning.pytorch as pl
import pytest
import yaml
from nemo.collections.asr.modules import ConformerEncoder
from nemo.collections.common.data.lhotse.dataloader import LhotseDataLoadingConfig
from nemo.core.optim.lr_scheduler import InverseSquareRootAnnealing
from omegaconf import OmegaConf
from peft import LoraConfig
from transformers import LlamaConfig

from nemo_duplex.scripts.config import REQUIRED, ScriptConfig, conf_folder

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(p.stem for p in conf_folder().glob("*.yaml"))


def test_the_checkout_is_where_configurations_come_from():
    assert conf_folder() == ROOT / "conf"
    assert CONFIGS, "there are no configurations"


@pytest.mark.parametrize("name", CONFIGS)
def test_it_loads_once_its_required_keys_are_given(name):
    required = [key for key, value in ScriptConfig(name).leaves() if value == REQUIRED]
    config = ScriptConfig(name, [f"{key}=given" for key in required])
    cfg = config.checked()
    assert OmegaConf.missing_keys(cfg) == set()
    for key in required:
        assert OmegaConf.select(cfg, key) == (["given"] if config.keys[key].type.is_list else "given"), key


@pytest.mark.parametrize("name", CONFIGS)
def test_every_key_is_explained(name):
    config = ScriptConfig(name)
    opened = {key for key, known in config.keys.items() if known.is_open and known.explanation}  # and what is given below it
    silent = [key for key, _ in config.leaves() if not config.explanation(key) and key.rpartition(".")[0] not in opened]
    assert silent == [], f"conf/{name}.yaml: say in a comment what these keys are, and in which unit."


@pytest.mark.parametrize("name", CONFIGS)
def test_every_key_has_a_type(name):
    """Where the default does not tell it, the explanation does; what names a file or a folder is a path, with `~` for home."""
    config = ScriptConfig(name)
    kinds = {
        key: config.keys[key].type.kind for key, value in config.leaves() if not (isinstance(value, str) and "${" in value)
    }
    several = {"data.train_loader.input_cfg", "data.compose", "trainer.devices", "timing.gaps", "timing.response_gaps"}
    assert [key for key, kind in kinds.items() if kind == "any" and key not in several] == []
    named = re.compile(
        r"^(corpus |agent |loadable )?(file|folder|recorded session)\b|\.nemo\b|Hugging Face id or", re.IGNORECASE
    )
    paths = {key for key in kinds if named.search(config.explanation(key)) and config.explanation(key)}
    assert [key for key in sorted(paths) if kinds[key] != "path"] == []
    always = {"out", "model", "data", "user", "record", "replay", "source", "yaml", "init", "encoder", "codec", "data.train"}
    assert [key for key in kinds if key in always and not {"path", "keys"} & {kinds[key]}] == []


@pytest.mark.parametrize("name", CONFIGS)
def test_every_key_is_known_to_the_door(name):
    """ScriptConfig checks overrides against what it reads from the files: it must not miss a key that hydra composes."""
    config = ScriptConfig(name)
    assert {key for key, _ in config.leaves()} <= set(config.keys)


@pytest.mark.parametrize(
    "override",
    "minutes=null threads=null tokenizer_size=null listen=null model.freeze_params=null model.attention_window=null "
    "model.optim.sched=null model.optim_param_groups=null model.codec=null model.llm=null data.train_loader.batch_size=null "
    "trainer.limit_val_batches=null trainer.gradient_clip_val=null trainer.log_every_n_steps=null trainer.strategy=null "
    "trainer.devices=auto trainer.devices=[0,1] trainer.limit_val_batches=1.0 trainer.max_steps=-1 "
    "trainer.precision=32".split(),
)
@pytest.mark.parametrize("name, required", [("duplex_tiny", ["data.train=x"]), ("duplex_paper", ["data.root=x"])])
def test_values_that_lightning_and_the_model_accept(tmp_path, name, required, override):
    """On the command line and in a file of one's own."""
    given = ["out=x", *required]
    given += [f"model.pretrained_{part}=x" for part in ("asr", "audio_codec")]
    key, _, value = override.partition("=")
    found = OmegaConf.select(ScriptConfig(name, [*given, override]).checked(), key)
    assert found == {"model.codec": {}, "model.freeze_params": []}.get(key, {"32": "32"}.get(value, yaml.safe_load(value))) or (
        value == "null" and found == {}
    )
    sections = value
    for part in reversed(key.split(".")):
        sections = f"{{{part}: {sections}}}"
    (tmp_path / "mine.yaml").write_text(f"defaults: [{name}, _self_]\n{sections[1:-1]}\n")
    given = [one for one in given if not one.startswith(f"{key}=")]
    assert OmegaConf.select(ScriptConfig("mine", given, tmp_path).checked(), key) == found


def test_texts_are_imported_as_they_are_spoken():
    """The keys that say how rows are read are the same for both scripts, in their explanations too."""
    imported, spoken = ScriptConfig("import_text"), ScriptConfig("synthesize")
    shared = ["max_odd_rows", "language", *(key for key in spoken.keys if key.partition(".")[0] == "text")]
    assert {key for key in imported.keys if key not in ("out", "source")} == set(shared)
    for key in shared:
        first, second = imported.keys[key], spoken.keys[key]
        assert (first.given, first.explanation, first.type) == (second.given, second.explanation, second.type), key
    assert imported.explanation("source") == spoken.explanation("source").replace("; none: the built-in dialogues", "")


def words_of(folder: str) -> set[str]:
    """Every name and whole string of the sources in a folder."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named = [getattr(node, name, None) for name in ("attr", "arg", "id", "value")]
            found |= {word for word in named if isinstance(word, str)}
    return found


def test_every_key_is_read_by_something():
    """By us, or by the libraries that get whole sections: their names are those of arguments."""
    theirs = {field.name for field in dataclasses.fields(LhotseDataLoadingConfig)}  # data.*_loader
    theirs |= {field.name for field in dataclasses.fields(LoraConfig)}
    for section in (pl.Trainer, ConformerEncoder, InverseSquareRootAnnealing, LlamaConfig):
        theirs |= set(inspect.signature(section.__init__).parameters)
    read = words_of("nemo_duplex") | words_of("examples") | theirs
    interpolated = set(re.findall(r"\$\{([\w.]+)\}", "".join(p.read_text() for p in conf_folder().rglob("*.yaml"))))
    for name in CONFIGS:
        ignored = [key for key, _ in ScriptConfig(name).leaves() if key.split(".")[-1] not in read and key not in interpolated]
        assert ignored == [], f"conf/{name}.yaml: nothing reads these keys."


def test_every_script_has_its_configuration():
    for script in sorted((ROOT / "examples").glob("*.py")):
        named = re.findall(r'^@script\("(\w+)"\)$', script.read_text(), re.MULTILINE)
        assert len(named) == 1, f"{script.name} has no entry point: @script(...) of nemo_duplex.scripts.cli."
        assert named[0] in CONFIGS, f"{script.name} reads conf/{named[0]}.yaml, which does not exist."
