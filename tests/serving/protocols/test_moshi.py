"""`/api/chat` over a real socket, as Moshi's clients speak it."""

import asyncio
from dataclasses import dataclass

import numpy as np
import pytest
import sphn
import websockets
from hypothesis import HealthCheck, given, settings
from scipy.signal import resample_poly

from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.call import DRAINED, FAILED, FINISHED, IDLE, SLOW, TOO_LONG
from nemo_duplex.serving.caller_audio import AudioRules
from nemo_duplex.serving.config import Limits, ServerConfig
from nemo_duplex.serving.protocols import moshi
from nemo_duplex.serving.protocols.call_socket import Gone
from nemo_duplex.streaming.session import EngineSession
from tests.dummies import voice_like
from tests.serving.answering import ANSWER, serving
from tests.serving.conftest import UNHURRIED
from tests.serving.protocols.fuzz_moshi import broken_streams, check_stream
from tests.serving.test_opus import DELAY, lateness, noise

#: 0.5 s of silence, 1.2 s of a voice, 3 s of silence, at 24 kHz.
QUESTION = np.concatenate([np.zeros(12000), voice_like(1.2, sample_rate=24000), np.zeros(72000)]).astype(np.float32)


def spoken(samples):
    """The messages of Moshi's command-line client: 80 ms each."""
    writer = sphn.OpusStreamWriter(24000)
    return [b"\x01" + writer.append_pcm(samples[start : start + 1920]) for start in range(0, len(samples), 1920)]


async def converse(address, messages, frames, query=""):
    """Sends all at once, without waiting for the handshake, as Moshi's command-line client: the messages of so many frames."""
    received, heard = [], 0
    async with websockets.connect(f"ws://{address}/api/chat?{query}", max_size=None) as socket:
        for message in messages:
            await socket.send(message)
        while heard < frames:
            message = await asyncio.wait_for(socket.recv(), 60)
            received.append(message)
            heard += message[:1] == b"\x01"
    return received


def sound(received):
    """The samples of every message of audio, as Moshi's clients decode them."""
    reader = sphn.OpusStreamReader(24000)
    return [reader.append_bytes(message[1:]) for message in received if message[:1] == b"\x01"]


def text(received):
    return [message[1:].decode() for message in received if message[:1] == b"\x02"]


@pytest.fixture
def heard(monkeypatch):
    """What the engine's sessions are given."""
    parts, push = {}, EngineSession.push

    def listening(self, audio):
        parts.setdefault(self, []).append(np.array(audio))
        push(self, audio)

    monkeypatch.setattr(EngineSession, "push", listening)
    return lambda: [np.concatenate(audio) for audio in parts.values()]


def test_the_handshake_comes_first_then_sound_of_every_frame_and_the_words_with_their_blanks(server):
    received = asyncio.run(converse(server, spoken(QUESTION), 55))
    assert received[0] == b"\x00" and {message[0] for message in received[1:]} == {1, 2}
    assert [len(samples) for samples in sound(received)] == [1920] * 55
    assert "".join(text(received)) == " " + ANSWER


def test_the_engine_hears_the_first_sample_and_every_other_6_5_ms_late(server, heard):
    said = noise(48000)
    asyncio.run(converse(server, spoken(said), 24))
    (audio,) = heard()
    assert abs(lateness(audio[:48000], said) - DELAY) <= 1
    first = np.corrcoef(audio[DELAY : DELAY + 1920], said[:1920])[0, 1]
    assert first > 0.5  # the first 80 ms


def test_the_agents_first_frame_and_every_other_reach_the_client(agent, monkeypatch):
    made, take = [], EngineSession.take_frame
    monkeypatch.setattr(EngineSession, "take_frame", lambda self, *frame: made.append(frame[2]) or take(self, *frame))
    with serving(make_app(agent, ServerConfig(callers=1, audio=UNHURRIED))) as address:
        received = asyncio.run(converse(address, spoken(np.zeros(24000 * 2, np.float32)), 24))
    said = resample_poly(np.concatenate(made[:24]), 160, 147)
    played = np.concatenate(sound(received))
    late = lateness(played, said)
    assert 34 <= late - DELAY <= 36  # the resampler's 1.5 ms
    assert np.corrcoef(played[late : late + 1920], said[:1920])[0, 1] > 0.5  # the first frame


