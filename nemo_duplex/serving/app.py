"""The ASGI application: routes to the protocols, health, metrics, the page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from nemo_duplex.models.agent import DuplexAgent
from nemo_duplex.serving.access import Access
from nemo_duplex.serving.admission import RefusedError
from nemo_duplex.serving.config import ServerConfig
from nemo_duplex.serving.metrics import Metrics
from nemo_duplex.serving.page import page_routes
from nemo_duplex.serving.protocols.live import live, unsupported_live_request, unsupported_live_socket
from nemo_duplex.serving.protocols.moshi import chat
from nemo_duplex.serving.protocols.realtime.socket import realtime
from nemo_duplex.serving.protocols.talk import describe, talk
from nemo_duplex.serving.protocols.webrtc.calls import WebRtcCalls
from nemo_duplex.serving.server import CallServer


def make_app(model: DuplexAgent, config: ServerConfig | None = None) -> Starlette:
    """The application that serves `model`; `app.state.server` is its `CallServer`.

    Args:
        model: the agent.
        config: the settings; None: the defaults.
    """
    server = CallServer(model, config or ServerConfig())
    webrtc = WebRtcCalls(server)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        server.run_in_background()
        yield
        await webrtc.close()
        await server.close()

    async def healthy(request: Request) -> Response:
        return PlainTextResponse("ok") if server.is_healthy else PlainTextResponse("the model makes no progress", 503)

    async def ready(request: Request) -> Response:
        reason = "ready" if server.is_ready else "draining" if server.draining else "the model makes no progress"
        return PlainTextResponse(reason, 200 if server.is_ready else 503)

    async def metrics(request: Request) -> Response:
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def talking(websocket: WebSocket) -> None:
        await talk(websocket, server)

    async def chatting(websocket: WebSocket) -> None:
        await chat(websocket, server)

    async def live_session(websocket: WebSocket) -> None:
        await live(websocket, server)

    async def openai_realtime(websocket: WebSocket) -> None:
        await realtime(websocket, server)

    async def described(request: Request) -> Response:
        return describe(request, server)

    app = Starlette(
        routes=[
            Route("/healthz", healthy),
            Route("/readyz", ready),
            Route("/metrics", metrics),
            Route("/api/talk", described),
            Route("/api/recordings/{name}.zip", server.recordings.answer),
            WebSocketRoute("/api/talk", talking),
            WebSocketRoute("/api/chat", chatting),
            WebSocketRoute("/v1/live/sessions", live_session),
            WebSocketRoute("/v1/live/sessions/{path:path}", unsupported_live_socket),
            Route("/v1/live/sessions", unsupported_live_request, methods=["POST"]),
            Route("/v1/live/sessions/{path:path}", unsupported_live_request, methods=["GET", "POST"]),
            WebSocketRoute("/v1/realtime", openai_realtime),
            WebSocketRoute("/realtime", openai_realtime),  # for clients whose base address has no /v1
            *page_routes(),
            *webrtc.routes(),
        ],
        middleware=_middleware(server.config, server.metrics),
        exception_handlers={RefusedError: _refused},
        lifespan=lifespan,
    )
    app.state.server = server
    return app


async def _refused(connection: HTTPConnection, error: Exception) -> Response:
    """Answers a request whose route refused it."""
    assert isinstance(error, RefusedError)
    connection.app.state.server.metrics.refused(error.status)
    return error.response()


def _middleware(config: ServerConfig, metrics: Metrics) -> list[Middleware]:
    """Whose headers are believed, what pages of other hosts may read, and who comes in; from the outside to the inside."""
    outside = []
    if config.trusted_proxies:
        outside.append(Middleware(ProxyHeadersMiddleware, trusted_hosts=list(config.trusted_proxies)))
    if config.origins:
        outside.append(
            Middleware(
                CORSMiddleware,
                allow_origins=config.origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["*"],
                expose_headers=["Location", "Retry-After"],
            )
        )
    return [*outside, Middleware(Access, config=config, metrics=metrics)]
