"""The openai package as a caller of /v1/realtime or /v1/live/sessions: `AsyncOpenAI().realtime.connect()`, `.live.connect()`.

Job: api ("realtime" or "live"), base_url, key, steps (`call.follow`), and what the microphone needs.
Reports: events, and what of them does not fit the package's types; the steps that failed; the package's warnings.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import importlib
import json
import logging
from typing import Any, get_args

import openai
import pydantic
from call import Microphone, Seen, Warnings, follow, job, report
from websockets.exceptions import ConnectionClosedOK

UNIONS = {
    "realtime": ("openai.types.realtime.realtime_server_event", "RealtimeServerEvent"),
    "live": ("openai.types.live.connect_server_event", "ConnectServerEvent"),
}


class Types:
    """What the package says of a server's events. It does not check them itself: it takes what comes."""

    def __init__(self, api: str) -> None:
        module, name = UNIONS[api]
        union = getattr(importlib.import_module(module), name)
        models = get_args(get_args(union)[0])
        self._models = {get_args(model.model_fields["type"].annotation)[0]: model for model in models}

    def complaints(self, event: dict[str, Any]) -> list[str]:
        """An unknown type, missing fields, wrong values, and fields that the package does not know."""
        kind = event.get("type", "")
        if kind not in self._models:
            return [f"{kind}: unknown"]
        try:
            parsed = self._models[kind].model_validate(event)
        except pydantic.ValidationError as error:
            return [f"{kind}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        return [f"{kind}: {field}: extra" for field in extras(parsed)]


def extras(value: Any, place: str = "") -> list[str]:
    if isinstance(value, list):
        return [found for part in value for found in extras(part, f"{place}[]")]
    if not isinstance(value, pydantic.BaseModel):
        return []
    inner = [found for name in type(value).model_fields for found in extras(getattr(value, name, None), f"{place}.{name}")]
    return [f"{place}.{name}" for name in value.model_extra or {}] + inner


async def main() -> None:
    task = job()
    warnings, seen, types = Warnings(), Seen(), Types(task["api"])
    logging.getLogger().addHandler(warnings)
    sockets = task["base_url"].replace("http", "ws", 1)  # the packages of a year ago take wss for http
    client = openai.AsyncOpenAI(base_url=task["base_url"], websocket_base_url=sockets, api_key=task["key"])
    connect = client.realtime.connect(model="duplex") if task["api"] == "realtime" else client.live.connect()
    complaints: list[str] = []
    async with connect as connection:

        async def send(event: dict[str, Any]) -> None:
            rest = {key: value for key, value in event.items() if key != "type"}
            await functools.reduce(getattr, event["type"].split("."), connection)(**rest)

        append = connection.input_audio_buffer.append if task["api"] == "realtime" else connection.session.input_audio.append

        async def receive() -> None:
            while True:
                event = json.loads(await connection.recv_bytes())
                complaints.extend(types.complaints(event))
                assert connection.parse_event(json.dumps(event)).type == event["type"]
                await seen.add(event)

        microphone = Microphone(task, lambda sound: append(audio=base64.b64encode(sound).decode()))
        microphone.muted = not task.get("listen", True)
        receiving, speaking = asyncio.ensure_future(receive()), asyncio.ensure_future(microphone.run())
        failed = await follow(task["steps"], seen, microphone, send)
        for running in (speaking, receiving):
            running.cancel()
        ended = await asyncio.gather(receiving, speaking, return_exceptions=True)
        over = asyncio.CancelledError, ConnectionClosedOK
        failed += [repr(error) for error in ended if not isinstance(error, over)]
    report(events=seen.events, complaints=sorted(set(complaints)), failed=failed, warnings=warnings.lines)


asyncio.run(main())
