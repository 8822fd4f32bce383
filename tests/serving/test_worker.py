"""The model's thread: what it survives, and what health and readiness say of it."""

import asyncio
import time
from contextlib import asynccontextmanager
from threading import Event

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from nemo_duplex.inputs import InputError
from nemo_duplex.serving import worker as worker_file
from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.config import ServerConfig
from nemo_duplex.serving.server import CallServer
from tests.serving.conftest import UNHURRIED

CONFIG = ServerConfig(callers=2, audio=UNHURRIED)


@asynccontextmanager
async def running(agent):
    server = CallServer(agent, CONFIG)
    server.run_in_background()
    try:
        yield server
    finally:
        await server.close()


async def frames_of(call):
    """A call of 0.4 s: how many frames it got."""
    await call.push(np.zeros(6400, np.float32))
    call.finish()
    return [frame.index async for frame in call]


def in_time(scene):
    asyncio.run(asyncio.wait_for(scene, 60))


def test_a_caller_who_leaves_while_its_call_begins_ends_nothing_else(agent, monkeypatch):
    async def scene():
        async with running(agent) as server, server.call("test", 16000) as other:
            await other.begin()
            monkeypatch.setattr(server.worker, "_open", slow(server.worker._open, 0.2))
            async with server.call("test", 16000) as call:
                beginning = asyncio.ensure_future(call.begin())
                await asyncio.sleep(0)
                beginning.cancel()
            assert await frames_of(other) == list(range(5)) and other.ended == "finished"
            assert server.worker.failures == 0 and len(server.worker._engine) == 0

    def slow(function, seconds):
        def slowly(*args):
            time.sleep(seconds)
            function(*args)

        return slowly

    in_time(scene())


def test_if_another_engine_cannot_be_opened_the_next_call_tries_again(agent, monkeypatch):
    opened = worker_file.DuplexEngine
    broken = []

    def engine(*args, **options):
        if broken:
            raise RuntimeError(broken.pop())
        return opened(*args, **options)

    def fails():
        raise RuntimeError("a planted error")

    async def scene():
        async with running(agent) as server:
            async with server.call("test", 16000) as call:
                await call.begin()
                broken.extend(["no memory", "still none"])
                monkeypatch.setattr(server.worker._engine, "step", fails)
                assert await frames_of(call) == [] and call.ended == "failed"
            async with server.call("test", 16000) as call:
                with pytest.raises(RuntimeError, match="no memory"):
                    await call.begin()
            async with server.call("test", 16000) as call:
                await call.begin()
                assert await frames_of(call) == list(range(5)) and server.worker.failures == 0
            assert b"nemo_duplex_engine_failures_total 1.0" in server.metrics.text()

    monkeypatch.setattr(worker_file, "DuplexEngine", engine)
    in_time(scene())


def test_a_call_that_begins_when_the_server_has_closed_is_refused(agent):
    async def scene():
        async with running(agent) as server:
            call = server.call("test", 16000)
            opened = await call.__aenter__()
            server.worker._stopping = True
            with pytest.raises(InputError, match="shuts down"):
                await opened.begin()
            await call.__aexit__(None, None, None)

    in_time(scene())


def test_health_and_readiness_follow_the_thread_the_failures_and_the_end(agent):
    app = make_app(agent, CONFIG)
    server = app.state.server
    with TestClient(app, base_url="http://localhost") as client:

        def seen():
            return client.get("/healthz").status_code, client.get("/readyz").status_code

        assert seen() == (200, 200)
        server.worker.failures = 2
        assert seen() == (200, 200)
        server.worker.failures = 3
        assert seen() == (503, 503)
        server.worker.failures = 0
        client.portal.call(server.drain)
        assert seen() == (200, 503) and client.get("/readyz").text == "draining"
        server.draining = False
        assert seen() == (200, 200)


def test_a_thread_that_is_stuck_is_not_alive_until_it_goes_on(agent, monkeypatch):
    goes_on = Event()

    async def scene():
        async with running(agent) as server:
            monkeypatch.setattr(worker_file, "STALLED", 0.5)
            monkeypatch.setattr(worker_file, "_HEARTBEAT", 0.05)
            server.worker.wake()
            server.worker._asked.put(lambda: goes_on.wait(30))
            server.worker.wake()
            while server.worker.is_alive:
                await asyncio.sleep(0.05)
            assert not server.is_healthy and not server.is_ready
            goes_on.set()
            while not server.worker.is_alive:
                await asyncio.sleep(0.05)
            assert server.is_ready

    in_time(scene())


def test_more_callers_than_memory_holds_are_one_line(agent, monkeypatch):
    monkeypatch.setattr(worker_file, "DuplexEngine", lambda *args, **options: torch.zeros(10**15))  # torch's own error
    with pytest.raises(InputError, match="callers=90: the memory of this machine does not hold so many.* such as callers=45"):
        CallServer(agent, ServerConfig(callers=90))


def test_the_model_waits_for_a_protocol_that_takes_no_frames(agent):
    """10 s of audio, and 8 frames may be unsent: no more are made, but for what the engine has got, until some are taken."""

    async def scene():
        async with running(agent) as server, server.call("test", 16000) as call:
            call._most_unsent = 8
            await call.begin()
            await call.push(np.zeros(160_000, np.float32))
            while call.made < 8:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            assert 8 <= call.made <= 11
            taken = [(await anext(call)).index for _ in range(8)]
            while call.made < 16:
                await asyncio.sleep(0.01)
            assert taken == list(range(8)) and call.made <= 19
            call.finish()
            assert [frame.index async for frame in call] == list(range(8, 125))

    in_time(scene())
