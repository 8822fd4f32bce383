"""Callers who arrive at random at a real server, and find a seat or are refused: what `fleet.py` simulates, measured."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import websockets

from nemo_duplex.benchmark.fleet import Fleet, Simulation, erlang_b
from nemo_duplex.benchmark.paced_callers import FRAME, SAMPLES, TalkWire
from nemo_duplex.benchmark.serving import RunningServer, ServingSetting
from nemo_duplex.frames import Seconds


@dataclass
class Arrivals:
    """What happened at the server.

    Args:
        arrived, refused: callers, and those of them that found no seat.
        wrong: callers that were treated in another way: an error, or a refusal without its status of 503.
        busy: mean share of the seats that was taken within the span, 0 to 1: calls that go on after it do not count.
    """

    arrived: int = 0
    refused: int = 0
    wrong: int = 0
    busy: float = 0.0

    @property
    def blocked(self) -> float:
        """Share of the callers that was refused."""
        return self.refused / max(1, self.arrived)


async def arrive(address: str, fleet: Fleet) -> Arrivals:
    """Callers of `fleet` come to the server at `address` for `fleet.span` seconds and send silence while they talk."""
    chance, seen, talked = random.Random(fleet.seed), Arrivals(), 0.0
    loop = asyncio.get_running_loop()
    start = loop.time()
    end = start + fleet.span

    async def caller(talks: Seconds) -> None:
        nonlocal talked
        wire = TalkWire()
        try:
            async with websockets.connect(f"ws://{address}{wire.path}", compression=None, open_timeout=20) as socket:
                seated, reading = loop.time(), asyncio.create_task(_read(socket))
                while loop.time() < seated + talks:
                    for message in wire.sent(np.zeros(SAMPLES, np.float32)):
                        await socket.send(message)
                    await asyncio.sleep(FRAME)
                talked += max(0.0, min(loop.time(), end) - seated)
            await reading
        except websockets.InvalidStatus as error:
            if error.response.status_code == 503 and "Retry-After" in error.response.headers:
                seen.refused += 1
            else:
                seen.wrong += 1
        except (OSError, websockets.WebSocketException):
            seen.wrong += 1

    tasks, until = [], start
    while (until := until + chance.expovariate(fleet.callers / fleet.call)) < end:
        await asyncio.sleep(max(0.0, until - loop.time()))
        seen.arrived += 1
        tasks.append(asyncio.create_task(caller(chance.expovariate(1 / fleet.call))))
    await asyncio.gather(*tasks)
    seen.busy = talked / (fleet.span * fleet.seats)
    return seen


async def _read(socket: websockets.ClientConnection) -> None:
    """Takes what the server sends: a connection whose messages nobody takes does not close in time."""
    async for _ in socket:
        pass


def compare_arrivals(setting: ServingSetting, fleet: Fleet) -> dict[str, Any]:
    """A real server with `fleet.seats`, the simulation of it, and Erlang's formula.

    Args:
        setting: the agent that is served.
        fleet: one server; nobody waits or tries again.

    Returns:
        `fleet`; `measured`: `Arrivals` with `blocked` and its standard error; `simulated`: 200 times as many callers;
        `erlang_b`. Plain data.
    """
    alone = replace(fleet, servers=1, tries=1, waiting=0, lost=0, upgrade_at=None, warm_up=0.0)
    server = RunningServer(setting, alone.seats)
    try:
        seen = asyncio.run(arrive(server.address, alone))
    finally:
        server.close()
    far = Simulation(replace(alone, span=200 * alone.span, warm_up=20 * alone.call)).run()
    error = (seen.blocked * (1 - seen.blocked) / max(1, seen.arrived)) ** 0.5
    return {
        "fleet": asdict(alone),
        "measured": asdict(seen) | {"blocked": seen.blocked, "standard_error": error},
        "simulated": {"blocked": far.blocked, "busy": far.busy},
        "erlang_b": erlang_b(alone.seats, alone.callers),
    }


def lines(result: Mapping[str, Any]) -> list[str]:
    """What was compared, to print."""
    seen, fleet = result["measured"], result["fleet"]
    return [
        f"One server with {fleet['seats']} seats, {fleet['callers']:g} erlang, calls of {fleet['call']:g} s: share refused",
        f"  measured    {seen['blocked']:.1%} +- {seen['standard_error']:.1%} of {seen['arrived']} callers"
        + f" ({seen['wrong']} wrong)" * bool(seen["wrong"]),
        f"  simulated   {result['simulated']['blocked']:.1%}",
        f"  Erlang B    {result['erlang_b']:.1%}",
        f"Seats taken: measured {seen['busy']:.0%}, simulated {result['simulated']['busy']:.0%}",
    ]
