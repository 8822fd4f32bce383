"""Runs the application with uvicorn: one process, one port, an orderly end."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from nemo_duplex.inputs import InputError, one_line
from nemo_duplex.serving.config import ServerConfig
from nemo_duplex.serving.connections import bounded_http, bounded_websocket

_log = logging.getLogger(__name__)


def uvicorn_config(app: Starlette, config: ServerConfig) -> uvicorn.Config:
    """How uvicorn serves the application.

    No compression, which takes time and gains nothing for audio; messages are bounded; no header of a proxy is believed here
    (`make_app` does, from those that are trusted); pings keep the ways open, the kernel finds the dead (`connections.py`).
    """
    return uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        ssl_certfile=config.tls_certificate,
        ssl_keyfile=config.tls_key,
        http=bounded_http(config.limits),
        ws=bounded_websocket(config.limits),
        ws_max_size=config.limits.message_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=20.0,
        ws_ping_timeout=None,  # a caller that waits for room for its audio is not read, its pongs neither
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        workers=1,
    )


class OrderlyServer(uvicorn.Server):
    """Ends after SIGTERM or Ctrl-C: first the calls (`CallServer.drain`), then the connections; a second signal ends all."""

    _asked = 0  # signals
    _draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Takes a signal."""
        self._asked += 1
        if self._asked > 1:
            self.should_exit = self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Runs ten times a second."""
        if self._asked and self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        return await super().on_tick(counter)

    async def _drain(self) -> None:
        try:
            await self.config.app.state.server.drain()  # type: ignore[union-attr]
        finally:
            self.should_exit = True


def listen(config: ServerConfig) -> list[socket.socket]:
    """Sockets that listen on the host and port of the settings.

    Raises:
        InputError: if that is not possible, for example because another program has the port.
    """
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise InputError(
            f"host={config.host}: there is no such address ({one_line(error)}). Use 127.0.0.1 or 0.0.0.0."
        ) from error
    sockets: list[socket.socket] = []
    port = config.port
    for family, kind, protocol, _, address in dict.fromkeys(found):
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, len(found) > 1)
            listening.bind((address[0], port, *address[2:]))
            listening.listen(2048)
        except OSError as error:
            listening.close()
            if error.errno == errno.EADDRNOTAVAIL and family == socket.AF_INET6 and sockets:
                continue  # a machine without IPv6 has the name localhost of it
            for other in sockets:
                other.close()
            raise InputError(_not_possible(config, error)) from error
        port = listening.getsockname()[1]  # the same for all, where any will do
        sockets.append(listening)
    return sockets


def _not_possible(config: ServerConfig, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port={config.port}: another program listens on it. Stop that one, or choose another: port=0 takes a free one."
    if error.errno == errno.EACCES:
        return f"port={config.port}: only an administrator may listen on it. Choose one from 1024, such as port=8998."
    return f"host={config.host} port={config.port}: {error.strerror}. Use host=127.0.0.1 or an address of this machine."


def check_tls(config: ServerConfig) -> None:
    """Tries the certificate and its key.

    Raises:
        InputError: if they cannot be used, or do not belong together.
    """
    if config.tls_certificate is None or config.tls_key is None:
        return

    def no_password() -> str:
        raise InputError(
            f"tls.key: {config.tls_key} is encrypted. Write it without a password: openssl pkey -in KEY -out NEWKEY"
        )

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.tls_certificate, config.tls_key, password=no_password)
    except ssl.SSLError as error:
        pair = f"{config.tls_certificate} and {config.tls_key}"
        raise InputError(
            f"TLS: {pair} are not a certificate and its key in PEM ({error.reason or 'unreadable'}). "
            "Check that they belong together."
        ) from error


def run(app: Starlette, config: ServerConfig, sockets: list[socket.socket] | None = None) -> None:
    """Serves until SIGTERM or Ctrl-C.

    Args:
        app: of `make_app`.
        config: its settings.
        sockets: that `listen` opened; None: opens them.

    Raises:
        InputError: as `listen` and `check_tls`.
    """
    check_tls(config)
    OrderlyServer(uvicorn_config(app, config)).run(sockets or listen(config))


def address(config: ServerConfig, sockets: list[socket.socket]) -> str:
    """Where a browser finds the server."""
    host = {"0.0.0.0": "localhost", "::": "localhost", "": "localhost"}.get(config.host, config.host)
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if config.tls_certificate else 'http'}://{host}:{sockets[0].getsockname()[1]}"
