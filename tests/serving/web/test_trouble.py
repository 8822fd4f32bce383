"""What the page says and does when something is wrong: the microphone, the server, the network, the key."""

import asyncio
import json
from contextlib import contextmanager
from threading import Thread

import pytest
from starlette.applications import Starlette
from websockets.sync.client import connect

from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.config import Limits, ServerConfig
from nemo_duplex.serving.page import page_routes
from tests.browser import chromium, microphone
from tests.serving.answering import ANSWER, make_answering, serving
from tests.serving.web.conftest import silence, voice

pytestmark = pytest.mark.slow


class Proxy:
    """A network between page and server that can break.

    Args:
        address: of the server.
    """

    def __init__(self, address):
        self._host, self._port = address.split(":")
        self._loop = asyncio.new_event_loop()
        self._writers = []
        self._is_up, self._flows = True, asyncio.Event()
        self._flows.set()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        listener = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._carry, "127.0.0.1"), self._loop).result(10)
        self.address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"

    async def _carry(self, reader, writer):
        if not self._is_up:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(self._host, int(self._port))
        self._writers += [writer, back]
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer), return_exceptions=True)

    async def _copy(self, reader, writer):
        while data := await reader.read(65536):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        writer.close()

    def _do(self, change):
        async def changed():
            change()

        asyncio.run_coroutine_threadsafe(changed(), self._loop).result(10)

    def up(self, is_up):
        """Takes connections, or none."""
        self._is_up = is_up

    def cut(self):
        """Breaks all connections."""
        self._do(lambda: [writer.transport.abort() for writer in self._writers])

    def stall(self):
        """Nothing gets through, and no connection ends."""
        self._do(self._flows.clear)

    def close(self):
        self.cut()

        async def end():
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


@contextmanager
def broken_network(address):
    proxy = Proxy(address)
    try:
        yield proxy
    finally:
        proxy.close()


def said(browser, text, seconds=30):
    """Waits until the page says so to the user."""
    browser.wait(f"document.body.innerText.replace(/\\s+/g, ' ').includes({json.dumps(text)})", seconds)


def test_a_microphone_that_is_refused_is_told_with_a_cure(server):
    with chromium("--use-fake-device-for-media-stream", "--deny-permission-prompts") as browser:
        browser.open(f"http://{server}/")
        browser.click("#start")
        said(browser, "The microphone is blocked. Allow it for this page")
        assert browser.run("document.querySelector('#alert').getAttribute('role')") == "alert"
        assert browser.text("#status-text") == "No call" and browser.text("#start") == "Start again"
        assert browser.run("document.activeElement.id") == "start"
        assert browser.troubles == []


def test_a_microphone_that_is_missing_or_taken_is_told(server):
    with chromium() as browser:
        browser.open(f"http://{server}/")
        for name, title in {
            "NotFoundError": "No microphone was found.",
            "NotReadableError": "The microphone is in use.",
            "OverconstrainedError": "The chosen microphone is gone.",
            "OddError": "The microphone cannot be used. The browser says: odd",
        }.items():
            refusing = f"() => Promise.reject(new DOMException('odd', '{name}'))"
            browser.run(f"navigator.mediaDevices.getUserMedia = {refusing}; null")
            browser.click("#start")
            said(browser, title)
        assert browser.troubles == []


def test_an_address_without_tls_is_told_before_anything_is_tried():
    with (
        serving(Starlette(routes=[*page_routes()]), ServerConfig()) as address,
        chromium("--host-resolver-rules=MAP agent.test 127.0.0.1") as browser,
    ):
        browser.open(f"http://agent.test:{address.split(':')[1]}/")
        said(browser, "The browser allows no microphone on this address.")
        assert browser.troubles == []


def test_a_file_that_is_no_audio_is_told(server, tmp_path):
    file = tmp_path / "notes.wav"
    file.write_text("no audio")
    with chromium() as browser:
        browser.open(f"http://{server}/")
        browser.click("input[value=file]")
        browser.click("#start")
        said(browser, "No file is chosen.")
        browser.choose("#file", file)
        browser.click("#start")
        said(browser, "“notes.wav” cannot be read as audio.")
        assert browser.troubles == []


def test_a_full_server_is_told_and_answers_when_a_line_is_free(agent, spoken):
    app = make_answering(make_app(agent, ServerConfig(callers=1)))
    with serving(app) as address, chromium(*microphone(spoken(silence(1)))) as browser:
        browser.open(f"http://{address}/")
        browser.wait("document.querySelector('#status-text').innerText === 'Ready'")
        with connect(f"ws://{address}/api/talk") as other:
            other.recv()
            browser.click("#start")
            said(browser, "The server is full. Next try in 5 s.")
            said(browser, "All 1 lines are busy.")
            assert browser.text("#start") == "Stop"
        browser.wait("document.querySelector('#status-text').innerText === 'Connected'")
        assert browser.text("#note") == ""


