"""Voice activity: when a channel holds speech, by its sound.

The headline numbers come from it. The text channel is reported beside them as a diagnosis: where the two differ, the agent was
silent in a turn of its own, or made sounds after it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import soxr

from nemo_duplex.frames import Seconds, Span
from nemo_duplex.inputs import InputError

#: (audio (S,), sample rate in Hz) -> spans of speech in Seconds, sorted and apart.
Vad = Callable[[np.ndarray, int], list[Span]]

# ---- the energy detector: 10 ms windows; levels in dB re full scale
_WINDOW: Seconds = 0.01
_AUDIBLE = -42.0  # nothing quieter starts speech: decoded silence stays below
_FAINT = -58.0  # nothing quieter continues it
_START = 24.0  # speech starts within this of the recording's loud windows
_CONTINUE = 36.0  # and continues within this: weak fricatives (f, th, h) at its edges are about 30 dB below the vowels
_ABOVE_FLOOR = 9.0  # but at least this far above the noise between the turns
_LOUD, _QUIET = 99, 20  # percentiles taken for the loud windows and for the noise
_MIN_SPEECH: Seconds = 0.06  # shorter is a click
_MIN_SILENCE: Seconds = 0.1  # shorter is a plosive's closure


def energy_vad(audio: np.ndarray, sample_rate: int) -> list[Span]:
    """Spans of speech in a clean recording: synthetic speech, or what a codec made of it. Not for a microphone.

    Two thresholds, both relative to the recording's own loudness: a span is started by its vowels and reaches as far as
    its weakest consonants, so that onset and offset come out within about 20 ms.

    Args:
        audio: (S,) float, full scale 1.
        sample_rate: Hz.
    """
    level = _levels(audio, round(_WINDOW * sample_rate))
    if not len(level):
        return []
    loud, quiet = np.percentile(level, [_LOUD, _QUIET])
    start = max(_AUDIBLE, loud - _START)
    # where the agent hardly ever pauses, the quiet windows are speech too, and say nothing about noise
    stay = max(_FAINT, loud - _CONTINUE, min(quiet + _ABOVE_FLOOR, loud - _START))
    spans = [(a, b) for a, b in _runs(level > min(stay, start)) if level[a:b].max() > start]
    joined = _joined(spans, round(_MIN_SILENCE / _WINDOW))
    kept = [(a, b) for a, b in joined if b - a >= round(_MIN_SPEECH / _WINDOW)]
    seconds = round(_WINDOW * sample_rate) / sample_rate
    return [(a * seconds, min(b * seconds, len(audio) / sample_rate)) for a, b in kept]


class SileroVad:
    """Spans of speech by Silero VAD 6 (MIT; its weights are in the wheel `silero-vad`): for microphones and noise.

    Raises:
        InputError: if the wheel is not installed.
    """

    _RATE = 16000

    def __init__(self) -> None:
        try:
            from silero_vad import get_speech_timestamps, load_silero_vad
        except ImportError as error:
            advice = "pip install silero-vad, or use vad=energy."
            raise InputError(f"vad=silero needs the package silero-vad ({error}): {advice}") from error
        self._model, self._timestamps = load_silero_vad(), get_speech_timestamps

    def __call__(self, audio: np.ndarray, sample_rate: int) -> list[Span]:
        import torch

        resampled = soxr.resample(np.asarray(audio, np.float32), sample_rate, self._RATE)
        found = self._timestamps(
            torch.from_numpy(resampled),
            self._model,
            sampling_rate=self._RATE,
            min_speech_duration_ms=round(_MIN_SPEECH * 1000),
            min_silence_duration_ms=round(_MIN_SILENCE * 1000),
            speech_pad_ms=0,
        )
        return [(s["start"] / self._RATE, s["end"] / self._RATE) for s in found]


VADS = ("energy", "silero")


def voice_activity(name: str) -> Vad:
    """The detector of this name.

    Raises:
        InputError: if there is none, or its package is missing.
    """
    if name not in VADS:
        raise InputError(f"vad={name}: there is no such voice activity detector, expected one of {', '.join(VADS)}.")
    return energy_vad if name == "energy" else SileroVad()


def _levels(audio: np.ndarray, window: int) -> np.ndarray:
    """Level of every window in dB re full scale; the last one may be shorter."""
    power = np.square(np.asarray(audio, np.float64))
    starts = np.arange(0, len(power), window)
    if not len(starts):
        return starts.astype(float)
    mean = np.add.reduceat(power, starts) / np.diff([*starts, len(power)])
    return 10 * np.log10(mean + 1e-12)


def _runs(active: np.ndarray) -> list[tuple[int, int]]:
    """Half-open runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _joined(spans: list[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for a, b in spans:
        if joined and a - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], b)
        else:
            joined.append((a, b))
    return joined
