"""What every protocol says when the model cannot begin a call, and where the server closes a connection."""

import asyncio
import json
import re

import pytest
import websockets

from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.call import DRAINED
from nemo_duplex.serving.config import ServerConfig
from nemo_duplex.serving.worker import ModelWorker
from tests.serving.answering import serving

OPENINGS = {
    "/api/talk": [],
    "/api/chat": [],
    "/v1/realtime?model=any": [],
    "/v1/live/sessions": [json.dumps({"type": "session.start", "session": {"model": "any"}})],
}


async def told(address, path, opening, before_end=None):
    """Everything that the server sends, and its close code."""
    messages = []
    async with websockets.connect(f"ws://{address}{path}", max_size=None) as call:
        for message in opening:
            await call.send(message)
        try:
            async for message in call:
                messages.append(message if isinstance(message, str) else message.decode("latin-1"))
                if before_end is not None:
                    before_end()
        except websockets.ConnectionClosedError:
            pass
        return messages, call.close_code


@pytest.mark.parametrize("path", OPENINGS)
def test_a_call_that_cannot_begin_is_told_so_and_closed(agent, monkeypatch, path):
    async def begin(self, call, **options):
        raise OSError("a planted error")

    monkeypatch.setattr(ModelWorker, "begin", begin)
    app = make_app(agent, ServerConfig(callers=1))
    with serving(app) as address:
        messages, code = asyncio.run(asyncio.wait_for(told(address, path, OPENINGS[path]), 30))
        assert code == 1011 and "fail" in messages[-1].lower()
        assert "planted" not in "".join(messages)
        assert re.findall(
            r'calls_ended_total{protocol="\w+",reason="(\w+)"} 1.0', app.state.server.metrics.text().decode()
        ) == ["failed"]
        assert app.state.server.admission.taken == 0


@pytest.mark.parametrize("path", ["/api/talk", "/v1/realtime?model=any"])
def test_a_server_that_shuts_down_closes_with_1001(agent, path):
    app = make_app(agent, ServerConfig(callers=1))

    def end():
        for call in list(app.state.server.calls.values()):
            app.state.server.worker._loop.call_soon_threadsafe(call.end, DRAINED)

    with serving(app) as address:
        _, code = asyncio.run(asyncio.wait_for(told(address, path, OPENINGS[path], end), 30))
    assert code == 1001
