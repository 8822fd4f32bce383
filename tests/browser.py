"""Drives headless Chromium over the DevTools protocol: one page, real clicks and keys, everything that went wrong collected."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from websockets.sync.client import connect

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--mute-audio"),
    *("--autoplay-policy=user-gesture-required", "--remote-debugging-port=0", "--window-size=1280,900", "--lang=en-US"),
)
PHONE = {"width": 375, "height": 740, "deviceScaleFactor": 2, "mobile": True}
_KEYS = {"Enter": ("\r", 13), "Tab": ("", 9), " ": (" ", 32), "ArrowRight": ("", 39), "ArrowLeft": ("", 37)}


class Browser:
    """One page of a running Chromium.

    Args:
        address: of the page's DevTools socket.

    Attributes:
        troubles: errors and warnings of the console, exceptions, and requests that failed.
    """

    def __init__(self, address: str) -> None:
        self._socket = connect(address, max_size=None, proxy=None)
        self._ids = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._came: dict[int, Event] = {}
        self.troubles: list[str] = []
        self._addresses: dict[str, str] = {}
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.do(f"{domain}.enable")

    def _read(self) -> None:
        for text in self._socket:
            message = json.loads(text)
            if "id" in message:
                self._answers[message["id"]] = message
                self._came[message["id"]].set()
            else:
                self._note(message["method"], message["params"])

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.troubles.append(f"console: {[a.get('value', a.get('description')) for a in params['args']]}")
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.troubles.append(f"exception: {details.get('exception', {}).get('description', details['text'])}")
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.troubles.append(f"log: {params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self._addresses[params["requestId"]] = params["request"]["url"]
        elif method == "Network.loadingFailed" and not params.get("canceled"):
            self.troubles.append(f"failed: {self._addresses.get(params['requestId'])} {params['errorText']}")
        elif method == "Network.responseReceived" and params["response"]["status"] >= 400:
            self.troubles.append(f"status: {params['response']['status']} {params['response']['url']}")

    def do(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the DevTools protocol, and its result."""
        number = next(self._ids)
        self._came[number] = Event()
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        assert self._came[number].wait(30), f"Chromium did not answer {method}."
        del self._came[number]
        answer = self._answers.pop(number)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are awaited."""
        done = self.do("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=False)
        assert "exceptionDetails" not in done, done["exceptionDetails"].get("exception", done["exceptionDetails"])
        return done["result"].get("value")

    def module(self, body: str, *names: str) -> Any:
        """The value that `body` returns, with modules of the page, such as "tape", imported under their names."""
        imports = "".join(f"const {name} = await import('/page/{name}.js');" for name in names)
        return self.run(f"(async () => {{ {imports} {body} }})()")

    def wait(self, script: str, seconds: float = 30) -> Any:
        """Waits until the expression is true in the page, and returns its value."""
        until = time.monotonic() + seconds
        while not (value := self.run(script)):
            if time.monotonic() > until:
                said = self.run("document.body.innerText")
                raise AssertionError(f"Not within {seconds} s: {script}\n{self.troubles}\n{said}")
            time.sleep(0.05)
        return value

    def until(self, true: Callable[[], Any], seconds: float = 30) -> None:
        """Waits until something outside of the page is true."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"Not within {seconds} s."
            time.sleep(0.05)

    def open(self, address: str) -> None:
        """Loads a page."""
        went = self.do("Page.navigate", url=address)
        assert "errorText" not in went, f"{address}: {went['errorText']}"
        self.wait("document.readyState === 'complete'")

    def click(self, selector: str) -> None:
        """A click with the mouse in the middle of an element."""
        self.wait(f"!document.querySelector('{selector}').disabled")
        self.run(f"document.querySelector('{selector}').scrollIntoView({{block: 'center'}})")
        x, y = self.run(
            f"(b => [b.x + b.width / 2, b.y + b.height / 2])(document.querySelector('{selector}').getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.do("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """A key, such as Tab, Enter or a letter."""
        text, code = _KEYS.get(key, (key, ord(key[0].upper())))
        self.do("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, text=text)
        self.do("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def type(self, text: str) -> None:
        """Text into the focused field."""
        self.do("Input.insertText", text=text)

    def text(self, selector: str) -> str:
        """What an element says."""
        return self.run(f"document.querySelector('{selector}').innerText")

    def screen(self, width: int, height: int, deviceScaleFactor: float = 1, mobile: bool = False) -> None:
        """The size of the window, and whether it is a phone's."""
        self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=deviceScaleFactor,
            mobile=mobile,
        )

    def media(self, **features: str) -> None:
        """CSS media features, such as prefers_color_scheme="dark"."""
        given = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.do("Emulation.setEmulatedMedia", features=given)

    def choose(self, selector: str, *files: Path) -> None:
        """Files for a file field."""
        root = self.do("DOM.getDocument")["root"]["nodeId"]
        node = self.do("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.do("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def names(self) -> list[tuple[str, str]]:
        """(role, name) of everything that a screen reader finds."""
        nodes = self.do("Accessibility.getFullAXTree")["nodes"]
        return [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]]

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """The page as PNG."""
        shot = self.do("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()


def microphone(wav: Path) -> tuple[str, ...]:
    """Flags of a microphone that hears a file once and is allowed; the file must end in silence, which goes on."""
    return (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={wav}%noloop",
    )


@contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """A Chromium of its own, with an empty profile."""
    binary = shutil.which("chromium")
    assert binary, (
        'Chromium is missing, and the page is tested in it: apt-get install chromium, or leave out with -m "not slow".'
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [binary, *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            port, path = _devtools(Path(profile) / "DevToolsActivePort", process)
            with connect(f"ws://127.0.0.1:{port}{path}", proxy=None) as socket:
                socket.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
                targets = json.loads(socket.recv(timeout=30))["result"]["targetInfos"]
            (target,) = (one["targetId"] for one in targets if one["type"] == "page")
            browser = Browser(f"ws://127.0.0.1:{port}/devtools/page/{target}")
            try:
                yield browser
            finally:
                browser.close()
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _devtools(file: Path, process: subprocess.Popen) -> tuple[str, str]:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert process.poll() is None, f"Chromium ended with status {process.returncode}."
        if file.exists() and file.read_text().count("\n") == 1:
            port, path = file.read_text().split("\n")
            return port, path
        time.sleep(0.05)
    raise AssertionError("Chromium did not start within 60 s.")
