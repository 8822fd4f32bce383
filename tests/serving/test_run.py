"""A server as a process: its port, TLS, one-line errors, connections that dribble, SIGTERM in the middle of eight calls."""

import asyncio
import json
import multiprocessing
import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import websockets

from nemo_duplex.inputs import InputError
from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.config import Limits, ServerConfig
from nemo_duplex.serving.logs import use_log
from nemo_duplex.serving.run import address, check_tls, listen, run
from tests.serving.answering import serving

# ------------------------------------------------------------------ the port


def test_a_port_that_is_taken_is_said_in_one_line_and_the_cure_works():
    with listen(ServerConfig(port=0))[0] as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port={port}: another program listens on it.*port=0 takes a free one"):
            listen(ServerConfig(port=port))
        [free] = listen(ServerConfig(port=0))
        assert address(ServerConfig(), [free]) == f"http://127.0.0.1:{free.getsockname()[1]}"
        free.close()


def test_an_address_that_is_not_here_is_said_in_one_line():
    with pytest.raises(InputError, match="host=192.0.2.1 port=8998: .*Use host=127.0.0.1 or an address of this machine"):
        listen(ServerConfig(host="192.0.2.1", api_keys=("key",)))
    with pytest.raises(InputError, match="host=nowhere.invalid: there is no such address"):
        listen(ServerConfig(host="nowhere.invalid", api_keys=("key",)))


def test_the_address_is_one_that_a_browser_can_open():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        wide = ServerConfig(host="0.0.0.0", api_keys=("k",), tls_certificate=Path("c"), tls_key=Path("k"))
        assert address(wide, [listening]) == f"https://localhost:{port}"
        assert address(ServerConfig(host="::1"), [listening]) == f"http://[::1]:{port}"


# ------------------------------------------------------------------ TLS


@pytest.fixture(scope="module")
def pems(tmp_path_factory):
    """Two certificates for localhost with their keys, and the first key with a password."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("a", "b"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
            + ["-addext", "subjectAltName=DNS:localhost", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"],
            check=True,
            capture_output=True,
        )
    command = ["openssl", "pkey", "-in", folder / "a.key", "-aes256", "-passout", "pass:x", "-out", folder / "locked.key"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


BAD_TLS = {
    "another key": ("a.pem", "b.key", "not a certificate and its key in PEM"),
    "two certificates": ("a.pem", "a.pem", "not a certificate and its key in PEM"),
    "a password": ("a.pem", "locked.key", "is encrypted. Write it without a password"),
}


@pytest.mark.parametrize("certificate, key, message", BAD_TLS.values(), ids=BAD_TLS)
def test_a_certificate_that_cannot_be_used_is_said_in_one_line(pems, certificate, key, message):
    with pytest.raises(InputError, match=message):
        check_tls(ServerConfig(tls_certificate=pems / certificate, tls_key=pems / key))


def test_a_call_over_tls(agent, pems):
    config = ServerConfig(callers=1, tls_certificate=pems / "a.pem", tls_key=pems / "a.key")
    check_tls(config)
    trust = ssl.create_default_context(cafile=pems / "a.pem")

    async def call(port):
        async with websockets.connect(f"wss://localhost:{port}/api/talk?rate=16000", ssl=trust) as socket:
            return json.loads(await socket.recv())["type"]

    with serving(make_app(agent, config)) as where:
        assert asyncio.run(call(where.rpartition(":")[2])) == "ready"


# ------------------------------------------------------------------ connections


@contextmanager
def raw(where):
    host, _, port = where.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        yield connection


def ended(connection):
    """What the server said until it closed the connection."""
    said = b""
    try:
        while data := connection.recv(65536):
            said += data
    except ConnectionResetError:
        pass
    return said


def serving_with(agent, **limits):
    return serving(make_app(agent, ServerConfig(callers=1, limits=Limits(**limits))))


@pytest.fixture(scope="module")
def impatient(agent):
    """A server that waits 0.3 s for a request."""
    with serving_with(agent, handshake_seconds=0.3) as where:
        yield where


@pytest.fixture
def strict(agent):
    """A server that takes little at once, however long it takes to come."""
    with serving_with(agent, handshake_seconds=600, connections=3, message_bytes=1000) as where:
        yield where


SLOW = {"nothing": b"", "half a line": b"GET / HT", "empty lines": b"\r\n\r\n", "half the headers": b"GET / HTTP/1.1\r\nHost: "}


@pytest.mark.parametrize("begun", SLOW.values(), ids=SLOW)
def test_a_connection_that_brings_no_request_in_time_is_closed(impatient, begun):
    with raw(impatient) as connection:
        connection.sendall(begun)
        assert ended(connection) == b""


@pytest.mark.parametrize("begun", [b"GET /healthz HTTP/1.1\r\n", b"\r\n"], ids=["half of one", "an empty line"])
def test_a_connection_that_brings_no_second_request_is_closed_too(impatient, begun):
    first = b""
    while not first:  # a busy machine may have lost the time of the first request
        with raw(impatient) as connection, suppress(ConnectionError):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            first = connection.recv(1000)
            connection.sendall(begun)
            assert b"HTTP/1.1" not in ended(connection)
    assert first.startswith(b"HTTP/1.1 200")


def test_headers_without_end_are_not_kept(agent):
    limits = Limits(handshake_seconds=60)
    with serving(make_app(agent, ServerConfig(callers=1, limits=limits))) as where, raw(where) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 400_000)
        assert ended(connection) == b""


def test_a_body_that_is_too_long_is_refused_before_it_comes(strict):
    with raw(strict) as connection:
        connection.sendall(b"POST /v1/live/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def test_there_are_only_so_many_connections(strict):
    with raw(strict) as first, raw(strict), raw(strict), raw(strict) as last:
        assert ended(last) == b""
        first.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert first.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_message_that_is_too_long_closes_the_websocket_by_1009(strict):
    async def call():
        async with websockets.connect(f"ws://{strict}/api/talk?rate=16000") as socket:
            await socket.recv()
            await socket.send(bytes(1000))
            await socket.send(bytes(1001))
            await socket.wait_closed()
            return socket.close_code, dict(socket.response.headers)

    code, headers = asyncio.run(call())
    assert code == 1009 and "Sec-WebSocket-Extensions" not in headers  # no compression


# ------------------------------------------------------------------ the end


def serve(agent, drain_seconds, log, port):
    """Runs in a process of its own: a server of eight callers, as `examples/serve.py` starts it; writes its events to `log`."""
    sys.stderr = open(log, "w", buffering=1)
    config = ServerConfig(callers=8, port=0, drain_seconds=drain_seconds, log="json")
    sockets, app = listen(config), make_app(agent, config)
    use_log(config.log)
    port.send(sockets[0].getsockname()[1])
    run(app, config, sockets)


@contextmanager
def process(agent, drain_seconds, log):
    """A server in a process of its own: (process, its address). It is forked: nothing has to be imported again."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    running = fork.Process(target=serve, args=(agent, drain_seconds, log, there))
    running.start()
    there.close()
    try:
        yield running, f"127.0.0.1:{here.recv()}"
    finally:
        running.kill()
        running.join()


