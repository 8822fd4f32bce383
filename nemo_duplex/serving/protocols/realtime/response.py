"""A response of OpenAI Realtime: the view of one turn of the agent, opened when it begins, closed when it ends.

response.created                    at once when the client asked for it, else when the turn begins
response.output_item.added          the turn begins
conversation.item.added
response.content_part.added
response.output_audio_transcript.delta, response.output_audio.delta        frame by frame
response.output_audio.done ... response.done                               it ended, or was cancelled
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Emit = Callable[..., None]


class Response:
    """One response and the item that it makes.

    Args:
        id, item_id: of both.
        emit: takes the type and the fields of an event.
        modalities: `["audio"]` or `["text"]`.
        shared: what every copy of the response object has: conversation_id, audio, metadata, ...

    Attributes:
        begun: whether the agent's turn has begun.
        pieces: the text so far, each piece with the frame of the turn in which it came.
        frames: of the turn so far.
    """

    def __init__(self, id: str, item_id: str, emit: Emit, modalities: list[str], shared: dict[str, Any]) -> None:
        self.id, self.item_id, self.modalities = id, item_id, modalities
        self.begun = False
        self.pieces: list[tuple[int, str]] = []
        self.frames = 0
        self._emit, self._shared = emit, shared

    @property
    def is_spoken(self) -> bool:
        """Whether it has sound."""
        return self.modalities == ["audio"]

    @property
    def transcript(self) -> str:
        """Its text so far."""
        return "".join(text for _, text in self.pieces)

    def created(self) -> None:
        """It is announced."""
        self._emit("response.created", response=self._shown("in_progress", None, [], None))

    def begin(self, previous: str | None, in_conversation: bool) -> None:
        """The agent's turn begins.

        Args:
            previous: the id of the item before.
            in_conversation: whether its item is one of the conversation.
        """
        self.begun = True
        item = self.item("in_progress", with_content=False)
        self._emit("response.output_item.added", response_id=self.id, output_index=0, item=item)
        if in_conversation:
            self._emit("conversation.item.added", previous_item_id=previous, item=item)
        self._emit_part("response.content_part.added", part=self._part(""))

    def text(self, text: str) -> None:
        """The text of the current frame."""
        self.pieces.append((self.frames, text))
        self._emit_part(f"response.{self._text_name}.delta", delta=text)

    def audio(self, encoded: str) -> None:
        """The sound of the current frame, in base64."""
        self._emit_part("response.output_audio.delta", delta=encoded)

    def end(
        self, status: str, details: dict[str, Any] | None, usage: dict[str, Any], previous: str | None, known: bool
    ) -> None:
        """It is over; nothing more of it is sent.

        Args:
            status: completed, cancelled or failed.
            details: of the status.
            usage: of tokens.
            previous: the id of the item before.
            known: whether its item is one of the conversation.
        """
        output = []
        if self.begun:
            text, item = self.transcript, self.item("completed" if status == "completed" else "incomplete")
            if self.is_spoken:
                self._emit_part("response.output_audio.done")
                self._emit_part("response.output_audio_transcript.done", transcript=text)
            else:
                self._emit_part("response.output_text.done", text=text)
            self._emit_part("response.content_part.done", part=self._part(text))
            self._emit("response.output_item.done", response_id=self.id, output_index=0, item=item)
            if known:
                self._emit("conversation.item.done", previous_item_id=previous, item=item)
            output.append(item)
        self._emit("response.done", response=self._shown(status, details, output, usage))

    def item(self, status: str, with_content: bool = True) -> dict[str, Any]:
        """Its item."""
        content = {"type": "output_audio", "transcript": self.transcript}
        if not self.is_spoken:
            content = {"type": "output_text", "text": self.transcript}
        return {
            "id": self.item_id,
            "object": "realtime.item",
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [content] if with_content else [],
        }

    @property
    def _text_name(self) -> str:
        return "output_audio_transcript" if self.is_spoken else "output_text"

    def _part(self, text: str) -> dict[str, Any]:
        return {"type": "audio", "transcript": text} if self.is_spoken else {"type": "text", "text": text}

    def _emit_part(self, kind: str, **fields: Any) -> None:
        place = {"response_id": self.id, "item_id": self.item_id, "output_index": 0, "content_index": 0}
        self._emit(kind, **place, **fields)

    def _shown(self, status: str, details: Any, output: list[Any], usage: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "realtime.response",
            "status": status,
            "status_details": details,
            "output": output,
            "output_modalities": self.modalities,
            "usage": usage,
            **self._shared,
        }


def usage_of(heard_frames: int, texts: int, frames: int) -> dict[str, Any]:
    """The usage of a response, in tokens: a frame of sound is one, a piece of text is one.

    Args:
        heard_frames: of the user, since the response before.
        texts: pieces of text.
        frames: of the agent's sound.
    """
    cached = {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0}
    heard = {"text_tokens": 0, "audio_tokens": heard_frames, "image_tokens": 0, "cached_tokens": 0}
    return {
        "total_tokens": heard_frames + texts + frames,
        "input_tokens": heard_frames,
        "output_tokens": texts + frames,
        "input_token_details": heard | {"cached_tokens_details": cached},
        "output_token_details": {"text_tokens": texts, "audio_tokens": frames},
    }
