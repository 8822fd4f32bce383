"""What any codec is to a table of codecs: a name, and what comes back of a sound."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from nemo_duplex.frames import Seconds


class Decoded(NamedTuple):
    """What comes back of a sound.

    Args:
        samples: (S,) float32 of full scale 1, as long as what went in or longer; late by the codec's delay.
        sample_rate: Hz, the codec's own.
        bits: that the codes take, without any container.
        seconds: of sound that they stand for.
    """

    samples: np.ndarray
    sample_rate: int
    bits: float
    seconds: Seconds


class SpeechCodec(Protocol):
    """A codec to try."""

    @property
    def name(self) -> str:
        """Of its row."""
        ...

    def send(self, audio: np.ndarray, sample_rate: int) -> Decoded:
        """Encodes and decodes (S,) float32 of full scale 1; the same sound gives the same each time."""
        ...

    def about(self) -> dict[str, Any]:
        """What it is, plain data for JSON."""
        ...
