"""When the user speaks, as OpenAI Realtime tells it: speech_started, speech_stopped, and the item that is committed.
Times are on the audio that the client sent.

frame            0   1   2   3   4   5   6   7   8   9
user_active          #   #   #       #
                     |                           |
                  started           silence_ms after the last one: stopped, committed

An agent that begins its turn ends the user's. A user who speaks on over it for a second has begun again; but not one who had
spoken for ten seconds without a gap, which is no speech.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from nemo_duplex.serving.call import CallFrame

# Silence that the detector of `user_activity/detector.py` itself waits for, in milliseconds.
_WAITED_MS = 200
# How long a user speaks on over the agent before that is another onset, and what is too long for speech without a gap; in
# milliseconds.
_TALKING_OVER_MS, _NO_SPEECH_MS = 1000, 10_000


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
        self._active = 0  # frames for which the user has spoken without a gap
        self._over: float | None = None  # the same since the agent ended the user's turn

    def begins(self, frame: CallFrame) -> bool:
        """Whether the user's speech begins in this frame."""
        self._active = self._active + 1 if frame.user_active else 0
        if self._over is not None:
            self._over = self._over + 1 if frame.user_active else None
        if self.item_id is not None or not frame.user_active:
            return False
        return self._over is None or self._over * self._frame_ms >= _TALKING_OVER_MS

    def start(self, frame: CallFrame, prefix_ms: float) -> None:
        """It begins, with `prefix_ms` of the audio before it."""
        self.item_id, self.committed = self._new_id(), False
        self._silent, self._over = 0, None
        start = max(0, round(frame.heard * 1000 - self._frame_ms - prefix_ms))
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
        if frame.user_active:
            self._over = 0 if self._active * self._frame_ms < _NO_SPEECH_MS else -math.inf
        end = round(frame.heard * 1000)
        self._emit("input_audio_buffer.speech_stopped", audio_end_ms=end, item_id=item)
        return None if self.committed else item

    def forget(self) -> None:
        """Detection is off."""
        self.item_id, self._over, self._active = None, None, 0
