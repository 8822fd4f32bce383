"""A budget of minutes: when it ends, how the learning rate falls on the way there, and what an interruption keeps."""

from types import SimpleNamespace

import pytest

from nemo_duplex.training import time_budget
from nemo_duplex.training.time_budget import TimeBudget


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, set by the test."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(time_budget, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def after_batch(budget) -> bool:
    """Whether the training is stopped after a batch at this moment."""
    trainer = SimpleNamespace(should_stop=False, global_step=0)
    budget.on_train_batch_end(trainer, None, None, None, 0)
    return trainer.should_stop


def test_it_stops_when_its_minutes_are_spent(clock):
    budget = TimeBudget(minutes=2.0)
    clock.seconds += 500.0  # building the model is not training
    budget.on_fit_start(None, None)
    clock.seconds += 30.0
    assert budget.share == 0.25 and not after_batch(budget)
    clock.seconds += 89.0
    assert not after_batch(budget)
    clock.seconds += 1.0
    assert after_batch(budget)


def test_the_rate_falls_over_the_last_share_of_it(clock):
    budget = TimeBudget(minutes=1.0, cooldown=0.5, final=0.1)
    factors = []
    for second in (0, 30, 45, 54, 57, 60, 70):
        clock.seconds = 1000.0 + second
        factors.append(budget.factor)
    assert factors == pytest.approx([1.0, 1.0, 0.5, 0.2, 0.1, 0.1, 0.1])
    groups = [{"lr": 2.0}, {"lr": 4.0}]
    clock.seconds = 1045.0
    budget.on_before_optimizer_step(SimpleNamespace(global_step=0), None, SimpleNamespace(param_groups=groups))
    assert groups == [{"lr": 1.0}, {"lr": 2.0}]
    assert TimeBudget(minutes=1.0).factor == 1.0, "no cooldown"
    assert TimeBudget(minutes=1.0, cooldown=0.5).final == 0.03


def test_steps_are_a_budget_too(clock):
    """Alone, or beside minutes: what is spent further counts. A training that goes on begins at its trainer's step."""
    group = {"lr": 1.0}
    for minutes, second, step, rate in ((None, 1e6, 50, 1.0), (None, 0, 75, 0.5), (1.0, 45, 50, 0.5), (1.0, 30, 90, 0.2)):
        budget, group["lr"] = TimeBudget(minutes, cooldown=0.5, steps=100), 1.0
        clock.seconds += second
        budget.on_before_optimizer_step(SimpleNamespace(global_step=step), None, SimpleNamespace(param_groups=[group]))
        assert group["lr"] == pytest.approx(rate)
    trainer = SimpleNamespace(should_stop=False, global_step=100)
    budget = TimeBudget(None, cooldown=0.5, steps=100)
    budget.on_train_batch_end(trainer)
    assert trainer.should_stop and budget.factor == budget.final


def test_minutes_before_an_interruption_count(clock):
    budget = TimeBudget(minutes=1.0)
    clock.seconds += 20.0
    state = budget.state_dict()
    clock.seconds += 1e6  # nobody trains
    again = TimeBudget(minutes=1.0)
    again.load_state_dict(state)
    again.on_fit_start(None, None)
    clock.seconds += 10.0
    assert again.share == 0.5
    assert again.state_dict() == {"spent": 30.0}
