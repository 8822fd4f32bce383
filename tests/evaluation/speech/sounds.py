"""Sounds that a scorer takes, and scorers that say what they are given; they can be sent to other processes."""

from __future__ import annotations

import os
import time

import numpy as np

from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.evaluation.speech.sound_scorer import RATE, QualityScorer
from nemo_duplex.evaluation.speech.speakers import SpeakerEncoder


def tone(seconds: float, rate: int = RATE, pitch: float = 220.0, level: float = 0.3) -> np.ndarray:
    """(S,) float32, as loud as speech from its first sample to its last."""
    return (level * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


class Seconds(QualityScorer):
    """Scores a sound with its duration; what comes first in it says what else happens."""

    scorer = Scorer("seconds", "1", "00", about="a stub")

    def __init__(self, version: str = "1") -> None:
        self.scorer = Scorer("seconds", version, "00", about="a stub")
        self.judged: list[float] = []

    def __reduce__(self):
        return type(self), (self.scorer.version,)

    def _judge(self, sound):
        self.judged.append(len(sound) / RATE)
        return {"score": len(sound) / RATE}


class Moody(Seconds):
    """Hangs, ends its process or raises an error for sounds of 2, 3 and 4 seconds."""

    def _judge(self, sound):
        mood = round(len(sound) / RATE)
        if mood == 2:
            time.sleep(600)
        if mood == 3:
            os._exit(7)
        if mood == 4:
            raise RuntimeError("the\nnetwork   is broken")
        return {"score": float(os.getpid())}


class Unbuildable(Seconds):
    """Cannot be built in another process."""

    def __reduce__(self):
        return _fails, ()


def _fails():
    raise OSError("weights.pt is gone")


class Pitch(SpeakerEncoder):
    """Embeds a voice as the direction of its pitch: 100 Hz more is a quarter turn."""

    scorer = Scorer("pitch", "1", "01", about="a stub")

    def _judge(self, sound):
        loud = sound[np.abs(sound) > 1e-3]
        pitch = np.count_nonzero(np.diff(np.signbit(loud))) / 2 / (len(loud) / RATE)
        angle = np.pi / 2 * pitch / 100
        return {"embedding": [float(np.cos(angle)), float(np.sin(angle))]}
