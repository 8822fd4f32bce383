"""A YAML written for NeMo's in-tree DuplexS2SModel trains here as it is."""

import importlib.util
import shlex
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from nemo_duplex import DuplexS2SModel
from nemo_duplex.inputs import InputError
from nemo_duplex.models.in_tree.training import in_tree_training
from nemo_duplex.scripts.config import load
from tests.dummies import speech_like
from tests.in_tree import in_tree_model
from tests.training.trainings import write_corpus

ROOT = Path(__file__).parents[3]


def their_yaml(folder: Path, train: str = "???") -> Path:
    """The sections and keys of examples/speechlm2/conf/s2s_duplex.yaml, with parts that take seconds."""
    config = {
        "model": in_tree_model(folder),
        "trainer": {
            "devices": 1,
            "accelerator": "cpu",
            "num_nodes": 1,
            "precision": 32,
            "logger": False,
            "enable_checkpointing": False,
            "use_distributed_sampler": False,
            "max_steps": 3,
            "limit_train_batches": 100,
            "val_check_interval": 2,
            "limit_val_batches": 1,
            "log_every_n_steps": 1,
            "num_sanity_val_steps": 1,
            "gradient_clip_val": 1.0,
            "accumulate_grad_batches": 1,
            "strategy": {
                "_target_": "lightning.pytorch.strategies.DDPStrategy",
                "gradient_as_bucket_view": True,
                "find_unused_parameters": True,
            },
        },
        "data": {
            "frame_length": 0.08,
            "source_sample_rate": 16000,
            "target_sample_rate": 22050,
            "input_roles": ["user", "User"],
            "output_roles": ["agent", "Assistant"],
            "train_ds": {
                "sample_rate": 22050,
                "input_cfg": [{"type": "lhotse_shar", "shar_path": train}],
                "seed": 42,
                "shard_seed": "randomized",
                "num_workers": 0,
                "batch_size": 4,
            },
            "validation_ds": {
                "datasets": {"val_set_0": {"shar_path": train.replace("/train/", "/dev/")}},
                "sample_rate": 22050,
                "batch_size": 1,
                "seed": 42,
                "shard_seed": "randomized",
            },
        },
        "exp_manager": {"exp_dir": None, "explicit_log_dir": "s2s_results/", "name": "speechlm2", "resume_if_exists": True},
    }
    path = folder / "s2s_duplex.yaml"
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    return path


@pytest.fixture
def no_process_group_stays():
    """Their file names a strategy that makes a process group; later tests make their own."""
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_their_file_trains_unchanged(tmp_path, capsys, no_process_group_stays):
    corpus = write_corpus(tmp_path / "corpus")
    path = their_yaml(tmp_path, str(corpus / "train/shar"))
    spec = importlib.util.spec_from_file_location("train_duplex", ROOT / "examples/train_duplex.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main.__wrapped__(load("duplex_in_tree", [f"yaml={path}", f"out={tmp_path / 'run'}", "threads=1"]))
    assert "agent.nemo: 3 steps" in capsys.readouterr().out
    model = DuplexS2SModel.restore_from(tmp_path / "run/agent.nemo", map_location="cpu")
    assert model.layout.turn_marks == "in_place"
    answer = model.offline_inference(speech_like(1)[None], torch.tensor([16000]))
    assert answer["tokens_text"].shape == (1, 13)


def keys(path, *more):
    return load("duplex_in_tree", [f"yaml={path}", "out=run", *more])


def test_their_words_and_keys_that_replace_them(tmp_path):
    path = their_yaml(tmp_path, "corpus/train/shar")
    run = in_tree_training(keys(path, "trainer.max_steps=7", "model.text_loss_weight=2"))
    assert run.trainer.max_steps == 7 and run.model.loss.text == 2 and run.model.loss.speech == 4
    assert run.model.turn_marks == "in_place" and run.model.optim.name == "adamw" and run.model.optim.lr == 3e-4
    assert list(run.data.validation_loaders) == ["val_set_0"] and run.data.dataset.output_roles == ["agent", "Assistant"]
    assert run.minutes is None and run.out == "run"


def test_home_in_their_file_and_in_keys_that_replace_theirs(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    run = in_tree_training(keys(their_yaml(tmp_path, "~/corpora/train/shar")))
    assert run.data.train_loader.input_cfg[0].shar_path == "/home/ann/corpora/train/shar"
    replaced = keys(their_yaml(tmp_path, "x/train/y"), "data.train_ds.input_cfg=[{type: lhotse_shar, shar_path: ~/other}]")
    assert in_tree_training(replaced).data.train_loader.input_cfg[0].shar_path == "/home/ann/other"


def test_what_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(InputError, match="yaml: there is no file nowhere.yaml"):
        in_tree_training(keys("nowhere.yaml"))
    with pytest.raises(InputError, match="modell"):
        in_tree_training(keys(their_yaml(tmp_path, "corpus/train/shar"), "model.pretrained_modell=x"))
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(InputError, match="holds a list"):
        in_tree_training(keys(tmp_path / "list.yaml"))


def test_keys_that_are_left_open_are_set_by_what_the_message_says(tmp_path):
    path = their_yaml(tmp_path)
    with pytest.raises(InputError) as error:
        in_tree_training(keys(path))
    added = (
        "'data.train_ds.input_cfg=[{type: lhotse_shar, shar_path: ...}]' data.validation_ds.datasets.val_set_0.shar_path=..."
    )
    assert str(error.value) == (
        f"yaml: {path} leaves open data.train_ds.input_cfg[0].shar_path, data.validation_ds.datasets.val_set_0.shar_path. "
        f"Add {added}"
    )
    run = in_tree_training(keys(path, *shlex.split(added.replace("...", "corpus"))))
    assert run.data.train_loader.input_cfg == [{"type": "lhotse_shar", "shar_path": "corpus"}]
    assert run.data.validation_loaders.val_set_0.shar_path == "corpus"
