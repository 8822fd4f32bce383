"""Who may come in: ASGI middleware before all routes, for requests and WebSockets alike.

    1 host     on a server for this machine without a key, only this machine's names: another name is a web page that made its
               own name point here (DNS rebinding)
    2 origin   of a browser's page: the same host, or one of `origins`
    3 key      of the caller, wherever its client puts it; not for the page, health, and (see `open_metrics`) the metrics
    4 body     of a request: bounded in size and time

Whoever passes is the `CALLER` of the request.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nemo_duplex.serving.admission import RefusedError
from nemo_duplex.serving.caller import CALLER, Caller
from nemo_duplex.serving.config import Limits, ServerConfig
from nemo_duplex.serving.metrics import Metrics

_log = logging.getLogger(__name__)

#: The page and its files, which hold no secret, and what load balancers ask.
_OPEN, _OPEN_FOLDERS = ("/", "/favicon.ico", "/healthz", "/readyz"), ("/page/",)
_METRICS = "/metrics"
#: Where clients put their key.
_HEADERS, _QUERY = ("kyutai-api-key", "api-key"), ("auth_id", "worker_auth_id", "key", "api-key")
_SUBPROTOCOL = "openai-insecure-api-key."


class Access:
    """The middleware.

    Args:
        app: the application behind it.
        config: keys, origins, limits.
        metrics: count who is refused.
    """

    def __init__(self, app: ASGIApp, config: ServerConfig, metrics: Metrics) -> None:
        self._app, self._config, self._metrics = app, config, metrics
        self._keys = [_digest(key) for key in config.api_keys]
        self._origins = {origin.lower() for origin in config.origins}
        self._names = {urlsplit(origin).hostname for origin in self._origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the connection on, or refuses it by an HTTP status."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        address = (scope.get("client") or ("",))[0]
        try:
            headers = Headers(scope=scope)
            self._check_host(headers, (scope.get("server") or ("", None))[1] or self._config.port)
            self._check_origin(headers, scope["scheme"])
            caller = Caller(address, self._check_key(scope, address), ("record", "1") in _query(scope))
            if scope["type"] == "http":
                receive = _BoundedBody(receive, headers, self._config.limits).receive
        except RefusedError as error:
            await self._refuse(error, Caller(address), scope, receive, send)
            return
        token = CALLER.set(caller)
        try:
            await self._app(scope, receive, send)
        finally:
            CALLER.reset(token)

    async def _refuse(self, error: RefusedError, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        self._metrics.refused(error.status)
        _log.info("refused", extra={"status": error.status, "path": scope["path"][:80], "address": caller.shortened})
        await error.answer(scope, receive, send)

    def _check_host(self, headers: Headers, port: int) -> None:
        name = _host(headers)[0]
        if self._keys or not self._config.is_local or name == "" or "*" in self._origins:
            return
        if not (_is_this_machine(name) or name in self._names):
            raise RefusedError(
                f"This server is for its own machine only, not for {name}. Open it as http://localhost:{port}, or "
                "serve it with origins=[https://NAME] or with api_keys.",
                403,
            )

    def _check_origin(self, headers: Headers, scheme: str) -> None:
        origin = headers.get("origin")
        if origin is None or "*" in self._origins or origin.lower() in self._origins:
            return
        parts = urlsplit(origin)
        default = {"http": 80, "https": 443}.get(parts.scheme)
        name, port = _host(headers)
        try:
            if parts.hostname and (parts.hostname, parts.port or default) == (name, port or default):
                return
        except ValueError:  # a port that is none
            pass
        raise RefusedError(f"Pages from {origin[:100]} may not call this server. Serve it with origins=[{origin[:100]}].", 403)

    def _check_key(self, scope: Scope, address: str) -> int | None:
        """The number of the key; None where none is needed."""
        path = scope["path"]
        if not self._keys:
            return None
        found = self._number(scope)
        if found is not None:
            return found
        if scope["type"] == "http":
            if path in _OPEN or path.startswith(_OPEN_FOLDERS):
                return None
            if path == _METRICS and (self._config.open_metrics or (self._config.is_local and _is_this_machine(address))):
                return None
        raise RefusedError(
            "No valid API key. Send one as 'Authorization: Bearer KEY' (or ?key=KEY where no header can be set).", 401
        )

    def _number(self, scope: Scope) -> int | None:
        """Compares with all keys, whichever is right, so that the time tells nothing."""
        number = None
        for given in map(_digest, _given_keys(scope)):
            for index, key in enumerate(self._keys, start=1):
                if hmac.compare_digest(given, key):
                    number = index
        return number


class _BoundedBody:
    """The body of a request, up to `message_bytes`, within `handshake_seconds`."""

    def __init__(self, receive: Receive, headers: Headers, limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        self._bytes, self._complete = 0, False
        self._until = asyncio.get_running_loop().time() + limits.handshake_seconds
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > limits.message_bytes:
            raise self._too_big()

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        try:
            left = self._until - asyncio.get_running_loop().time()
            message = await asyncio.wait_for(self._receive(), max(0.0, left))
        except asyncio.TimeoutError:
            raise RefusedError("The body of the request did not come in time.", 408) from None
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._limits.message_bytes:
            raise self._too_big()
        self._complete = not message.get("more_body", False)
        return message

    def _too_big(self) -> RefusedError:
        return RefusedError(f"The body of a request may have at most {self._limits.message_bytes} bytes.", 413)


def _given_keys(scope: Scope) -> Iterator[str]:
    """All that may be meant as a key."""
    headers = Headers(scope=scope)
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer":
        yield token.strip()
    yield from (value for name in _HEADERS for value in headers.getlist(name))
    yield from (value for name, value in _query(scope) if name in _QUERY)
    for offered in scope.get("subprotocols", ()):
        if offered.startswith(_SUBPROTOCOL):
            yield offered.removeprefix(_SUBPROTOCOL)


def _query(scope: Scope) -> list[tuple[str, str]]:
    return parse_qsl(scope.get("query_string", b"").decode("latin-1"))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _host(headers: Headers) -> tuple[str, int | None]:
    """(name, port) of the Host header, in small letters; ("", None) where there is none that can be read."""
    try:
        parts = urlsplit(f"//{headers.get('host', '')}")
        return parts.hostname or "", parts.port
    except ValueError:
        return "", None


def _is_this_machine(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
