"""A LiveKit agent without a room: `AgentSession(llm=MODEL)` with a microphone that says the question and a loudspeaker.

Job: model ("realtime", "live" or "moshi"), options of the model, own_turns (LiveKit's own voice detector, not the server's),
history (of the conversation before), base_url, key, steps: "speak", "sleep" seconds, "reply" (`AgentSession.generate_reply`),
"interrupt", "wait" for an event with these values.
Reports: events (of the framework), wire (events of both sides, without the microphone's), heard_s (what was played), failed,
warnings.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import aiohttp
from call import PATIENCE, Seen, Warnings, job, report
from livekit import rtc
from livekit.agents import Agent, AgentSession, llm
from livekit.agents.voice import io
from livekit.plugins import openai
from livekit.plugins.nvidia.experimental import realtime as nvidia

RATE, CHUNK = 24000, 480


class Microphone(io.AudioInput):
    """20 ms at a time, in real time; silence where nothing is said."""

    def __init__(self, question: bytes) -> None:
        super().__init__(label="microphone")
        self._question, self._place, self._begun, self._chunk = question, len(question), 0.0, 0

    def speak(self) -> None:
        self._place = 0

    async def __anext__(self) -> rtc.AudioFrame:
        self._begun = self._begun or time.monotonic()
        self._chunk += 1
        await asyncio.sleep(max(0.0, self._begun + self._chunk * CHUNK / RATE - time.monotonic()))
        sound = self._question[self._place : self._place + 2 * CHUNK]
        self._place += len(sound)
        return rtc.AudioFrame(sound + bytes(2 * CHUNK - len(sound)), RATE, 1, CHUNK)


class Loudspeaker(io.AudioOutput):
    """Plays in real time and tells when it has played, as LiveKit asks of an output."""

    def __init__(self) -> None:
        super().__init__(label="loudspeaker", capabilities=io.AudioOutputCapabilities(pause=False), sample_rate=RATE)
        self.heard_s = 0.0
        self._queued_s, self._begun = 0.0, 0.0
        self._end: asyncio.TimerHandle | None = None

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        if not self._queued_s:
            self._begun = time.monotonic()
            self.on_playback_started(created_at=time.time())
        self._queued_s += frame.duration

    def flush(self) -> None:
        super().flush()
        if self._queued_s:
            rest = self._begun + self._queued_s - time.monotonic()
            self._end = asyncio.get_running_loop().call_later(max(0.0, rest), self._played, False)

    def clear_buffer(self) -> None:
        if self._queued_s:
            self._played(True)

    def _played(self, interrupted: bool) -> None:
        if self._end:
            self._end.cancel()
        position = min(self._queued_s, time.monotonic() - self._begun)
        self.heard_s += position
        self._queued_s = 0.0
        self.on_playback_finished(playback_position=position, interrupted=interrupted)


def model(task: dict[str, Any], http: aiohttp.ClientSession) -> Any:
    if task["model"] == "moshi":
        return nvidia.RealtimeModel(base_url=task["base_url"], seed=7, http_session=http)
    kind = openai.realtime.RealtimeModel if task["model"] == "realtime" else openai.realtime.GPTLiveModel
    return kind(base_url=task["base_url"], api_key=task["key"], http_session=http, **task.get("options", {}))


async def main() -> None:
    task, warnings, seen, wire = job(), Warnings(), Seen(), []
    logging.getLogger().addHandler(warnings)
    async with aiohttp.ClientSession() as http:
        microphone, loudspeaker = Microphone(Path(task["audio"]).read_bytes()), Loudspeaker()
        talker = model(task, http)
        own = {"turn_handling": {"turn_detection": "vad"}} if task.get("own_turns") else {"vad": None}
        session: AgentSession = AgentSession(llm=talker, aec_warmup_duration=None, **own)
        session.input.audio, session.output.audio = microphone, loudspeaker

        def note(kind: str, **values: Any) -> None:
            asyncio.ensure_future(seen.add({"type": kind, **values}))

        session.on("user_state_changed", lambda event: note("user", state=event.new_state))
        session.on("agent_state_changed", lambda event: note("agent", state=event.new_state))
        session.on("error", lambda event: note("error", error=str(event.error)))
        session.on("close", lambda event: note("close", reason=str(event.reason)))
        session.on("user_input_transcribed", lambda event: note("heard", text=event.transcript, final=event.is_final))

        @session.on("conversation_item_added")
        def added(event: Any) -> None:
            if event.item.type == "message":
                said = {"role": event.item.role, "text": event.item.text_content, "interrupted": event.item.interrupted}
                note("item", **said)

        history = llm.ChatContext.empty()
        for role, text in task.get("history", []):
            history.add_message(role=role, content=text)
        agent = Agent(instructions="Answer in one sentence.", chat_ctx=history)
        open_session = talker.session

        def opened(**options: Any) -> Any:
            below = open_session(**options)
            if task["model"] != "moshi":
                below.on("openai_server_event_received", wire.append)
                below.on("openai_client_event_queued", wire.append)
            return below

        talker.session = opened
        await session.start(agent)
        failed = await act(task["steps"], session, microphone, seen)
        await asyncio.wait_for(session.aclose(), PATIENCE)
    report(
        events=seen.events,
        wire=[event for event in wire if "audio" not in event],
        heard_s=loudspeaker.heard_s,
        failed=failed,
        warnings=warnings.lines,
    )


async def act(steps: list[list[Any]], session: AgentSession, microphone: Microphone, seen: Seen) -> list[Any]:
    """Does the steps; returns the first that failed, if any."""
    for verb, *rest in steps:
        if verb == "speak":
            microphone.speak()
        elif verb == "sleep":
            await asyncio.sleep(rest[0])
        elif verb == "reply":
            session.generate_reply(**(rest[0] if rest else {}))
        elif verb == "interrupt":
            session.interrupt()
        elif await seen.wait(rest[0], **rest[1]) is None:
            return [[verb, *rest]]
    return []


asyncio.run(main())
