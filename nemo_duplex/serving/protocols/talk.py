"""Our own protocol, `/api/talk`: everything of a call, in the fewest bytes; what the page speaks, and programs of ours.

query          rate=24000 (of both directions, in Hz), record=1, key=...
caller         binary   s16le mono samples, in pieces of any size
               text     {"type": "stop" | "start" | "finish"}   {"type": "say", "text": ...}   {"type": "mute", "muted": true}
server         text     {"type": "waiting", "place": 2}            while all lines are busy
               text     {"type": "ready", "id", "rate", "frame_seconds", "agent", "recording"}
               text     {"type": "frame", "index", "text", "turn_started", "turn_ended", "speaking", "user_active",
                         "user_started", "user_stopped", "user_level", "agent_level", "lateness", "step", "skipped"}
               binary   s16le mono samples of that frame; the two always come in pairs
               text     {"type": "error", "message"}                the call goes on
               text     {"type": "ended", "reason", "message"}      then the connection is closed
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from starlette.websockets import WebSocket

from nemo_duplex.inputs import InputError
from nemo_duplex.serving.admission import RefusedError
from nemo_duplex.serving.call import Call, CallFrame
from nemo_duplex.serving.protocols.call_socket import CLOSE_CODES, NORMAL, CallSocket, answered, refuse, until_one_ends
from nemo_duplex.serving.server import CallServer
from nemo_duplex.serving.wire_audio import AgentAudio, WireFormat, WireReader

_FIELDS = (
    *("index", "text", "turn_started", "turn_ended", "speaking"),
    *("user_active", "user_started", "user_stopped", "user_level", "lateness", "step", "skipped"),
)


async def talk(websocket: WebSocket, server: CallServer) -> None:
    """Serves one caller of `/api/talk`."""
    rate = websocket.query_params.get("rate", "24000")
    try:
        wire = WireFormat("pcm16", int(rate))
    except (ValueError, InputError) as error:
        await refuse(websocket, RefusedError(f"rate={rate}: {error}", 400))
        return
    async with answered(websocket, server, "talk", wire.sample_rate, _waiting) as accepted:
        if accepted is not None:
            await _serve(*accepted, server, wire)


async def _waiting(socket: CallSocket, place: int) -> None:
    await socket.send_json({"type": "waiting", "place": place})


async def _serve(call: Call, socket: CallSocket, server: CallServer, wire: WireFormat) -> None:
    await call.begin(sampling=server.config.sampling)
    await socket.send_json(
        {
            "type": "ready",
            "id": call.id,
            "rate": wire.sample_rate,
            "frame_seconds": server.worker.frame_seconds,
            "agent": server.model.__class__.__name__,
            "recording": False,
        }
    )
    await until_one_ends(_hear(call, socket, wire), _speak(call, socket, server, wire))
    await socket.send_json({"type": "ended", "reason": call.ended or "hung_up", "message": ""})
    await socket.close(CLOSE_CODES.get(call.ended or "", NORMAL))


async def _hear(call: Call, socket: CallSocket, wire: WireFormat) -> None:
    """What the caller sends."""
    reader = WireReader(wire)
    while True:
        message = await socket.receive()
        if isinstance(message, bytes):
            await call.push(reader.push(message))
        else:
            problem = _command(call, message)
            if problem:
                await socket.send_json({"type": "error", "message": problem})


def _command(call: Call, text: str) -> str | None:
    """Does what a text message asks for; returns what is wrong with it."""
    try:
        message: Any = json.loads(text)
    except ValueError:
        return "A text message must be a JSON object."
    kind = message.get("type") if isinstance(message, dict) else None
    if kind == "stop":
        call.stop()
    elif kind == "start":
        call.start()
    elif kind == "finish":
        call.finish()
    elif kind == "say" and isinstance(message.get("text"), str):
        call.say(message["text"])
    elif kind == "mute":
        call.mute(bool(message.get("muted")))
    else:
        return f"Not understood: type {kind!r}. Expected stop, start, finish, say (with text) or mute (with muted)."
    return None


async def _speak(call: Call, socket: CallSocket, server: CallServer, wire: WireFormat) -> None:
    """What the agent does."""
    sound = AgentAudio(server.model.agent_sample_rate, wire.sample_rate)
    async for frame in call:
        await socket.send_json(_described(frame))
        await socket.send(wire.encode(sound.frame(frame.audio)))


def _described(frame: CallFrame) -> dict[str, Any]:
    level = float(np.sqrt(np.mean(np.square(frame.audio))))
    fields = {name: getattr(frame, name) for name in _FIELDS}
    return {"type": "frame", "agent_level": level} | fields
