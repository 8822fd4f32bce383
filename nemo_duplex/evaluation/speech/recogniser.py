"""What hears: the protocol of speech recognisers, and how a sound is prepared for any of them.

A turn may be longer than what a model hears at once: Whisper hears 30 s, and what faster-whisper 1.2.1 makes of longer sound
without time stamps lacks words around every 30th second. So long sound is cut where it is quietest, and silence is never given
to a model at all.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import soxr

from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.frames import Seconds

#: Hz; of what recognisers are given.
RATE = 16000
#: Sound that is never louder has no words in it; one step of 16 bits is 0.00003.
SILENT = 1e-4
_LONGEST: Seconds = 28.0
_PAUSE: Seconds = 0.2  # where the mean power of so much sound is least, it is cut
_FIRST_CUT = 0.5  # of the longest piece: earlier than that there is no cut


class Recogniser(Protocol):
    """Writes what it hears."""

    @property
    def scorer(self) -> Scorer:
        """Who it is; the name is printed beside each number that rests on it."""
        ...

    def understands(self, language: str) -> bool:
        """Whether it knows a language (`en`, `en-GB`, `de`)."""
        ...

    def transcribe(self, audio: np.ndarray, sample_rate: int, language: str = "en") -> str:
        """The words in (S,) audio of full scale 1, of any length, the same each time; "" where there are none."""
        ...


class Piece(NamedTuple):
    """A part of a sound that a model hears at once: (S,) float32 at `RATE`, and where in the sound it starts."""

    start: Seconds
    samples: np.ndarray


def pieces(audio: np.ndarray, sample_rate: int, longest: Seconds = _LONGEST) -> list[Piece]:
    """A sound in pieces of at most `longest`, cut where it is quietest; silent pieces are left out.

    Args:
        audio: (S,) float of full scale 1 at `sample_rate` Hz.

    Examples:
        >>> [round(len(piece.samples) / RATE) for piece in pieces(np.ones(100 * 8000), 8000)]
        [28, 28, 28, 16]
        >>> pieces(np.zeros(8000), 8000)
        []
    """
    sound = np.asarray(audio, np.float32)
    sound = sound if sample_rate == RATE else soxr.resample(sound, sample_rate, RATE)
    edges, most = [0], round(longest * RATE)
    while len(sound) - edges[-1] > most:
        edges.append(edges[-1] + _quietest(sound[edges[-1] : edges[-1] + most]))
    found = [Piece(a / RATE, sound[a:b]) for a, b in zip(edges, [*edges[1:], len(sound)])]
    return [piece for piece in found if len(piece.samples) and np.abs(piece.samples).max() > SILENT]


def _quietest(sound: np.ndarray) -> int:
    """The middle of the least loud stretch of a pause's length, not in the first part."""
    width, first = round(_PAUSE * RATE), round(_FIRST_CUT * len(sound))
    power = np.concatenate([[0.0], np.cumsum(np.square(sound[first - width // 2 :], dtype=np.float64))])
    stretches = power[width:] - power[:-width]
    return first + len(stretches) - 1 - int(np.argmin(stretches[::-1]))  # the last of equals: the fewest pieces
