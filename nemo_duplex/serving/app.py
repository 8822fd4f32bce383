"""The ASGI application: routes to the protocols, health, metrics, the page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from nemo_duplex.models.agent import DuplexAgent
from nemo_duplex.serving.config import ServerConfig
from nemo_duplex.serving.protocols.live import live, unsupported_live_request, unsupported_live_socket
from nemo_duplex.serving.protocols.realtime.socket import realtime
from nemo_duplex.serving.protocols.talk import talk
from nemo_duplex.serving.server import CallServer


def make_app(model: DuplexAgent, config: ServerConfig | None = None) -> Starlette:
    """The application that serves `model`; `app.state.server` is its `CallServer`.

    Args:
        model: the agent.
        config: the settings; None: the defaults.
    """
    server = CallServer(model, config or ServerConfig())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        server.run_in_background()
        yield
        await server.close()

    async def healthy(request: Request) -> Response:
        return PlainTextResponse("ok") if server.worker.is_alive else PlainTextResponse("the model's thread ended", 500)

    async def ready(request: Request) -> Response:
        return PlainTextResponse("ready" if server.is_ready else "draining", 200 if server.is_ready else 503)

    async def metrics(request: Request) -> Response:
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def talking(websocket: WebSocket) -> None:
        await talk(websocket, server)

    async def live_session(websocket: WebSocket) -> None:
        await live(websocket, server)

    async def openai_realtime(websocket: WebSocket) -> None:
        await realtime(websocket, server)

    app = Starlette(
        routes=[
            Route("/healthz", healthy),
            Route("/readyz", ready),
            Route("/metrics", metrics),
            WebSocketRoute("/api/talk", talking),
            WebSocketRoute("/v1/live/sessions", live_session),
            WebSocketRoute("/v1/live/sessions/{path:path}", unsupported_live_socket),
            Route("/v1/live/sessions", unsupported_live_request, methods=["POST"]),
            Route("/v1/live/sessions/{path:path}", unsupported_live_request, methods=["GET", "POST"]),
            WebSocketRoute("/v1/realtime", openai_realtime),
            WebSocketRoute("/realtime", openai_realtime),  # for clients whose base address has no /v1
        ],
        lifespan=lifespan,
    )
    app.state.server = server
    return app
