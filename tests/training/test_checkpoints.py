"""Checkpoints without a training: which is the newest, when they are written, which are kept, and what stops a divergence."""

import errno
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.training import checkpoints
from nemo_duplex.training.checkpoints import (
    Checkpoints,
    StepSeeds,
    StopAtDivergence,
    StraightCheckpointIO,
    newest_checkpoint,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_has_the_most_steps(tmp_path):
    assert newest_checkpoint(tmp_path / "none") is None
    for name in ("step=9.ckpt", ".part-step=400.ckpt", "last.ckpt", "step=9.ckpt.old", "xstep=500.ckpt"):
        (tmp_path / name).touch()
    assert newest_checkpoint(tmp_path) == tmp_path / "step=9.ckpt"
    (tmp_path / "step=100.ckpt").mkdir()  # some strategies write folders
    (tmp_path / "step=20.ckpt").touch()
    assert newest_checkpoint(tmp_path) == tmp_path / "step=100.ckpt"


class Trainer:
    """As much of a trainer as `Checkpoints` asks; a checkpoint is a file with the step in it."""

    is_global_zero, global_step, loggers = True, 0, ()

    def __init__(self, folder: Path) -> None:
        self.folder, self.written = folder, []
        self.strategy = SimpleNamespace(barrier=lambda name: None)
        self.callback = Checkpoints(folder, every=2, keep=2)
        self.callback.setup(self, None, "fit")
        self.callback.on_train_start(self, None)

    def save_checkpoint(self, path: Path) -> None:
        self.written.append((self.global_step, names(self.folder)))
        torch.rand(1), np.random.rand(), random.random()
        Path(path).write_text(str(self.global_step))

    def train(self, *steps: int) -> None:
        for step in steps:
            self.global_step = step
            self.callback.on_train_batch_start(self, None, 0)


def test_every_so_many_steps_and_the_newest_are_kept(tmp_path):
    folder = tmp_path / "checkpoints"
    trainer = Trainer(folder)
    trainer.train(0, 1, 2, 2, 3, 4, 5, 6)
    assert trainer.written == [(2, []), (4, ["step=2.ckpt"]), (6, ["step=2.ckpt", "step=4.ckpt"])], "older ones go after"
    assert names(folder) == ["step=4.ckpt", "step=6.ckpt"]
    trainer.train(7)
    trainer.callback.on_train_end(trainer, None)
    trainer.callback.on_train_end(trainer, None)
    assert names(folder) == ["step=6.ckpt", "step=7.ckpt"] and len(trainer.written) == 4
    assert (folder / "step=7.ckpt").read_text() == "7"


def test_the_newest_is_not_the_last_by_name(tmp_path):
    trainer = Trainer(tmp_path)
    trainer.train(8, 10, 100)
    assert names(tmp_path) == ["step=10.ckpt", "step=100.ckpt"]


def test_one_that_goes_on_does_not_write_where_it_starts(tmp_path):
    trainer = Trainer(tmp_path)
    trainer.global_step = 4
    trainer.callback.on_train_start(trainer, None)
    trainer.train(4)
    assert trainer.written == []


def test_what_a_killed_run_left_is_removed(tmp_path):
    (tmp_path / ".part-step=4.ckpt").mkdir()
    (tmp_path / ".part-step=6.ckpt").touch()
    (tmp_path / "step=2.ckpt").touch()
    Trainer(tmp_path)
    assert names(tmp_path) == ["step=2.ckpt"]


def test_writing_draws_no_random_numbers(tmp_path):
    draws = []
    for steps in ((1,), (2,)):
        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        Trainer(tmp_path).train(*steps)
        draws.append((float(torch.rand(1)), np.random.rand(), random.random()))
    assert draws[0] == draws[1] and names(tmp_path) == ["step=2.ckpt"]


@pytest.mark.parametrize("error, free", [(OSError(errno.ENOSPC, "full"), 1 << 30), (RuntimeError("unexpected pos 64"), 1000)])
def test_a_full_disk_is_called_so_and_leaves_the_former_one(tmp_path, monkeypatch, error, free):
    trainer = Trainer(tmp_path)
    trainer.train(2)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))

    def fail(path):
        Path(path).write_text("half")
        raise error

    trainer.save_checkpoint = fail
    with pytest.raises(OSError) as caught:
        trainer.train(4)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path))
    assert names(tmp_path) == ["step=2.ckpt"]