def send_signal(running):
    os.kill(running.pid, signal.SIGTERM)


def exit_code(running):
    """Of a process that ends."""
    running.join(60)
    return running.exitcode


async def caller(where, begun, hang_up, heard):
    """Speaks silence until `hang_up` or the server's end: (last message, close code)."""
    async with websockets.connect(f"ws://{where}/api/talk?rate=16000") as socket:
        last = json.loads(await socket.recv())
        begun.release()

        async def speak():
            while not hang_up.is_set():
                await socket.send(np.zeros(1280, "<i2").tobytes())
                await asyncio.sleep(0.08)
            await socket.send('{"type": "finish"}')

        speaking = asyncio.create_task(speak())
        with suppress(websockets.ConnectionClosedError):
            async for message in socket:
                if isinstance(message, str):
                    last = json.loads(message)
                    heard.append(last)
        speaking.cancel()
        return last, socket.close_code


def status(where, path):
    try:
        with urllib.request.urlopen(f"http://{where}{path}", timeout=60) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


async def refused(where):
    try:
        async with websockets.connect(f"ws://{where}/api/talk"):
            return None
    except websockets.InvalidStatus as error:
        return error.response.status_code, error.response.headers["Retry-After"]


async def draining(where):
    """Waits until a server says that it shuts down."""
    while (await asyncio.to_thread(status, where, "/readyz"))[0] == 200:
        await asyncio.sleep(0.02)


async def with_eight_calls(running, where, then):
    """Sends SIGTERM in the middle of eight calls; then `then(hang_up, heard)`; gives how the calls ended."""
    begun, hang_up, heard = asyncio.Semaphore(0), asyncio.Event(), [[] for _ in range(8)]
    calls = [asyncio.create_task(caller(where, begun, hang_up, frames)) for frames in heard]
    for _ in calls:
        await asyncio.wait_for(begun.acquire(), 60)
    while min(map(len, heard)) < 3:
        await asyncio.sleep(0.05)
    send_signal(running)
    await then(hang_up, heard)
    return await asyncio.wait_for(asyncio.gather(*calls), 60)


@pytest.mark.slow
def test_after_sigterm_eight_calls_go_on_to_their_end_and_no_new_one_begins(agent, tmp_path):
    with process(agent, 60, tmp_path / "log") as (running, where):

        async def then(hang_up, heard):
            await draining(where)
            before = list(map(len, heard))
            assert (await asyncio.to_thread(status, where, "/healthz"))[0] == 200
            assert await refused(where) == (503, "5")
            while min(now - old for now, old in zip(map(len, heard), before)) < 5:
                await asyncio.sleep(0.05)  # all of them are still answered
            hang_up.set()

        ends = asyncio.run(with_eight_calls(running, where, then))
        assert [(last["type"], last["reason"], code) for last, code in ends] == [("ended", "finished", 1000)] * 8
        assert exit_code(running) == 0
        events = [json.loads(line) for line in (tmp_path / "log").open() if line.startswith("{")]
        ended = [event for event in events if event["event"] == "call ended"]
        assert [event["reason"] for event in ended] == ["finished"] * 8 and all(event["frames"] > 8 for event in ended)


@pytest.mark.slow
def test_calls_that_go_on_too_long_after_sigterm_are_told_and_closed(agent, tmp_path):
    with process(agent, 1.0, tmp_path / "log") as (running, where):

        async def then(hang_up, heard):
            pass

        ends = asyncio.run(with_eight_calls(running, where, then))
        assert [(last["type"], last["reason"], code) for last, code in ends] == [("ended", "drained", 1001)] * 8
        assert exit_code(running) == 0


@pytest.mark.slow
def test_a_second_signal_ends_the_server_at_once(agent, tmp_path):
    with process(agent, 600, tmp_path / "log") as (running, where):

        async def then(hang_up, heard):
            await draining(where)
            send_signal(running)

        ends = asyncio.run(with_eight_calls(running, where, then))
        assert {code for _, code in ends} == {1012}  # without the time that these calls would have had
        assert exit_code(running) is not None
