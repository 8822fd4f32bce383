"""Calls from other people's clients to a real server, over a real socket: `make contract`.

A test gives a caller (`callers/`) a job; the Python of that client's own environment runs it (`.contract/`, which
`make contract-env` makes). The server's agent answers "It is one." for 4 s when the user stops, and stops when the user speaks.
"""

from __future__ import annotations

import io
import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from nemo_duplex.synthesis.tts.espeak import EspeakEngine
from nemo_duplex.synthesis.tts.utterance import Voice

ROOT = Path(__file__).parent.parent.parent
CALLERS = Path(__file__).parent / "callers"
#: Seconds that the agent's answer takes.
ANSWER_SECONDS = 4.0
#: Formats that a caller sends: their subtype in a raw file, bytes per second, a silent sample.
WIRES = {"pcm16": ("PCM_16", 48000, "0000"), "ulaw": ("ULAW", 8000, "ff"), "alaw": ("ALAW", 8000, "d5")}


@pytest.fixture(scope="session")
def question() -> np.ndarray:
    """0.3 s of silence, then a spoken question: (samples,) float32 at 48 kHz."""
    spoken = EspeakEngine().speak("What is the number of the day", Voice("user", "en-us+m3"))
    speech = soxr.resample(spoken.audio.astype(np.float32), spoken.sample_rate, 48000)
    return np.concatenate([np.zeros(14400, np.float32), 0.5 * speech / np.abs(speech).max()])


@pytest.fixture(scope="session")
def server(request, tmp_path_factory) -> Iterator[str]:
    """A server in a process of its own: "127.0.0.1:port"."""
    if running := request.config.getoption("--server"):
        yield running
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "tests.serving.answering", str(port), str(ANSWER_SECONDS)]
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
    try:
        until = time.monotonic() + 60
        while not _is_ready(port):
            assert process.poll() is None and time.monotonic() < until, log.read_text()[-2000:]
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)
        print(log.read_text()[-4000:])


def _is_ready(port: int) -> bool:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@pytest.fixture
def call(server, question, tmp_path):
    """Runs a caller with a job and returns what it reports: `call("openai_client", "openai", wire="pcm16", ...)`."""

    def run(caller: str, family: str, wire: str = "pcm16", rate: int = 24000, silence_s: float = 0.0, **job):
        environment = ROOT / ".contract" / family
        if not environment.exists():
            pytest.fail(f"The clients of {family} are not installed: run make contract-env.")
        subtype, bytes_per_s, silence = WIRES[wire]
        rate = rate if wire == "pcm16" else 8000
        raw = io.BytesIO()
        spoken = np.concatenate([np.zeros(round(48000 * silence_s), np.float32), question])
        soundfile.write(raw, soxr.resample(spoken, 48000, rate), rate, subtype, "LITTLE", "RAW")
        (tmp_path / "audio").write_bytes(raw.getvalue())
        wires = {"audio": str(tmp_path / "audio"), "bytes_per_s": 2 * rate if wire == "pcm16" else bytes_per_s}
        task = {**wires, "rate": rate, "silence": silence, "key": "key", "modules": str(environment / "node_modules"), **job}
        (tmp_path / "job.json").write_text(json.dumps(task))
        script = next(CALLERS.glob(f"{caller}.*"))
        program = environment / "bin/python" if script.suffix == ".py" else "node"
        done = subprocess.run(
            [program, script, tmp_path / "job.json"], capture_output=True, text=True, timeout=120, cwd=tmp_path
        )
        lines = done.stdout.strip().splitlines()
        assert done.returncode == 0 and lines, (
            f"{caller} ended with {done.returncode}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
        )
        return json.loads(lines[-1])

    return run


def kinds(events: list[dict]) -> list[str]:
    """Types of events in their order; what comes several times in a row, once."""
    found = [event["type"] for event in events]
    return [kind for place, kind in enumerate(found) if place == 0 or kind != found[place - 1]]


def story(events: list[dict], *left_out: str) -> str:
    """`kinds`, as one text, without the ones that are left out."""
    return " ".join(kinds([event for event in events if not re.fullmatch("|".join(left_out) or "-", event["type"])]))
