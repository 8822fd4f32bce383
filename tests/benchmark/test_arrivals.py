"""Random arrivals at a real server."""

import asyncio
from types import SimpleNamespace

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus

from nemo_duplex.benchmark import arrivals
from nemo_duplex.benchmark.arrivals import Arrivals, arrive, lines
from nemo_duplex.benchmark.fleet import Fleet
from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.config import ServerConfig
from tests.dummies import tiny_model
from tests.serving.answering import serving
from tests.virtual_time import run


class Seats:
    """A stand-in for the connections to a server with `seats`; a caller is seated after `wait` seconds."""

    def __init__(self, seats: int, wait: float) -> None:
        self.free, self.wait = seats, wait

    def __call__(self, address: str, **_):
        return Connection(self)


class Connection:
    def __init__(self, server: Seats) -> None:
        self.server, self.open = server, asyncio.Event()

    async def __aenter__(self):
        if not self.server.free:
            raise InvalidStatus(SimpleNamespace(status_code=503, headers=Headers({"Retry-After": "5"})))
        self.server.free -= 1
        await asyncio.sleep(self.server.wait)
        return self

    async def __aexit__(self, *_):
        self.server.free += 1
        self.open.set()

    async def send(self, message):
        pass

    async def __aiter__(self):
        await self.open.wait()
        return
        yield


@pytest.mark.slow
def test_callers_find_a_seat_or_are_refused_by_status(tmp_path):
    with serving(make_app(tiny_model(tmp_path), ServerConfig(callers=2))) as address:
        seen = asyncio.run(arrive(address, Fleet(seats=2, callers=6.0, call=1.0, span=4.0, seed=3)))
    assert seen.wrong == 0 and 0 < seen.refused < seen.arrived
    assert 0 <= seen.busy <= 1


@pytest.mark.parametrize("wait, share", [(0.0, 1.0), (2.0, 0.8), (30.0, 0.0)])
def test_seats_are_busy_from_their_caller_s_welcome_to_the_end_of_the_span(monkeypatch, wait, share):
    """Callers come every 0.01 s and talk for 1000 s: longer than the span of 10 s, which is all that counts."""
    monkeypatch.setattr(arrivals.websockets, "connect", Seats(2, wait))
    seen = run(arrive("", Fleet(seats=2, callers=100_000.0, call=1000.0, span=10.0, seed=1)))
    assert seen.wrong == 0 and seen.arrived == seen.refused + 2 > 800
    assert seen.busy == pytest.approx(share, abs=0.005)


def test_a_seat_is_free_between_two_callers(monkeypatch):
    """100 erlang of calls of 1 s at 200 seats: every caller gets through; the seats fill within the first second."""
    monkeypatch.setattr(arrivals.websockets, "connect", Seats(200, 0.0))
    seen = run(arrive("", Fleet(seats=200, callers=100.0, call=1.0, span=10.0, seed=1)))
    assert seen.wrong == seen.refused == 0
    assert seen.busy == pytest.approx(0.5 * (1 - 1 / 10), abs=0.03)


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
