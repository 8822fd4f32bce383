"""The users of a benchmark: their speech, 80 ms at a time, for as long as it takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nemo_duplex.evaluation.sets import read_sets
from nemo_duplex.inputs import InputError

#: Seconds of audio that all callers share; each starts at another place.
_SECONDS = 120.0
_SET = "dev"


def user_speech(data: str | Path | None, sample_rate: int, seconds: float = _SECONDS) -> np.ndarray:
    """(S,) float32 of users speaking: the users of a corpus' dev set one after the other; without a corpus, noise with pauses.

    Args:
        data: corpus folder, or None.
        sample_rate: of the audio that is returned.
        seconds: its length; a shorter corpus is repeated.

    Raises:
        InputError: if the corpus is missing, or of another rate.
    """
    samples = round(seconds * sample_rate)
    if data is None:
        time = np.arange(samples) / sample_rate
        return _noise(samples) * (np.sin(2 * np.pi * 0.35 * time) > 0)  # 1.4 s of speech, 1.4 s of silence
    pieces: list[np.ndarray] = []
    for cut in read_sets(data, [_SET])[_SET]:
        if cut.sampling_rate != sample_rate:
            raise InputError(
                f"data: {data} has users at {cut.sampling_rate} Hz, expected the model's {sample_rate} Hz. "
                "Resample the corpus, or leave data out: then noise is played."
            )
        pieces.append(cut.load_audio()[0].astype(np.float32))
        if sum(map(len, pieces)) >= samples:
            break
    return np.resize(np.concatenate(pieces), samples)


def _noise(samples: int) -> np.ndarray:
    """As loud as speech; its level changes as often as syllables do."""
    rng = np.random.default_rng(0)
    level = np.repeat(rng.uniform(0.01, 0.2, samples // 2000 + 1), 2000)[:samples]
    return (level * rng.standard_normal(samples)).astype(np.float32)


class Caller:
    """Plays `audio` (S,) frame by frame, without end.

    Args:
        audio: repeated when it is over.
        samples_per_frame: of the user's audio.
        number: of the caller; each starts about eight seconds after the one before.
    """

    def __init__(self, audio: np.ndarray, samples_per_frame: int, number: int = 0) -> None:
        self._frames = audio[: len(audio) // samples_per_frame * samples_per_frame].reshape(-1, samples_per_frame)
        self._next = 97 * number

    def next_frame(self) -> np.ndarray:
        """The next (samples_per_frame,) of audio."""
        frame = self._frames[self._next % len(self._frames)]
        self._next += 1
        return frame
