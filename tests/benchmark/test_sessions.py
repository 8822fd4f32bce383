"""Simulated real time: everybody gets a frame per tick, whenever they came, and late is what is late."""

from types import SimpleNamespace

import numpy as np
import pytest

from nemo_duplex.benchmark import sessions
from nemo_duplex.benchmark.sessions import Simulation, Ticks, measure_sessions, ramp_down, ramp_up, sessions_tables, simulate
from tests.dummies import tiny_model

WARM_UP = 24  # ticks: 12 encoder chunks of two frames


class Engine:
    """Notes what is done to it in each tick; a step takes as long as `cost(tick)` says and answers every session."""

    def __init__(self, clock, cost, options):
        self.clock, self.cost, self.options = clock, cost, options
        self.timer = options["timer"]
        self.tick = -WARM_UP
        self.opened, self.pushed, self.steps = [], {}, []

    def open_session(self):
        number = len(self.opened)
        self.opened.append(self.tick)
        return SimpleNamespace(push=lambda audio: self.pushed.setdefault(number, []).append((self.tick, audio.tolist())))

    def step(self, name="step"):
        self.clock.now += self.cost(self.tick)
        self.steps.append(name)
        with self.timer.stage("llm"):
            self.tick += 1
        return {number: ["frame"] for number in range(len(self.opened))}

    def run_until_idle(self):
        return self.step("run_until_idle")


@pytest.fixture
def model(clock, monkeypatch):
    """A model that opens an `Engine`; `model.cost` says what its ticks cost, `model.engine` is the latest one."""
    monkeypatch.setattr(sessions, "time", clock)
    model = SimpleNamespace(perception=SimpleNamespace(chunk_frames=2, samples_per_frame=2), cost=lambda tick: 0.001)

    def open_engine(**options):
        model.engine = Engine(clock, lambda tick: model.cost(tick), options)
        return model.engine

    model.open_engine = open_engine
    return model


AUDIO = np.arange(600.0)  # 300 frames of two samples


def test_ticks_are_timed_without_those_that_warm_up(model):
    """Of 1 to 100 ms in any order, after a second for each tick of the warm-up."""
    order = np.random.default_rng(0).permutation(100) + 1
    model.cost = lambda tick: 1.0 if tick < 0 else order[tick] / 1000
    ticks = simulate(model, AUDIO, 1, Simulation(ticks=100, give_up=False))
    assert (ticks.sessions, ticks.count, ticks.frames_per_tick) == (1, 100, 1.0)
    assert (ticks.mean, ticks.p50, ticks.p95, ticks.p99) == pytest.approx((0.0505, 0.0505, 0.09505, 0.09901))
    assert ticks.stages["llm"].count == 100, "The timer forgets the warm-up too."
    assert not ticks.in_time


@pytest.mark.parametrize("spread, arrivals", [(True, [-24, -24, -23]), (False, [-24, -24, -24])])
def test_callers_come_spread_over_the_frames_of_a_chunk_or_together(model, spread, arrivals):
    ticks = simulate(model, AUDIO, 3, Simulation(ticks=5, spread=spread))
    engine = model.engine
    assert engine.opened == arrivals and ticks.frames_per_tick == 1
    for number, arrival in enumerate(arrivals):
        assert [tick for tick, _ in engine.pushed[number]] == list(range(arrival, 5)), "One push in each tick."
    starts = sorted(pushes[0][1][0] / 2 for pushes in engine.pushed.values())
    assert starts == [0, 97, 194], "Each caller plays the audio from another place."


def test_the_engine_gets_room_for_all_and_the_options(model):
    simulate(model, AUDIO, 3, Simulation(ticks=2, options={"int8": True}))
    assert model.engine.options["max_sessions"] == 3 and model.engine.options["int8"] is True
    assert set(model.engine.steps) == {"step"}
    simulate(model, AUDIO, 3, Simulation(ticks=2, at_once=True))
    assert set(model.engine.steps) == {"run_until_idle"}


def test_it_gives_up_once_more_than_one_tick_in_a_hundred_is_late(model):
    model.cost = lambda tick: 0.0801 if tick % 10 == 0 else 0.0799
    assert simulate(model, AUDIO, 1, Simulation(ticks=200)).count == 21, "Ticks 0 and 10 may be late, tick 20 may not."
    assert simulate(model, AUDIO, 1, Simulation(ticks=200, give_up=False)).count == 200


