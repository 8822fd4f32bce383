"""A caller's audio on its way to the encoder: samples in chunks of any size in, whole bursts out."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nemo_duplex.perception.perception import Perception


class BurstQueue:
    """Samples that wait until they fill a burst (drawn in `perception/perception.py`). Any thread may push, one takes.

    A stream begins with the perception's lead, which nobody spoke. After its end it goes on as silence as far as its last
    burst reaches, and S samples are ceil(S / samples_per_frame) frames, none of them lost.
    """

    def __init__(self, perception: Perception) -> None:
        self._perception = perception
        self._lock = Lock()
        self._chunks: deque[np.ndarray] = deque()
        self._waiting = 0  # samples in the chunks
        self._heard = 0  # samples pushed so far
        self._frames = 0  # frames whose bursts have been taken
        self._ended = False
        self._append(np.zeros(perception.lead_samples, np.float32))

    def push(self, samples: np.ndarray) -> None:
        """(S,) float32 at the perception's rate; not copied."""
        with self._lock:
            self._heard += len(samples)
            self._append(samples)

    def end(self) -> None:
        """Nothing more will be pushed."""
        with self._lock:
            self._ended = True

    def take(self, burst: np.ndarray) -> int:
        """Fills `burst` (burst_samples,) if there is a whole one, or the end; returns how many frames it stands for, else 0."""
        with self._lock:
            owed = self._perception.count(self._heard) - self._frames
            if self._waiting < len(burst) and not (self._ended and owed > 0):
                return 0
            filled = self._fill(burst)
            burst[filled:] = 0.0
            frames = min(owed, self._perception.burst_frames)
            self._frames += frames
            return frames

    @property
    def total(self) -> int | None:
        """The frames of the whole stream; None before its end."""
        with self._lock:
            return self._perception.count(self._heard) if self._ended else None

    def _append(self, samples: np.ndarray) -> None:
        if len(samples):
            self._chunks.append(samples)
            self._waiting += len(samples)

    def _fill(self, burst: np.ndarray) -> int:
        """Moves the oldest samples into `burst`; returns how many there were."""
        filled = 0
        while self._chunks and filled < len(burst):
            chunk = self._chunks.popleft()
            part = chunk[: len(burst) - filled]
            burst[filled : filled + len(part)] = part
            filled += len(part)
            if len(part) < len(chunk):
                self._chunks.appendleft(chunk[len(part) :])
        self._waiting -= filled
        return filled