def test_another_error_stays_what_it_is(tmp_path):
    trainer = Trainer(tmp_path)
    trainer.save_checkpoint = lambda path: 1 / 0
    with pytest.raises(ZeroDivisionError):
        trainer.train(2)


def test_the_batch_that_is_about_to_begin_is_not_counted():
    batches = {"ready": 5, "started": 5, "processed": 4, "completed": 4}
    checkpoint = {"loops": {"fit_loop": {"epoch_loop.batch_progress": {"total": batches}}}}
    Checkpoints("nowhere", every=1).on_save_checkpoint(None, None, checkpoint)
    assert batches == {"ready": 4, "started": 4, "processed": 4, "completed": 4}


def test_a_checkpoint_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """The name must not outlive a power cut without the content."""
    synced = []
    monkeypatch.setattr(checkpoints.os, "fsync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").stat().st_size))
    StraightCheckpointIO().save_checkpoint({"a": torch.arange(1000)}, tmp_path / "c.ckpt")
    assert synced == [(tmp_path / "c.ckpt").stat().st_size]
    assert torch.equal(torch.load(tmp_path / "c.ckpt")["a"], torch.arange(1000))


def test_what_a_step_draws_depends_on_seed_rank_and_step():
    def drawn(seed: int, rank: int, step: int) -> tuple[float, float, float]:
        batches = SimpleNamespace(total=SimpleNamespace(processed=step))
        trainer = SimpleNamespace(
            global_rank=rank,
            world_size=2,
            lightning_module=SimpleNamespace(device_mesh=None),
            fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=batches)),
        )
        StepSeeds(seed).on_train_batch_start(trainer, None, None, 0)
        return float(torch.rand(1)), float(np.random.rand()), random.random()

    first = drawn(0, 0, 0)
    assert drawn(0, 0, 0) == first
    others = [drawn(1, 0, 0), drawn(0, 1, 0), drawn(0, 0, 1)]
    for kind in range(3):  # torch, numpy, python
        assert len({first[kind], *(other[kind] for other in others)}) == 4


# --- divergence -------------------------------------------------------------------------------------------------------


def step(*losses: float, gradient: float = 1.0, scaler: bool = False, elsewhere: bool = True, ids=None) -> None:
    """A step 5 of as many batches as there are losses; `elsewhere` is whether all is well on the other rank."""
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(4)]
    for weight, value in zip(weights, (1.0, gradient, 1.0)):  # the last one has no gradient
        weight.grad = torch.tensor([1.0, value])
    plugin = checkpoints.MixedPrecision.__new__(checkpoints.MixedPrecision)
    plugin.scaler = "of float16" if scaler else None  # none for bfloat16
    trainer = SimpleNamespace(
        global_step=4,
        precision_plugin=plugin,
        strategy=SimpleNamespace(reduce_boolean_decision=lambda good, all: good and elsewhere),
    )
    callback = StopAtDivergence()
    for number, loss in enumerate(losses):
        batch = {"ids": ids or [f"cut-{number}"]} if number % 2 else SimpleNamespace(ids=ids or [f"cut-{number}"])
        callback.on_train_batch_start(trainer, None, batch, 0)
        callback.on_before_backward(trainer, None, torch.tensor(loss))
    callback.on_before_optimizer_step(trainer, None, torch.optim.SGD(weights, lr=1.0))


def test_finite_steps_go_on():
    step(1.0, 2.0)
    step(1.0, gradient=float("inf"), scaler=True)


