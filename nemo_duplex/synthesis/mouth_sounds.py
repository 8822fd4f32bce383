"""Coughs, laughs and cleared throats, made of noise and pulses: sounds of a mouth that are no speech.

    cough    one to three bursts: 30 ms of air at full strength, then 0.15 to 0.35 s that die away
    laugh    three to seven short voiced syllables, four to six a second, falling in pitch
    throat   a rough voice of 0.3 to 0.7 s, pulses of 25 to 60 Hz through a closed throat

Every function returns (S,) float32 with a peak of 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.signal import butter, lfilter, sosfilt

from nemo_duplex.frames import Seconds

_RESONANCE: Seconds = 0.010  # how long a formant rings


def cough(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """One to three bursts of air."""
    bursts = []
    for strength in (1.0, 0.7, 0.5)[: int(rng.integers(1, 4))]:
        samples = round(rng.uniform(0.15, 0.35) * sample_rate)
        time = np.arange(samples) / sample_rate
        envelope = np.minimum(time / 0.008, 1) * np.where(
            time < 0.03, 1.0, 0.5 * np.exp(-(time - 0.03) / rng.uniform(0.03, 0.09))
        )
        low, high = rng.uniform(250, 500), rng.uniform(2500, 5000)
        air = sosfilt(butter(2, [low, high], "bandpass", fs=sample_rate, output="sos"), rng.standard_normal(samples))
        bursts += [strength * envelope * air, np.zeros(round(rng.uniform(0.03, 0.15) * sample_rate))]
    return _with_peak_1(np.concatenate(bursts[:-1]))


def laugh(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Three to seven voiced syllables."""
    pitch, period, syllables = rng.uniform(120, 320), 1 / rng.uniform(4, 6), int(rng.integers(3, 8))
    formants = rng.uniform(600, 900), rng.uniform(1100, 1600), rng.uniform(2300, 2900)
    pieces = []
    for k in range(syllables):
        samples = round(period * rng.uniform(0.9, 1.1) * sample_rate)
        voiced = round(0.55 * samples)
        pulses = _pulses(voiced, pitch * (1 - 0.05 * k), sample_rate) + 0.02 * rng.standard_normal(voiced)
        vowel = sum(_formant(pulses, hz, sample_rate) for hz in formants) * np.hanning(voiced)
        breath = 0.03 * rng.standard_normal(samples - voiced) * np.hanning(samples - voiced)
        pieces += [0.85**k * vowel / max(float(np.abs(vowel).max()), 1e-9), breath]
    return _with_peak_1(np.concatenate(pieces))


def throat(sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A cleared throat."""
    samples = round(rng.uniform(0.3, 0.7) * sample_rate)
    rough = _pulses(samples, rng.uniform(25, 60), sample_rate) + 0.05 * rng.standard_normal(samples)
    sound = _formant(rough, rng.uniform(350, 600), sample_rate) + 0.5 * _formant(rough, rng.uniform(900, 1400), sample_rate)
    return _with_peak_1(sound * np.hanning(samples))


#: By the name that an event gives it.
MOUTH_SOUNDS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {"cough": cough, "laugh": laugh, "throat": throat}


def _pulses(samples: int, pitch: float, sample_rate: int) -> np.ndarray:
    pulses = np.zeros(samples)
    pulses[np.arange(0, samples, sample_rate / max(pitch, 20.0)).astype(int)] = 1.0
    return pulses


def _formant(sound: np.ndarray, hz: float, sample_rate: int) -> np.ndarray:
    radius = np.exp(-1 / (_RESONANCE * sample_rate))
    return lfilter([1 - radius], [1, -2 * radius * np.cos(2 * np.pi * hz / sample_rate), radius**2], sound)


def _with_peak_1(sound: np.ndarray) -> np.ndarray:
    return (sound / float(np.abs(sound).max())).astype(np.float32)
