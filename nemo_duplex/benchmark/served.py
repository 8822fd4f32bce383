"""The server of the benchmark `serve`, in a process of its own: python -m nemo_duplex.benchmark.served '{"model": ...}'.

It listens on a free port of this machine, and prints it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

import torch
import uvicorn

from nemo_duplex.benchmark.measured_models import MeasuredAgent
from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.config import ServerConfig
from nemo_duplex.serving.run import uvicorn_config


def main(given: Mapping[str, Any]) -> None:
    """Serves until the process is ended.

    Args:
        given: `model`, a path or None; `device`, `precision`, `threads`, `callers`, `int8`.
    """
    torch.set_num_threads(given["threads"])
    agent = MeasuredAgent(given["model"], None, given["device"], given["precision"])
    config = ServerConfig(callers=given["callers"], port=0, int8=given["int8"])
    server = uvicorn.Server(uvicorn_config(make_app(agent.model, config), config))

    async def serve() -> None:
        serving = asyncio.create_task(server.serve())
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if server.started:
            print(server.servers[0].sockets[0].getsockname()[1], flush=True)
        await serving

    asyncio.run(serve())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