@pytest.mark.parametrize(
    "losses, changes, message",
    [
        (
            (1.0, float("nan")),
            {},
            r"loss of step 5 is not finite; cuts cut-1. The step was not .* Lower model.optim.lr .*, or look at those cuts.$",
        ),
        ((float("inf"), 1.0), {}, "the loss of step 5 is not finite; cuts cut-0. The step"),
        ((1.0, 2.0), dict(gradient=float("nan")), "the gradient of step 5 is not finite; cuts cut-0, cut-1. The"),
        ((1.0,), dict(gradient=float("inf")), "the gradient of step 5"),
        ((float("nan"),), dict(scaler=True), "the loss of step 5"),
        (
            (1.0,),
            dict(elsewhere=False),
            r"of step 5 is not finite on another process. The .* Lower model.optim.lr \(of NeMo's in-tree [^,]*\).$",
        ),
        ((float("nan"),), dict(ids=[f"c{i}" for i in range(10)]), "cuts c0, c1, c2, c3, c4, c5, c6, c7 and 2 more. The"),
    ],
)
def test_a_divergence_names_the_step_and_its_conversations(losses, changes, message):
    with pytest.raises(InputError, match=message):
        step(*losses, **changes)


def test_the_batches_of_a_step_are_forgotten_after_it():
    callback = StopAtDivergence()
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    trainer = SimpleNamespace(
        global_step=0, precision_plugin=None, strategy=SimpleNamespace(reduce_boolean_decision=lambda good, all: good)
    )
    callback.on_before_backward(trainer, None, torch.tensor(float("nan")))
    for raises in (True, False):
        try:
            callback.on_before_optimizer_step(trainer, None, torch.optim.SGD([weight], lr=1.0))
            assert not raises
        except InputError:
            assert raises
        callback.on_before_backward(trainer, None, torch.tensor(1.0))


def fitted(folder: Path, rate: float, scheduled: bool, steps: int, lowest: float = 0.0) -> list[float]:
    """The learning rate of each step of a training that continues from the newest checkpoint of `folder`."""
    import lightning.pytorch as pl
    from nemo.core.optim.lr_scheduler import CosineAnnealing

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.rates = torch.nn.Linear(1, 1), []

        def training_step(self, batch, batch_idx):
            self.rates.append(self.optimizers().param_groups[0]["lr"])
            return self.layer(batch).square().mean()

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=rate)
            if not scheduled:
                return optimizer
            schedule = CosineAnnealing(optimizer, max_steps=8, warmup_steps=0, min_lr=lowest)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    net, quiet = Net(), {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    callbacks = [checkpoints.LearningRates(), Checkpoints(folder, every=2)]
    trainer = pl.Trainer(max_steps=steps, max_epochs=-1, callbacks=callbacks, **quiet)
    trainer.fit(net, torch.utils.data.DataLoader(torch.ones(40, 1)), ckpt_path=newest_checkpoint(folder))
    return net.rates


@pytest.mark.parametrize("scheduled", [False, True])
def test_a_training_that_goes_on_has_the_learning_rate_that_it_is_given(tmp_path, scheduled):
    """ "Lower model.optim.lr": Lightning alone restores the rate of the checkpoint."""
    whole = fitted(tmp_path / "whole", 0.1, scheduled, 8)
    assert len(set(whole)) == (8 if scheduled else 1)
    folder = tmp_path / "parts"
    assert fitted(folder, 0.1, scheduled, 4) == whole[:4]
    assert fitted(folder, 0.1, scheduled, 5) == whole[4:5], "The same rate goes on to the bit."
    assert fitted(folder, 0.001, scheduled, 7) == pytest.approx([rate / 100 for rate in whole[5:7]])
    assert fitted(folder, 0.001, scheduled, 8) == pytest.approx([whole[7] / 100])


def test_the_rate_at_which_a_schedule_ends_is_the_new_one_too(tmp_path):
    """NeMo refuses a rate below it, and the checkpoint has the old one."""
    fitted(tmp_path, 0.1, True, 4, lowest=0.01)
    rates = fitted(tmp_path, 0.001, True, 8, lowest=0.0)
    assert rates[1:] == pytest.approx([rate / 100 for rate in fitted(tmp_path / "whole", 0.1, True, 8)[5:]])