def test_what_a_caller_says_while_it_waits_for_a_seat_is_kept_and_nothing_is_sent_to_it(agent, heard):
    config = ServerConfig(callers=1, audio=UNHURRIED, limits=Limits(waiting=1))

    async def main(address):
        async with websockets.connect(f"ws://{address}/api/chat") as seated:
            assert await seated.recv() == b"\x00"
            async with websockets.connect(f"ws://{address}/api/chat") as second:
                for message in spoken(np.concatenate([said, np.zeros(24000, np.float32)])):
                    await second.send(message)
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(second.recv(), 0.5)
                await seated.close()
                assert await asyncio.wait_for(second.recv(), 60) == b"\x00"
                for _ in range(50):
                    assert (await asyncio.wait_for(second.recv(), 60))[0] == 1

    said = noise(24000 * 4)
    with serving(make_app(agent, config)) as address:
        asyncio.run(main(address))
    audio = heard()[-1]
    assert abs(lateness(audio[: len(said)], said) - DELAY) <= 1
    assert np.corrcoef(audio[DELAY : DELAY + 1920], said[:1920])[0, 1] > 0.5


class Lines:
    """A socket that gives some messages, then waits for ever or is gone."""

    def __init__(self, messages, leaves):
        self.messages, self.leaves = list(messages), leaves

    async def receive(self):
        if not self.messages:
            if self.leaves:
                raise Gone
            await asyncio.Event().wait()
        return self.messages.pop(0)


