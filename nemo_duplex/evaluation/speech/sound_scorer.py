"""What every scorer of sound has in common: which sounds it takes, at which rate, and what it answers where it cannot judge.

Scorers answer silence, noise and half a word with a number too (DNSMOS 1.84 for digital silence), and that number says nothing.
So each sound is looked at first: only what holds a second of speech is given to the network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import soxr

from nemo_duplex.evaluation.activity import energy_vad
from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.frames import Seconds

#: Samples per second that all networks here hear.
RATE = 16000
#: Less speech than that is not judged.
LEAST_SPEECH: Seconds = 1.0
_INAUDIBLE = 1e-3  # peak, -60 dB re full scale
MOST_SCALE = 4.0  # samples beyond 1 are clipped; beyond this they were never on a scale of 1

#: What a scorer says of a sound, plain data for JSON: numbers by name (`score`, `embedding`), or `refused` and why.
Answer = dict[str, Any]


class Refused(Exception):
    """A sound that cannot be judged; the message says why, in words that are counted."""


class SoundScorer(ABC):
    """A network that judges a sound by itself.

    It can be sent to another process, where it is built anew.

    Attributes:
        scorer: what it is, for the report.
    """

    scorer: Scorer

    def answer(self, audio: np.ndarray, sample_rate: int) -> Answer:
        """Judges (S,) audio, float of full scale 1 or 16-bit integers; silence should be removed (`joined_speech`).

        Returns:
            The scorer's numbers, or `{"refused": why}` for less than a second of speech, samples that are no sound, or a
            network whose answer is not a number.
        """
        try:
            found = self._judge(_heard(audio, sample_rate))
        except Refused as why:
            return {"refused": str(why)}
        if not all(np.isfinite(number).all() for number in found.values()):
            return {"refused": "the scorer's answer is not a number"}
        return found

    @abstractmethod
    def _judge(self, sound: np.ndarray) -> Answer:
        """The numbers for (S,) float32 at `RATE`, at least `LEAST_SPEECH` long."""


class QualityScorer(SoundScorer):
    """A scorer that answers with one number for how good a sound is, `score`."""

    def score(self, audio: np.ndarray, sample_rate: int) -> float | None:
        """The score of (S,) audio; None where it is refused, for which `answer` has the reason."""
        return self.answer(audio, sample_rate).get("score")


def spread_windows(sound: np.ndarray, size: int, most_apart: int) -> np.ndarray:
    """(N, size) windows of a sound that is as long as one, or longer: evenly spread, from its start to its end.

    Examples:
        >>> spread_windows(np.arange(10), size=4, most_apart=3).tolist()
        [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    """
    left = len(sound) - size
    count = 1 + -(-left // most_apart)
    return np.stack([sound[start : start + size] for start in np.linspace(0, left, count).round().astype(int)])


def _heard(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """(S,) float32 at `RATE`, full scale 1.

    Raises:
        Refused: if nothing can be said of it.
    """
    audio = np.asarray(audio)
    assert audio.ndim == 1, f"a sound has one channel, got {audio.shape}"
    if np.issubdtype(audio.dtype, np.integer):
        audio = audio / -float(np.iinfo(audio.dtype).min)
    sound = audio.astype(np.float32)
    if not np.isfinite(sound).all():
        raise Refused("samples that are not finite")
    peak = float(np.abs(sound).max(initial=0.0))
    if peak > MOST_SCALE:
        raise Refused("samples far beyond full scale")
    if peak < _INAUDIBLE:
        raise Refused("silence" if len(sound) else "no samples")
    # relative to its own peak, so that a quiet recording is heard as well as a loud one
    if sum(end - start for start, end in energy_vad(sound / peak, sample_rate)) < LEAST_SPEECH:
        raise Refused(f"less than {LEAST_SPEECH:g} s of speech")
    return np.ascontiguousarray(soxr.resample(sound.clip(-1, 1), sample_rate, RATE), np.float32)
