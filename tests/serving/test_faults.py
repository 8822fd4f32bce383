"""Callers that break the rules: every other caller hears exactly what it would have heard, and nothing is left behind."""

import asyncio
import base64
import contextlib
import gc
import json
import os
import socket
import struct
import threading
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest
import websockets

from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.caller_audio import AudioRules
from nemo_duplex.serving.config import Limits, ServerConfig
from tests.dummies import speech_like, tiny_model
from tests.serving.answering import serving

#: Nothing is missing, late or skipped on a slow machine: what a caller hears depends on what it said alone.
PATIENT = AudioRules(patience=60.0, patience_at_start=60.0, skip_after=60.0)
SEATS = 8
PIECE = 1280


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def app(model):
    limits = Limits(message_bytes=100_000, send_seconds=2.0, unsent_seconds=1.0)
    return make_app(model, ServerConfig(callers=SEATS, audio=PATIENT, limits=limits))


@pytest.fixture(scope="module")
def address(app):
    with serving(app) as address:
        yield address


def said_by(number):
    """(S,) int16: 2.4 s of one caller."""
    return (speech_like(2.4, seed=number).numpy() * 32767).astype("<i2")


async def steady(address, number, during=None):
    """A caller who keeps the rules: every frame that it heard, as (index, text, sound). `during` is awaited within its call."""
    pcm, heard = said_by(number), []
    async with websockets.connect(f"ws://{address}/api/talk?rate=16000", max_size=None) as talk:

        async def listen():
            async for message in talk:
                if isinstance(message, str) and (message := json.loads(message))["type"] == "frame":
                    heard.append((message["index"], message["text"], await talk.recv()))

        listening = asyncio.create_task(listen())
        for start in range(0, len(pcm), PIECE):
            await talk.send(pcm[start : start + PIECE].tobytes())
            if during is not None and start == 10 * PIECE:
                await during
            await asyncio.sleep(0.005)
        await talk.send('{"type": "finish"}')
        await asyncio.wait_for(listening, 60)
    return heard


@pytest.fixture(scope="module")
def alone(address):
    """What each of three callers hears when nobody else calls."""
    return [asyncio.run(steady(address, number)) for number in range(3)]


async def beside(address, fault):
    """Three callers, and `fault` in the middle of their calls."""
    happened = asyncio.Event()

    async def wait():
        await asyncio.wait_for(happened.wait(), 60)

    async def disturb():
        try:
            await fault(address)
        finally:
            happened.set()

    disturbing = asyncio.create_task(disturb())
    heard = await asyncio.gather(*(steady(address, number, wait()) for number in range(3)))
    await disturbing
    return list(heard)


def assert_same(heard, alone):
    """The same texts in the same frames, and the same codes: sound that differs in the last bits of a batch's sums alone."""
    assert len(heard) == len(alone)
    for one, other in zip(heard, alone):
        assert [frame[:2] for frame in one] == [frame[:2] for frame in other]
        sounds = [np.frombuffer(b"".join(sound for _, _, sound in frames), "<i2").astype(int) for frames in (one, other)]
        assert np.abs(sounds[0] - sounds[1]).max() <= 4  # of 32768: 1e-4


def left_behind(app):
    """Seats that are taken, calls that are open, sessions in the engine; waits for what is on its way."""
    server, until = app.state.server, time.monotonic() + 60
    while time.monotonic() < until:
        left = (server.admission.taken, len(server.calls), len(server.worker._calls), len(server.worker._engine or ()))
        if left == (0, 0, 0, 0):
            break
        time.sleep(0.02)
    return left


# ------------------------------------------------------------------ faults

PATHS = {
    "talk": "/api/talk?rate=16000",
    "moshi": "/api/chat?text_temperature=0.0&audio_temperature=0.0",
    "realtime": "/v1/realtime?model=any",
    "live": "/v1/live/sessions",
}
AUDIO = base64.b64encode(bytes(3840)).decode()
#: How a call begins, and a message of audio that is right.
OPENING = {
    "live": [json.dumps({"type": "session.start", "session": {"model": "any"}})],
}
RIGHT = {
    "talk": bytes(2560),
    "moshi": b"\x06",
    "realtime": json.dumps({"type": "input_audio_buffer.append", "audio": AUDIO}),
    "live": json.dumps({"type": "session.input_audio.append", "audio": AUDIO}),
}


@asynccontextmanager
async def connected(address, protocol, **options):
    async with websockets.connect(f"ws://{address}{PATHS[protocol]}", max_size=None, close_timeout=0.1, **options) as call:
        for message in OPENING.get(protocol, []):
            await call.send(message)
        yield call


async def until_closed(call, seconds=60.0):
    """Reads until the server closes, or for so long."""

    async def read():
        async for _ in call:
            pass

    try:
        await asyncio.wait_for(read(), seconds)
    except (websockets.ConnectionClosed, asyncio.TimeoutError):
        pass


