"""A conversation in the events of OpenAI Realtime, whatever carries them: a WebSocket, or a WebRTC data channel.

client's event -> handle  ┐                                                ┌ events, in order
                          ├─ session_object, items, user_speech, responses ─┤
CallFrame      -> frame   ┘                                                └ sound: in events, or to a player
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError
from nemo_duplex.serving.call import DRAINED, FAILED, IDLE, TOO_LONG, Call, CallFrame
from nemo_duplex.serving.protocols.realtime.agent_responses import AgentResponses, Player, new_id
from nemo_duplex.serving.protocols.realtime.client_events import EventError, audio_bytes, read_event
from nemo_duplex.serving.protocols.realtime.items import ConversationItems, client_item, kept, user_item
from nemo_duplex.serving.protocols.realtime.session_object import SessionObject
from nemo_duplex.serving.protocols.realtime.user_speech import UserSpeech
from nemo_duplex.serving.server import CallServer
from nemo_duplex.serving.wire_audio import WireFormat
from nemo_duplex.streaming.resampler import StreamResampler

_log = logging.getLogger(__name__)

#: Of the audio that a `Call` gets whose client sends audio in events, whatever its format is.
SAMPLE_RATE = 24000
# Events with which the call begins, and how long it waits for one of them.
_FIRST = ("input_audio_buffer.append", "response.create")
_PATIENCE: Seconds = 2.0
# No tokenizer makes so few tokens of a text in any language.
_CHARACTERS_PER_TOKEN = 16
_ENDS = {
    TOO_LONG: ("session_expired", "The session reached the longest duration of a call."),
    IDLE: ("session_expired", "The session ended because the client sent nothing for too long."),
    DRAINED: ("server_error", "The server shuts down."),
    FAILED: ("server_error", "The model failed. Connect again."),
}


class RealtimeConversation:
    """The events of one caller.

    `handle` and `frame` may run at the same time, in one event loop.

    Args:
        call: begun, or `begin` begins it; of `SAMPLE_RATE` unless audio comes on a track.
        server: whose call it is.
        send: sends one event.
        model: that the client asked for.
        player: plays the agent's sound; None: it is sent in events.

    Examples:
        >>> async def serve(call, server, socket):
        ...     conversation = RealtimeConversation(call, server, socket.send_json)
        ...     await conversation.opened()
        ...     async for frame in call:                        # and `conversation.handle` for what the client sends
        ...         await conversation.frame(frame)
    """

    def __init__(
        self,
        call: Call,
        server: CallServer,
        send: Callable[[dict[str, Any]], Awaitable[None]],
        model: str = "",
        player: Player | None = None,
    ) -> None:
        self.call, self._send = call, send
        longest = server.config.limits.call_seconds
        expires = int(time.time() + (24 * 3600 if longest is None else longest))
        self.session = SessionObject(new_id("sess"), model or server.model.__class__.__name__, expires)
        self.items = ConversationItems()
        self._user = UserSpeech(server.worker.frame_seconds * 1000, lambda: new_id("item"), self._emit)
        self._agent = AgentResponses(call, server, self.session, self.items, self._emit, self._end_user_turn, player)
        self._config = server.config
        self._wanted, self._begun = asyncio.Event(), asyncio.Event()  # whether the agent is wanted; whether it is there
        self._caller_sound: tuple[WireFormat, StreamResampler] | None = None
        self._outbox: deque[dict[str, Any]] = deque()
        self._sending, self._events, self._prefix = asyncio.Lock(), 0, secrets.token_hex(6)

    # ------------------------------------------------------------------ in

    async def opened(self) -> None:
        """The client is connected."""
        self._emit("session.created", session=self.session.shown)
        await self._flush()

    async def begin(self) -> None:
        """Begins the call, with the instructions as its system prompt where the server has room for one.

        Then it begins with the first audio, or when a response is asked for: clients send their instructions before that.
        """
        settings, prompt = self._config, None
        if settings.prompt_tokens:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), _PATIENCE)
            prompt = (self.session.shown["instructions"] or "").strip() or None
        try:
            if prompt is not None and len(prompt) > settings.prompt_tokens * _CHARACTERS_PER_TOKEN:
                raise InputError(f"{len(prompt)} characters")  # counting its tokens would hold up all callers
            await self.call.begin(sampling=settings.sampling, system_prompt=prompt)
        except InputError:
            if prompt is None:
                raise
            _log.warning("Call %s: instructions beyond prompt_tokens=%d are not used.", self.call.id, settings.prompt_tokens)
            await self.call.begin(sampling=settings.sampling)
        self._begun.set()

    async def handle(self, message: str | bytes | Mapping[str, Any]) -> None:
        """Takes an event of the client, as it came or parsed. What is wrong with it is told to the client."""
        self.call.last_push = time.monotonic()  # a client that sends no audio is no idle one
        event_id = None
        try:
            event = read_event(message)
            event_id = event.get("event_id")
            if event["type"] in _FIRST:
                self._wanted.set()
            if event["type"] == "response.create" and not self.call.has_begun:
                await self._begun.wait()
            sound = self._do(event)
        except EventError as error:
            error.event_id = error.event_id or (event_id if isinstance(event_id, str) else None)
            self._emit("error", error=error.error)
        else:
            if sound is not None:
                await self.call.push(sound)
        await self._flush()

    async def frame(self, frame: CallFrame) -> None:
        """Takes the next frame of the call."""
        self._follow_user(frame)
        self._agent.frame(frame)
        await self._flush()

    async def played(self, response: str) -> None:
        """The player has played a response to its end."""
        self._agent.played(response)
        await self._flush()

    async def closed(self) -> None:
        """Tells the client why the call ended, unless the client ended it."""
        if self.call.ended in _ENDS:
            code, message = _ENDS[self.call.ended]
            kind = "server_error" if code == "server_error" else "invalid_request_error"
            self._emit("error", error={"type": kind, "code": code, "message": message, "param": None, "event_id": None})
            await self._flush()

    # ------------------------------------------------------------------ out

    def _emit(self, kind: str, **fields: Any) -> None:
        self._events += 1
        self._outbox.append({"type": kind, "event_id": f"event_{self._prefix}{self._events:06d}", **fields})

    async def _flush(self) -> None:
        async with self._sending:
            while self._outbox:
                await self._send(self._outbox.popleft())

    # ------------------------------------------------------------------ the client's events

    def _do(self, event: dict[str, Any]) -> np.ndarray | None:
        """Does what an event asks for; returns the audio that comes with it."""
        kind = event["type"]
        if kind == "input_audio_buffer.append":
            return self._decoded(event["audio"], "audio")
        if kind == "session.update":
            self.session.update(event["session"])
            self._emit("session.updated", session=self.session.shown)
        elif kind == "input_audio_buffer.commit":
            self.call.pause()
            speech = None if self._user.committed else self._user.item_id
            self._commit(speech or new_id("item"))
            self._user.committed = True
        elif kind == "input_audio_buffer.clear":
            self._emit("input_audio_buffer.cleared")
        elif kind == "output_audio_buffer.clear":
            self._agent.cancel("client_cancelled")
        elif kind == "conversation.item.create":
            return self._create_item(event)
        elif kind == "conversation.item.delete":
            self.items.find(event["item_id"], "delete")
            self.items.delete(event["item_id"])
            self._emit("conversation.item.deleted", item_id=event["item_id"])
        elif kind == "conversation.item.retrieve":
            self._emit("conversation.item.retrieved", item=self.items.find(event["item_id"], "retrieve"))
        elif kind == "conversation.item.truncate":
            self._agent.truncate(event)
        elif kind == "response.create":
            self._agent.create(event.get("response") or {})
        elif kind == "response.cancel":
            active = self._agent.active
            if active is None or event.get("response_id") not in (None, active.id):
                raise EventError("response_cancel_not_active", "Cancellation failed: no active response found.")
            self._agent.cancel("client_cancelled")
        return None

    def _decoded(self, audio: str, param: str) -> np.ndarray:
        """The samples of base64 in the client's format, at the call's rate."""
        wire = self.session.input_format
        samples = wire.decode(audio_bytes(audio, 2 if wire.encoding == "pcm16" else 1, param))
        if wire.sample_rate == self.call.sample_rate:
            return samples
        if self._caller_sound is None or self._caller_sound[0] != wire:
            self._caller_sound = wire, StreamResampler(wire.sample_rate, self.call.sample_rate)
        return self._caller_sound[1].push(samples)

    def _create_item(self, event: dict[str, Any]) -> np.ndarray | None:
        """Adds an item; a sound in it is heard by the agent as if the user said it now."""
        item = client_item(event["item"], lambda: new_id("item"))
        parts = event["item"]["content"] if item.get("role") == "user" and item["content"] else []
        sounds = [self._decoded(part["audio"], "item.content.audio") for part in parts if part.get("audio")]
        after = event.get("previous_item_id")
        previous = self.items.add(kept(item), after if isinstance(after, str) else None)
        self._emit("conversation.item.added", previous_item_id=previous, item=item)
        self._emit("conversation.item.done", previous_item_id=previous, item=item)
        return np.concatenate(sounds) if sounds else None

    def _commit(self, id: str) -> None:
        """What the user said is an item of the conversation."""
        item = user_item(id)
        previous = self.items.last
        self._emit("input_audio_buffer.committed", previous_item_id=previous, item_id=id)
        self.items.add(item)
        self._emit("conversation.item.added", previous_item_id=previous, item=item)
        self._emit("conversation.item.done", previous_item_id=previous, item=item)

    # ------------------------------------------------------------------ the user

    def _follow_user(self, frame: CallFrame) -> None:
        if not self.session.detects:
            self._user.forget()
            if frame.user_started:
                self._agent.drop_held()
        elif self._user.begins(frame):
            self._user.start(frame, self.session.prefix_ms)
            self._agent.drop_held()
            if self.session.interrupts:
                self._agent.cancel("turn_detected")
        elif self._user.ends(frame, self.session.silence_ms):
            self._end_user_turn(frame)

    def _end_user_turn(self, frame: CallFrame) -> None:
        """The user's turn ends with this frame, if there is one."""
        item = self._user.stop(frame)
        if item is not None:
            self._commit(item)
