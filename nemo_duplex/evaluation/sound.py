"""The sound of one channel, read when somebody asks for it: a test set may be longer than the memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import soundfile

from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError

if TYPE_CHECKING:
    from lhotse.cut import Cut

_INT16 = 32767
_LOSSY = ("VORBIS", "OPUS", "MPEG")


class Sound(Protocol):
    """One channel."""

    @property
    def sample_rate(self) -> int:
        """Hz."""
        ...

    def samples(self) -> np.ndarray:
        """(S,) float32, full scale 1."""
        ...


@dataclass(frozen=True, eq=False)
class Samples:
    """Sound in memory.

    Args:
        values: (S,) int16.
        sample_rate: Hz.

    Examples:
        >>> Samples.of(np.array([0.0, 0.5, 2.0]), 16000).values.tolist()
        [0, 16383, 32767]
    """

    values: np.ndarray
    sample_rate: int

    @classmethod
    def of(cls, samples: np.ndarray, sample_rate: int) -> Samples:
        """Keeps (S,) float samples as 16 bits; louder than full scale is clipped."""
        return cls((np.clip(samples, -1, 1) * _INT16).astype(np.int16), sample_rate)

    def samples(self) -> np.ndarray:
        return self.values / np.float32(32768)


@dataclass(frozen=True)
class SoundFile:
    """One channel of an audio file; two channels may lie in one file.

    Args:
        path: anything that libsndfile reads.
        sample_rate: Hz, as the file says.
        channel: from 0.
    """

    path: Path
    sample_rate: int
    channel: int = 0

    def samples(self) -> np.ndarray:
        """Raises InputError, naming the file, if it cannot be read."""
        return np.ascontiguousarray(read_channels(self.path)[:, self.channel])


def read_channels(path: Path) -> np.ndarray:
    """The samples (S, C) float32 of an audio file.

    Decoders of lossy formats go up to 60 % over full scale where the sound is loud: that is clipped, as players do.

    Raises:
        InputError: naming the file, if it cannot be read.
    """
    try:
        with soundfile.SoundFile(path) as file:
            read = file.read(dtype="float32", always_2d=True)
            return np.clip(read, -1, 1, out=read) if file.subtype.startswith(_LOSSY) else read
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path} cannot be read as audio ({error}). Write or copy it again.") from error


@dataclass(frozen=True, eq=False)
class CutSound:
    """A channel of a Lhotse cut: `recording` is the user, `target_audio` the agent of the corpus."""

    cut: Cut
    field: Literal["recording", "target_audio"]

    @property
    def sample_rate(self) -> int:
        return self.cut.sampling_rate if self.field == "recording" else self.cut.target_audio.sampling_rate

    def samples(self) -> np.ndarray:
        return (self.cut.load_audio() if self.field == "recording" else self.cut.load_target_audio())[0]


@dataclass(frozen=True, eq=False)
class Cropped:
    """The first `duration` Seconds of a sound that may be longer."""

    sound: Sound
    duration: Seconds

    @property
    def sample_rate(self) -> int:
        return self.sound.sample_rate

    def samples(self) -> np.ndarray:
        return self.sound.samples()[: round(self.duration * self.sample_rate)]
