"""How a small part is trained, on one of two weights: rates, the end, an interruption, and the folder that it belongs to."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from nemo_duplex.inputs import InputError
from nemo_duplex.training import small_part
from nemo_duplex.training.small_part import PartTraining, claim, finish, fit
from nemo_duplex.training.time_budget import TimeBudget

STEPS = 6


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch):
    monkeypatch.setattr(small_part, "STEPS_PER_EPOCH", 2)


class Budget(TimeBudget):
    """Counts steps for minutes."""

    spent = 0.0

    @property
    def share(self) -> float:
        return self.spent

    def state_dict(self) -> dict[str, float]:
        return {"spent": self.spent}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.spent = state["spent"]


class Line(PartTraining):
    """A matrix for Muon and a vector for AdamW; notes what it draws and its learning rates."""

    def __init__(self, act=lambda step: None, **config) -> None:
        config = {"seed": 0, "steps": None, "rate": 0.1, "matrix_rate": 0.5, "warmup_steps": 0, **config}
        super().__init__(SimpleNamespace(**config), Budget(minutes=1.0))
        self.act, self.drawn, self.rates = act, [], []
        self.matrix = torch.nn.Parameter(torch.eye(2))
        self.vector = torch.nn.Parameter(torch.ones(2))

    def configure_optimizers(self):
        return [torch.optim.Muon([self.matrix], lr=9.0), torch.optim.AdamW([self.vector], lr=9.0)]

    def train_dataloader(self):
        return DataLoader([torch.ones(2)] * 100, batch_size=None)

    def training_step(self, batch, index):
        noise = torch.rand(2)
        self.drawn.append(noise[0].item())
        self.act(self.step)
        self.descend(((batch + noise) @ self.matrix * self.vector).square().sum())
        self.rates.append(tuple(group["lr"] for optimizer in self.trainer.optimizers for group in optimizer.param_groups))
        self.budget.spent = self.step / STEPS


def trained(out: Path, line: Line) -> Line:
    fit(line, "line", out, "cpu")
    return line


class OneOptimizer(Line):
    """No matrices: Lightning gives the only optimizer without a list."""

    def configure_optimizers(self):
        return [torch.optim.AdamW([self.matrix, self.vector], lr=9.0)]


def cosine(share: float) -> float:
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share))


def test_rates_rise_and_fall_each_from_its_own_peak(tmp_path):
    factors = [cosine(step / STEPS) * min(1.0, (step + 1) / 4) for step in range(STEPS)]
    line = trained(tmp_path, Line(warmup_steps=4))
    assert line.rates == [pytest.approx((0.5 * factor, 0.1 * factor)) for factor in factors]
    alone = trained(tmp_path / "alone", OneOptimizer(warmup_steps=4))
    assert alone.rates == [pytest.approx((0.1 * factor,)) for factor in factors]
    assert [rates[0] for rates in trained(tmp_path / "2", Line()).rates][:2] == pytest.approx([0.5, 0.5 * cosine(1 / STEPS)])


def test_a_group_may_have_a_share_of_the_rate(tmp_path):
    class Shared(Line):
        def configure_optimizers(self):
            groups = [{"params": [self.vector]}, {"params": [self.matrix], "share_of_rate": 0.25}]
            return [torch.optim.AdamW(groups)]

    line = Shared()
    fit(line, "line", tmp_path, "cpu", "32-true")
    assert len(line.rates) == STEPS and all(small == pytest.approx(rate / 4) for rate, small in line.rates)


@pytest.mark.parametrize("kind", [Line, OneOptimizer])
@pytest.mark.parametrize("step", [1, 3, 4])
def test_interrupted_it_goes_on_from_its_last_epoch_and_ends_the_same(tmp_path, step, kind):
    def interrupt(now: int) -> None:
        if now == step:
            raise KeyboardInterrupt

    whole = trained(tmp_path / "whole", kind())
    assert len(set(whole.drawn)) == whole.step == STEPS
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "run", kind(interrupt))
    line = trained(tmp_path / "run", kind())
    assert line.step == STEPS and line.drawn == whole.drawn[step // 2 * 2 :]
    assert torch.equal(line.matrix, whole.matrix) and torch.equal(line.vector, whole.vector)


def test_a_quiet_end_before_the_budget_is_spent_is_an_interruption(tmp_path):
    """What Lightning makes of Ctrl-C between two batches."""

    def end(step: int) -> None:
        line.trainer.should_stop = step == 3

    line = Line(end)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, line)
    assert line.step == 4


def test_the_seed_decides_what_is_drawn(tmp_path):
    assert trained(tmp_path / "0", Line()).drawn != trained(tmp_path / "1", Line(seed=1)).drawn


def test_a_gradient_that_is_not_finite_changes_nothing(tmp_path):
    def spoil(step: int) -> None:
        if step == 3:
            line.vector.register_hook(lambda gradient: gradient * float("nan"))

    line = Line(spoil)
    with pytest.raises(InputError, match="The training diverged at step 3. Start it with another out=, and lower rate= and "):
        trained(tmp_path, line)
    assert line.step == 3 and torch.isfinite(line.matrix).all() and torch.isfinite(line.vector).all()


def test_gradients_are_clipped_as_a_whole(tmp_path):
    norms = []
    line = Line()
    line.matrix.data *= 1000
    step = torch.optim.AdamW.step

    def noted(optimizer, *args, **kwargs):
        norms.append(math.hypot(line.matrix.grad.norm().item(), line.vector.grad.norm().item()))
        return step(optimizer, *args, **kwargs)

    torch.optim.AdamW.step = noted
    try:
        trained(tmp_path, line)
    finally:
        torch.optim.AdamW.step = step
    assert max(norms) == pytest.approx(1.0, rel=1e-3)


@dataclass(frozen=True)
class Settings:
    out: Path
    rate: float = 0.1
    data: tuple = ("a",)


def test_a_folder_belongs_to_one_training(tmp_path):
    settings = Settings(tmp_path)
    for _ in range(2):
        claim(tmp_path, settings)
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    claim(moved, replace(settings, out=moved))
    with pytest.raises(InputError, match="moved holds a training with another data, rate. Give another out="):
        claim(moved, replace(settings, rate=0.2, data=("b",)))
    assert json.loads((moved / "training.json").read_text()) == {"out": None, "rate": 0.1, "data": ["a"]}


def test_what_is_written_has_nothing_to_go_on_from(tmp_path):
    (tmp_path / "last.ckpt").touch()
    finish(tmp_path, {"distance": 0.5})
    finish(tmp_path, {"distance": 0.25})
    assert [path.name for path in tmp_path.iterdir()] == ["quality.json"]
    assert json.loads((tmp_path / "quality.json").read_text()) == {"distance": 0.25}


def test_steps_are_a_second_budget():
    """Whichever is spent more: a quarter of the steps, half of the minutes."""
    line = Line(steps=40)
    line.step = 10
    assert line.share == 0.25
    line.budget.spent = 0.5
    assert line.share == 0.5
    line.step = 50
    assert line.share == 1.0
    assert Line(steps=None).share == 0.0
