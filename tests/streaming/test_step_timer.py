"""The timer: right figures, constant memory, and no clock where nobody asks for one."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nemo_duplex.streaming import step_timer
from nemo_duplex.streaming.step_timer import STAGES, StepTimer
from tests.dummies import speech_like


class Clock:
    """A clock that somebody else winds on."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(step_timer, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def run(self, timer, stage, seconds):
        with timer.stage(stage):
            self.now += seconds


def test_percentiles_mean_and_share_of_known_times(monkeypatch):
    clock, timer = Clock(monkeypatch), StepTimer()
    for milliseconds in range(1, 101):
        clock.run(timer, "llm", milliseconds / 1e3)
    times = timer.report()["llm"]
    assert times.count == 100
    expected = np.percentile(np.arange(1, 101) / 1e3, [50, 95, 99])
    assert (times.p50, times.p95, times.p99) == pytest.approx(tuple(expected))
    assert times.mean == pytest.approx(0.0505)
    assert times.share == pytest.approx(0.0505 / 0.08)
    assert timer.report().keys() == {"llm"}, "What has not run has no times."


def test_the_table_says_it_in_milliseconds(monkeypatch):
    clock, timer = Clock(monkeypatch), StepTimer()
    for milliseconds in (*range(1, 100), 1000):
        clock.run(timer, "llm", milliseconds / 1e3)
    head, row = timer.table().splitlines()
    assert head.split() == ["stage", "count", "mean", "p50", "p95", "p99", "share"]
    assert row.split() == ["llm", "100", "59.50", "ms", "50.50", "ms", "95.05", "ms", "108.01", "ms", "74.4%"]


def test_only_the_latest_runs_are_remembered_in_memory_that_does_not_grow(monkeypatch):
    clock, timer = Clock(monkeypatch), StepTimer(window=4)
    for seconds in (9.0, 9.0, 1.0, 2.0, 3.0, 4.0):
        clock.run(timer, "codec", seconds)
    times = timer.report()["codec"]
    assert times.count == 6 and times.mean == pytest.approx(2.5)
    assert all(ring.shape == (4,) for ring in timer._rings.values()) and not timer._pending


def test_a_step_in_which_nothing_ran_does_not_count(monkeypatch):
    clock, timer = Clock(monkeypatch), StepTimer()
    with timer.step():
        clock.now += 5.0
    with timer.step():
        clock.run(timer, "llm", 0.25)
        clock.now += 0.5
    report = timer.report()
    assert report["step"].count == 1 and report["step"].mean == pytest.approx(0.75)
    timer.reset()
    assert timer.report() == {}


def test_an_engine_times_its_steps_and_stages(model):
    timer = StepTimer()
    with timer.stage("llm"):
        pass  # of an engine before
    engine = model.open_engine(max_sessions=2, timer=timer)
    session = engine.open_session()
    assert engine.step() == {} and timer.report() == {}
    session.push(speech_like(1.0).numpy())
    session.flush()
    frames = engine.run_until_idle()[session]
    report = timer.report()
    assert tuple(report) == STAGES
    assert report["llm"].count == report["codec"].count == report["step"].count == len(frames) == 13
    assert report["mel"].count == report["encoder"].count == 7, "Two frames make an encoder chunk."
    stages = sum(report[stage].mean * report[stage].count for stage in STAGES[:-1])
    assert 0.5 * report["step"].mean * 13 < stages < report["step"].mean * 13
    lines = timer.table().splitlines()
    assert [line.split()[0] for line in lines] == ["stage", *STAGES] and lines[3].split()[1] == "13"


def test_without_a_timer_no_clock_is_read(model, monkeypatch):
    engine = model.open_engine(max_sessions=1)
    session = engine.open_session()
    session.push(speech_like(0.3).numpy())
    monkeypatch.setattr(step_timer, "time", None)  # whoever asks it for the time fails
    assert engine.run_until_idle()[session]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_stages_are_timed_by_its_own_events():
    timer = StepTimer(window=8)
    timer.device = torch.device("cuda")
    x = torch.randn(4096, 4096, device="cuda")
    for _ in range(200):
        with timer.stage("llm"):
            x = (x @ x).clamp(-1, 1)
    times = timer.report()["llm"]
    assert times.count == 200 and times.p50 > 1e-4, "Launching takes microseconds, the product more."
    assert not timer._pending and len(timer._spare) <= 2 * 66
