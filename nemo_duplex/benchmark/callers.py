"""The users of a benchmark: what they say, 80 ms at a time, for as long as it takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nemo_duplex.evaluation.run import read_sets
from nemo_duplex.inputs import InputError

#: Seconds of audio that all callers share, each beginning somewhere else.
_SECONDS = 120.0
_SET = "dev"


def speech_of(data: str | Path | None, sample_rate: int, seconds: float = _SECONDS) -> np.ndarray:
    """(S,) float32 of users speaking: those of a corpus' dev set one after the other, or without one noise in encoder chunks.

    Raises:
        InputError: if the corpus is missing, or of another rate.
    """
    samples = round(seconds * sample_rate)
    if data is None:
        time = np.arange(samples) / sample_rate
        return _noise(samples) * (np.sin(2 * np.pi * 0.35 * time) > 0)  # 1.4 s of speech, 1.4 s of silence
    heard: list[np.ndarray] = []
    for cut in read_sets(data, [_SET])[_SET]:
        if cut.sampling_rate != sample_rate:
            raise InputError(f"data: {data} has users at {cut.sampling_rate} Hz, the model hears {sample_rate} Hz.")
        heard.append(cut.load_audio()[0].astype(np.float32))
        if sum(map(len, heard)) >= samples:
            break
    return np.resize(np.concatenate(heard), samples)


def _noise(samples: int) -> np.ndarray:
    """As loud as speech, its level falling and rising as syllables do."""
    rng = np.random.default_rng(0)
    level = np.repeat(rng.uniform(0.01, 0.2, samples // 2000 + 1), 2000)[:samples]
    return (level * rng.standard_normal(samples)).astype(np.float32)


class Caller:
    """Speaks `audio` (S,) from some place on, and from its beginning again when it is over."""

    def __init__(self, audio: np.ndarray, samples_per_frame: int, number: int = 0) -> None:
        self._frames = audio[: len(audio) // samples_per_frame * samples_per_frame].reshape(-1, samples_per_frame)
        self._next = 97 * number  # callers are about eight seconds apart

    def speak(self) -> np.ndarray:
        """The next frame of audio (samples_per_frame,)."""
        frame = self._frames[self._next % len(self._frames)]
        self._next += 1
        return frame
