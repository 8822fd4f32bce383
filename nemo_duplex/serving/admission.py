"""Who may call now: seats for as many callers as the model can answer in time, and a queue in front of them."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from nemo_duplex.frames import Seconds
from nemo_duplex.serving.caller import CALLER, Caller
from nemo_duplex.serving.config import Limits

# A caller in the queue is told its place at least so often.
_TELL_AGAIN: Seconds = 2.0
# Retry-After lies between these, and before any call has ended, it is the first.
_SOONEST, _LATEST = 5, 120
# Share of the newest call in the mean duration of calls.
_NEWEST = 0.1


class RefusedError(Exception):
    """A caller is not admitted.

    Args:
        message: one line for the caller.
        status: of HTTP: 503 full or shutting down, 429 too many calls of this caller, 401 no key, 403 not from there.
        retry_after: seconds until another try makes sense; None: none does.
    """

    def __init__(self, message: str, status: int, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message, self.status, self.retry_after = message, status, retry_after

    def response(self) -> JSONResponse:
        """The refusal as the body that OpenAI's clients read, with its headers."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        error: dict[str, Any] = {"message": self.message, "type": "refused", "code": self.status}
        return JSONResponse({"error": error}, self.status, headers)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or the handshake of a WebSocket that was not accepted."""
        if scope["type"] == "http" or "websocket.http.response" in scope.get("extensions", {}):
            await self.response()(scope, receive, send)
        else:  # an ASGI server that can refuse a WebSocket by 403 only
            await send({"type": "websocket.close", "code": 1008, "reason": self.message[:120]})


class Admission:
    """Seats and the queue.

    Args:
        seats: callers at once.
        limits: how many may wait, and how many calls a key or an address may have.

    Attributes:
        taken: seats that are.
    """

    def __init__(self, seats: int, limits: Limits) -> None:
        self.seats, self.limits, self.taken = seats, limits, 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._open: Counter[tuple[str, str]] = Counter()  # calls by ("key", number) and ("address", network)
        self._mean: Seconds | None = None  # duration of a call
        self._closed = False

    @property
    def waiting(self) -> int:
        """Callers in the queue."""
        return len(self._waiting)

    def check(self, can_wait: bool = True) -> None:
        """Whether the running request's caller would get a seat or a place in the queue.

        Args:
            can_wait: whether its protocol can tell it that it waits.

        Raises:
            RefusedError: if it would get neither.
        """
        if self._closed:
            raise RefusedError("This server shuts down. Call again.", 503, retry_after=_SOONEST)
        for whose, most in self._shares(CALLER.get()):
            if most is not None and self._open[whose] >= most:
                raise RefusedError(f"Too many calls of this {whose[0]}: {most} at once.", 429, self.retry_after(most))
        most_waiting = self.limits.waiting if can_wait else 0
        if self.taken >= self.seats and len(self._waiting) >= most_waiting:
            retry_after = self.retry_after(self.seats, len(self._waiting))
            raise RefusedError(f"All {self.seats} lines are busy. Call again in {retry_after} s.", 503, retry_after)

    def retry_after(self, calls: int, ahead: int = 0) -> int:
        """Seconds until one of so many open calls has probably ended, and as many more as are ahead.

        Calls of a mean duration of m end every m / calls seconds.
        """
        if self._mean is None or not calls:
            return _SOONEST
        return min(_LATEST, max(_SOONEST, math.ceil(self._mean / calls * (ahead + 1))))

    def close(self) -> None:
        """No new calls from now on, and who waits is refused."""
        self._closed = True
        while self._waiting:
            self._waiting.popleft().set_exception(RefusedError("This server shuts down. Call again.", 503, _SOONEST))

    @asynccontextmanager
    async def seat(self, tell: Callable[[int], Awaitable[None]] | None = None) -> AsyncIterator[None]:
        """A seat, held until the block ends; waits in the queue for it.

        Args:
            tell: is called with the place in the queue, 1 the next, when it changes; None: the caller does not wait.

        Raises:
            RefusedError: if there is no seat, and no place in the queue, or the server shuts down meanwhile.
        """
        self.check(tell is not None)
        with self._counted(CALLER.get()):
            if self.taken >= self.seats:
                assert tell is not None
                await self._wait(tell)
            else:
                self.taken += 1
            began = time.monotonic()
            try:
                yield
            finally:
                self._ended(time.monotonic() - began)
                self.taken -= 1
                self._next()

    def _shares(self, caller: Caller) -> list[tuple[tuple[str, str], int | None]]:
        """What the caller's calls are counted by, each with the most that it may have open."""
        shares: list[tuple[tuple[str, str], int | None]] = [(("address", caller.network), self.limits.calls_per_address)]
        if caller.key is not None:
            shares.append((("key", str(caller.key)), self.limits.calls_per_key))
        return shares

    @contextmanager
    def _counted(self, caller: Caller) -> Iterator[None]:
        whose = [share for share, _ in self._shares(caller)]
        self._open.update(whose)
        try:
            yield
        finally:
            self._open.subtract(whose)
            self._open = +self._open  # without those that have none

    def _ended(self, duration: Seconds) -> None:
        self._mean = duration if self._mean is None else (1 - _NEWEST) * self._mean + _NEWEST * duration

    async def _wait(self, tell: Callable[[int], Awaitable[None]]) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            while not turn.done():
                await tell(self._waiting.index(turn) + 1)
                await asyncio.wait([turn], timeout=_TELL_AGAIN)
            turn.result()
        except BaseException:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif turn.done() and turn.exception() is None:  # it got a seat that nobody takes
                self.taken -= 1
                self._next()
            raise

    def _next(self) -> None:
        while self._waiting and self.taken < self.seats:
            self.taken += 1
            self._waiting.popleft().set_result(None)