def test_early_messages_come_before_later_ones_and_the_oldest_are_dropped_when_there_are_too_many():
    async def main(size):
        early, lines = moshi.EarlyMessages(), Lines([bytes([n]) * size for n in range(5)] + ["text"], leaves=False)
        await early.waiting(lines, 1)
        await asyncio.sleep(0.01)
        await early.waiting(lines, 1)
        lines.messages, lines.leaves = [b"later"], True
        got = []
        with pytest.raises(Gone):
            async for message in early.messages(lines):
                got.append(message[:1])
        return got

    assert asyncio.run(main(10)) == [b"\x00", b"\x01", b"\x02", b"\x03", b"\x04", b"l"]
    assert asyncio.run(main(moshi.MOST_EARLY // 3)) == [b"\x02", b"\x03", b"\x04", b"l"]


def test_a_caller_that_leaves_the_queue_gives_its_place_back():
    async def main():
        early, lines = moshi.EarlyMessages(), Lines([b"\x01"], leaves=True)
        await early.waiting(lines, 1)
        await asyncio.sleep(0.01)
        with pytest.raises(Gone):
            await early.waiting(lines, 1)

    asyncio.run(main())


def test_what_means_nothing_is_ignored_and_changes_nothing(server):
    odd = ["text", '{"type": "stop"}', b"", b"\x00", b"\x01", b"\x02word", b"\x03\x00", b"\x03\x01", b"\x03\x02", b"\x03"]
    odd += [b"\x04{}", b"\x05oh", b"\x06", b"\x07\x01word", b"\x08", b"\xff\xff"]
    messages = spoken(QUESTION[:72000])
    mixed = [part for place, message in enumerate(messages) for part in (odd[place % len(odd)], message)]
    plain, disturbed = (asyncio.run(converse(server, some, 35)) for some in (messages, mixed))
    assert disturbed == plain


def test_audio_that_cannot_be_read_is_said_once_and_the_call_goes_on(server):
    messages = spoken(QUESTION[:72000])
    spoiled = [messages[0], b"\x01RIFF", b"\x01" + bytes(2000), *messages[1:], b"\x01RIFF"]
    received = asyncio.run(converse(server, spoiled, 35))
    errors = [message for message in received if message[0] == 5]
    assert len(errors) == 1 and b"Ogg" in errors[0]
    plain = asyncio.run(converse(server, messages, 35))
    assert [message for message in received if message[0] != 5] == plain


def test_a_caller_that_says_nothing_hears_the_agents_silence_without_a_pause(agent):
    config = ServerConfig(callers=1, audio=AudioRules(patience=0.1, patience_at_start=0.1))
    with serving(make_app(agent, config)) as address:
        received = asyncio.run(converse(address, [], 12))
    assert [message[0] for message in received] == [0] + [1] * 12


@pytest.mark.parametrize(
    ("reason", "code"), [(DRAINED, 1001), (TOO_LONG, 1008), (IDLE, 1008), (SLOW, 1008), (FAILED, 1011), (FINISHED, 1001)]
)
def test_the_end_is_said_then_closed_with_a_code_that_is_not_1000(agent, reason, code):
    app = make_app(agent, ServerConfig(callers=1))

    async def main(address):
        async with websockets.connect(f"ws://{address}/api/chat") as socket:
            assert await socket.recv() == b"\x00"
            (call,) = app.state.server.calls.values()
            app.state.server.worker._loop.call_soon_threadsafe(call.end, reason)
            messages = [message async for message in Until(socket)]
            return messages, socket.close_code

    with serving(app) as address:
        messages, closed = asyncio.run(main(address))
    assert messages[-1][0] == 5 and messages[-1][1:].decode() == moshi._ENDINGS[reason][1]
    assert closed == code == moshi._ENDINGS[reason][0]


class Until:
    """The messages of a socket until it is closed, however it is closed."""

    def __init__(self, socket):
        self.socket = socket

    def __aiter__(self):
        return self

    async def __anext__(self):
        try:
            return await asyncio.wait_for(self.socket.recv(), 60)
        except websockets.ConnectionClosed:
            raise StopAsyncIteration from None


def test_a_call_that_cannot_begin_says_why(agent, monkeypatch):
    app = make_app(agent, ServerConfig(callers=1))

    async def fail(*_, **__):
        raise RuntimeError("out of memory at 0x7f")

    async def main(address):
        async with websockets.connect(f"ws://{address}/api/chat") as socket:
            return [message async for message in Until(socket)], socket.close_code

    with serving(app) as address:
        monkeypatch.setattr(app.state.server.worker, "begin", fail)
        messages, closed = asyncio.run(main(address))
    assert messages == [b"\x05The model failed. Call again."] and closed == 1011


def test_the_seed_of_personaplex_and_the_temperatures_reach_the_session(agent, monkeypatch):
    opened = []
    begin = EngineSession.__init__
    monkeypatch.setattr(EngineSession, "__init__", lambda self, *a, **k: opened.append(k) or begin(self, *a, **k))
    with serving(make_app(agent, ServerConfig(callers=1))) as address:
        asyncio.run(converse(address, spoken(QUESTION[:1920]), 1, "seed=7&text_temperature=0.5&voice_prompt=NATF2.pt&x=%00"))
    assert opened[0]["seed"] == 7 and opened[0]["sampling"].text.temperature == 0.5 and opened[0]["sample_rate"] == 24000


@dataclass
class Frame:
    text: str = ""
    turn_started: bool = False
    audio: np.ndarray = None


class Sent:
    def __init__(self):
        self.messages = []

    async def send(self, message):
        self.messages.append(message)


def test_each_turn_begins_with_a_blank_and_words_are_left_whole():
    class Server:
        class model:
            agent_sample_rate = 24000

        class worker:
            frame_seconds = 0.08

    frames = [Frame(), Frame(turn_started=True), Frame("Ich"), Frame(" hör"), Frame("e."), Frame(), Frame("🙂", True)]
    frames += [Frame(turn_started=True), Frame(" so"), Frame("gar")]

    async def call():
        for frame in frames:
            frame.audio = np.zeros(1920, np.float32)
            yield frame

    sent = Sent()
    asyncio.run(moshi._speak(call(), sent, Server))
    assert text(sent.messages) == [" Ich", " hör", "e.", " 🙂", " so", "gar"]
    assert [message[0] for message in sent.messages] == [1, 1, 1, 2, 1, 2, 1, 2, 1, 1, 2, 1, 1, 2, 1, 2]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(broken_streams())
def test_no_bytes_end_the_reader_or_take_long(stream):
    check_stream(stream)


def test_a_message_of_many_pages_is_heard_whole():
    class Early:
        async def messages(self, socket):
            yield b"\x01" + b"".join(message[1:] for message in spoken(said))

    class Listener:
        def __init__(self):
            self.parts = []

        async def push(self, samples):
            self.parts.append(samples)

    said, call = noise(24000 * 8), Listener()
    asyncio.run(moshi._hear(call, None, Early()))
    assert sum(map(len, call.parts)) == len(said) and max(map(len, call.parts)) <= 1920
