"""OpenAI Live, `/v1/live/sessions`: no turns and no responses, two streams of audio and what happens in them.

caller   session.start, once and first; then session.input_audio.append and commands in any order; session.close
server   session.started                          the model can answer; audio that came before is not lost
         session.output_audio.delta               every 80 ms, silence too
         session.output_transcript.delta          the agent's words, where they are heard
         session.input_transcript.delta           "…": the user begins to speak, nobody wrote down what; " ": still speaks
         session.paused, session.resumed          with idle_timeout_s: nothing is sent while nobody speaks
         session.usage.updated                    every 10 s
         session.closed                           the last event, then the connection is closed
         error, info                              the session goes on, unless session.closed follows

How the commands become those of an agent that hears no text while it talks:

    commentary.append    the agent says the text, word for word. What LiveKit's `generate_reply` sends is no text to be said
                         but asks for a turn: the agent begins one
    instructions.append  acknowledged, not used; those of `session.start` are the system prompt where the server has room
    thinking.append      acknowledged, not used

A paused session sends nothing. The agent hears on, so that no word is lost that ends the pause.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket

from nemo_duplex.data.text_tokenizer import written_tokens
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError
from nemo_duplex.serving.admission import RefusedError
from nemo_duplex.serving.call import DRAINED, FAILED, FINISHED, IDLE, TOO_LONG, Call, CallFrame
from nemo_duplex.serving.protocols.call_socket import (
    GOING_AWAY,
    INTERNAL_ERROR,
    NORMAL,
    POLICY,
    CallSocket,
    refuse,
    seated,
    until_one_ends,
)
from nemo_duplex.serving.protocols.live_events import ClientEvent, EventError, LiveConfig, quoted
from nemo_duplex.serving.server import CallServer
from nemo_duplex.serving.wire_audio import AgentAudio

#: A session without an end ends here, in seconds of Unix time: the latest that 32 bits can write.
_NEVER = 2**31 - 1
# The user's speech is told again after so many frames, as long as it goes on: clients that hear nothing for 0.8 s end the turn.
_SPEECH_FRAMES = 4
# Frames between two `session.usage.updated`, and between two words about skipped audio.
_USAGE_FRAMES, _SKIPPED_FRAMES = 125, 12
# The most that one append may hold, in tokens as the protocol says, and in characters so that longer ones cost nothing.
_MOST_TOKENS, _MOST_CHARACTERS = 500, 4_000
# A text of more characters per token than this is not tokenized to count them.
_CHARACTERS_PER_TOKEN = 16
# The most settings without effect that are named.
_MOST_NAMED = 20
# In what LiveKit's `generate_reply` sends as commentary (livekit-agents 1.8.9, `_SPEAK_NOW`).
_ASKS_FOR_A_TURN = "Do not wait for the caller to speak first."
#: How a call ended: the reason of `session.closed`, the close code, and what is said about it in an event before.
_ENDS: dict[str, tuple[str, int, str | None]] = {
    FINISHED: ("close_requested", NORMAL, None),
    TOO_LONG: ("expired", NORMAL, "The longest duration of a session was reached."),
    IDLE: ("expired", NORMAL, "Nothing was sent for too long."),
    DRAINED: ("connection_lost", GOING_AWAY, "The server shuts down. Start another session."),
    FAILED: ("connection_lost", INTERNAL_ERROR, "The model failed. Start another session."),
}
_OTHERWISE = ("connection_lost", NORMAL, None)


async def live(websocket: WebSocket, server: CallServer) -> None:
    """Serves one caller of `/v1/live/sessions`."""
    async with seated(websocket, server, "live", _waiting) as socket:
        if socket is None:
            return
        try:
            start, config = await asyncio.wait_for(_start(socket, server), server.config.limits.idle_seconds)
        except asyncio.TimeoutError:
            await socket.send_json(_error(EventError("No session.start came.", "session_start_timeout")))
            await socket.close(POLICY, "no session.start")
            return
        async with server.call("live", config.wire.sample_rate) as call:
            await _Session(call, socket, server, config).run(start)


async def _waiting(socket: CallSocket, place: int) -> None:
    await socket.send_json(_info("waiting", f"All lines are busy. Place in the queue: {place}."))


async def _start(socket: CallSocket, server: CallServer) -> tuple[ClientEvent, LiveConfig]:
    """The first `session.start` that can be used; everything else is answered with an error."""
    while True:
        event = None
        try:
            event = ClientEvent.of(await socket.receive())
            if event.type != "session.start":
                raise EventError(f"Send session.start before {quoted(event.type)}.", "session_not_started", "type")
            return event, LiveConfig.of(event, server.config.prompt_tokens > 0)
        except EventError as error:
            await socket.send_json(_error(error, event))


async def unsupported_live_socket(websocket: WebSocket) -> None:
    """Answers the WebSockets of a session: its sideband and its forks."""
    await refuse(websocket, RefusedError(_unsupported(websocket.url.path), 400))


async def unsupported_live_request(request: Request) -> Response:
    """Answers what Live has over HTTP: WebRTC, forks, telephone calls, recordings."""
    message = _unsupported(request.url.path)
    error = {"message": message, "type": "invalid_request_error", "code": "unsupported", "param": None}
    return JSONResponse({"error": error}, 400)


def _unsupported(path: str) -> str:
    return f"{quoted(path)} is not supported. Connect a WebSocket to /v1/live/sessions and send session.start."


class _Session:
    """One session, from its start to `session.closed`.

    Args:
        call: not begun.
        socket: of the caller.
        server: whose call it is.
        config: as the caller asked for.
    """

    def __init__(self, call: Call, socket: CallSocket, server: CallServer, config: LiveConfig) -> None:
        self._call, self._socket, self._server, self._config = call, socket, server, config
        self._id = f"live_{call.id}"
        longest = server.config.limits.call_seconds
        self._expires_at = _NEVER if longest is None else int(time.time() + longest)
        self._frame_ms = round(server.worker.frame_seconds * 1000)
        self._lead_ms = self._frame_ms * server.model.layout.text_lead
        self._frames = 0  # that were sent
        self._muted = False
        self._close: ClientEvent | None = None  # what asked for the end
        self._told: set[str] = set()  # codes of notices that are sent once
        self._speech_told = -1  # the first frame of the user's speech that was not told
        self._wrote = self._parted = False  # the agent wrote before; the next text begins another turn
        self._active = -1  # the last frame in which somebody spoke
        self._paused, self._paused_frames = False, 0
        self._skipped: Seconds = 0.0  # as far as told
        self._skipped_told = -_SKIPPED_FRAMES  # the frame in which it was

    async def run(self, start: ClientEvent) -> None:
        """Everything from the acknowledgement of `session.start` on."""
        config = self._config
        try:
            await self._begin()
        except Exception as error:  # an option that cannot be used, or whatever the model raised: then it is in the log
            if self._call.ended is not None:
                await self._end()
            elif isinstance(error, InputError):
                await self._refuse(EventError(str(error), "invalid_value", "session.instructions"), start, POLICY)
            else:
                self._call.error = error
                self._call.end(FAILED)
                await self._refuse(EventError("The model failed. Try again.", "model_failed"), start, INTERNAL_ERROR)
            return
        await self._send("session.started", start, session=self._resource)
        if config.unused:
            names = ", ".join(config.unused[:_MOST_NAMED])
            await self._notice("settings_not_used", f"This agent does not use: {names}.", start)
        await until_one_ends(self._call, self._hear(), self._speak())
        await self._end()

    async def _begin(self) -> None:
        """Begins the call, with the instructions as its system prompt where the server has room for one."""
        settings = self._server.config
        prompt = (self._config.instructions or "").strip() if settings.prompt_tokens else ""
        if len(prompt) > settings.prompt_tokens * _CHARACTERS_PER_TOKEN:  # counting its tokens would hold up all callers
            most = settings.prompt_tokens
            raise InputError(f"The instructions have {len(prompt)} characters, too many for {most} tokens. Shorten them.")
        await self._call.begin(sampling=settings.sampling, system_prompt=prompt or None)

    async def _refuse(self, error: EventError, start: ClientEvent, code: int) -> None:
        kind = "invalid_request_error" if code == POLICY else "server_error"
        await self._socket.send_json(_error(error, start, kind))
        await self._socket.close(code, "session.start was not possible")

    async def _end(self) -> None:
        reason, code, message = _ENDS.get(self._call.ended or "", _OTHERWISE)
        if self._call.ended == FAILED:
            assert message is not None
            await self._socket.send_json(_error(EventError(message, "model_failed"), kind="server_error"))
        elif message is not None:
            await self._notice(f"session_{self._call.ended}", message)
        await self._send("session.closed", self._close, reason=reason, session=self._resource, usage=self._usage)
        await self._socket.close(code, message or "")

    # ------------------------------------------------------------------ what the caller sends

    async def _hear(self) -> None:
        commands = {
            "session.input_audio.append": self._append,
            "session.input_audio.mute": self._mute,
            "session.input_audio.unmute": self._mute,
            "session.commentary.append": self._comment,
            "session.instructions.append": self._take_text,
            "session.thinking.append": self._take_text,
            "session.update": self._update,
            "session.close": self._finish,
        }
        while True:
            message = await self._socket.receive()
            self._call.last_push = time.monotonic()
            if self._close is not None:
                continue
            event = None
            try:
                event = ClientEvent.of(message)
                command = commands.get(event.type)
                if command is None:
                    raise _not_understood(event.type)
                await command(event)
            except EventError as error:
                await self._socket.send_json(_error(error, event))

    async def _append(self, event: ClientEvent) -> None:
        samples = event.audio(self._config.wire)
        await self._call.push(np.zeros_like(samples) if self._muted else samples)

    async def _mute(self, event: ClientEvent) -> None:
        self._muted = event.type.endswith(".mute")
        await self._send("session.input_audio." + ("muted" if self._muted else "unmuted"), event)

    async def _comment(self, event: ClientEvent) -> None:
        text = _short(event.content())
        if _ASKS_FOR_A_TURN in text:
            self._call.start()
        else:
            try:
                tokens = written_tokens(text, self._server.model.tokenizer, "content")
                if len(tokens) > _MOST_TOKENS:
                    raise _too_long(f"{len(tokens)} tokens")
                self._call.say(text)
            except InputError as error:
                raise EventError(str(error), "invalid_value", "content") from None
        await self._appended(event)

    async def _take_text(self, event: ClientEvent) -> None:
        _short(event.content())
        await self._appended(event)
        what = "instructions" if "instructions" in event.type else "thinking"
        await self._notice(f"{what}_not_used", f"This agent does not read {what} while it talks.", event)

    async def _appended(self, event: ClientEvent) -> None:
        now = self._frames * self._frame_ms
        await self._send(event.type + "ed", event, start_ms=now, end_ms=now)

    async def _update(self, event: ClientEvent) -> None:
        self._config = self._config.updated(event)
        await self._send("session.updated", event, session=self._resource)

    async def _finish(self, event: ClientEvent) -> None:
        self._close = event
        self._call.finish()

    # ------------------------------------------------------------------ what the agent does

    async def _speak(self) -> None:
        sound = AgentAudio(self._server.model.agent_sample_rate, self._config.wire.sample_rate)
        async for frame in self._call:
            await self._pause_or_resume(frame)
            audio = self._config.wire.encode(sound.frame(frame.audio))
            if self._paused:
                self._paused_frames += 1
            else:
                await self._tell_speech(frame)
                await self._tell_text(frame)
                data = base64.b64encode(audio).decode("ascii")
                await self._socket.send_json({"type": "session.output_audio.delta", "delta": data})
            self._frames = frame.index + 1
            await self._tell_skipped(frame)
            if self._frames % _USAGE_FRAMES == 0:
                await self._send("session.usage.updated", usage=self._usage)

    async def _pause_or_resume(self, frame: CallFrame) -> None:
        if self._config.idle_seconds is None:
            return
        if frame.user_active or frame.speaking:
            self._active = frame.index
        idle = (frame.index - self._active) * self._frame_ms > self._config.idle_seconds * 1000
        if idle != self._paused:
            self._paused = idle
            await self._send("session.paused" if idle else "session.resumed")

    async def _tell_speech(self, frame: CallFrame) -> None:
        """A fragment while the user speaks: clients know of no other sign. LiveKit leaves out empty ones, and in Pipecat the
        user's turn never ends if all of it is blank, so the first one is three dots."""
        if frame.user_started:
            self._speech_told = frame.index
        elif not frame.user_active or frame.index < self._speech_told + _SPEECH_FRAMES - 1:
            return
        start, self._speech_told = self._speech_told, frame.index + 1
        end_ms = self._speech_told * self._frame_ms
        words = "…" if frame.user_started else " "
        await self._send("session.input_transcript.delta", delta=words, start_ms=start * self._frame_ms, end_ms=end_ms)

    async def _tell_text(self, frame: CallFrame) -> None:
        self._parted = self._parted or (frame.turn_started and self._wrote)
        if text := frame.text:
            if self._parted and not text[0].isspace():
                text = " " + text
            self._wrote, self._parted = True, False
            start = frame.index * self._frame_ms + self._lead_ms
            await self._send("session.output_transcript.delta", delta=text, start_ms=start, end_ms=start + self._frame_ms)

    async def _tell_skipped(self, frame: CallFrame) -> None:
        if frame.skipped > self._skipped and frame.index >= self._skipped_told + _SKIPPED_FRAMES:
            lost, self._skipped, self._skipped_told = frame.skipped - self._skipped, frame.skipped, frame.index
            message = f"{lost:.2f} s of audio were skipped: they came too late, or the server was too busy."
            await self._socket.send_json(_info("input_audio_skipped", message))

    # ------------------------------------------------------------------ events

    @property
    def _resource(self) -> dict[str, Any]:
        return self._config.resource(self._id, self._expires_at)

    @property
    def _usage(self) -> dict[str, Any]:
        seconds, paused = (frames * self._frame_ms // 1000 for frames in (self._frames, self._paused_frames))
        parts = {} if self._config.idle_seconds is None else {"active_seconds": seconds - paused, "paused_seconds": paused}
        return {"seconds": float(seconds), **parts}

    async def _send(self, kind: str, cause: ClientEvent | None = None, **fields: Any) -> None:
        await self._socket.send_json(_event(kind, cause, **fields))

    async def _notice(self, code: str, message: str, cause: ClientEvent | None = None) -> None:
        """Says something once in a session."""
        if code not in self._told:
            self._told.add(code)
            await self._socket.send_json(_info(code, message, cause))


def _short(text: str) -> str:
    if len(text) > _MOST_CHARACTERS:
        raise _too_long(f"{len(text)} characters")
    return text


def _too_long(size: str) -> EventError:
    return EventError(f"content has {size}, expected at most {_MOST_TOKENS} tokens. Send it in parts.", "too_long", "content")


def _not_understood(kind: str) -> EventError:
    if kind == "session.start":
        return EventError("This session has started. Open another connection for another one.", "session_already_started")
    if kind.split(".")[0] in ("decision", "response", "transport") or kind.startswith("session.output_audio.fixture"):
        return EventError(f"This agent cannot do {quoted(kind)}.", "unsupported", "type")
    return EventError(f"There is no client event {quoted(kind)}.", "unknown_event", "type")


def _event(kind: str, cause: ClientEvent | None = None, **fields: Any) -> dict[str, Any]:
    """A server event; `cause` is the client event that it answers."""
    named = {} if cause is None or cause.event_id is None else {"client_event_id": cause.event_id}
    return {"type": kind, "event_id": f"event_{secrets.token_hex(10)}", **fields, **named}


def _info(code: str, message: str, cause: ClientEvent | None = None) -> dict[str, Any]:
    return _event("info", cause, code=code, message=message)


def _error(error: EventError, cause: ClientEvent | None = None, kind: str = "invalid_request_error") -> dict[str, Any]:
    event_id = error.event_id if cause is None else cause.event_id
    details = {"type": kind, "code": error.code, "message": error.message, "param": error.param, "client_event_id": event_id}
    return _event("error", cause, error={key: value for key, value in details.items() if value is not None})
