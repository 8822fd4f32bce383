"""`/v1/realtime` over a real socket: OpenAI Realtime as clients meet it."""

import asyncio
import base64
import json

import numpy as np
import pytest
import websockets

from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.caller_audio import AudioRules
from nemo_duplex.serving.config import ServerConfig
from nemo_duplex.serving.wire_audio import WireFormat
from tests.dummies import voice_like
from tests.serving.answering import ANSWER, ANSWER_FRAMES, make_answering, serving
from tests.serving.protocols.realtime_schema import check_event
from tests.serving.protocols.test_realtime_conversation import BEGIN, END, SOUND, STOPPED, TEXT

RATE = 24000
#: 0.5 s of silence, 1 s of a voice.
QUESTION = np.concatenate([np.zeros(RATE // 2), voice_like(1.0, sample_rate=RATE)])


#: Longer than an answer: sent at once, so that the model answers as fast as it can.
SILENCE = np.zeros(5 * RATE)


def pcm(*parts: np.ndarray) -> bytes:
    """Sound as it is sent: the question and a silence, if nothing else is said."""
    return (np.concatenate(parts or (QUESTION, SILENCE)) * 32767).astype("<i2").tobytes()


class Client:
    """A client of one session; every event that comes is checked."""

    def __init__(self, socket):
        self.socket, self.events = socket, []

    async def send(self, kind, **fields):
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def append(self, sound: bytes, piece: int = 48000):
        for start in range(0, len(sound), piece):
            await self.send("input_audio_buffer.append", audio=base64.b64encode(sound[start : start + piece]).decode())

    async def until(self, kind):
        """The events up to the next one of a kind."""
        first = len(self.events)
        while len(self.events) == first or self.events[-1]["type"] != kind:
            event = json.loads(await asyncio.wait_for(self.socket.recv(), 60))
            check_event(event)
            self.events.append(event)
        return self.events[first:]


def talk(address, conversation, path="/v1/realtime?model=duplex", **options):
    """Runs a conversation with a `Client`."""

    async def run():
        async with websockets.connect(f"ws://{address}{path}", max_size=None, **options) as socket:
            return await conversation(Client(socket))

    return asyncio.run(run())


def story(events):
    """The types of events; several of a kind in a row once."""
    kinds = [event["type"] for event in events]
    return [kind for place, kind in enumerate(kinds) if place == 0 or kinds[place - 1] != kind]


async def ask_at_once(client):
    await client.until("session.created")
    await client.append(pcm())
    return await client.until("response.done")


def test_a_file_sent_at_once_is_answered(server):
    events = talk(server, ask_at_once)
    told = story(events)
    assert told[:6] == ["input_audio_buffer.speech_started", *STOPPED, BEGIN[0]]
    assert told[6:9] == BEGIN[1:] and told[-6:] == END and set(told[9:-6]) == {SOUND, TEXT}
    assert "".join(event["delta"] for event in events if event["type"] == TEXT).strip() == ANSWER
    sound = [base64.b64decode(event["delta"]) for event in events if event["type"] == SOUND]
    assert ANSWER_FRAMES - 3 <= len(sound) <= ANSWER_FRAMES + 5  # one delta a frame
    assert abs(sum(map(len, sound)) - len(sound) * 3840) < 200
    start, stop = events[0]["audio_start_ms"], next(event["audio_end_ms"] for event in events if "audio_end_ms" in event)
    assert 100 <= start <= 300 and 1400 <= stop <= 2300


def test_the_telephone_is_answered(server):
    async def conversation(client):
        await client.until("session.created")
        audio = {side: {"format": {"type": "audio/pcmu"}} for side in ("input", "output")}
        await client.send("session.update", session={"type": "realtime", "audio": audio})
        await client.until("session.updated")
        sound = WireFormat("ulaw", 8000).encode(np.concatenate([QUESTION, SILENCE])[::3].astype(np.float32))
        await client.append(sound, piece=160)
        return await client.until("response.done")

    events = talk(server, conversation)
    sound = [base64.b64decode(event["delta"]) for event in events if event["type"] == SOUND]
    assert "".join(event["delta"] for event in events if event["type"] == TEXT).strip() == ANSWER
    assert abs(sum(map(len, sound)) - len(sound) * 640) < 60


def test_push_to_talk(server):
    async def conversation(client):
        await client.until("session.created")
        await client.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
        await client.append(pcm(QUESTION), piece=4800)
        await client.send("input_audio_buffer.commit")
        await client.send("response.create", response={"metadata": {"client_event_id": "mine"}})
        await client.append(pcm(SILENCE))
        events = await client.until("response.done")
        await client.send("response.cancel")
        return events, await client.until("error")

    events, ends = talk(server, conversation)
    assert story(events)[:5] == ["session.updated", *STOPPED[1:], "response.created"]
    assert [event["type"] for event in events].count("response.created") == 1
    assert events[-1]["response"]["metadata"] == {"client_event_id": "mine"}
    assert ends[-1]["error"]["code"] == "response_cancel_not_active"


def test_an_agent_that_is_asked_begins_without_any_audio(agent):
    async def conversation(client):
        await client.until("session.created")
        await client.send("response.create")
        begun = await client.until(SOUND)
        await client.send("response.cancel")
        return begun, await client.until("response.done")

    rules = AudioRules(patience=0.1, patience_at_start=0.1)
    with serving(make_answering(make_app(agent, ServerConfig(callers=1, audio=rules)))) as address:
        begun, ended = talk(address, conversation)
    assert story(begun) == [*BEGIN, SOUND] and story(ended)[-6:] == END


def test_a_barge_in_ends_the_answer_and_is_answered(server):
    async def conversation(client):
        await client.until("session.created")
        await client.append(pcm(QUESTION, np.zeros(RATE), QUESTION, SILENCE))
        await client.until(TEXT)
        await client.until("input_audio_buffer.speech_started")
        return await client.until("response.done"), await client.until("response.done")

    cancelled, again = talk(server, conversation)
    assert story(cancelled) == END and cancelled[-1]["response"]["status_details"]["reason"] == "turn_detected"
    assert again[-1]["response"]["status"] == "completed"
    assert again[-1]["response"]["output"][0]["content"][0]["transcript"].strip() == ANSWER


@pytest.mark.parametrize(
    "offered, chosen",
    [
        (["realtime", "openai-insecure-api-key.sk-1"], "realtime"),
        (["realtime", "openai-insecure-api-key.sk-1", "openai-beta.realtime-v1"], "realtime"),
        (None, None),
    ],
)
def test_subprotocols_of_browsers(server, offered, chosen):
    async def conversation(client):
        await client.until("session.created")
        return client.socket.subprotocol

    assert talk(server, conversation, subprotocols=offered) == chosen


def test_without_v1_in_the_address(server):
    async def conversation(client):
        return await client.until("session.created")

    (created,) = talk(server, conversation, path="/realtime?model=gpt-realtime")
    assert created["session"]["model"] == "gpt-realtime"
    (created,) = talk(server, conversation, path="/v1/realtime")
    assert created["session"]["model"] == "DuplexS2SModel"
