"""`/api/talk` over a real socket."""

import asyncio
import json

import httpx
import numpy as np
import pytest
import websockets
from websockets.sync.client import connect

from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.config import ServerConfig
from tests.dummies import voice_like
from tests.serving.answering import ANSWER, serving

RATE = 16000
#: 0.5 s of silence, 1.2 s of a voice, 3 s of silence.
QUESTION = np.concatenate([np.zeros(8000), voice_like(1.2).numpy(), np.zeros(48000)])


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


def test_a_number_sent_with_a_ping_comes_back(server):
    async def pinged():
        async with websockets.connect(f"ws://{server}/api/talk") as socket:
            await socket.recv()
            answers = []
            for sent in (12.5, "text", None, float("nan"), True):
                await socket.send(json.dumps({"type": "ping", "sent": sent}))
                answers.append(json.loads(await socket.recv()))
            return answers

    assert asyncio.run(pinged()) == [{"type": "pong", "sent": sent} for sent in (12.5, None, None, None, True)]


def test_a_plain_get_tells_what_a_call_would_get(agent):
    app = make_app(agent, ServerConfig(callers=1))
    with serving(app) as address, httpx.Client(base_url=f"http://{address}") as client:
        free = client.get("/api/talk?rate=16000")
        assert (free.status_code, free.headers["cache-control"]) == (200, "no-store")
        assert free.json() == {"agent": "DuplexS2SModel", "rate": 16000, "frame_seconds": 0.08, "recordings": False}
        wrong = client.get("/api/talk?rate=x")
        assert wrong.status_code == 400 and "rate=x" in wrong.json()["error"]["message"]
        with connect(f"ws://{address}/api/talk") as socket:
            assert json.loads(socket.recv())["type"] == "ready"
            full = client.get("/api/talk")
            assert (full.status_code, full.headers["retry-after"]) == (503, "5")
            with pytest.raises(websockets.InvalidStatus) as refused:
                connect(f"ws://{address}/api/talk")
            assert refused.value.response.body == full.content
