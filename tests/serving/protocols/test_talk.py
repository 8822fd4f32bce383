"""`/api/talk` over a real socket."""

import asyncio
import json

import numpy as np
import pytest
import websockets

from tests.serving.answering import ANSWER

RATE = 16000
#: 0.5 s of silence, 1.2 s of "speech", 3 s of silence.
QUESTION = np.concatenate(
    [np.zeros(8000), 0.3 * np.sin(np.arange(19200) * 0.3) * (np.arange(19200) % 4000 < 3000), np.zeros(48000)]
)


async def converse(address, pcm, query="rate=16000"):
    """Sends all at once, then `finish`: (what was said before the frames, frames with their sound, the end)."""
    frames, others = [], []
    async with websockets.connect(f"ws://{address}/api/talk?{query}", max_size=None) as socket:
        others.append(json.loads(await socket.recv()))
        for start in range(0, len(pcm), 1000):
            await socket.send(pcm[start : start + 1000])
        await socket.send(json.dumps({"type": "finish"}))
        async for message in socket:
            message = json.loads(message)
            if message["type"] == "frame":
                frames.append((message, await socket.recv()))
            else:
                others.append(message)
    return frames, others


@pytest.fixture
def talked(server):
    pcm = (QUESTION * 32767).astype("<i2").tobytes()
    return asyncio.run(converse(server, pcm))


def test_every_frame_comes_with_its_sound_and_the_call_ends_finished(talked):
    frames, others = talked
    assert [frame["index"] for frame, _ in frames] == list(range(59))  # ceil(75200 / 1280)
    assert [other["type"] for other in others] == ["ready", "ended"] and others[-1]["reason"] == "finished"
    assert others[0]["rate"] == RATE and others[0]["frame_seconds"] == 0.08
    samples = sum(len(sound) // 2 for _, sound in frames)
    assert 0 <= 59 * 1280 - samples < 64  # the resampler keeps its last 2 ms


def test_the_agent_answers_when_the_user_stops(talked):
    frames, _ = talked
    frames = [frame for frame, _ in frames]
    started = [f["index"] for f in frames if f["turn_started"]]
    stopped = [f["index"] for f in frames if f["user_stopped"]]
    assert len(started) == 1 and started[0] > stopped[0] > 0
    assert "".join(f["text"] for f in frames).strip() == ANSWER
