"""Callers with a known truth: when they speak, in what noise, over which line.

    scene = SceneMaker(voices, rng).scene(12.0)         scene.audio (S,), scene.spans where somebody speaks to the agent

The truth comes from the voice alone, before noise is added: 5 ms within `AUDIBLE` dB of the utterance's loud parts are speech,
and so are pauses of up to `PAUSE` between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, sosfilt

from nemo_duplex.frames import Seconds, Span
from nemo_duplex.synthesis.noises import FAMILIES, at_level, babble, coloured, in_room

#: Of scenes, in Hz.
SAMPLE_RATE = 16000
#: dB below the loud parts of an utterance at which a sound still counts, and the longest pause that does.
AUDIBLE, PAUSE = 30.0, 0.2
_BLOCK: Seconds = 0.005


@dataclass(frozen=True)
class Scene:
    """One caller.

    Attributes:
        audio: (S,) float32 at `SAMPLE_RATE`.
        spans: (start, end) in Seconds, where the caller speaks; sorted and apart.
    """

    audio: np.ndarray
    spans: list[Span]

    def truth(self, hop: int) -> np.ndarray:
        """(N,) whether the caller speaks in each hop of `hop` samples, for at least half of it."""
        speech = np.zeros(len(self.audio), bool)
        for start, end in self.spans:
            speech[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)] = True
        return speech[: len(speech) // hop * hop].reshape(-1, hop).mean(axis=1) >= 0.5


def spoken(audio: np.ndarray, offset: Seconds = 0.0) -> list[Span]:
    """Where an utterance without noise (S,) at `SAMPLE_RATE` is speech, `offset` added to all times."""
    size = round(_BLOCK * SAMPLE_RATE)
    blocks = np.asarray(audio[: len(audio) // size * size], np.float64).reshape(-1, size)
    level = 10 * np.log10(np.square(blocks - blocks.mean(axis=1, keepdims=True)).mean(axis=1) + 1e-12)
    loud = level > np.percentile(level[level > level.max() - 60], 90) - AUDIBLE
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(np.int8), [0]])))
    spans: list[Span] = []
    for start, end in zip(edges[::2], edges[1::2]):
        if spans and start * _BLOCK + offset - spans[-1][1] <= PAUSE:
            spans[-1] = (spans[-1][0], end * _BLOCK + offset)
        elif end - start >= 4:  # a click is no word
            spans.append((start * _BLOCK + offset, end * _BLOCK + offset))
    return spans


Voices = Mapping[str, Sequence[np.ndarray]]


class SceneMaker:
    """Draws scenes for training.

    Args:
        voices: utterances (S,) at `SAMPLE_RATE` of each voice.
        rng: source of all that is random.
    """

    def __init__(self, voices: Voices, rng: np.random.Generator) -> None:
        self._voices, self._rng = voices, rng
        self._names = sorted(voices)

    def scene(self, seconds: Seconds) -> Scene:
        """One caller, who may stay silent."""
        rng, samples = self._rng, round(seconds * SAMPLE_RATE)
        voice = self._names[rng.integers(len(self._names))]
        speech, spans = self._turns(voice, samples)
        if rng.random() < 0.3:
            speech = in_room(speech, rng.uniform(0.1, 0.5), SAMPLE_RATE, rng)
        if rng.random() < 0.5:
            speech = coloured(speech, rng, 0.8)
        audio = speech + self._noise(voice, samples)
        if rng.random() < 0.25:
            audio = _telephone(audio)
        audio = audio * 10 ** (rng.uniform(-36, 10) / 20)
        if rng.random() < 0.15:
            audio = audio + rng.uniform(-0.1, 0.1)
        audio = np.clip(audio, -1, 1)
        if rng.random() < 0.2:
            audio = audio * _gate(samples, rng)
        if rng.random() < 0.7:
            audio = np.round(audio * 32767) / 32768
        return Scene(audio.astype(np.float32), spans)

    def _turns(self, voice: str, samples: int) -> tuple[np.ndarray, list[Span]]:
        rng, speech, spans = self._rng, np.zeros(samples), list[Span]()
        at = rng.exponential(1.5) + 0.2 if rng.random() < 0.9 else samples / SAMPLE_RATE
        level = -26.0 + rng.uniform(-4, 4)
        transposed = rng.uniform(0.8, 1.25) if rng.random() < 0.5 else 1.0
        while True:
            utterances = self._voices[voice]
            utterance = _transposed(utterances[int(rng.integers(len(utterances)))], transposed)
            start = round(at * SAMPLE_RATE)
            if start + len(utterance) > samples:
                return speech, spans
            speech[start : start + len(utterance)] += at_level(utterance, level + rng.uniform(-3, 3))
            spans += spoken(utterance, start / SAMPLE_RATE)
            at += len(utterance) / SAMPLE_RATE + rng.uniform(0.3, 3.5)

    def _some(self, voice: str) -> list[np.ndarray]:
        """Three utterances of a voice."""
        utterances = self._voices[voice]
        return [utterances[i] for i in self._rng.choice(len(utterances), min(3, len(utterances)), replace=False)]

    def _noise(self, voice: str, samples: int) -> np.ndarray:
        """Up to two noises, and a little of the line's own; the loud parts of speech are at -26 dB."""
        rng = self._rng
        sound = at_level(rng.standard_normal(samples), rng.uniform(-100, -60))
        weights = np.array(list(FAMILIES.values()))
        for _ in range(int(rng.choice([0, 1, 2], p=[0.25, 0.5, 0.25]))):
            make = list(FAMILIES)[rng.choice(len(FAMILIES), p=weights / weights.sum())]
            sound += at_level(make(samples, SAMPLE_RATE, rng), -26 - rng.uniform(3, 35))
        if rng.random() < 0.5:
            count = int(rng.choice([3, 3, 4, 4, 5, 6, 8, 12]))
            others = rng.choice([name for name in self._names if name != voice], count, replace=False)
            changed = [[_transposed(u, rng.uniform(0.8, 1.25)) for u in self._some(other)] for other in others]
            talk = babble(changed, samples, rng, rng.choice([0.0, 0.2, 0.5, 1.0]) * SAMPLE_RATE)
            if rng.random() < 0.5:
                talk = coloured(talk, rng, 0.8)
            if rng.random() < 0.5:
                talk = in_room(talk, rng.uniform(0.1, 0.6), SAMPLE_RATE, rng)
            sound += at_level(talk, -26 - rng.uniform(7, 25))
        return sound


def _transposed(utterance: np.ndarray, factor: float) -> np.ndarray:
    """The utterance at another speed and pitch, as of a smaller or larger speaker."""
    at = np.arange(0, len(utterance) - 1, factor)
    return np.interp(at, np.arange(len(utterance)), utterance)


def _telephone(audio: np.ndarray) -> np.ndarray:
    return sosfilt(butter(4, [300, 3400], "bandpass", fs=SAMPLE_RATE, output="sos"), audio)


def _gate(samples: int, rng: np.random.Generator) -> np.ndarray:
    """A microphone that is switched off for a while, as on mute."""
    gain = np.ones(samples)
    start = rng.uniform(0, samples / SAMPLE_RATE)
    gain[: round(start * SAMPLE_RATE / 3)] = 0.0
    return gain
