"""OpenAI's agents SDK for Python: `RealtimeRunner`.

Job: url (of the WebSocket), key, steps: "speak", "sleep" seconds, "say" a message, "interrupt", "wait" for the type of an event
of the server.
Reports: events (of the server, without audio), history (as the SDK keeps it), heard_s, interrupted (how often), errors, failed,
warnings.
"""

from __future__ import annotations

import asyncio
import logging

from agents.realtime import RealtimeAgent, RealtimeRunner
from call import Microphone, Seen, Warnings, job, report


async def main() -> None:
    task, warnings, seen = job(), Warnings(), Seen()
    logging.getLogger().addHandler(warnings)
    agent = RealtimeAgent(name="agent", instructions="Answer in one sentence.")
    runner = RealtimeRunner(agent, config={"tracing_disabled": True})
    heard, interrupted, errors, history = 0.0, 0, [], []
    async with await runner.run(model_config={"url": task["url"], "api_key": task["key"]}) as session:

        async def receive() -> None:
            nonlocal heard, interrupted, history
            async for event in session:
                if event.type == "raw_model_event" and event.data.type == "raw_server_event":
                    await seen.add({**event.data.data, **({"delta": ""} if "audio.delta" in event.data.data["type"] else {})})
                elif event.type == "audio":
                    heard += len(event.audio.data) / 48000
                elif event.type == "audio_interrupted":
                    interrupted += 1
                elif event.type == "error":
                    errors.append(str(event.error))
                elif event.type == "history_updated":
                    history = [item.model_dump() for item in event.history]
                elif event.type == "history_added":
                    history.append(event.item.model_dump())

        receiving = asyncio.ensure_future(receive())
        microphone = Microphone(task, session.send_audio)
        speaking = asyncio.ensure_future(microphone.run())
        failed = []
        for verb, *rest in task["steps"]:
            if verb == "speak":
                microphone.speak()
            elif verb == "sleep":
                await asyncio.sleep(rest[0])
            elif verb == "say":
                await session.send_message(rest[0])
            elif verb == "interrupt":
                await session.interrupt()
            elif await seen.wait(rest[0]) is None:
                failed = [[verb, *rest]]
                break
        speaking.cancel()
        receiving.cancel()
        await asyncio.gather(speaking, receiving, return_exceptions=True)
    report(
        events=seen.events,
        history=history,
        heard_s=heard,
        interrupted=interrupted,
        errors=errors,
        failed=failed,
        warnings=warnings.lines,
    )


asyncio.run(main())
