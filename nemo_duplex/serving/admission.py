"""Who may call now: seats for as many callers as the model can answer in time, and a queue in front of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from nemo_duplex.serving.config import Limits


class RefusedError(Exception):
    """A caller is not admitted.

    Args:
        message: one line for the caller.
        status: of HTTP: 503 full, 429 too many of this caller, 401 no key, 403 not from there.
        retry_after: seconds until another try makes sense; None: none does.
    """

    def __init__(self, message: str, status: int, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message, self.status, self.retry_after = message, status, retry_after


class Admission:
    """Seats and the queue.

    Args:
        seats: callers at once.
        limits: how many may wait.
    """

    def __init__(self, seats: int, limits: Limits) -> None:
        self.seats, self.limits, self.taken = seats, limits, 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def check(self) -> None:
        """Raises RefusedError if a caller would neither get a seat nor a place in the queue."""
        if self.taken >= self.seats and len(self._waiting) >= self.limits.waiting:
            raise RefusedError(f"All {self.seats} lines are busy. Call again in a few seconds.", 503, retry_after=5)

    @asynccontextmanager
    async def seat(self, tell: Callable[[int], Awaitable[None]] | None = None) -> AsyncIterator[None]:
        """A seat, held until the block ends; waits in the queue for it.

        Args:
            tell: is called with the place in the queue, 1 the next, when it changes.

        Raises:
            RefusedError: if the queue is full.
        """
        self.check()
        if self.taken >= self.seats or self._waiting:
            await self._wait(tell)
        else:
            self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._next()

    async def _wait(self, tell: Callable[[int], Awaitable[None]] | None) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            while not turn.done():
                if tell is not None:
                    await tell(self._waiting.index(turn) + 1)
                await asyncio.wait([turn], timeout=2.0)
        except BaseException:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif turn.done():  # it got a seat that nobody takes
                self.taken -= 1
                self._next()
            raise

    def _next(self) -> None:
        while self._waiting and self.taken < self.seats:
            self.taken += 1
            self._waiting.popleft().set_result(None)
