"""When the user speaks, as OpenAI Realtime tells it: speech_started, speech_stopped, and the item that is committed.

frame            0   1   2   3   4   5   6   7   8   9
user_active          #   #   #       #
                     |                           |
                  started           silence_ms after the last one: stopped, committed

An agent that begins its turn ends the user's. If the user speaks on, that is no new onset: the model hears it, and alone
decides whether to stop.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from nemo_duplex.serving.call import CallFrame

# Silence that the detector of `streaming/user_audio.py` itself waits for, in milliseconds.
_WAITED_MS = 200


class UserSpeech:
    """Follows the user frame by frame.

    Args:
        frame_ms: duration of a frame.
        new_id: makes the id of an item.
        emit: takes the type and the fields of an event.

    Attributes:
        item_id: of the item that the user speaks; None while there is none.
        committed: whether that item is in the conversation already.
    """

    def __init__(self, frame_ms: float, new_id: Callable[[], str], emit: Callable[..., None]) -> None:
        self.item_id: str | None = None
        self.committed = False
        self._frame_ms, self._new_id, self._emit = frame_ms, new_id, emit
        self._silent = 0  # frames since the user spoke last
        self._ended_early = False  # the user still speaks, after the speech was ended

    def begins(self, frame: CallFrame) -> bool:
        """Whether the user's speech begins in this frame."""
        self._ended_early = self._ended_early and frame.user_active
        return frame.user_active and self.item_id is None and not self._ended_early

    def start(self, frame: CallFrame, prefix_ms: float) -> None:
        """It begins, with `prefix_ms` of the audio before it."""
        self.item_id, self.committed, self._silent = self._new_id(), False, 0
        start = max(0, math.floor(frame.index * self._frame_ms - prefix_ms))
        self._emit("input_audio_buffer.speech_started", audio_start_ms=start, item_id=self.item_id)

    def ends(self, frame: CallFrame, silence_ms: float) -> bool:
        """Whether it ends with this frame, after `silence_ms` of silence."""
        if self.item_id is None:
            return False
        self._silent = 0 if frame.user_active else self._silent + 1
        return self._silent > 0 and _WAITED_MS + (self._silent - 1) * self._frame_ms >= silence_ms

    def stop(self, frame: CallFrame) -> str | None:
        """It ends with this frame; returns the id of the item to commit, None if there is none or it was committed already."""
        if self.item_id is None:
            return None
        item, self.item_id = self.item_id, None
        self._ended_early = frame.user_active
        end = math.floor((frame.index + 1) * self._frame_ms)
        self._emit("input_audio_buffer.speech_stopped", audio_end_ms=end, item_id=item)
        return None if self.committed else item

    def forget(self) -> None:
        """Detection is off."""
        self.item_id, self._ended_early = None, False
