"""Callers of a server, in real time, over the network: what each hears, and when.

A caller sends 80 ms of audio every 80 ms. The frames of an encoder chunk need the audio up to its end and a little more
(`Perception`). The first of them is due when the message with the last sample that they need is sent, the second 80 ms later,
when the first has been played. A frame is *late* by the time from then until its sound was there; early ones count as 0.
Frames are counted: where a server skips audio, all later ones are late by that.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import sphn
import websockets

from nemo_duplex.frames import FRAME_RATE, Seconds

RATE = 24000
FRAME: Seconds = FRAME_RATE.seconds
SAMPLES = FRAME_RATE.samples_per_frame(RATE)
#: A player starts when so much is there, and is dry when a frame comes later than that.
PLAYER_BUFFER: Seconds = 0.08


class Wire(Protocol):
    """One protocol, as a caller speaks it."""

    path: str
    opening: tuple[str | bytes, ...]  # messages that begin a call
    every_frame: bool  # whether the sound of every frame is sent, so that it can be counted

    def is_ready(self, message: str | bytes) -> bool:
        """Whether the server is ready for audio from this message on."""

    def sent(self, samples: np.ndarray) -> Iterator[str | bytes]:
        """The messages of (S,) float32 samples."""

    def heard(self, message: str | bytes) -> int:
        """How many samples of the agent's sound the message brings."""


class TalkWire:
    """`/api/talk`: 16-bit PCM."""

    path, opening, every_frame = f"/api/talk?rate={RATE}", (), True

    def is_ready(self, message: str | bytes) -> bool:
        return isinstance(message, str) and '"ready"' in message

    def sent(self, samples: np.ndarray) -> Iterator[str | bytes]:
        yield _pcm16(samples)

    def heard(self, message: str | bytes) -> int:
        return len(message) // 2 if isinstance(message, bytes) else 0


class MoshiWire:
    """`/api/chat`: Ogg/Opus, encoded and decoded here as by a real client."""

    path, opening, every_frame = "/api/chat", (), True

    def __init__(self) -> None:
        self._writer, self._reader = sphn.OpusStreamWriter(RATE), sphn.OpusStreamReader(RATE)

    def is_ready(self, message: str | bytes) -> bool:
        return message[:1] == b"\x00"

    def sent(self, samples: np.ndarray) -> Iterator[str | bytes]:
        encoded = self._writer.append_pcm(samples)
        if encoded:
            yield b"\x01" + encoded

    def heard(self, message: str | bytes) -> int:
        if message[:1] != b"\x01":
            return 0
        assert isinstance(message, bytes)
        return len(self._reader.append_bytes(message[1:]))


class RealtimeWire:
    """`/v1/realtime`: base64 in JSON; only the agent's turns are sent."""

    path, opening, every_frame = "/v1/realtime?model=nemo_duplex", (), False

    def is_ready(self, message: str | bytes) -> bool:
        return '"session.created"' in str(message)

    def sent(self, samples: np.ndarray) -> Iterator[str | bytes]:
        yield _event("input_audio_buffer.append", audio=base64.b64encode(_pcm16(samples)).decode())

    def heard(self, message: str | bytes) -> int:
        event = json.loads(message)
        return len(base64.b64decode(event["delta"])) // 2 if event["type"] == "response.output_audio.delta" else 0


class LiveWire:
    """`/v1/live/sessions`: base64 in JSON, every frame."""

    path, every_frame = "/v1/live/sessions", True
    opening = (
        json.dumps(
            {
                "type": "session.start",
                "session": {"model": "nemo_duplex", "audio": {"format": {"type": "audio/pcm", "rate": RATE}}},
            }
        ),
    )

    def is_ready(self, message: str | bytes) -> bool:
        return '"session.started"' in str(message)

    def sent(self, samples: np.ndarray) -> Iterator[str | bytes]:
        yield _event("session.input_audio.append", audio=base64.b64encode(_pcm16(samples)).decode())

    def heard(self, message: str | bytes) -> int:
        event = json.loads(message)
        return len(base64.b64decode(event["delta"])) // 2 if event["type"] == "session.output_audio.delta" else 0


