"""What the callers share. A caller is a script that the Python of a client's own environment runs, so only the standard library
is imported here:

    python openai_client.py job.json

The job is what a test wants of the caller, as JSON; `audio` is a file of raw audio as the client sends it. The last line that
the caller prints is a JSON object: what it saw.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

#: A caller gives up an event that does not come, seconds.
PATIENCE = 20.0


class Warnings(logging.Handler):
    """Keeps what a client's package complains about."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()}"[:500])


class Microphone:
    """Gives a client audio as it is spoken: a chunk every `chunk_s` seconds, silence where nothing is said.

    Args:
        job: with `audio` (a file), `bytes_per_s`, and `silence` (bytes of one silent sample, as hex).
        send: sends one chunk.
    """

    def __init__(self, job: dict[str, Any], send: Callable[[bytes], Awaitable[None]], chunk_s: float = 0.04) -> None:
        self._question = Path(job["audio"]).read_bytes()
        self._silent = bytes.fromhex(job.get("silence", "0000"))
        self._bytes = round(chunk_s * job["bytes_per_s"])
        self._chunk_s, self._send = chunk_s, send
        self._said = deque[bytes]()
        self.muted = False

    def speak(self) -> None:
        """Says the question from now on, after what is still to be said."""
        for start in range(0, len(self._question), self._bytes):
            self._said.append(self._question[start : start + self._bytes])

    async def burst(self, pieces: int = 1) -> None:
        """Sends the whole question at once, in so many pieces."""
        size = -(-len(self._question) // pieces) // 2 * 2 or 2
        for start in range(0, len(self._question), size):
            await self._send(self._question[start : start + size])

    async def run(self) -> None:
        """Until it is cancelled."""
        begun, chunk = time.monotonic(), 0
        while True:
            if not self.muted:
                sound = self._said.popleft() if self._said else b""
                await self._send(sound + self._silent * ((self._bytes - len(sound)) // len(self._silent)))
            chunk += 1
            await asyncio.sleep(max(0.0, begun + chunk * self._chunk_s - time.monotonic()))


class Seen:
    """Events of a server in their order, and who waits for one."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._read = 0  # what was waited for
        self._news = asyncio.Condition()

    async def add(self, event: dict[str, Any]) -> None:
        async with self._news:
            self.events.append(event)
            self._news.notify_all()

    async def wait(self, kind: str, **values: Any) -> dict[str, Any] | None:
        """The next event of a kind with these values, behind the one waited for before; None if it does not come."""

        def found() -> dict[str, Any] | None:
            for index in range(self._read, len(self.events)):
                event = self.events[index]
                if event["type"] == kind and all(event.get(key) == value for key, value in values.items()):
                    self._read = index + 1
                    return event
            return None

        async with self._news:
            try:
                return await asyncio.wait_for(self._news.wait_for(found), PATIENCE)
            except asyncio.TimeoutError:
                return None

    def last(self, kind: str) -> dict[str, Any]:
        return next(event for event in reversed(self.events) if event["type"] == kind)


async def follow(steps: list[list[Any]], seen: Seen, microphone: Microphone, send: Callable[..., Awaitable[None]]) -> list[Any]:
    """Does what a test wrote down, one step after the other; returns the steps that failed.

    Steps:
        ["send", event]: a string "$KIND:KEY.KEY" in it stands for a value of the last event of that kind.
        ["wait", kind, {values}]: the event must have these values.
        ["speak"], ["burst", pieces], ["mute"], ["unmute"]: the microphone.
        ["sleep", seconds]
    """

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(part) for key, part in value.items()}
        if isinstance(value, list):
            return [filled(part) for part in value]
        if isinstance(value, str) and value.startswith("$"):
            kind, _, keys = value[1:].partition(":")
            found: Any = seen.last(kind)
            for key in keys.split("."):
                found = found[int(key) if isinstance(found, list) else key]
            return found
        return value

    failed: list[Any] = []
    for verb, *rest in steps:
        if verb == "send":
            await send(filled(rest[0]))
        elif verb == "wait":
            values = filled(rest[1]) if len(rest) > 1 else {}
            if await seen.wait(rest[0], **values) is None:
                failed.append([verb, *rest])
                break
        elif verb == "burst":
            await microphone.burst(*rest)
        elif verb == "sleep":
            await asyncio.sleep(rest[0])
        elif verb == "speak":
            microphone.speak()
        else:
            microphone.muted = verb == "mute"
    return failed


def job() -> dict[str, Any]:
    return json.loads(Path(sys.argv[1]).read_text())


def report(**seen: Any) -> None:
    print(json.dumps(seen), flush=True)
