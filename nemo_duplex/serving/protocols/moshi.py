"""Moshi's protocol, `/api/chat`: for Moshi's command-line client and web UI, and for clients of PersonaPlex such as LiveKit's.

All messages are binary: a byte that says the kind, then the payload.

kind             direction    payload
0x00 handshake   to caller    nothing; sent when the agent can answer. Some clients wait for it, others send audio at once
0x01 audio       both         a slice of an Ogg/Opus stream, 24 kHz mono; to the caller, whole pages: 80 ms every 80 ms
0x02 text        to caller    UTF-8, whole characters: what the agent says, each turn with a blank before it
0x03 control     to server    ignored, as by Moshi: start, endTurn, pause, restart of another mode
0x04 metadata    -            ignored
0x05 error       to caller    UTF-8: why the call ends, before it is closed; once, that audio was not readable
0x06 ping        to server    ignored
others           to server    ignored, and so are text messages and empty ones

close code       why
1001             the server shuts down
1008             the call was too long, or its caller sent nothing, or took nothing
1009             a message was too long (by the WebSocket itself)
1011             the model failed
HTTP 503         the server is full; a caller who may wait gets no message until the handshake

No close code is 1000: on that one LiveKit's plugin would silently begin a new conversation, on all others it says so and tries
again. Query: `moshi_query.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator

import numpy as np
from starlette.websockets import WebSocket

from nemo_duplex.inputs import InputError
from nemo_duplex.serving.call import DRAINED, FAILED, FINISHED, IDLE, SLOW, TOO_LONG, Call
from nemo_duplex.serving.opus import PACKET_SAMPLES, OpusReader, OpusWriter
from nemo_duplex.serving.protocols.call_socket import (
    GOING_AWAY,
    INTERNAL_ERROR,
    POLICY,
    CallSocket,
    Gone,
    answered,
    until_one_ends,
)
from nemo_duplex.serving.protocols.moshi_query import session_options
from nemo_duplex.serving.server import CallServer
from nemo_duplex.serving.wire_audio import AgentAudio

_log = logging.getLogger(__name__)

SAMPLE_RATE = 24000
HANDSHAKE, AUDIO, TEXT, ERROR = b"\x00", b"\x01", b"\x02", b"\x05"
#: Bytes that a caller may send before its call begins: about a minute of speech. Then the oldest messages are dropped.
MOST_EARLY = 1 << 18
# Bytes that are decoded before the event loop may do something else, and samples that are pushed at once.
_SLICE, _PUSHED = 4096, 1920
_ENDINGS = {
    DRAINED: (GOING_AWAY, "The server shuts down."),
    TOO_LONG: (POLICY, "The call has reached the longest duration that this server allows."),
    IDLE: (POLICY, "No audio came for too long."),
    SLOW: (POLICY, "The agent's audio was not taken for too long."),
    FAILED: (INTERNAL_ERROR, "The model failed. Call again."),
    FINISHED: (GOING_AWAY, "The call is over."),
}


async def chat(websocket: WebSocket, server: CallServer) -> None:
    """Serves one caller of `/api/chat`."""
    early = EarlyMessages()
    try:
        async with answered(websocket, server, "moshi", SAMPLE_RATE, early.waiting) as accepted:
            if accepted is not None:
                await _serve(*accepted, early, server)
    finally:
        early.end()


class EarlyMessages:
    """What a caller sends before its call begins: kept in order, the newest `MOST_EARLY` bytes.

    It is read all the time, so that a caller that leaves the queue is noticed.
    """

    def __init__(self) -> None:
        self._kept: deque[bytes] = deque()
        self._reading: asyncio.Task[None] | None = None

    async def waiting(self, socket: CallSocket, place: int) -> None:
        """Reads, also while the caller waits for a seat. Nothing is sent: no client understands a place in a queue.

        Raises:
            Gone: if the caller left.
        """
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(socket))
        if self._reading.done():
            raise Gone

    async def messages(self, socket: CallSocket) -> AsyncIterator[bytes]:
        """What was kept, then what comes.

        Raises:
            Gone: when there is no more.
        """
        assert self._reading is not None, "`waiting` comes first."
        self._reading.cancel()
        await asyncio.wait([self._reading])
        while self._kept:
            yield self._kept.popleft()
        if not self._reading.cancelled():  # the caller left
            raise Gone
        while True:
            message = await socket.receive()
            if isinstance(message, bytes):
                yield message

    def end(self) -> None:
        """Stops reading."""
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self, socket: CallSocket) -> None:
        size = 0
        try:
            while True:
                message = await socket.receive()
                if isinstance(message, bytes):
                    self._kept.append(message)
                    size += len(message)
                while size > MOST_EARLY and len(self._kept) > 1:
                    size -= len(self._kept.popleft())
        except Gone:
            pass


async def _serve(call: Call, socket: CallSocket, early: EarlyMessages, server: CallServer) -> None:
    await early.waiting(socket, 0)
    try:
        await call.begin(**session_options(socket.socket.query_params, server.model, server.config))
    except InputError as error:
        await _end(socket, INTERNAL_ERROR, str(error))
        return
    except Exception as error:
        _log.exception("a call could not begin", extra={"id": call.id})
        call.error = error
        call.end(FAILED)
        await _end(socket, *_ENDINGS[FAILED])
        return
    await socket.send(HANDSHAKE)
    await until_one_ends(call, _hear(call, socket, early), _speak(call, socket, server))
    if call.ended is not None:
        await _end(socket, *_ENDINGS[call.ended])


async def _end(socket: CallSocket, code: int, message: str) -> None:
    await socket.send(ERROR + message.encode())
    await socket.close(code, message)


async def _hear(call: Call, socket: CallSocket, early: EarlyMessages) -> None:
    """What the caller sends."""
    reader, told = OpusReader(SAMPLE_RATE), False
    async for message in early.messages(socket):
        if message[:1] != AUDIO:
            continue
        for start in range(1, len(message), _SLICE):
            await _push(call, reader, message[start : start + _SLICE])
        if reader.broken and not told:
            told = True
            await socket.send(ERROR + b"Audio could not be read and is left out. Expected an Ogg stream of Opus.")


async def _push(call: Call, reader: OpusReader, data: bytes) -> None:
    """Decodes the bytes packet by packet and pushes what they hold; other callers get their turn after every 80 ms of it."""
    parts: list[np.ndarray] = []
    for samples in reader.push(data):
        parts.append(samples)
        if sum(map(len, parts)) >= _PUSHED:
            await call.push(np.concatenate(parts))
            await asyncio.sleep(0)
            parts = []
    if parts:
        await call.push(np.concatenate(parts))


async def _speak(call: Call, socket: CallSocket, server: CallServer) -> None:
    """What the agent does: the sound of every frame, then its text."""
    sound = AgentAudio(server.model.agent_sample_rate, SAMPLE_RATE)
    frame_samples = round(server.worker.frame_seconds * SAMPLE_RATE)
    writer: OpusWriter | None = None
    blank = False  # whether a blank is due before the next text
    async for frame in call:
        samples = sound.frame(frame.audio)
        if writer is None:  # silence takes the place of what the resampler keeps, so that all frames are sent whole
            lead = frame_samples - len(samples)
            writer, samples = OpusWriter(SAMPLE_RATE, lead), np.concatenate([np.zeros(lead, np.float32), samples])
        pages = b""
        for start in range(0, len(samples), PACKET_SAMPLES):
            pages += writer.push(samples[start : start + PACKET_SAMPLES])
            await asyncio.sleep(0)  # to encode a packet takes about half a millisecond
        await socket.send(AUDIO + pages)
        blank = blank or frame.turn_started
        if frame.text:
            text = " " + frame.text if blank and not frame.text[0].isspace() else frame.text
            blank = False
            await socket.send(TEXT + text.encode("utf-8", "replace"))
