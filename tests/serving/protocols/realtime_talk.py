"""A conversation of OpenAI Realtime on frames that a test makes, one letter a frame."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from nemo_duplex.inputs import InputError
from nemo_duplex.serving.call import CallFrame
from nemo_duplex.serving.config import ServerConfig
from nemo_duplex.serving.protocols.realtime.conversation import RealtimeConversation
from tests.serving.protocols.realtime_schema import check_event

AGENT_RATE, FRAME = 22050, 1764
QUIET = CallFrame(0, np.zeros(FRAME, np.float32), "", False, False, False, False, False, False)
#: Events of a response, but for its deltas.
BEGIN = ["response.created", "response.output_item.added", "conversation.item.added", "response.content_part.added"]
END = [
    *("response.output_audio.done", "response.output_audio_transcript.done", "response.content_part.done"),
    *("response.output_item.done", "conversation.item.done", "response.done"),
]
STOPPED = [
    *("input_audio_buffer.speech_stopped", "input_audio_buffer.committed", "conversation.item.added"),
    "conversation.item.done",
]
SOUND, TEXT = "response.output_audio.delta", "response.output_audio_transcript.delta"


class FakeCall:
    """A call whose frames a test makes; keeps what it is asked for."""

    def __init__(self):
        self.asked, self.pushed, self.made, self.next_unheard, self.ended = [], [], 0, 0, None
        self.sample_rate, self.last_push, self.has_begun, self.id = 24000, 0.0, True, "call"

    def check_said(self, text):
        if "unsayable" in text:
            raise InputError("say: not in this voice")

    async def push(self, samples):
        self.pushed.append(samples)

    def __getattr__(self, name):
        if name not in ("stop", "start", "say", "pause"):
            raise AttributeError(name)
        return lambda *values: self.asked.append((name, *values))


class Talk:
    """A conversation that runs frame by frame.

    `frames("..u")`: one letter a frame: . quiet, u the user speaks, [ a turn begins, - it goes on, ] it ends, | one ends and
    another begins; upper case: the same while the user speaks. `words` are added one a frame of a turn.
    """

    def __init__(self, player=None, **limits):
        self.call, self.sent, self.index, self.active, self.speaking = FakeCall(), [], 0, False, False
        model, worker = SimpleNamespace(agent_sample_rate=AGENT_RATE), SimpleNamespace(frame_seconds=0.08)
        server = SimpleNamespace(model=model, worker=worker, config=ServerConfig(**limits))

        async def send(event):
            check_event(json.loads(json.dumps(event)))
            self.sent.append(event)

        self.conversation = RealtimeConversation(self.call, server, send, "duplex", player)
        asyncio.run(self.conversation.opened())

    def frames(self, letters, words=()):
        """Runs frames; returns the types of the events that they cause."""
        before, words = len(self.sent), list(words)
        for letter in letters:
            active = letter in "uU" or letter in "{=}"
            letter = {"{": "[", "=": "-", "}": "]"}.get(letter, letter)
            started = letter in "[|"
            ended = letter == "]" or (started and self.speaking)
            self.speaking = self.speaking or started
            frame = replace(
                QUIET,
                index=self.index,
                audio=np.full(FRAME, 0.1, np.float32) if self.speaking else QUIET.audio,
                text=words.pop(0) if words and letter == "-" else "",
                turn_started=started,
                turn_ended=ended,
                speaking=self.speaking,
                user_active=active,
                user_started=active and not self.active,
                user_stopped=self.active and not active,
                heard=(self.index + 1) * 0.08,
            )
            self.active, self.speaking = active, self.speaking and letter != "]"
            self.index += 1
            self.call.made = self.index
            asyncio.run(self.conversation.frame(frame))
        return [event["type"] for event in self.sent[before:]]

    def client(self, kind, **fields):
        """Sends an event; returns the types of the events that it causes."""
        return self.raw({"type": kind, **fields})

    def raw(self, message):
        before = len(self.sent)
        asyncio.run(self.conversation.handle(message if isinstance(message, str | bytes) else json.dumps(message)))
        return [event["type"] for event in self.sent[before:]]

    def last(self, kind):
        return next(event for event in reversed(self.sent) if event["type"] == kind)

    @property
    def error(self):
        return self.last("error")["error"]
