"""Our own protocol, `/api/talk`: everything of a call, in the fewest bytes; what the page speaks, and programs of ours.

query          rate=24000 (of both directions, in Hz), record=1, key=...
subprotocol    none, or "nemo-duplex", with which a page can send its key as "openai-insecure-api-key.KEY", out of the address
caller         binary   s16le mono samples, in pieces of any size
               text     {"type": "stop" | "start" | "finish"}   {"type": "say", "text": ...}   {"type": "mute", "muted": true}
               text     {"type": "ping", "sent": 12.5}              a number that comes back
server         text     {"type": "waiting", "place": 2}            while all lines are busy
               text     {"type": "ready", "id", "rate", "frame_seconds", "agent", "recording"}
               text     {"type": "frame", "index", "text", "turn_started", "turn_ended", "speaking", "user_active",
                         "user_started", "user_stopped", "user_level", "agent_level", "lateness", "step", "skipped"}
               binary   s16le mono samples of that frame; the two always come in pairs
               text     {"type": "pong", "sent"}
               text     {"type": "error", "message"}                the call goes on
               text     {"type": "ended", "reason", "message"}      then the connection is closed

A caller that is refused gets an HTTP status in place of the handshake, which browsers hide from pages: a plain GET of the same
address is refused the same way, or says what a call would get.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket

from nemo_duplex.inputs import InputError
from nemo_duplex.serving.admission import RefusedError
from nemo_duplex.serving.call import Call, CallFrame
from nemo_duplex.serving.protocols.call_socket import CLOSE_CODES, NORMAL, CallSocket, answered, refuse, until_one_ends
from nemo_duplex.serving.server import CallServer
from nemo_duplex.serving.wire_audio import AgentAudio, WireFormat, WireReader

_SUBPROTOCOL = "nemo-duplex"
_FIELDS = (
    *("index", "text", "turn_started", "turn_ended", "speaking"),
    *("user_active", "user_started", "user_stopped", "user_level", "lateness", "step", "skipped"),
)


def describe(request: Request, server: CallServer) -> Response:
    """Answers a plain GET of `/api/talk`: whether a call would be answered now, as the WebSocket would be."""
    try:
        wire = _wire(request)
        server.admission.check()
    except RefusedError as error:
        return error.response()
    answer = {
        "agent": server.model.__class__.__name__,
        "rate": wire.sample_rate,
        "frame_seconds": server.worker.frame_seconds,
        "recordings": server.config.recordings.folder is not None,
    }
    return JSONResponse(answer, headers={"Cache-Control": "no-store"})


def _wire(connection: HTTPConnection) -> WireFormat:
    rate = connection.query_params.get("rate", "24000")
    try:
        return WireFormat("pcm16", int(rate))
    except (ValueError, InputError) as error:
        raise RefusedError(f"rate={rate}: {error}", 400) from error


async def talk(websocket: WebSocket, server: CallServer) -> None:
    """Serves one caller of `/api/talk`."""
    try:
        wire = _wire(websocket)
    except RefusedError as error:
        await refuse(websocket, error)
        return
    subprotocol = _SUBPROTOCOL if _SUBPROTOCOL in websocket.scope.get("subprotocols", ()) else None
    async with answered(websocket, server, "talk", wire.sample_rate, _waiting, subprotocol) as accepted:
        if accepted is not None:
            await _serve(*accepted, server, wire)


async def _waiting(socket: CallSocket, place: int) -> None:
    await socket.send_json({"type": "waiting", "place": place})


async def _serve(call: Call, socket: CallSocket, server: CallServer, wire: WireFormat) -> None:
    await until_one_ends(call, _begin(call, socket, server, wire))
    if call.ended is None:
        await until_one_ends(call, _hear(call, socket, wire), _speak(call, socket, server, wire))
    await socket.send_json({"type": "ended", "reason": call.ended or "hung_up", "message": ""})
    await socket.close(CLOSE_CODES.get(call.ended or "", NORMAL))


async def _begin(call: Call, socket: CallSocket, server: CallServer, wire: WireFormat) -> None:
    """The agent is there."""
    await call.begin(sampling=server.config.sampling)
    await socket.send_json(
        {
            "type": "ready",
            "id": call.id,
            "rate": wire.sample_rate,
            "frame_seconds": server.worker.frame_seconds,
            "agent": server.model.__class__.__name__,
            "recording": call.recording is not None,
        }
    )


async def _hear(call: Call, socket: CallSocket, wire: WireFormat) -> None:
    """What the caller sends."""
    reader = WireReader(wire)
    while True:
        message = await socket.receive()
        if isinstance(message, bytes):
            await call.push(reader.push(message))
        else:
            answer = _command(call, message)
            if answer is not None:
                await socket.send_json(answer)


def _command(call: Call, text: str) -> dict[str, Any] | None:
    """Does what a text message asks for; returns the answer, if there is one."""
    try:
        message: Any = json.loads(text)
    except (ValueError, RecursionError):
        return _error("A text message must be a JSON object.")
    kind = message.get("type") if isinstance(message, dict) else None
    if kind == "stop":
        call.stop()
    elif kind == "start":
        call.start()
    elif kind == "finish":
        call.finish()
    elif kind == "say" and isinstance(message.get("text"), str):
        try:
            call.say(message["text"])
        except InputError as error:
            return _error(str(error))
    elif kind == "mute":
        call.mute(bool(message.get("muted")))
    elif kind == "ping":
        sent = message.get("sent")
        return {"type": "pong", "sent": sent if isinstance(sent, int | float) and abs(sent) < 1e15 else None}
    else:
        return _error(
            f"Not understood: type {kind!r}. Expected stop, start, finish, say (with text), mute (with muted) or ping."
        )
    return None


def _error(message: str) -> dict[str, Any]:
    return {"type": "error", "message": message}


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
