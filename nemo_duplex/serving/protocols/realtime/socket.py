"""OpenAI Realtime over a WebSocket, `/v1/realtime`: JSON events in text messages, audio in base64."""

from __future__ import annotations

import json
from typing import Any

from starlette.websockets import WebSocket

from nemo_duplex.serving.protocols.call_socket import CLOSE_CODES, NORMAL, CallSocket, answered, until_one_ends
from nemo_duplex.serving.protocols.realtime.conversation import SAMPLE_RATE, RealtimeConversation
from nemo_duplex.serving.server import CallServer

# Subprotocols that browsers offer; those that carry a key are never answered.
_SUBPROTOCOLS = ("realtime", "openai-beta.realtime-v1")


async def realtime(websocket: WebSocket, server: CallServer) -> None:
    """Serves one caller of `/v1/realtime`."""
    offered = websocket.scope.get("subprotocols", [])
    subprotocol = next((name for name in _SUBPROTOCOLS if name in offered), None)
    async with answered(websocket, server, "realtime", SAMPLE_RATE, subprotocol=subprotocol) as accepted:
        if accepted is None:
            return
        call, socket = accepted

        async def send(event: dict[str, Any]) -> None:
            await socket.send(json.dumps(event, separators=(",", ":")))

        conversation = RealtimeConversation(call, server, send, websocket.query_params.get("model", ""))
        await conversation.opened()
        await until_one_ends(call, _hear(socket, conversation), _speak(conversation))
        await conversation.closed()
        await socket.close(CLOSE_CODES.get(call.ended or "", NORMAL))


async def _hear(socket: CallSocket, conversation: RealtimeConversation) -> None:
    """What the client sends."""
    while True:
        await conversation.handle(await socket.receive())


async def _speak(conversation: RealtimeConversation) -> None:
    """What the agent does."""
    await conversation.begin()
    async for frame in conversation.call:
        await conversation.frame(frame)