def test_a_caller_in_the_queue_is_told_its_place(agent, spoken):
    app = make_answering(make_app(agent, ServerConfig(callers=1, limits=Limits(waiting=2))))
    with serving(app) as address, chromium(*microphone(spoken(silence(1)))) as browser:
        browser.open(f"http://{address}/")
        with connect(f"ws://{address}/api/talk") as other:
            other.recv()
            browser.click("#start")
            said(browser, "All lines are busy. You are number 1 in the queue.")
        browser.wait("document.querySelector('#status-text').innerText === 'Connected'")
        assert browser.troubles == []


def test_a_server_that_shuts_down_is_told(agent, spoken):
    app = make_answering(make_app(agent, ServerConfig(callers=1)))
    with serving(app) as address, chromium(*microphone(spoken(silence(1)))) as browser:
        app.state.server.admission.close()
        browser.open(f"http://{address}/")
        said(browser, "The server is shutting down.")
        browser.click("#start")
        said(browser, "The server is shutting down. Next try in 5 s.")
        browser.click("#start")
        said(browser, "Stopped")


def test_a_key_is_asked_for_and_goes_with_the_call(agent, spoken):
    app = make_answering(make_app(agent, ServerConfig(callers=1, api_keys=("right-key-of-a-caller",))))
    with serving(app) as address, chromium(*microphone(spoken(silence(1)))) as browser:
        browser.open(f"http://{address}/")
        said(browser, "This server asks for a key.")
        assert browser.run("document.activeElement.id") == "key"
        browser.type("wrong-key")
        browser.press("Enter")
        said(browser, "The server does not know this key.")
        browser.run("document.querySelector('#key').select()")
        browser.type("right-key-of-a-caller")
        browser.press("Enter")
        browser.wait("document.activeElement.id === 'start' && !document.querySelector('#key-form').checkVisibility()")
        browser.press("Enter")
        browser.wait("document.querySelector('#status-text').innerText === 'Connected'")
        browser.open(f"http://{address}/")  # the key stays for this tab
        browser.wait("document.querySelector('#status-text').innerText === 'Ready'")
        assert not browser.run("document.querySelector('#key-form').checkVisibility()")
        assert "right-key" not in str(browser._addresses.values())  # addresses are logged on their way


def test_a_lost_connection_comes_back_on_the_same_picture(server, spoken):
    wav = spoken(silence(1), voice(1.2), silence(6), voice(1.2), silence(9))
    with broken_network(server) as network, chromium(*microphone(wav)) as browser:
        browser.open(f"http://{network.address}/")
        browser.click("#start")
        said(browser, ANSWER)
        network.cut()
        said(browser, "Connected again: the agent starts anew", 10)
        seconds = browser.text("#clock-text")
        turns = browser.run("document.querySelectorAll('#turns li').length")
        browser.wait(f"document.querySelectorAll('#turns li').length >= {turns + 2}")  # asked again, answered again
        browser.wait(f"document.querySelector('#turns').innerText.split('{ANSWER}').length === 3")
        assert seconds < browser.text("#clock-text")


def test_a_network_that_is_gone_is_tried_again_and_again_until_it_is_there(server, spoken):
    with broken_network(server) as network, chromium(*microphone(spoken(silence(1)))) as browser:
        browser.open(f"http://{network.address}/")
        browser.click("#start")
        said(browser, "Connected")
        network.up(False)
        network.cut()
        said(browser, "The connection was lost. Next try in 1 s.")
        said(browser, "The server cannot be reached. Next try in 2 s.")
        network.up(True)
        said(browser, "Connected again: the agent starts anew")


def test_a_connection_that_is_silent_counts_as_lost(server, spoken):
    with broken_network(server) as network, chromium(*microphone(spoken(silence(1)))) as browser:
        browser.open(f"http://{network.address}/")
        browser.click("#start")
        said(browser, "Connected")
        network.stall()
        said(browser, "The connection was lost.", 12)


def test_a_call_that_the_server_ends_says_why(agent, spoken):
    app = make_answering(make_app(agent, ServerConfig(callers=1, limits=Limits(call_seconds=1.5))))
    with serving(app) as address, chromium(*microphone(spoken(silence(1)))) as browser:
        browser.open(f"http://{address}/")
        browser.click("#start")
        said(browser, "The call reached its longest duration.")
        assert browser.text("#start") == "Start again"
        assert not browser.run("document.querySelector('#save-audio').disabled")
        assert browser.troubles == []
