"""A WebSocket as the protocols use it: bounded in time and size, every end of it one exception."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from nemo_duplex.frames import Seconds
from nemo_duplex.serving.admission import RefusedError
from nemo_duplex.serving.call import DRAINED, FAILED, SLOW, Call, Gone
from nemo_duplex.serving.metrics import Traffic
from nemo_duplex.serving.server import CallServer

_log = logging.getLogger(__name__)

#: Close codes of RFC 6455 and its registry.
NORMAL, GOING_AWAY, POLICY, TOO_BIG, INTERNAL_ERROR, TRY_LATER = 1000, 1001, 1008, 1009, 1011, 1013
#: The close code for the reason of a call's end; NORMAL for the others.
CLOSE_CODES = {DRAINED: GOING_AWAY, FAILED: INTERNAL_ERROR, SLOW: POLICY}


class CallSocket:
    """One caller's connection.

    Args:
        socket: accepted or not.
        send_seconds: a caller who takes nothing for so long is gone.
        traffic: counts the bytes.
    """

    def __init__(self, socket: WebSocket, send_seconds: Seconds, traffic: Traffic) -> None:
        self.socket, self._send_seconds, self._traffic = socket, send_seconds, traffic
        self._sending = asyncio.Lock()

    async def receive(self) -> str | bytes:
        """The next message.

        Raises:
            Gone: when there is none any more.
        """
        try:
            message = await self.socket.receive()
        except (WebSocketDisconnect, RuntimeError) as error:  # RuntimeError: it was closed from this side
            raise Gone from error
        if message["type"] != "websocket.receive":
            raise Gone
        text = message.get("text")
        received = text if text is not None else message.get("bytes") or b""
        self._traffic.received.inc(len(received))
        return received

    async def send(self, message: str | bytes) -> None:
        """Sends one message, text or binary.

        Raises:
            Gone: if the caller is, or does not take it in time.
        """
        sending = self.socket.send_text(message) if isinstance(message, str) else self.socket.send_bytes(message)
        await self._in_time(sending)
        self._traffic.sent.inc(len(message))

    async def send_json(self, message: Any) -> None:
        """As `send`."""
        await self.send(json.dumps(message, ensure_ascii=False, separators=(",", ":")))

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Ends the connection; safe if it is over."""
        try:
            await self._in_time(self.socket.close(code, reason[:120]))
        except Gone:
            pass

    async def _in_time(self, sending: Coroutine[Any, Any, None]) -> None:
        async with self._sending:
            try:
                await asyncio.wait_for(sending, self._send_seconds)
            except asyncio.TimeoutError as error:
                raise Gone(SLOW) from error
            except (WebSocketDisconnect, RuntimeError, OSError) as error:
                raise Gone from error


@asynccontextmanager
async def answered(
    websocket: WebSocket,
    server: CallServer,
    protocol: str,
    sample_rate: int,
    waiting: Callable[[CallSocket, int], Awaitable[None]] | None = None,
    subprotocol: str | None = None,
) -> AsyncIterator[tuple[Call, CallSocket] | None]:
    """As `seated`, with a call that is not begun yet, for protocols that know the caller's sample rate from the start.

    Args:
        websocket: not accepted yet.
        server: whose call it is.
        protocol: its name, for the counters.
        sample_rate: of the caller's audio, in Hz.
        waiting: tells the caller its place in the queue, 1 the next.
        subprotocol: of the WebSocket.
    """
    async with seated(websocket, server, protocol, waiting, subprotocol) as socket:
        if socket is None:
            yield None
            return
        async with server.call(protocol, sample_rate) as call:
            yield call, socket


@asynccontextmanager
async def seated(
    websocket: WebSocket,
    server: CallServer,
    protocol: str,
    waiting: Callable[[CallSocket, int], Awaitable[None]] | None = None,
    subprotocol: str | None = None,
) -> AsyncIterator[CallSocket | None]:
    """Accepts a WebSocket and holds a seat for it until the block ends; None where it was refused.

    A caller that gets neither a seat nor a place in the queue is refused by HTTP status before the handshake. `Gone` ends the
    block quietly. Args as `answered`.
    """
    try:
        server.admission.check(waiting is not None)
    except RefusedError as error:
        server.metrics.refused(error.status)
        await refuse(websocket, error)
        yield None
        return
    await websocket.accept(subprotocol)
    socket = CallSocket(websocket, server.config.limits.send_seconds, server.metrics.traffic(protocol))
    tell = None if waiting is None else partial(waiting, socket)
    try:
        async with server.admission.seat(tell):
            yield socket
    except RefusedError as error:  # the queue was filled meanwhile, or the server shuts down
        server.metrics.refused(error.status)
        await socket.close(TRY_LATER, error.message)
    except Gone:
        pass


async def refuse(socket: WebSocket, error: RefusedError) -> None:
    """Answers the handshake with the HTTP status of the refusal, before anything was accepted."""
    await error.answer(socket.scope, socket.receive, socket.send)


async def until_one_ends(call: Call, *parts: Coroutine[Any, Any, None]) -> None:
    """Runs the parts of a call side by side until one of them ends, then cancels the others.

    What a part raises, but for Gone, is logged and ends the call as FAILED, so that its protocol can say so.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, Gone):
            _log.error("a call was ended by an error; the others continue", exc_info=result, extra={"id": call.id})
            call.error = call.error or result
            call.end(FAILED)
