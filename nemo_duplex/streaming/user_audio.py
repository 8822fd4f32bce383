"""A caller's audio on its way to the encoder: samples in chunks of any size in, whole encoder chunks out."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nemo_duplex.perception.perception import Perception


class ChunkQueue:
    """Samples that wait until they fill an encoder chunk (drawn in `perception/perception.py`). Any thread may push, one takes.

    A stream begins with `lead_samples` zeros. After its end, zeros fill its last encoder chunk, so that S samples make
    ceil(S / samples_per_frame) frames.
    """

    def __init__(self, perception: Perception) -> None:
        self._perception = perception
        self._lock = Lock()
        self._chunks: deque[np.ndarray] = deque()
        self._waiting = 0  # samples in the chunks
        self._heard = 0  # samples pushed so far
        self._frames = 0  # frames whose encoder chunks have been taken
        self._taken = 0  # samples that have been taken, the lead included
        self._ended = False
        self._append(np.zeros(perception.lead_samples, np.float32))

    def push(self, samples: np.ndarray) -> None:
        """(S,) float32 at the perception's rate; not copied."""
        with self._lock:
            self._heard += len(samples)
            self._append(samples)

    def end(self) -> None:
        """Ends the stream."""
        with self._lock:
            self._ended = True

    def take(self, chunk: np.ndarray) -> int:
        """Fills `chunk` (chunk_samples,) with a whole encoder chunk or the end of the stream.

        Returns:
            its number of frames; 0 if there is no chunk yet.
        """
        with self._lock:
            remaining = self._perception.count(self._heard) - self._frames
            if self._waiting < len(chunk) and not (self._ended and remaining > 0):
                return 0
            filled = self._fill(chunk)
            chunk[filled:] = 0.0
            frames = min(remaining, self._perception.chunk_frames)
            self._frames += frames
            return frames

    @property
    def taken(self) -> int:
        """Samples of the caller in the encoder chunks that were taken."""
        return max(0, self._taken - self._perception.lead_samples)

    @property
    def total(self) -> int | None:
        """Number of frames of the whole stream; None before its end."""
        with self._lock:
            return self._perception.count(self._heard) if self._ended else None

    def _append(self, samples: np.ndarray) -> None:
        if len(samples):
            self._chunks.append(samples)
            self._waiting += len(samples)

    def _fill(self, chunk: np.ndarray) -> int:
        """Moves the oldest samples into `chunk`; returns how many there were."""
        filled = 0
        while self._chunks and filled < len(chunk):
            pushed = self._chunks.popleft()
            part = pushed[: len(chunk) - filled]
            chunk[filled : filled + len(part)] = part
            filled += len(part)
            if len(part) < len(pushed):
                self._chunks.appendleft(pushed[len(part) :])
        self._waiting -= filled
        self._taken += filled
        return filled