async def dribbles(address, protocol):
    """Byte by byte: the handshake, and one message."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    request = (
        f"GET {PATHS[protocol]} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    frame = b"\x82\xfe" + struct.pack("!H", 1000) + bytes(4) + bytes(1000)
    with contextlib.suppress(ConnectionResetError):  # on a slow machine the server hangs up first
        for byte in request.encode() + frame[:500]:
            writer.write(bytes([byte]))
            await writer.drain()
    await asyncio.sleep(0.1)
    writer.transport.abort()  # and it is gone in the middle of a frame
    del reader


async def sends_10_megabytes(address, protocol):
    async with connected(address, protocol) as call:
        try:
            await call.send(bytes(10_000_000))
        except websockets.ConnectionClosed:
            pass
        await until_closed(call)
        assert call.close_code in (1009, 1006)


async def sends_wrong_kinds(address, protocol):
    """Binary where text is due and the other way, unknown types, broken JSON, broken Opus, empty messages."""
    wrong = [b"", "", b"\xff" * 33, b"\x01OggS" + b"\x00" * 60, "no json", "[]", '{"type": 5}', '{"type": "nothing"}', "\u0000"]
    for message in wrong:
        async with connected(address, protocol) as call:
            try:
                await call.send(message)
                await call.send(RIGHT[protocol])
            except websockets.ConnectionClosed:
                pass
            await until_closed(call, 0.1)


async def disappears(address, protocol):
    async with connected(address, protocol) as call:
        await call.send(RIGHT[protocol])
        call.transport.abort()


async def reconnects(address, protocol, times=40):
    for _ in range(times):
        try:
            async with connected(address, protocol) as call:
                await call.send(RIGHT[protocol])
        except websockets.InvalidStatus as refused:
            assert refused.response.status_code == 503


async def last_word(call):
    """Why the server ended a call of `/api/talk`, and its close code."""
    reason = None
    try:
        async for message in call:
            if isinstance(message, str) and (message := json.loads(message))["type"] == "ended":
                reason = message["reason"]
    except websockets.ConnectionClosedError:
        pass
    return reason, call.close_code


FAULTS = [dribbles, sends_10_megabytes, sends_wrong_kinds, disappears, reconnects]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("protocol", PATHS)
def test_other_callers_hear_the_same_and_nothing_is_left(app, address, alone, protocol, fault):
    heard = asyncio.run(beside(address, lambda where: fault(where, protocol)))
    assert_same(heard, alone)
    assert [len(frames) for frames in alone] == [30, 30, 30]
    assert left_behind(app) == (0, 0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["talk", "live"])
def test_a_caller_that_takes_nothing_is_hung_up_on(app, address, alone, protocol):
    """It goes on sending, and keeps its connection open; its seat is freed all the same."""
    server = app.state.server

    async def fault(where):
        host, port = where.split(":")
        plain = socket.create_connection((host, int(port)))
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with connected(where, protocol, sock=plain) as call:
            while len(server.calls) < 4:  # `beside` ends it
                await asyncio.sleep(0.01)
            call.transport.pause_reading()
            for _ in range(20_000):
                if len(server.calls) < 4:
                    return
                try:
                    await asyncio.wait_for(call.send(RIGHT[protocol]), 0.1)
                except (websockets.ConnectionClosed, asyncio.TimeoutError):
                    pass
            raise AssertionError("The call of a caller that takes nothing went on.")

    assert_same(asyncio.run(beside(address, fault)), alone)
    assert left_behind(app) == (0, 0, 0, 0)


def test_callers_hear_what_offline_inference_says(model, alone):
    import torch

    for number, heard in enumerate(alone):
        signal = torch.from_numpy(said_by(number).astype(np.float32) / 32768)
        whole = model.offline_inference(signal[None], torch.tensor([len(signal)]))
        assert "".join(text for _, text, _ in heard).split() == whole["text"][0].split()


@pytest.mark.slow
def test_a_thousand_calls_leave_no_file_thread_or_memory(app, address, alone):
    def open_files():
        gc.collect()
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    asyncio.run(reconnects(address, "talk", 50))
    assert left_behind(app) == (0, 0, 0, 0)
    before, memory = open_files(), resident()
    asyncio.run(reconnects(address, "talk", 1000))
    assert left_behind(app) == (0, 0, 0, 0)
    files, threads = open_files()
    assert files <= before[0] + 3 and threads <= before[1] + 1
    assert resident() - memory < 40e6
    assert_same([asyncio.run(steady(address, 0))], alone[:1])


def resident():
    """Bytes of memory of this process."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_a_step_that_raises_ends_its_calls_and_the_next_ones_are_answered(app, address, alone, monkeypatch):
    worker = app.state.server.worker

    async def talk_into_it():
        async with websockets.connect(f"ws://{address}{PATHS['talk']}") as call:
            await call.recv()
            engine = worker._engine

            def broken():
                raise RuntimeError("a planted error")

            monkeypatch.setattr(engine, "step", broken)  # the next step comes within 40 ms, whether audio comes or not
            assert await last_word(call) == ("failed", 1011)

    asyncio.run(asyncio.wait_for(talk_into_it(), 60))
    assert left_behind(app) == (0, 0, 0, 0)
    assert_same([asyncio.run(steady(address, 1))], alone[1:2])


@pytest.mark.slow
def test_an_error_in_one_session_ends_that_call_alone(app, address, alone, monkeypatch):
    from nemo_duplex.streaming.session import EngineSession

    took = EngineSession.take_frame

    def take_frame(self, *given):
        if self.sample_rate == 24000:
            raise RuntimeError("a planted error")
        return took(self, *given)

    monkeypatch.setattr(EngineSession, "take_frame", take_frame)

    async def fault(where):
        async with websockets.connect(f"ws://{where}/api/talk?rate=24000") as call:
            await call.recv()
            for _ in range(5):
                await call.send(bytes(3840))
            assert await last_word(call) == ("failed", 1011)

    assert_same(asyncio.run(beside(address, fault)), alone)
    assert left_behind(app) == (0, 0, 0, 0)


def test_a_port_that_is_no_websocket_is_answered(address):
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as plain:
        plain.sendall(b"GET /api/talk HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert plain.recv(100).startswith((b"HTTP/1.1 4", b"HTTP/1.1 307"))
