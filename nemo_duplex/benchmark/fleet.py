"""Many servers and very many callers on paper: who gets through, who waits, what a lost server and an upgrade cost.

A discrete-event simulation with a seed. Callers arrive at random (Poisson) and talk for a random time (exponential). The router
sends each to the emptier one of two servers that it draws, among those that take calls (Mitzenmacher 2001), and the call stays
there. A caller that finds no seat is refused and tries again after `retry_after`, or leaves after `tries`. A server that is
lost takes its calls with it; their callers reconnect after a random moment. An upgrade empties servers in waves: no new calls,
until the last one has ended or `drain` is over, then it is away for `restart`.

Where all servers are one and nobody tries again, Erlang's formulas say what must come out (`erlang_b`, `erlang_c_wait`).
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import count

from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError


def erlang_b(seats: int, load: float) -> float:
    """Share of callers that is refused by `seats` with an offered load in erlang, if nobody waits or returns (Erlang 1917)."""
    blocked = 1.0
    for used in range(1, seats + 1):
        blocked = load * blocked / (used + load * blocked)
    return blocked


def erlang_c_wait(seats: int, load: float, call_seconds: Seconds) -> tuple[float, Seconds]:
    """Share of callers that waits for one of `seats`, and the mean wait of all; everybody waits for as long as it takes.

    Raises:
        InputError: if the load is not below the seats: the queue then grows without end.
    """
    if load >= seats:
        raise InputError(f"A load of {load:g} erlang needs more than {load:g} seats, got {seats}.")
    blocked = erlang_b(seats, load)
    waits = blocked / (1 - load / seats * (1 - blocked))
    return waits, waits * call_seconds / (seats - load)


@dataclass(frozen=True)
class Fleet:
    """Servers, callers, and what happens to them; all times in seconds.

    Args:
        servers: of the fleet.
        seats: calls that one server takes.
        callers: that would talk at once, on average, if all got through: the offered load.
        call: mean duration of a call.
        span: simulated time.
        warm_up: before it counts; the fleet starts with the average number of callers.
        retry_after: a refused caller waits about so long before it tries again.
        tries: of a caller before it leaves.
        waiting: callers that may wait at one server, which they enter in order.
        lost, lost_at: servers that are lost together, and when; they are back after `restart`.
        reconnect: callers of a lost server come back within so long.
        upgrade_at: when a rolling upgrade begins; None: never.
        wave: share of the servers that is upgraded together.
        drain: a server that is upgraded waits so long for its calls; what then still talks is dropped, and reconnects.
        restart: a server is away for so long.
        seed: of all chances.

    Raises:
        InputError: for numbers that make no fleet.
    """

    servers: int = 1
    seats: int = 16
    callers: float = 12.0
    call: Seconds = 180.0
    span: Seconds = 3600.0
    warm_up: Seconds = 600.0
    retry_after: Seconds = 5.0
    tries: int = 1
    waiting: int = 0
    lost: int = 0
    lost_at: Seconds = 1200.0
    reconnect: Seconds = 3.0
    upgrade_at: Seconds | None = None
    wave: float = 0.05
    drain: Seconds = 900.0
    restart: Seconds = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("servers", "seats", "callers", "call", "span", "tries", "wave"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}={getattr(self, name)}: expected more than 0.")
        if not 0 <= self.lost <= self.servers:
            raise InputError(f"lost={self.lost}: expected 0 to {self.servers}, the servers of the fleet.")


@dataclass
class Outcome:
    """What happened after the warm-up.

    Args:
        arrived: callers.
        refused: attempts that found no seat.
        left: callers that never got through.
        waited: callers that waited in a queue; `wait`: the mean wait of all who got through, Seconds.
        busy: mean share of the seats that was taken, of all servers.
        most: largest number of calls at once.
        dropped: calls that were cut off, by "lost" and "upgrade".
        back: Seconds from the loss until the last cut-off caller talked again or left.
        upgraded: Seconds that the whole upgrade took; 0 without one, inf if the simulation ended before.
    """

    arrived: int = 0
    refused: int = 0
    left: int = 0
    waited: int = 0
    wait: Seconds = 0.0
    busy: float = 0.0
    most: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    back: Seconds = 0.0
    upgraded: Seconds = 0.0

    @property
    def blocked(self) -> float:
        """Share of the callers that never got through."""
        return self.left / max(1, self.arrived)

    def lines(self) -> list[str]:
        """What happened, to print."""
        said = [
            f"{self.arrived:,} callers came, {self.most:,} talked at once at most; {self.busy:.1%} of the seats were taken",
            f"{self.refused:,} attempts were refused; {self.left:,} callers ({self.blocked:.3%}) never got through",
        ]
        if self.waited:
            said.append(f"{self.waited:,} callers waited; the mean wait of all was {self.wait:.2f} s")
        if self.dropped["lost"]:
            said.append(f"{self.dropped['lost']:,} calls were cut off by the loss; the last was back after {self.back:.1f} s")
        if self.upgraded:
            took = "did not end within the span" if math.isinf(self.upgraded) else f"took {self.upgraded / 60:.0f} minutes"
            said.append(f"the upgrade {took}, and dropped {self.dropped['upgrade']:,} calls")
        return said


@dataclass
class _Caller:
    """One caller."""

    talks: Seconds  # how long it still wants to talk
    tries: int
    counts: bool  # whether it arrived after the warm-up
    asked: Seconds = 0.0  # when it came
    cut_off: bool = False  # whether it was talking when its server went away
    server: int = -1
    ends: Seconds = 0.0


class Simulation:
    """One run of a fleet.

    Args:
        fleet: what is simulated.

    Examples:
        >>> outcome = Simulation(Fleet(servers=1, seats=16, callers=12.0, span=400_000.0, seed=1)).run()
        >>> abs(outcome.blocked - erlang_b(16, 12.0)) < 0.01
        True
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.outcome = fleet, Outcome()
        self._random = random.Random(fleet.seed)
        self._now: Seconds = 0.0
        self._events: list[tuple[Seconds, int, str, object]] = []
        self._order = count()
        self._calls: list[set[int]] = [set() for _ in range(fleet.servers)]  # numbers of callers, by server
        self._queues: list[list[int]] = [[] for _ in range(fleet.servers)]
        self._open = list(range(fleet.servers))  # servers that take calls
        self._place = {server: at for at, server in enumerate(self._open)}
        self._callers: dict[int, _Caller] = {}
        self._talking = 0
        self._seat_seconds = 0.0
        self._cut_off = 0  # callers of lost servers who do not talk again yet
        self._to_upgrade: list[int] = []
        self._upgrading = 0
        self._waits = 0.0
        self._served = 0

    def run(self) -> Outcome:
        """Everything until the end of the span."""
        fleet = self.fleet
        for _ in range(round(fleet.callers)):
            self._arrive(counts=False)
        self._at(self._gap(), "arrival")
        if fleet.lost:
            self._at(fleet.lost_at, "loss")
        if fleet.upgrade_at is not None:
            self._at(fleet.upgrade_at, "upgrade")
        end = fleet.warm_up + fleet.span
        while self._events and self._events[0][0] <= end:
            when, _, kind, what = heapq.heappop(self._events)
            self._pass(when)
            getattr(self, f"_on_{kind}")(what)
        self._pass(end)
        outcome = self.outcome
        outcome.busy = self._seat_seconds / (fleet.span * fleet.servers * fleet.seats)
        outcome.wait = self._waits / max(1, self._served)
        if self._upgrading or self._to_upgrade:
            outcome.upgraded = math.inf
        return outcome

    # ------------------------------------------------------------------ events

    def _on_arrival(self, _: object) -> None:
        self._at(self._now + self._gap(), "arrival")
        self._arrive(counts=self._now >= self.fleet.warm_up)

    def _on_end(self, number: object) -> None:
        assert isinstance(number, int)
        caller = self._callers.get(number)
        if caller is None or caller.server < 0 or caller.ends != self._now:
            return  # it was cut off meanwhile
        self._leave_server(number, caller)
        del self._callers[number]

    def _on_retry(self, number: object) -> None:
        assert isinstance(number, int)
        if number in self._callers:
            self._try(number)

    def _on_loss(self, _: object) -> None:
        for server in self._random.sample(self._open, min(self.fleet.lost, len(self._open))):
            self._close(server)
            self._drop(server, "lost")
            self._at(self._now + self.fleet.restart, "return", server)

    def _on_return(self, server: object) -> None:
        assert isinstance(server, int)
        self._place[server] = len(self._open)
        self._open.append(server)

    def _on_upgrade(self, _: object) -> None:
        self._to_upgrade = list(range(self.fleet.servers))
        self._wave()

    def _on_drained(self, server: object) -> None:
        """The time of a server that is being emptied is over, or it is empty."""
        assert isinstance(server, int)
        if server in self._place or not self._upgrading:
            return
        self._drop(server, "upgrade")
        self._at(self._now + self.fleet.restart, "upgraded", server)

    def _on_upgraded(self, server: object) -> None:
        assert isinstance(server, int)
        if server in self._place:
            return
        self._on_return(server)
        self._upgrading -= 1
        if self._upgrading == 0:
            self._wave()

    # ------------------------------------------------------------------ calls

    def _arrive(self, counts: bool) -> None:
        number = next(self._order)
        talks = self._random.expovariate(1 / self.fleet.call)
        self._callers[number] = _Caller(talks, self.fleet.tries, counts, self._now)
        self.outcome.arrived += counts
        self._try(number)

    def _try(self, number: int) -> None:
        caller, server = self._callers[number], self._choose()
        if server is not None and len(self._calls[server]) < self.fleet.seats:
            self._sit(number, server)
        elif server is not None and len(self._queues[server]) < self.fleet.waiting:
            self._queues[server].append(number)
            self.outcome.waited += caller.counts
        else:
            self.outcome.refused += caller.counts
            caller.tries -= 1
            if caller.tries > 0:
                self._at(self._now + self.fleet.retry_after * self._random.uniform(0.5, 1.5), "retry", number)
            else:
                self.outcome.left += caller.counts
                self._talks_again(caller)
                del self._callers[number]

    def _choose(self) -> int | None:
        """The emptier of two servers that take calls."""
        if not self._open:
            return None
        pair = (self._random.choice(self._open), self._random.choice(self._open))
        return min(pair, key=lambda server: len(self._calls[server]) + len(self._queues[server]))

    def _sit(self, number: int, server: int) -> None:
        caller = self._callers[number]
        caller.server, caller.ends = server, self._now + caller.talks
        self._calls[server].add(number)
        self._talking += 1
        self.outcome.most = max(self.outcome.most, self._talking)
        if caller.counts:
            self._waits += self._now - caller.asked
            self._served += 1
        self._talks_again(caller)
        self._at(caller.ends, "end", number)

    def _talks_again(self, caller: _Caller) -> None:
        if caller.cut_off:
            caller.cut_off = False
            self._cut_off -= 1
            if self._cut_off == 0:
                self.outcome.back = self._now - self.fleet.lost_at

    def _leave_server(self, number: int, caller: _Caller) -> None:
        server = caller.server
        self._calls[server].discard(number)
        self._talking -= 1
        caller.server = -1
        if self._queues[server] and server in self._place:
            self._sit(self._queues[server].pop(0), server)
        if not self._calls[server] and server not in self._place and self._upgrading:
            self._at(self._now, "drained", server)

    # ------------------------------------------------------------------ servers

    def _close(self, server: int) -> None:
        """A server takes no more calls."""
        at, last = self._place.pop(server), self._open.pop()
        if last != server:
            self._open[at], self._place[last] = last, at

    def _drop(self, server: int, why: str) -> None:
        """Cuts off the calls of a server; their callers come back."""
        for number in [*self._calls[server], *self._queues[server]]:
            caller = self._callers[number]
            if caller.server >= 0:
                self.outcome.dropped[why] += 1
                self._talking -= 1
                caller.talks, caller.server = caller.ends - self._now, -1
                if why == "lost":
                    caller.cut_off = True
                    self._cut_off += 1
            caller.tries, caller.asked = max(caller.tries, self.fleet.tries), self._now
            self._at(self._now + self._random.uniform(0, self.fleet.reconnect), "retry", number)
        self._calls[server].clear()
        self._queues[server].clear()

    def _wave(self) -> None:
        """Begins to empty the next servers of an upgrade."""
        if not self._to_upgrade:
            assert self.fleet.upgrade_at is not None
            self.outcome.upgraded = self._now - self.fleet.upgrade_at
            return
        size = max(1, round(self.fleet.wave * self.fleet.servers))
        wave, self._to_upgrade = self._to_upgrade[:size], self._to_upgrade[size:]
        for server in wave:
            if server not in self._place:
                continue  # it was lost, and comes back new
            self._upgrading += 1
            self._close(server)
            if not self._calls[server]:
                self._at(self._now, "drained", server)
            else:
                self._at(self._now + self.fleet.drain, "drained", server)
        if self._upgrading == 0:
            self._wave()

    # ------------------------------------------------------------------ time

    def _gap(self) -> Seconds:
        return self._random.expovariate(self.fleet.callers / self.fleet.call)

    def _at(self, when: Seconds, kind: str, what: object = None) -> None:
        heapq.heappush(self._events, (when, next(self._order), kind, what))

    def _pass(self, when: Seconds) -> None:
        """Time passes until `when`."""
        counted = max(0.0, when - max(self._now, self.fleet.warm_up))
        self._seat_seconds += counted * self._talking
        self._now = when
