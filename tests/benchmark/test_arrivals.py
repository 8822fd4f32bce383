"""Random arrivals at a real server."""

import asyncio

import pytest

from nemo_duplex.benchmark.arrivals import Arrivals, arrive, lines
from nemo_duplex.benchmark.fleet import Fleet
from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.config import ServerConfig
from tests.dummies import tiny_model
from tests.serving.answering import serving


@pytest.mark.slow
def test_callers_find_a_seat_or_are_refused_by_status(tmp_path):
    with serving(make_app(tiny_model(tmp_path), ServerConfig(callers=2))) as address:
        seen = asyncio.run(arrive(address, Fleet(seats=2, callers=6.0, call=1.0, span=4.0, seed=3)))
    assert seen.wrong == 0 and 0 < seen.refused < seen.arrived
    assert 0.3 < seen.busy <= 1.2


def test_what_is_no_server_is_counted_as_wrong():
    seen = asyncio.run(arrive("127.0.0.1:1", Fleet(seats=2, callers=6.0, call=0.1, span=0.2, seed=3)))
    assert seen.arrived == seen.wrong > 0 and seen.refused == 0


def test_the_lines_say_what_was_measured():
    measured = {"blocked": 0.174, "standard_error": 0.02, "arrived": 480, "wrong": 0, "busy": 0.83}
    result = {
        "fleet": {"seats": 16, "callers": 16.0, "call": 2.0},
        "measured": measured,
        "simulated": {"blocked": 0.175, "busy": 0.82},
        "erlang_b": 0.1752,
    }
    assert lines(result)[1] == "  measured    17.4% +- 2.0% of 480 callers"
    assert Arrivals(arrived=4, refused=1).blocked == 0.25
