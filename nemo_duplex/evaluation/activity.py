"""Voice activity: when a channel holds speech, by its sound.

The headline numbers come from it. The text channel is reported beside them as a diagnosis: where the two differ, the agent was
silent in a turn of its own, or made sounds after it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import soxr

from nemo_duplex.frames import Seconds, Span
from nemo_duplex.inputs import InputError, NotInstalled

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

    The network runs on onnxruntime, and the rule that makes spans of its probabilities is written here, so that torch is not
    imported. Spans are those of silero's `get_speech_timestamps` with the same durations.

    Args:
        min_speech: shorter spans are left out.
        min_silence: shorter pauses do not end a span.
        pad: added on both sides of a span.

    Raises:
        InputError: if a wheel is not installed.

    Examples:
        >>> SileroVad()(np.zeros(16000), 16000)
        []
    """

    _RATE, _WINDOW, _CONTEXT = 16000, 512, 64
    _SPEECH, _NO_SPEECH = 0.5, 0.35  # probabilities that start a span, and that end it

    def __init__(self, min_speech: Seconds = _MIN_SPEECH, min_silence: Seconds = _MIN_SILENCE, pad: Seconds = 0.0) -> None:
        package = find_spec("silero_vad")
        try:
            import onnxruntime
        except ImportError:
            package = None
        if package is None or package.origin is None:
            raise NotInstalled("vad=silero needs the package silero-vad: pip install silero-vad, or use vad=energy.")
        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = options.intra_op_num_threads = 1
        weights = Path(package.origin).parent / "data" / "silero_vad.onnx"
        self._network = onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
        self._min_speech, self._min_silence, self._pad = (d * self._RATE for d in (min_speech, min_silence, pad))

    def __call__(self, audio: np.ndarray, sample_rate: int) -> list[Span]:
        resampled = soxr.resample(np.asarray(audio, np.float32), sample_rate, self._RATE)
        spans = self._padded(self._spans(self._probabilities(resampled), len(resampled)), len(resampled))
        return [(start / self._RATE, end / self._RATE) for start, end in spans]

    def _probabilities(self, audio: np.ndarray) -> list[float]:
        """Of speech, for every window of 32 ms of (S,) audio."""
        windows = -(-len(audio) // self._WINDOW)
        padded = np.zeros(self._CONTEXT + windows * self._WINDOW, np.float32)
        padded[self._CONTEXT : self._CONTEXT + len(audio)] = audio
        state, rate, found = np.zeros((2, 1, 128), np.float32), np.array(self._RATE, np.int64), []
        for start in range(0, windows * self._WINDOW, self._WINDOW):
            window = padded[None, start : start + self._CONTEXT + self._WINDOW]
            probability, state = self._network.run(None, {"input": window, "state": state, "sr": rate})
            found.append(float(probability[0, 0]))
        return found

    def _spans(self, probabilities: list[float], samples: int) -> list[tuple[int, int]]:
        """In samples: from the first window that is speech to the one from which on none is, for long enough."""
        spans: list[tuple[int, int]] = []
        start = quiet_since = None
        for at, probability in zip(range(0, samples, self._WINDOW), probabilities, strict=True):
            if probability >= self._SPEECH:
                start, quiet_since = (at if start is None else start), None
            elif probability < self._NO_SPEECH and start is not None:
                quiet_since = at if quiet_since is None else quiet_since
                if at - quiet_since >= self._min_silence:
                    spans.append((start, quiet_since))
                    start = quiet_since = None
        if start is not None:
            spans.append((start, samples))
        return [(a, b) for a, b in spans if b - a > self._min_speech]

    def _padded(self, spans: list[tuple[int, int]], samples: int) -> list[tuple[int, int]]:
        """Longer on both sides, but by no more than half of the pause to the next span."""
        between = [self._share(end, start) for (_, end), (start, _) in pairwise(spans)]
        sides = zip(spans, [self._pad, *between], [*between, self._pad])
        return [(int(max(0, a - left)), int(min(samples, b + right))) for (a, b), left, right in sides]

    def _share(self, end: int, start: int) -> float:
        return (start - end) // 2 if start - end < 2 * self._pad else self._pad


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
    audio = np.asarray(audio)
    whole = audio[: len(audio) // window * window].reshape(-1, window)
    mean = np.einsum("ij,ij->i", whole, whole, dtype=np.float64) / window
    if len(rest := audio[whole.size :]):
        mean = np.append(mean, np.square(rest, dtype=np.float64).mean())
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
