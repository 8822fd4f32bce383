"""The agent's turns as responses of OpenAI Realtime: opened, held back, cancelled.

the agent begins a turn      create_response (default): a response opens at once
                             without turn detection, or without create_response: the turn is held back until the client
                             asks by `response.create`, and is dropped if it does not
response.create              the turn that is held back, or else the one that the agent begins next. It is made to begin as
                             soon as it has heard what the client had sent by then; if the user has spoken, only when it
                             does not begin by itself
the user begins to speak     a turn that is held back is dropped; with interrupt_response (default) the response is
                             cancelled and the agent is stopped, else the model alone decides when it stops
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

import numpy as np

from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError
from nemo_duplex.serving.call import Call, CallFrame
from nemo_duplex.serving.protocols.realtime.client_events import EventError, wrong_type
from nemo_duplex.serving.protocols.realtime.items import ConversationItems
from nemo_duplex.serving.protocols.realtime.response import Response, usage_of
from nemo_duplex.serving.protocols.realtime.session_object import SessionObject, modalities
from nemo_duplex.serving.server import CallServer
from nemo_duplex.serving.wire_audio import AgentAudio

# A turn that nobody asked for is held back for so long.
_HELD: Seconds = 10.0
# An agent that was asked to begin a turn begins it within so many frames, or the response fails.
_MOST_FRAMES_TO_BEGIN, _FRAMES_TO_ASK_AGAIN = 40, 5
# An agent that the user spoke to begins its answer by itself within this time, or it is made to begin: an agent that is made to
# begin before it is ready has nothing to say.
_LATEST_ANSWER: Seconds = 1.2
# If the model is so many frames ahead of what the client was sent, as after a file sent at once, then the turn that it is in
# now is not the one that the user interrupted. If the client has sent so much that the model has not heard, then the turn that
# is held back is not the answer to it.
_AHEAD = 6


class Player(Protocol):
    """What plays the agent's sound if it does not go in events."""

    def play(self, response: str, audio: np.ndarray) -> None:
        """The sound of a frame of a response, (samples,) float32 at the model's agent_sample_rate."""

    def finish(self) -> None:
        """The response that was played last is complete."""

    def clear(self) -> dict[str, Seconds]:
        """Drops what was not played: the user interrupted, or the client asked for it.

        Returns how much was played of each response that was not played to its end.
        """


class _Turn(Enum):
    """What becomes of the agent's current turn."""

    NONE = "there is none"
    SHOWN = "it is the response"
    HELD = "it waits for response.create"
    HIDDEN = "its response is over"


