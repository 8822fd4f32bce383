"""Connections as uvicorn gives them to us, bounded before a request is complete: in time, in bytes, in number."""

from __future__ import annotations

import asyncio
import socket
from asyncio import TimerHandle

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from nemo_duplex.serving.config import Limits

# Bytes of a request line and its headers.
_MOST_HEADER_BYTES = 65536
# Bytes that the kernel keeps for a peer that takes nothing: a second of audio, where it would grow to a minute of it.
_SEND_BUFFER = 65536
# Milliseconds after which a peer that acknowledges nothing is gone, as the kernel sees it (Linux).
_GONE_AFTER = 20_000


def bounded_http(limits: Limits) -> type[asyncio.Protocol]:
    """uvicorn's protocol class for HTTP with these limits; a WebSocket begins as a request, so they hold for both."""

    class BoundedHttp(HttpToolsProtocol):
        """A connection that must bring its request in time, in few bytes, and while there are not too many others."""

        _timer: TimerHandle | None = None
        _header_bytes = 0  # that have come, and did not complete the headers of a request

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.abort()
                return
            _notice_dead_peers(transport)
            self._expect_request()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.transport.is_closing() or self.transport.get_protocol() is not self:  # closed, or a WebSocket by now
                return
            if self._timer is None and (self.cycle is None or self.cycle.response_complete):
                self._expect_request()  # bytes that began no request yet
            if self._timer is not None:
                self._header_bytes += len(data)
                if self._header_bytes > _MOST_HEADER_BYTES:
                    self.transport.abort()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._timer is None:
                self._expect_request()

        def on_headers_complete(self) -> None:
            self._end_timer()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end_timer()
            super().connection_lost(exc)

        def _expect_request(self) -> None:
            self._header_bytes = 0
            self._timer = self.loop.call_later(limits.handshake_seconds, self._abort)

        def _abort(self) -> None:
            self._timer = None
            self.transport.abort()

        def _end_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return BoundedHttp


def bounded_websocket(limits: Limits) -> type[asyncio.Protocol]:
    """uvicorn's protocol class for WebSockets, that does not wait for ever for a peer that takes nothing when all is said."""

    class BoundedWebSocket(WebSocketsSansIOProtocol):
        """A connection that is gone `send_seconds` after its call, whether or not the peer took what was sent."""

        _gone: TimerHandle | None = None

        def on_task_complete(self, task: asyncio.Task[None]) -> None:
            super().on_task_complete(task)
            if not self.disconnected:
                self._gone = self.loop.call_later(limits.send_seconds, self.transport.abort)

        async def send(self, message: ASGISendEvent) -> None:
            await super().send(message)
            if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
                self.handshake_complete = True  # uvicorn 0.54 logs an error for every refusal without it

        def connection_lost(self, exc: Exception | None) -> None:
            if self._gone is not None:
                self._gone.cancel()
            super().connection_lost(exc)

    return BoundedWebSocket


def _notice_dead_peers(transport: asyncio.Transport) -> None:
    """Lets the kernel end connections whose peer has vanished, and stop taking audio for one that takes none.

    The peer of a proxy is the proxy's business.
    """
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _GONE_AFTER)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
