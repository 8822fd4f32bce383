"""The simulated fleet, beside the formulas that hold where it is simple."""

import math

import pytest

from nemo_duplex.benchmark.fleet import Fleet, Simulation, erlang_b, erlang_c_wait
from nemo_duplex.inputs import InputError

LONG = {"seats": 4, "call": 10.0, "span": 200_000.0, "warm_up": 200.0}


def test_erlangs_formulas_give_the_tabled_values():
    assert erlang_b(1, 1.0) == 0.5 and erlang_b(2, 1.0) == pytest.approx(0.2)
    assert erlang_b(10, 5.0) == pytest.approx(0.018385, abs=1e-6)
    waits, wait = erlang_c_wait(1, 0.5, 10.0)  # M/M/1: half of them wait, load / (1 - load) of a call on average
    assert (waits, wait) == (pytest.approx(0.5), pytest.approx(10.0))
    with pytest.raises(InputError, match="A load of 4 erlang needs more than 4 seats, got 4."):
        erlang_c_wait(4, 4.0, 10.0)


@pytest.mark.parametrize("callers", [2.0, 4.0, 8.0])
def test_one_server_without_queue_refuses_what_erlang_b_says(callers):
    outcome = Simulation(Fleet(callers=callers, seed=1, **LONG)).run()
    assert outcome.blocked == pytest.approx(erlang_b(4, callers), abs=0.01)
    assert outcome.refused == outcome.left
    assert outcome.busy == pytest.approx(callers * (1 - erlang_b(4, callers)) / 4, abs=0.01)


def test_one_server_with_a_queue_lets_callers_wait_as_erlang_c_says():
    outcome = Simulation(Fleet(callers=3.0, waiting=10_000, seed=1, **LONG)).run()
    waits, wait = erlang_c_wait(4, 3.0, 10.0)
    assert outcome.left == 0 and outcome.waited / outcome.arrived == pytest.approx(waits, abs=0.02)
    assert outcome.wait == pytest.approx(wait, rel=0.06)


def test_a_caller_that_tries_again_gets_through_more_often():
    once, often = (Simulation(Fleet(callers=3.0, tries=tries, seed=1, **LONG)).run() for tries in (1, 5))
    assert often.blocked < once.blocked / 3 and often.refused > often.left


def test_two_choices_spread_the_callers():
    """With one choice, 20 servers of 10 seats refuse what one such server does; with the emptier of two nearly nobody."""
    outcome = Simulation(Fleet(servers=20, seats=10, callers=160.0, call=10.0, span=5_000.0, warm_up=100.0, seed=1)).run()
    assert erlang_b(10, 8.0) > 0.12 and outcome.blocked < 0.03


def test_a_lost_server_cuts_off_its_calls_and_they_come_back():
    fleet = Fleet(servers=10, seats=20, callers=100.0, lost=2, lost_at=700.0, restart=60.0, span=1_000.0, tries=3, seed=1)
    outcome = Simulation(fleet).run()
    assert 10 <= outcome.dropped["lost"] <= 35 and outcome.dropped["upgrade"] == 0  # a tenth of 100 calls each
    assert 0 < outcome.back <= 3.0
    assert outcome.most <= 200


def test_calls_go_on_after_they_were_cut_off():
    """All servers are lost for a second: nobody starts anew, so the load stays what it was."""
    quiet = Fleet(servers=4, seats=50, callers=100.0, span=2_000.0, tries=9, seed=1)
    lost = Fleet(servers=4, seats=50, callers=100.0, span=2_000.0, tries=9, seed=1, lost=4, lost_at=700.0, restart=1.0)
    calm, storm = Simulation(quiet).run(), Simulation(lost).run()
    assert storm.busy == pytest.approx(calm.busy, rel=0.1) and storm.dropped["lost"] == pytest.approx(100, abs=30)


def test_an_upgrade_without_hurry_drops_no_call():
    fleet = Fleet(
        servers=10, seats=20, callers=100.0, call=60.0, span=20_000.0, upgrade_at=700.0, wave=0.1, drain=2_000.0, seed=1
    )
    outcome = Simulation(fleet).run()
    assert outcome.dropped["upgrade"] == 0 and outcome.blocked < 0.001
    assert 10 * 60.0 < outcome.upgraded < 10 * 2_060.0


def test_an_upgrade_in_a_hurry_drops_calls_and_ends_in_time():
    fleet = Fleet(servers=10, seats=20, callers=100.0, call=600.0, span=3_000.0, upgrade_at=700.0, wave=0.5, drain=30.0, seed=1)
    outcome = Simulation(fleet).run()
    assert outcome.upgraded == pytest.approx(2 * (30.0 + 60.0)) and outcome.dropped["upgrade"] > 50


def test_an_upgrade_that_does_not_end_says_so():
    fleet = Fleet(servers=10, seats=20, callers=100.0, call=600.0, span=300.0, upgrade_at=700.0, drain=1_000.0, seed=1)
    assert math.isinf((outcome := Simulation(fleet).run()).upgraded)
    assert "the upgrade did not end within the span, and dropped 0 calls" in outcome.lines()


def test_the_same_seed_gives_the_same_outcome_and_another_one_not():
    runs = [Simulation(Fleet(callers=14.0, span=2_000.0, seed=seed)).run() for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize(
    "wrong, said", [({"seats": 0}, "seats=0: expected more than 0."), ({"lost": 2}, "lost=2: expected 0 to 1")]
)
def test_what_is_no_fleet_is_refused(wrong, said):
    with pytest.raises(InputError, match=said):
        Fleet(**wrong)