WIRES: dict[str, type[Any]] = {"talk": TalkWire, "moshi": MoshiWire, "realtime": RealtimeWire, "live": LiveWire}


@dataclass
class Heard:
    """What one caller heard.

    Args:
        late: of each frame, Seconds; empty where the protocol does not send every frame.
        underruns: how often a player with `PLAYER_BUFFER` would have been dry.
        dropped: why the call ended before its time, or "".
        samples: of the agent's sound.
    """

    late: list[Seconds] = field(default_factory=list)
    underruns: int = 0
    dropped: str = ""
    samples: int = 0


@dataclass(frozen=True)
class ChunkNeeds:
    """Which audio a frame needs.

    Args:
        chunk_frames: frames of an encoder chunk.
        ahead: audio that it needs after its last frame, Seconds; negative where a stream begins with silence.
    """

    chunk_frames: int
    ahead: Seconds

    def message(self, frame: int) -> int:
        """The number of the 80 ms message with the last sample that a frame needs."""
        frames = (frame // self.chunk_frames + 1) * self.chunk_frames
        return math.ceil(frames + self.ahead / FRAME - 1e-9) - 1


async def call(address: str, wire: Wire, audio: np.ndarray, seconds: Seconds, needs: ChunkNeeds, begin: Seconds) -> Heard:
    """One caller who plays `audio` (S,) for `seconds` from `begin` seconds on; never raises because of the server."""
    await asyncio.sleep(begin)
    heard = Heard()
    sent_at: list[float] = []
    frame_at: list[float] = []
    try:
        async with websockets.connect(f"ws://{address}{wire.path}", max_size=None, compression=None) as socket:
            for message in wire.opening:
                await socket.send(message)
            ready = asyncio.Event()

            async def listen() -> None:
                async for message in socket:
                    now = time.monotonic()
                    if not ready.is_set() and wire.is_ready(message):
                        ready.set()
                        continue
                    heard.samples += wire.heard(message)
                    # A resampler may keep the last milliseconds of a frame.
                    while wire.every_frame and heard.samples >= (len(frame_at) + 1) * SAMPLES - SAMPLES // 8:
                        frame_at.append(now)

            listening = asyncio.create_task(listen())
            await asyncio.wait_for(ready.wait(), 30)
            start = time.monotonic()
            for number in range(round(seconds / FRAME)):
                await asyncio.sleep(max(0.0, start + number * FRAME - time.monotonic()))
                piece = np.take(audio, np.arange(number * SAMPLES, (number + 1) * SAMPLES), mode="wrap")
                sent_at.append(time.monotonic())
                for message in wire.sent(piece):
                    await socket.send(message)
                if listening.done():
                    raise ConnectionError("the server closed the call")
            await asyncio.sleep(0.5)
            listening.cancel()
    except Exception as error:
        heard.dropped = f"{type(error).__name__}: {error}"
    _judge(heard, sent_at, frame_at, needs)
    return heard


def _judge(heard: Heard, sent_at: list[float], frame_at: list[float], needs: ChunkNeeds) -> None:
    """Lateness of the frames, and how often a player was dry."""
    for frame, at in enumerate(frame_at):
        if needs.message(frame) < len(sent_at):
            due = sent_at[needs.message(frame)] + frame % needs.chunk_frames * FRAME
            heard.late.append(max(0.0, at - due))
    play_at = frame_at[0] + PLAYER_BUFFER if frame_at else 0.0
    for at in frame_at:
        if at > play_at:
            heard.underruns += 1
            play_at = at
        play_at += FRAME


def _pcm16(samples: np.ndarray) -> bytes:
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()


def _event(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})
