"""A Pipecat pipeline with a microphone that says the question and a loudspeaker:

    microphone -> user's context -> OpenAIRealtimeLLMService or OpenAILiveLLMService -> loudspeaker -> agent's context

Job: model ("realtime" or "live"), base_url (of the WebSocket), key, rate of the microphone, greet (the agent begins), steps:
"speak", "sleep" seconds, "wait" for a frame by the name of its class, "retrieve" the newest item of the conversation.
Reports: frames (names, in order, without audio), texts, heard_s, context (the conversation as Pipecat keeps it), items,
retrieved, failed, warnings.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from call import PATIENCE, Microphone, Seen, Warnings, job, report
from loguru import logger
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    LLMRunFrame,
    OutputAudioRawFrame,
    OutputTransportMessageUrgentFrame,
    StartFrame,
)
from pipecat.observers.base_observer import BaseObserver, FramePushed
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.services.openai.live.llm import OpenAILiveLLMService
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.workers.runner import WorkerRunner


class Input(BaseInputTransport):
    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)


class Output(BaseOutputTransport):
    """Plays in real time."""

    heard_s = 0.0

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        seconds = frame.num_frames / frame.sample_rate
        if any(frame.audio):
            self.heard_s += seconds
        await asyncio.sleep(seconds)
        return True


class Frames(BaseObserver):
    """Every frame that the service sends, once."""

    def __init__(self, service: Any, seen: Seen) -> None:
        super().__init__()
        self._service, self._seen, self._ids = service, seen, set[int]()

    async def on_push_frame(self, data: FramePushed) -> None:
        frame = data.frame
        if (data.source is not self._service and not isinstance(frame, ErrorFrame)) or frame.id in self._ids:
            return
        self._ids.add(frame.id)
        if not isinstance(frame, InputAudioRawFrame | OutputAudioRawFrame | OutputTransportMessageUrgentFrame):
            await self._seen.add({"type": type(frame).__name__, "text": text_of(frame)})


def text_of(frame: Frame) -> str | None:
    return frame.error if isinstance(frame, ErrorFrame) else getattr(frame, "text", None)


async def main() -> None:
    task, warnings, seen = job(), Warnings(), Seen()
    logging.getLogger().addHandler(warnings)
    logger.remove()
    logger.add(lambda line: warnings.lines.append(str(line)[:500]), level="WARNING", format="{name}: {message}")
    kind = OpenAIRealtimeLLMService if task["model"] == "realtime" else OpenAILiveLLMService
    service = kind(api_key=task["key"], base_url=task["base_url"])
    rate = task.get("rate", 24000)
    params = TransportParams(
        audio_in_enabled=True, audio_out_enabled=True, audio_in_sample_rate=rate, audio_out_sample_rate=24000
    )
    source, sink = Input(params), Output(params)
    context = LLMContext([{"role": "user", "content": "Say hello."}] if task.get("greet") else [])
    pair = LLMContextAggregatorPair(context)
    pipeline = Pipeline([source, pair.user(), service, sink, pair.assistant()])
    worker = PipelineWorker(
        pipeline,
        params=PipelineParams(audio_in_sample_rate=rate, audio_out_sample_rate=24000, enable_usage_metrics=True),
        observers=[Frames(service, seen)],
        cancel_on_idle_timeout=False,
    )
    items: list[str] = []

    if task["model"] == "realtime":

        @service.event_handler("on_conversation_item_created")
        async def created(_, item_id: str, item: Any) -> None:
            items.append(item_id)

    async def send(sound: bytes) -> None:
        await source.push_audio_frame(InputAudioRawFrame(audio=sound, sample_rate=rate, num_channels=1))

    microphone = Microphone({**task, "bytes_per_s": 2 * rate}, send, chunk_s=0.02)
    runner = WorkerRunner(handle_sigint=False)
    running = asyncio.ensure_future(runner.run(worker))
    await asyncio.sleep(0.5)
    if task["model"] == "live" or task.get("greet"):  # it starts a session of Live, and makes the agent of Realtime begin
        await worker.queue_frames([LLMRunFrame()])
    speaking = asyncio.ensure_future(microphone.run())
    failed, retrieved = [], None
    for verb, *rest in task["steps"]:
        if verb == "speak":
            microphone.speak()
        elif verb == "sleep":
            await asyncio.sleep(rest[0])
        elif verb == "retrieve":
            retrieved = (await asyncio.wait_for(service.retrieve_conversation_item(items[-1]), PATIENCE)).model_dump()
        elif await seen.wait(rest[0]) is None:
            failed = [[verb, *rest]]
            break
    speaking.cancel()
    await worker.cancel()
    await asyncio.wait([running], timeout=PATIENCE)
    report(
        frames=[event["type"] for event in seen.events],
        texts=[[event["type"], event["text"]] for event in seen.events if event["text"]],
        heard_s=sink.heard_s,
        context=[message for message in context.get_messages() if isinstance(message, dict)],
        items=items,
        retrieved=retrieved,
        failed=failed,
        warnings=warnings.lines,
    )


asyncio.run(main())
