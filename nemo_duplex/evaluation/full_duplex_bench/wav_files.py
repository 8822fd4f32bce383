"""Wav files as Full-Duplex-Bench takes them: read at any rate, written with 16 kHz, one channel and 16 bits.

Its script for backchannels reads every file as if it had 16 kHz: at 24 kHz, 3.1 s of speech count as 4.6 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

from nemo_duplex.files.atomic import whole_file
from nemo_duplex.files.odd_rows import OddRow

RATE = 16000
_SHORTEST = _SAME_LENGTH = 0.1  # Seconds
_CURE = "Copy the file again, or leave the folder out."


def read_wav(path: Path, sample_rate: int) -> np.ndarray:
    """The samples (S,) float32 of an audio file at `sample_rate`, its channels averaged.

    Raises:
        OddRow: if it is missing, cannot be read, is shorter than 0.1 s, or holds samples that are not finite.
    """
    if not path.is_file():
        raise OddRow(f"no {path.name}", cure=_CURE)
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise OddRow(f"{path.name} cannot be read as audio", str(error)[-80:], _CURE) from None
    if len(samples) < _SHORTEST * rate:
        raise OddRow(f"{path.name} is shorter than {_SHORTEST} s", f"{len(samples)} samples", _CURE)
    if not np.isfinite(samples).all():
        raise OddRow(f"{path.name} holds samples that are not finite", cure=_CURE)
    mono = samples.mean(axis=1)
    return fitted(
        mono if rate == sample_rate else soxr.resample(mono, rate, sample_rate), round(len(mono) * sample_rate / rate)
    )


def duration(path: Path) -> float:
    """Of an audio file, Seconds; 0 where it cannot be read."""
    frames, rate = _measures(path)
    return frames / rate


def timing_notes(folders: Sequence[Path], input_name: str = "input.wav", output_name: str = "output.wav") -> list[str]:
    """What is odd about the sound of a model, for people: another rate than the official scripts take, another length."""
    rates, lengths = [], []
    for folder in folders:
        (heard, heard_rate), (said, said_rate) = _measures(folder / input_name), _measures(folder / output_name)
        if said and said_rate != RATE:
            rates.append(folder.name)
        if said and heard and abs(said / said_rate - heard / heard_rate) > _SAME_LENGTH:
            lengths.append(folder.name)
    notes = []
    if rates:
        notes.append(
            f"{len(rates)} samples have an {output_name} of another rate than {RATE} Hz, such as {rates[0]}: it is resampled "
            "here, and the official script for backchannels would take it for slower speech"
        )
    if lengths:
        notes.append(
            f"{len(lengths)} samples have an {output_name} of another length than {input_name}, such as {lengths[0]}: times "
            "are right only if both begin together"
        )
    return notes


def _measures(path: Path) -> tuple[int, int]:
    """Frames and rate; no frames where it cannot be read."""
    try:
        about = soundfile.info(path)
        return about.frames, about.samplerate
    except (soundfile.LibsndfileError, OSError):
        return 0, RATE


def write_wav(path: Path, samples: np.ndarray) -> None:
    """Writes (S,) or (S, 2) float samples at 16 kHz, whole or not at all; louder than full scale is clipped."""
    with whole_file(path) as part:
        soundfile.write(part, np.clip(samples, -1, 1), RATE, subtype="PCM_16", format="WAV")


def fitted(samples: np.ndarray, length: int) -> np.ndarray:
    """(S,) samples cut, or followed by silence, to `length`."""
    return np.pad(samples[:length], (0, max(0, length - len(samples))))
