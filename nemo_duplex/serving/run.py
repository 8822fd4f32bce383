"""Runs the application with uvicorn: one process, one port, an orderly end."""

from __future__ import annotations

import uvicorn
from starlette.applications import Starlette

from nemo_duplex.serving.config import ServerConfig


def uvicorn_config(app: Starlette, config: ServerConfig) -> uvicorn.Config:
    """How uvicorn serves the application: no compression, which takes time and gains nothing for audio; bounded messages."""
    return uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        ssl_certfile=config.tls_certificate,
        ssl_keyfile=config.tls_key,
        ws="websockets-sansio",
        ws_max_size=config.limits.message_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=20.0,
        ws_ping_timeout=20.0,
        log_level="warning",
    )


def run(app: Starlette, config: ServerConfig) -> None:
    """Serves until SIGTERM or Ctrl-C."""
    uvicorn.Server(uvicorn_config(app, config)).run()
