"""What a caller may let the agent say, and what of it reaches the model."""

import asyncio
import json

import pytest
import websockets

from nemo_duplex.inputs import InputError
from nemo_duplex.serving.metrics import Metrics
from nemo_duplex.serving.worker import MOST_SAID, ModelWorker


@pytest.mark.parametrize(
    "text, said",
    [
        ("one " * 501, "say: a text of 2004 characters, expected at most 2000. Say it in parts."),
        ("one \ud83d", "say: the text has half of a character"),
        ("   ", "say: the text '   ' has no word."),
        ("一", "say: the model's tokenizer cannot write 一"),
    ],
)
def test_what_the_agent_cannot_say_is_refused_before_it_is_asked_to(agent, text, said):
    with pytest.raises(InputError) as refused:
        ModelWorker(agent, 1, Metrics()).check_said(text)
    assert str(refused.value).startswith(said)


def test_the_longest_text_is_said(agent):
    ModelWorker(agent, 1, Metrics()).check_said("one " * (MOST_SAID // 4))


def test_a_caller_is_told_and_the_call_goes_on(server):
    async def talk():
        async with websockets.connect(f"ws://{server}/api/talk?rate=16000") as call:
            await call.recv()
            await call.send(json.dumps({"type": "say", "text": "\ud83d"}))
            error = json.loads(await call.recv())
            await call.send(bytes(2 * 1280 * 2))
            return error, json.loads(await call.recv())

    error, frame = asyncio.run(asyncio.wait_for(talk(), 30))
    assert error["type"] == "error" and "half of a character" in error["message"]
    assert frame["type"] == "frame" and frame["index"] == 0


def test_a_command_that_raises_ends_nothing(agent, server, monkeypatch):
    """Whatever the model says to a command."""
    from nemo_duplex.streaming.session import EngineSession

    def say(self, text):
        raise ValueError("a planted error")

    async def talk():
        async with websockets.connect(f"ws://{server}/api/talk?rate=16000") as call:
            await call.recv()
            monkeypatch.setattr(EngineSession, "say", say)
            await call.send(json.dumps({"type": "say", "text": "one"}))
            await call.send(bytes(2 * 1280 * 2))
            return json.loads(await call.recv())

    assert asyncio.run(asyncio.wait_for(talk(), 30))["index"] == 0