class AgentResponses:
    """The responses of one session, one at a time.

    Args:
        call: whose agent it is.
        server: of the call.
        session: the settings.
        items: of the conversation, to which those of the responses are added.
        emit: takes the type and the fields of an event.
        before_turn: is called with the first frame of a turn, before the events of the turn.
        player: plays the sound; None: it goes in events.

    Attributes:
        active: the response that is in progress; None: there is none.
    """

    def __init__(
        self,
        call: Call,
        server: CallServer,
        session: SessionObject,
        items: ConversationItems,
        emit: Callable[..., None],
        before_turn: Callable[[CallFrame], None],
        player: Player | None = None,
    ) -> None:
        self.active: Response | None = None
        self._call, self._session, self._items = call, session, items
        self._emit, self._before_turn, self._player = emit, before_turn, player
        self._agent_rate = server.model.agent_sample_rate
        self._frame_ms = server.worker.frame_seconds * 1000
        self._conversation_id = new_id("conv")
        self._in_conversation = True  # whether the item of the response is one of the conversation
        self._truncated = False  # whether the client truncated the item of the response
        self._playing: dict[str, str] = {}  # the items of the responses whose sound is being played
        self._turn, self._held, self._held_ended = _Turn.NONE, list[CallFrame](), False
        self._due = 0  # the frame from which on the agent may begin the response that was asked for
        self._asks = False  # whether it is asked by `start`
        self._answers_by = 0  # the frame by which the agent begins to answer what the user said; 0: it was said nothing
        self._hidden_until = -1  # a turn that begins before this frame was begun before the agent was stopped
        self._index = -1  # the frame that came last
        self._heard = 0  # frames of the user since the response before
        self._wire = session.output_format
        self._sound = AgentAudio(self._agent_rate, self._wire.sample_rate)

    def create(self, options: dict[str, Any]) -> None:
        """The client asks for a response, with the `response` of its event.

        Raises:
            EventError: if there is an active one, or an option cannot be.
        """
        if self.active is not None:
            told = f"Conversation already has an active response in progress: {self.active.id}."
            raise EventError("conversation_already_has_active_response", told)
        given = options.get("output_modalities") or options.get("modalities")
        chosen = modalities(given, "response.output_modalities") if given else self._session.shown["output_modalities"]
        metadata = options.get("metadata")
        if metadata is not None and not isinstance(metadata, dict):
            raise wrong_type("response.metadata", dict, metadata)
        said = (metadata or {}).get("say")
        if isinstance(said, str) and said:
            try:
                self._call.check_said(said)
            except InputError as error:
                raise EventError("invalid_value", str(error), "response.metadata.say") from None
        if self._call.next_unheard - (self._index + 1) > _AHEAD:
            self.drop_held()  # it answers what the client sent before
        self._open_response(chosen, metadata, options.get("conversation") != "none")
        self._call.pause()
        held, self._held = self._held, []
        if held:
            self._turn = _Turn.SHOWN
            self._begin_response(held[0])
            for frame in held:
                self._show(frame)
            if self._held_ended:
                self._turn_ends()
        elif isinstance(said, str) and said:
            self._call.say(said)
            self._due, self._asks = self._index, False
        else:
            self._due, self._asks = max(self._index + 1, self._call.next_unheard), True
            self._ask(self._index + 1)

    def cancel(self, reason: str) -> None:
        """Ends the response, and the agent's turn with it.

        Args:
            reason: client_cancelled; or turn_detected, which does not end a response whose turn has not begun: the agent has
                yet to hear what the client sent before it asked.
        """
        begun = self.active is not None and self.active.begun
        if self.active is None or (reason == "turn_detected" and not begun):
            self._clear_sound()  # the end of the response before
            return
        self._end_response("cancelled", {"type": "cancelled", "reason": reason})
        if reason == "client_cancelled" or self._call.made - self._index <= _AHEAD:
            self._silence()
        else:
            self._turn = _Turn.HIDDEN

    def drop_held(self) -> None:
        """Nobody asked for the turn that is held back."""
        self._held = []
        if self._turn == _Turn.HELD:
            self._silence()

    def truncate(self, event: dict[str, Any]) -> None:
        """Cuts the transcript of an item to what was sent with the first `audio_end_ms` of its sound.

        Raises:
            EventError: if it cannot be.
        """
        id, end = event["item_id"], event["audio_end_ms"]
        item = self._items.find(id, "truncate")
        if item.get("role") != "assistant":
            raise EventError("invalid_value", "Only an item of the assistant can be truncated.", "item_id")
        if event.get("content_index") not in (0, None):
            raise EventError("invalid_value", "Invalid value for 'content_index': expected 0.", "content_index")
        if end < 0:
            raise EventError("invalid_value", "Invalid value for 'audio_end_ms': expected 0 or more.", "audio_end_ms")
        pieces = self._items.pieces.get(id)
        if pieces is not None:
            self._truncated = self._truncated or (self.active is not None and self.active.item_id == id)
            heard = [text for frame, text in pieces if frame * self._frame_ms < end]
            self._items.pieces[id] = pieces[: len(heard)]
            item["content"] = [{**part, "transcript": "".join(heard)} for part in item["content"] if "transcript" in part]
        self._emit("conversation.item.truncated", item_id=id, content_index=0, audio_end_ms=int(end))

    def frame(self, frame: CallFrame) -> None:
        """Takes the next frame."""
        self._index = frame.index
        self._heard += 1
        if frame.user_active:
            self._answers_by = frame.index + self._frames(_LATEST_ANSWER)
        if frame.turn_started and frame.turn_ended:
            self._turn_ends()
        if frame.turn_started:
            self._turn_begins(frame)
        if frame.speaking:
            self._speaks(frame)
        if frame.turn_ended and not frame.turn_started:
            self._turn_ends()
        elif self._held and (frame.index - self._held[-1].index) * self._frame_ms > _HELD * 1000:
            self._held = []
        self._ask(frame.index + 1)

    def played(self, response: str) -> None:
        """The player has played a response to its end."""
        if self._playing.pop(response, None) is not None:
            self._emit("output_audio_buffer.stopped", response_id=response)

    def _turn_begins(self, frame: CallFrame) -> None:
        self._answers_by = 0
        if self.active is None:
            if frame.index < self._hidden_until:
                self._turn = _Turn.HIDDEN
                return
            if not self._session.creates:
                self._turn, self._held, self._held_ended = _Turn.HELD, [], False
                return
        self._before_turn(frame)
        if self.active is None:
            self._open_response(self._session.shown["output_modalities"], None, True)
        self._turn = _Turn.SHOWN
        self._begin_response(frame)

    def _speaks(self, frame: CallFrame) -> None:
        if self._turn == _Turn.SHOWN:
            self._show(frame)
        elif self._turn == _Turn.HELD:
            self._held.append(frame)
            if len(self._held) * self._frame_ms > _HELD * 1000:
                self.drop_held()

    def _turn_ends(self) -> None:
        if self._turn == _Turn.SHOWN:
            self._end_response("completed", None)
        self._held_ended = self._turn == _Turn.HELD
        self._turn = _Turn.NONE

    def _ask(self, next_frame: int) -> None:
        """Lets the agent begin the response that the client asked for, in the frame that comes next."""
        if self.active is None or self.active.begun:
            return
        by_itself = min(self._answers_by, self._due + self._frames(_LATEST_ANSWER))
        waited = next_frame - max(self._due, by_itself)
        if waited > _MOST_FRAMES_TO_BEGIN:
            told = {"type": "server_error", "code": "no_turn", "message": "The agent did not begin to speak."}
            self._end_response("failed", {"type": "failed", "error": told})
        elif self._asks and waited >= 0 and waited % _FRAMES_TO_ASK_AGAIN == 0:
            self._call.start()

    def _frames(self, seconds: Seconds) -> int:
        return round(seconds * 1000 / self._frame_ms)

    def _open_response(self, chosen: list[str], metadata: dict[str, Any] | None, in_conversation: bool) -> None:
        output = self._session.shown["audio"]["output"]
        shared = {
            "conversation_id": self._conversation_id if in_conversation else None,
            "max_output_tokens": self._session.shown["max_output_tokens"],
            "audio": {"output": {"format": output["format"], "voice": output["voice"]}},
            "metadata": metadata,
        }
        self.active = Response(new_id("resp"), new_id("item"), self._emit, chosen, shared)
        self._in_conversation, self._truncated = in_conversation, False
        self.active.created()

    def _begin_response(self, frame: CallFrame) -> None:
        response = self.active
        assert response is not None
        response.begin(self._items.last, self._in_conversation)
        if self._in_conversation:
            self._items.add(response.item("in_progress"))
            self._items.pieces[response.item_id] = response.pieces
        self._wire = self._session.output_format  # a later change of it holds from the next response on
        self._sound = AgentAudio(self._agent_rate, self._wire.sample_rate)
        if self._player is not None and response.is_spoken:
            self._playing[response.id] = response.item_id
            self._emit("output_audio_buffer.started", response_id=response.id)

    def _show(self, frame: CallFrame) -> None:
        response = self.active
        assert response is not None
        if frame.text:
            response.text(frame.text)
        if response.is_spoken and self._player is not None:
            self._player.play(response.id, frame.audio)
        elif response.is_spoken:
            response.audio(base64.b64encode(self._wire.encode(self._sound.frame(frame.audio))).decode())
        response.frames += 1

    def _end_response(self, status: str, details: dict[str, Any] | None) -> None:
        response, self.active = self.active, None
        assert response is not None
        known = response.item_id in self._items
        usage = usage_of(self._heard, len(response.pieces), response.frames)
        self._heard = 0
        if known:
            item = response.item("completed" if status == "completed" else "incomplete")
            self._items[response.item_id].update({"status": item["status"]} if self._truncated else item)
        response.end(status, details, usage, self._items.before(response.item_id) if known else None, known)
        if status == "cancelled":
            self._clear_sound()
        elif self._player is not None and response.id in self._playing:
            self._player.finish()

    def _clear_sound(self) -> None:
        """Drops the sound that was not played; the server truncates the items, for only it knows what was."""
        heard = {} if self._player is None else self._player.clear()
        for response, seconds in heard.items():
            self._emit("output_audio_buffer.cleared", response_id=response)
            item = self._playing.pop(response, None)
            if item is not None and item in self._items:
                self.truncate({"item_id": item, "audio_end_ms": seconds * 1000})

    def _silence(self) -> None:
        """Stops the agent; a turn that it had begun by then is not shown."""
        self._call.stop()
        self._turn, self._hidden_until = _Turn.HIDDEN, self._call.made + 2


def new_id(kind: str) -> str:
    """An id that nothing else has; `kind` is its beginning."""
    return f"{kind}_{secrets.token_hex(10)}"
