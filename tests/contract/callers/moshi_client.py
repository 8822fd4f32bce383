"""`python -m moshi.client`, Moshi's command-line client, with a microphone that says the question and a loudspeaker that keeps
what it plays. The `sounddevice` package, which needs a sound card, is replaced; nothing of the client is.

Job: host, port, audio (pcm16 at 24 kHz), seconds, heard (file for what was played).
Reports: said (all that the client prints), log (its lines for people).
"""

from __future__ import annotations

import _thread
import array
import io
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
from call import job, report

task = job()
question = np.frombuffer(Path(task["audio"]).read_bytes(), "<i2").astype(np.float32) / 32768
heard = array.array("f")


class Device:
    """A stream of the sound card: its callback is called once per block, in real time, on a thread of its own."""

    def __init__(self, samplerate: float, channels: int, blocksize: int, callback) -> None:
        assert (samplerate, channels, blocksize) == (24000, 1, 1920)
        self._callback, self._blocksize, self._stop = callback, blocksize, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def block(self, number: int) -> None:
        raise NotImplementedError

    def _run(self) -> None:
        begun, number = time.monotonic(), 0
        while not self._stop.is_set():
            self.block(number)
            number += 1
            time.sleep(max(0.0, begun + number * 0.08 - time.monotonic()))

    def __enter__(self) -> Device:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()


class InputStream(Device):
    def block(self, number: int) -> None:
        samples = question[number * self._blocksize : (number + 1) * self._blocksize]
        block = np.zeros((self._blocksize, 1), np.float32)
        block[: len(samples), 0] = samples
        self._callback(block, self._blocksize, None, None)


class OutputStream(Device):
    def block(self, number: int) -> None:
        block = np.empty((self._blocksize, 1), np.float32)
        self._callback(block, self._blocksize, None, None)
        heard.extend(block[:, 0].tolist())


sys.modules["sounddevice"] = types.SimpleNamespace(InputStream=InputStream, OutputStream=OutputStream)
terminal, sys.stdout, sys.stderr = (sys.stdout, sys.stderr), io.StringIO(), io.StringIO()
from moshi import client  # noqa: E402

sys.argv = ["client", "--host", task["host"], "--port", str(task["port"])]
threading.Timer(task["seconds"], _thread.interrupt_main).start()  # Ctrl-C
client.main()
said, log = sys.stdout.getvalue(), sys.stderr.getvalue()
sys.stdout, sys.stderr = terminal
Path(task["heard"]).write_bytes(heard.tobytes())
report(said=said, log=log)