def test_in_time_is_less_than_a_frame_in_99_of_100():
    assert ticks_of(1, 0.0799).in_time and not ticks_of(1, 0.08).in_time


def test_an_engine_makes_a_frame_per_tick_and_an_encoder_chunk_per_two(tmp_path):
    real = tiny_model(tmp_path)
    audio = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    spread = simulate(real, audio, 3, Simulation(ticks=6, give_up=False))
    together = simulate(real, audio, 3, Simulation(ticks=6, spread=False, give_up=False))
    assert spread.frames_per_tick == together.frames_per_tick == 1
    assert (spread.stages["encoder"].count, together.stages["encoder"].count) == (6, 3)
    assert simulate(real, audio, 1, Simulation(ticks=4, at_once=True, give_up=False)).stages["llm"].count == 4


# --- how many -----------------------------------------------------------------------------------------------------------


def ticks_of(count, p99):
    return Ticks(count, 300, 0.02, 0.01, 0.03, p99, 1.0, {})


@pytest.fixture
def tried(monkeypatch):
    """p99 is 4.9 ms per session, twice that `at_once`; the list of what `simulate` was asked."""
    tried = []

    def pretended(model, audio, count, simulation):
        tried.append((count, simulation))
        return ticks_of(count, 0.0049 * count * (2 if simulation.at_once else 1))

    monkeypatch.setattr(sessions, "simulate", pretended)
    return tried


def test_numbers_are_tried_up_to_the_first_that_is_late_and_down_to_the_first_in_time(tried):
    assert [ticks.in_time for ticks in ramp_up(None, None, Simulation(), 64)] == [True] * 5 + [False]
    assert [count for count, _ in tried] == [1, 2, 4, 8, 16, 24]
    tried.clear()
    assert len(list(ramp_up(None, None, Simulation(), 8))) == 4 and tried[-1][0] == 8
    tried.clear()
    assert [ticks.in_time for ticks in ramp_down(None, None, Simulation(), 32)] == [False, False, True]
    assert [count for count, _ in tried] == [32, 24, 16]


def test_one_alone_then_up_to_the_first_late_number_then_down_from_the_last_in_time(tried):
    agent = SimpleNamespace(model=None, users=None, about=["an agent"])
    figures = measure_sessions(agent, Simulation(ticks=7), 64)
    assert [(n, s.spread, s.at_once, s.give_up) for n, s in tried] == [
        (1, True, True, False),
        *((n, True, False, True) for n in (1, 2, 4, 8, 16, 24)),
        (16, False, False, True),
        (16, True, True, True),
        (8, True, True, True),
    ]
    assert all(simulation.ticks == 7 for _, simulation in tried)
    assert figures["most"] == {"spread": 16, "together": 16, "at_once": 8}
    assert figures["about"] == ["an agent"] and figures["alone"]["p99"] == pytest.approx(0.0098)
    assert [(t["sessions"], t["in_time"]) for t in figures["at_once"]] == [(16, False), (8, True)]


def test_the_tables_say_what_was_measured(tried):
    agent = SimpleNamespace(model=None, users=None, about=["an agent", "its users"])
    part = measure_sessions(agent, Simulation(), 2)
    for seen in part["spread"]:
        seen["stages"] = {"llm": {"p50": 0.004, "p95": 0.008, "p99": 0.016}}
    result = {"sessions": part, "setting": {"ticks": 300}, "date": "2026-11-29", "machine": "a machine"}
    in_time, one, two = sessions_tables(result)
    assert in_time.about[:3] == ["an agent", "its users", "2026-11-29, a machine"]
    assert "real-time factor 0.250; pushes that bring two frames take 30 ms (p95) to 9.8 ms (p99)" in in_time.about[3]
    assert in_time.about[4].startswith("2 sessions have 99 of 100 ticks within 80 ms (2 if all came in one frame, 2 if both")
    assert in_time.rows == [
        ("came at different times", "1", "10 ms", "30 ms", "4.9 ms", "yes"),
        ("came at different times", "2", "10 ms", "30 ms", "9.8 ms", "yes"),
        ("came in one frame", "2", "10 ms", "30 ms", "9.8 ms", "yes"),
        ("an encoder chunk's frames at once", "2", "10 ms", "30 ms", "19.6 ms", "yes"),
    ]
    assert (one.title, two.title) == ("Stages with 1 caller", "Stages with 2 callers")
    assert one.rows == [("llm", "4 ms", "8 ms", "16 ms", "5.0%")]
