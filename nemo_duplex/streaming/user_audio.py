"""A caller's audio on its way to the encoder, and whether the user speaks in it.

    ChunkQueue       samples in chunks of any size in, whole encoder chunks out
    UserActivity     a cheap detector for protocols that must say "speech started"; the model itself does not need it

The detector compares the energy of blocks of 10 ms, below 2 kHz where most of a voice is and most noise is not, with a floor:
the quietest block of the last two seconds (minimum statistics, Martin 2001), since no voice continues that long without a gap.
Speech starts when blocks have been well above the floor for `ONSET`, and ends when none has been for `HANGOVER`, so that short
silences within words do not end it. A sound that is steady for two seconds counts as noise.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from nemo_duplex.frames import Seconds

if TYPE_CHECKING:
    from nemo_duplex.perception.perception import Perception


#: How long blocks must be above the floor before it counts as speech: longer than a click.
ONSET: Seconds = 0.03
#: How long blocks must be below it before speech has ended.
HANGOVER: Seconds = 0.2
# Blocks of a frame, and how many of the latest ones are smoothed by their median, which removes clicks.
_BLOCKS, _TOGETHER = 8, 3
# Samples are averaged to this rate in Hz, which removes high frequencies.
_LOW_RATE = 2000
# In dB above the floor: thresholds for the start and the end of speech.
_ON, _OFF = 16.0, 10.0
# In dB of full scale: the lowest floor (digital silence has none), the first floor, and the level below which the floor is not
# updated.
_LOWEST, _FIRST, _NOTHING = -72.0, -50.0, -90.0
# The floor is the minimum over this many stretches of this many seconds.
_STRETCHES, _STRETCH = 8, 0.25


class UserActivity:
    """The detector of one caller; about 20 microseconds a frame, and constant memory.

    Args:
        sample_rate: in Hz.
        samples_per_frame: samples of a frame.
    """

    def __init__(self, sample_rate: int, samples_per_frame: int) -> None:
        self._samples_per_frame = samples_per_frame
        self._blocks = math.gcd(_BLOCKS, samples_per_frame)
        self._averaged = math.gcd(max(1, sample_rate // _LOW_RATE), samples_per_frame // self._blocks)
        block: Seconds = samples_per_frame / sample_rate / self._blocks
        self._onset, self._hangover = max(1, round(ONSET / block)), round(HANGOVER / block)
        self._stretch = round(_STRETCH / block)  # in blocks
        self._waiting = np.zeros(0, np.float32)
        self._latest: deque[float] = deque(maxlen=_TOGETHER)  # energies of blocks
        self._minima: deque[float] = deque([_FIRST], maxlen=_STRETCHES)  # in dB, of complete stretches
        self._minimum, self._sounds = math.inf, 0  # of the current stretch, and its number of blocks
        self._loud = self._quiet = 0  # latest blocks in a row that were above the floor, and that were not
        self._active = False

    def push(self, samples: np.ndarray) -> list[bool]:
        """Takes (S,) samples in -1..1; returns for each frame that they complete whether the user spoke in it."""
        stream = np.concatenate([self._waiting, samples])
        frames = len(stream) // self._samples_per_frame
        whole, self._waiting = np.split(stream, [frames * self._samples_per_frame])
        low = whole.reshape(-1, self._averaged).mean(axis=1, dtype=np.float64)
        energies = np.square(low).reshape(frames, self._blocks, -1).mean(axis=2) if frames else np.zeros((0, 0))
        return [any([self._block(energy) for energy in frame]) for frame in energies.tolist()]

    def _block(self, energy: float) -> bool:
        """Takes the energy of a block; returns whether the user speaks in it."""
        self._latest.append(energy)
        level = 10 * math.log10(median(self._latest) + 1e-12)
        floor = max(_LOWEST, min(*self._minima, self._minimum))
        above = level - floor > (_OFF if self._active else _ON)
        self._loud, self._quiet = (self._loud + 1, 0) if above else (0, self._quiet + 1)
        self._active = self._quiet < self._hangover if self._active else self._loud >= self._onset
        if level > _NOTHING:
            self._remember(level)
        return self._active

    def _remember(self, level: float) -> None:
        """Updates the floor with a level in dB."""
        self._minimum, self._sounds = min(self._minimum, level), self._sounds + 1
        if self._sounds == self._stretch:
            self._minima.append(self._minimum)
            self._minimum, self._sounds = math.inf, 0


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
        return filled
