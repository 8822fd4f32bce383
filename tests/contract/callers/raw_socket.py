"""A WebSocket without any client package around it, as a browser or a program of somebody's own opens it.

Job: url, headers, subprotocols, steps (`call.follow`), and what the microphone needs.
Reports: subprotocol, status and body (if the handshake is refused), events, close (code and reason), failed.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import websockets
from call import Microphone, Seen, follow, job, report


async def main() -> None:
    task, seen = job(), Seen()
    try:
        socket = await websockets.connect(
            task["url"],
            additional_headers=task.get("headers"),
            subprotocols=task.get("subprotocols"),
            max_size=None,
        )
    except websockets.InvalidStatus as error:
        report(status=error.response.status_code, body=error.response.body.decode(), headers=dict(error.response.headers))
        return

    async def send(event: dict[str, Any]) -> None:
        await socket.send(json.dumps(event))

    append = task.get("append", "input_audio_buffer.append")
    microphone = Microphone(task, lambda sound: send({"type": append, "audio": base64.b64encode(sound).decode()}))
    microphone.muted = not task.get("listen", True)

    async def receive() -> None:
        async for message in socket:
            await seen.add(json.loads(message))

    receiving, speaking = asyncio.ensure_future(receive()), asyncio.ensure_future(microphone.run())
    failed = await follow(task["steps"], seen, microphone, send)
    speaking.cancel()
    await socket.close()
    await asyncio.gather(receiving, speaking, return_exceptions=True)
    close = [socket.close_code, socket.close_reason]
    report(subprotocol=socket.subprotocol, events=seen.events, close=close, failed=failed)


asyncio.run(main())
