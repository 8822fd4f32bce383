"""What the `trainer` section and the keys of a training become: Lightning's trainer, its strategy and its callbacks."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from omegaconf import OmegaConf

from nemo_duplex.inputs import InputError
from nemo_duplex.training import trainer as trainer_module
from nemo_duplex.training.checkpoints import Checkpoints, StepSeeds, StopAtDivergence, StraightCheckpointIO
from nemo_duplex.training.time_budget import TimeBudget
from nemo_duplex.training.trainer import ShardedStrategy, duplex_trainer, lightning_trainer, trainer_arguments


@pytest.mark.parametrize(
    "section, alone",
    [
        ({"devices": 1}, True),
        ({"devices": 1, "num_nodes": 1, "strategy": None}, True),
        ({"devices": 1, "num_nodes": 2}, False),
        ({"devices": 2, "strategy": "auto"}, False),
        ({}, False),
        ({"devices": 1, "strategy": "ddp"}, False),
    ],
)
def test_one_process_needs_no_strategy_and_several_share_gradients(section, alone):
    arguments = trainer_arguments({"max_steps": 3, **section})
    strategy = arguments.pop("strategy")
    assert arguments == {"max_steps": 3, **{key: value for key, value in section.items() if key != "strategy"}}
    if alone:
        assert strategy == "auto"
    else:
        assert type(strategy) is DDPStrategy
        keys = {"find_unused_parameters": False, "gradient_as_bucket_view": True, "broadcast_buffers": False}
        assert strategy._ddp_kwargs == keys


def test_fsdp2_shares_layers_between_as_many_gpus_as_asked():
    arguments = trainer_arguments(OmegaConf.create({"strategy": "fsdp2", "tensor_parallel": 2, "devices": 4}))
    strategy = arguments.pop("strategy")
    assert arguments == {"devices": 4} and isinstance(strategy, ShardedStrategy)
    assert (strategy._tensor_parallel_size, strategy._save_distributed_checkpoint) == (2, False)
    theirs = {"_target_": "lightning.pytorch.strategies.ModelParallelStrategy", "data_parallel_size": 2}
    for keys, size in (({}, 1), ({"tensor_parallel_size": 4}, 4)):
        strategy = trainer_arguments({"strategy": theirs | keys, "devices": 4})["strategy"]
        assert isinstance(strategy, ShardedStrategy) and strategy._tensor_parallel_size == size


@pytest.mark.parametrize("gpus, shared, replicas", [(8, 2, 4), (8, 8, 1), (6, 4, None)])
def test_the_other_gpus_have_data_of_their_own(monkeypatch, gpus, shared, replicas):
    monkeypatch.setattr(ModelParallelStrategy, "setup_environment", lambda strategy: None)
    monkeypatch.setattr(ShardedStrategy, "num_processes", gpus // 2)
    strategy = ShardedStrategy(shared)
    strategy.num_nodes = 2
    if replicas is None:
        with pytest.raises(InputError, match="tensor_parallel is 4, which does not divide the 6 processes"):
            strategy.setup_environment()
    else:
        strategy.setup_environment()
        assert strategy._data_parallel_size == replicas


def config(out, **changes):
    keys = {"out": str(out), "seed": 7, "minutes": None, "cooldown": 0.25, "wandb": None}
    checkpoint = {"every_n_steps": 5, "keep": 3}
    trainer = {"accelerator": "cpu", "devices": 1, "max_steps": 30, "precision": "bf16-mixed", "val_check_interval": 4}
    trainer |= {"accumulate_grad_batches": 2, "enable_progress_bar": False, "enable_model_summary": False}
    return OmegaConf.merge({**keys, "checkpoint": checkpoint, "trainer": trainer}, changes)


def of(kind, trainer):
    return [callback for callback in trainer.callbacks if type(callback) is kind]


def test_a_training_counts_steps_and_can_be_interrupted(tmp_path):
    trainer = duplex_trainer(config(tmp_path / "out"))
    assert (trainer.max_steps, trainer.max_epochs, trainer.precision) == (30, -1, "bf16-mixed")
    assert trainer.val_check_interval == 8, "Lightning counts batches, two to a step"
    assert trainer.check_val_every_n_epoch is None and trainer.num_sanity_val_steps == 0
    (seeds,), (checkpoints,) = of(StepSeeds, trainer), of(Checkpoints, trainer)
    assert seeds.seed == 7 and len(of(StopAtDivergence, trainer)) == 1
    (budget,) = of(TimeBudget, trainer)
    assert (budget.minutes, budget.steps, budget.cooldown) == (None, 30, 0.25)
    assert of(TimeBudget, duplex_trainer(config(tmp_path / "other", cooldown=0.0))) == []
    assert (checkpoints.every, checkpoints.keep) == (5, 3)
    assert checkpoints.folder == tmp_path / "out" / "experiment" / "checkpoints"
    assert isinstance(trainer.strategy.checkpoint_io, StraightCheckpointIO)
    assert trainer.ckpt_path is None
    assert {type(logger).__name__ for logger in trainer.loggers} == {"TensorBoardLogger"}


def test_it_goes_on_from_the_newest_checkpoint_within_its_minutes(tmp_path):
    folder = tmp_path / "experiment" / "checkpoints"
    folder.mkdir(parents=True)
    for step in (9, 10):
        (folder / f"step={step}.ckpt").touch()
    mine = pl.Callback()
    trainer = duplex_trainer(config(tmp_path, minutes=1.5), [mine])
    assert str(trainer.ckpt_path) == str(folder / "step=10.ckpt")
    (budget,) = of(TimeBudget, trainer)
    assert (budget.minutes, budget.cooldown, budget.steps) == (1.5, 0.25, 30) and mine in trainer.callbacks


def test_weights_and_biases_is_told_only_when_asked(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(trainer_module, "exp_manager", lambda trainer, cfg: seen.append(cfg))
    duplex_trainer(config(tmp_path / "run"))
    duplex_trainer(config(tmp_path / "run", wandb="duplex"))
    assert "create_wandb_logger" not in seen[0]
    assert seen[1].create_wandb_logger is True
    assert seen[1].wandb_logger_kwargs == {"project": "duplex", "name": "run"}


@pytest.mark.parametrize("key", ["every_n_steps", "keep"])
def test_a_training_without_checkpoints_is_refused(tmp_path, key):
    with pytest.raises(InputError, match=f"checkpoint.{key}=0: expected 1 or more"):
        duplex_trainer(config(tmp_path, checkpoint={key: 0}))


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"accelerator": "foo"}, "invalid accelerator name"),
        ({"accelerator": "cpu", "precision": "foo"}, "Precision 'foo' is invalid"),
        ({"accelerator": "cpu", "devices": 0}, "devices=0"),
        ({"accelerator": "cpu", "max_steps": -7}, "max_steps"),
    ],
)
def test_what_lightning_refuses_is_one_line(keys, said):
    with pytest.raises(InputError, match=rf"^trainer: Lightning refuses it \(.*{said}.*\)\.$"):
        lightning_trainer("trainer", keys)
