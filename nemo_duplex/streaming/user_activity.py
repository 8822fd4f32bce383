"""Whether the user speaks, frame by frame: a cheap detector for protocols that must say "speech started".

The agent does not need it: the model hears by itself when to speak. Energy in blocks of 10 ms is compared with a running floor
of noise. Speech is what stands out of it for `ONSET`; it ends when nothing has stood out for `HANGOVER`, so that it holds over
the short silences inside of words.
"""

from __future__ import annotations

import numpy as np

from nemo_duplex.frames import Seconds

#: How long sound must stand out until it is speech, so that a click is none.
ONSET: Seconds = 0.03
#: How long no sound must stand out until speech has ended.
HANGOVER: Seconds = 0.24
_BLOCK: Seconds = 0.01
# In dB above the floor: where speech begins, and below which it is no longer heard.
_ON, _OFF = 12.0, 8.0
# In dB of full scale: no floor is lower (digital silence has none), and none starts higher.
_LOWEST, _FIRST = -65.0, -50.0
# How the floor moves: down by this share of the way each block, up by this many dB each block, while nobody or somebody speaks.
_FALL, _RISE, _RISE_IN_SPEECH = 0.2, 0.05, 0.01


class UserActivity:
    """The detector of one caller.

    Args:
        sample_rate: in Hz.
        samples_per_frame: samples of a frame.
    """

    def __init__(self, sample_rate: int, samples_per_frame: int) -> None:
        self._samples_per_frame = samples_per_frame
        self._blocks = max(1, round(samples_per_frame / (_BLOCK * sample_rate)))  # of a frame
        block: Seconds = samples_per_frame / sample_rate / self._blocks
        self._onset, self._hangover = max(1, round(ONSET / block)), round(HANGOVER / block)
        self._waiting = np.zeros(0, np.float32)
        self._floor = _FIRST
        self._loud = self._quiet = 0  # blocks in a row that stood out, and that did not
        self._active = False

    def push(self, samples: np.ndarray) -> list[bool]:
        """Hears (S,) samples in -1..1; says of each frame that they complete whether the user spoke in it."""
        stream = np.concatenate([self._waiting, samples])
        frames = len(stream) // self._samples_per_frame
        whole, self._waiting = np.split(stream, [frames * self._samples_per_frame])
        return [self._frame(frame) for frame in whole.reshape(frames, self._samples_per_frame)]

    def _frame(self, frame: np.ndarray) -> bool:
        energies = [float(np.mean(np.square(block, dtype=np.float64))) for block in np.array_split(frame, self._blocks)]
        return any([self._block(10 * np.log10(energy + 1e-12)) for energy in energies])

    def _block(self, level: float) -> bool:
        """Takes the level of a block in dB; says whether somebody speaks in it."""
        above = level - self._floor
        stands_out = above > (_OFF if self._active else _ON)
        self._loud, self._quiet = (self._loud + 1, 0) if stands_out else (0, self._quiet + 1)
        self._active = self._quiet < self._hangover if self._active else self._loud >= self._onset
        step = _FALL * above if above < 0 else min(above, _RISE_IN_SPEECH if stands_out or self._active else _RISE)
        self._floor = max(_LOWEST, self._floor + step)
        return self._active
