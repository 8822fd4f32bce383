"""A caller of OpenAI Live, what it must be sent, and a question to ask."""

import asyncio
import base64
import json

import numpy as np
import websockets

from nemo_duplex.serving.caller_audio import AudioRules
from tests.serving.protocols.test_talk import QUESTION

#: However slow the machine is, no audio counts as missing or late.
PATIENT = AudioRules(patience=1000.0, patience_at_start=1000.0, skip_after=1000.0)
#: The fields that `openai/types/live` requires of each server event; `session`, `usage`, `error` are checked below.
REQUIRED = {
    "session.started": {"event_id": str, "session": dict},
    "session.updated": {"event_id": str, "session": dict},
    "session.closed": {"event_id": str, "reason": str, "session": dict, "usage": dict},
    "session.usage.updated": {"event_id": str, "usage": dict},
    "session.input_audio.muted": {"event_id": str},
    "session.input_audio.unmuted": {"event_id": str},
    "session.output_audio.delta": {"delta": str},
    **{
        f"session.{kind}.delta": {"event_id": str, "delta": str, "start_ms": int, "end_ms": int}
        for kind in ("input_transcript", "output_transcript")
    },
    **{
        f"session.{kind}.appended": {"event_id": str, "start_ms": int, "end_ms": int}
        for kind in ("commentary", "instructions", "thinking")
    },
    "session.paused": {"event_id": str},
    "session.resumed": {"event_id": str},
    "error": {"event_id": str, "error": dict},
    "info": {"event_id": str, "code": str, "message": str},
}
SESSION = {"id": str, "expires_at": int, "model": str, "status": str, "audio": dict, "delegation": dict}


def checked(event):
    """The event, which has all that its type requires and nothing of another type."""
    fields = REQUIRED[event["type"]]
    for name, kind in fields.items():
        assert type(event[name]) is kind, (event, name)
    assert event.keys() <= fields.keys() | {"type", "client_event_id"}, event
    if "session" in event:
        session = event["session"]
        assert all(type(session[name]) is kind for name, kind in SESSION.items()), session
        assert session["status"] == "active" and session["id"].startswith("live_")
        assert session["audio"].keys() == {"format", "output"} and session["delegation"]["type"] in ("client", "responses")
    if "usage" in event:
        assert type(event["usage"]["seconds"]) is float
    if "error" in event:
        error = event["error"]
        assert all(type(error[name]) is str and error[name] for name in ("code", "message", "type"))
        assert error.keys() <= {"code", "message", "type", "param", "client_event_id"} and "\n" not in error["message"]
    return event


class Caller:
    """A caller of Live that checks every event."""

    def __init__(self, socket):
        self.socket, self.events = socket, []

    async def send(self, kind, **fields):
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def append(self, data):
        await self.send("session.input_audio.append", audio=base64.b64encode(data).decode())

    async def next(self):
        event = checked(json.loads(await asyncio.wait_for(self.socket.recv(), 30)))
        self.events.append(event)
        return event

    async def until(self, kind):
        while (event := await self.next())["type"] != kind:
            pass
        return event

    async def started(self, **session):
        await self.send("session.start", event_id="the start", session={"model": "gpt-live-1", **session})
        return await self.until("session.started")


def calling(address, conversation):
    """Runs `conversation(caller)`; returns all events and the close code."""

    async def run():
        async with websockets.connect(f"ws://{address}/v1/live/sessions", max_size=None) as socket:
            caller = Caller(socket)
            await conversation(caller)
            try:
                while True:
                    await caller.next()
            except websockets.ConnectionClosed as closed:
                return caller.events, closed.rcvd.code

    return asyncio.run(run())


def of(events, kind):
    return [event for event in events if event["type"] == kind]


def question_as(wire):
    times = np.arange(round(4.7 * wire.sample_rate)) / wire.sample_rate
    return wire.encode(np.interp(times, np.arange(75200) / 16000, QUESTION).astype(np.float32))


def asked(wire, pieces, **session):
    """A conversation of one question in messages of `pieces` samples, then `session.close`."""

    async def conversation(caller):
        await caller.started(**session)
        data = question_as(wire)
        step = pieces * (2 if wire.encoding == "pcm16" else 1)
        for start in range(0, len(data), step):
            await caller.append(data[start : start + step])
        await caller.send("session.close", event_id="bye")

    return conversation
