"""Noises of rooms, streets, machines, telephones and other people, behind those whom a detector or an encoder learns from.

Every function returns (S,) float64 of any level; `at_level` sets it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.signal import butter, lfilter, oaconvolve, sosfilt

from nemo_duplex.frames import Seconds

#: (samples, sample rate in Hz, source of random numbers) -> (samples,).
Noise = Callable[[int, int, np.random.Generator], np.ndarray]


def rms(audio: np.ndarray) -> float:
    """Root mean square; tiny for silence, never 0."""
    return float(np.sqrt(np.mean(np.square(audio)) + 1e-20))


def at_level(audio: np.ndarray, level: float) -> np.ndarray:
    """The audio with a root mean square of `level` dB of full scale."""
    return audio * (10 ** (level / 20) / rms(audio))


def shaped(samples: int, sample_rate: int, rng: np.random.Generator, tilt: float, ripple: float) -> np.ndarray:
    """Steady noise that falls by `tilt` dB per octave, with random hills and valleys of `ripple` dB in its spectrum."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    octaves = np.log2(np.maximum(np.arange(len(spectrum)) * sample_rate / samples, 30.0) / 30.0)
    knots = ripple * rng.standard_normal(14)
    gain = -tilt * octaves + np.interp(octaves, np.linspace(0, 9, len(knots)), knots)
    return np.fft.irfft(spectrum * 10 ** (gain / 20), samples)


def envelope(samples: int, sample_rate: int, rng: np.random.Generator, every: Seconds, depth: float) -> np.ndarray:
    """A gain that wanders: `depth` dB of standard deviation, a new one `every` Seconds."""
    knots = rng.standard_normal(int(samples / sample_rate / every) + 2) * depth
    time = np.arange(samples) / sample_rate / every
    return 10 ** (np.interp(time, np.arange(len(knots)), knots) / 20)


def steady(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Of any colour, from white to rumble."""
    return shaped(samples, sample_rate, rng, rng.uniform(-1, 9), rng.uniform(0, 6))


def wandering(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Noise that comes and goes, as traffic and wind do."""
    noise = shaped(samples, sample_rate, rng, rng.uniform(2, 9), rng.uniform(0, 6))
    noise = noise * envelope(samples, sample_rate, rng, rng.uniform(0.2, 2.0), rng.uniform(2, 8))
    return noise + 0.05 * rms(noise) * rng.standard_normal(samples)


def hum(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Harmonics of the mains or of a motor, with a little noise."""
    pitch = rng.choice([50.0, 60.0, rng.uniform(60, 400)])
    time = np.arange(samples) / sample_rate
    wobble = rng.uniform(0, 0.004) * np.sin(2 * np.pi * rng.uniform(0.1, 2) * time + rng.uniform(0, 6))
    phase = 2 * np.pi * pitch * (time + wobble)
    tones = np.zeros(samples)
    for k in range(1, int(rng.integers(2, 20))):
        tones += rng.exponential() / k * np.sin(k * phase + rng.uniform(0, 6))
    return tones + 0.1 * rms(tones) * at_level(steady(samples, sample_rate, rng), 0.0)


def knocks(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Clicks, keys, knocks and clatter: sounds of some milliseconds, alone or in series, no two of them the same."""
    sound, at = 1e-4 * rng.standard_normal(samples), 0.0
    pause, ring = rng.choice([0.06, 0.12, 0.2, 0.5, 2.0]), rng.choice([0.001, 0.004, 0.01, 0.025, 0.05])
    low, high = np.sort(rng.uniform(100, 7000, 2))
    tonal = rng.uniform(0, 2) * (rng.random() < 0.6)
    while (at := at + pause * rng.uniform(0.3, 1.7)) < samples / sample_rate:
        length = max(2, int(ring * rng.uniform(0.5, 1.5) * 4 * sample_rate))
        start, time = int(at * sample_rate), np.arange(length) / sample_rate
        knock = rng.standard_normal(length)
        if length > 32:
            knock = sosfilt(butter(1, [low, high + 200], "bandpass", fs=sample_rate, output="sos"), knock)
            knock = knock / rms(knock) + tonal * np.sin(2 * np.pi * rng.uniform(low, high) * time)
        knock = rng.uniform(0.3, 1) * knock * np.exp(-4 * np.arange(length) / length)
        sound[start : start + length] += knock[: samples - start]
        at += rng.exponential(2.0) * (rng.random() < 0.05)
    return sound


def clicks(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Contacts, drop-outs and pops: jumps that die away within milliseconds, without any tone."""
    sound, at, often = 1e-4 * rng.standard_normal(samples), 0.0, rng.choice([0.2, 0.4, 1.0, 3.0])
    while (at := at + rng.exponential(often)) < samples / sample_rate:
        length, start = max(2, int(rng.uniform(0.0002, 0.02) * sample_rate)), int(at * sample_rate)
        click = rng.normal() * np.exp(-rng.uniform(0, 5) * np.arange(length) / length)
        sound[start : start + length] += click[: samples - start]
    return sound


def tones(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Beeps, dialling, ringing, horns, sirens and slow chords."""
    sound, at = 1e-4 * rng.standard_normal(samples), rng.uniform(0, 1)
    length, gap = rng.choice([0.1, 0.2, 0.4, 1.0, 2.0]), rng.choice([0.05, 0.2, 1.0, 3.0, 8.0])
    partials, harmonics = int(rng.integers(1, 4)), int(rng.choice([1, 1, 4, 12]))
    same, melody = rng.uniform(200, 2000, partials), rng.random() < 0.5
    glide = rng.uniform(-0.5, 0.5) * (rng.random() < 0.2)
    while at < samples / sample_rate:
        start, end = int(at * sample_rate), min(samples, int((at + length) * sample_rate))
        time = np.arange(end - start) / sample_rate
        pitches = rng.uniform(200, 2000, partials) if melody else same
        fade = np.minimum(1, np.minimum(time, time[::-1]) / 0.008)
        turns = time * (1 + glide * time / length)
        for pitch in pitches:
            sound[start:end] += fade * sum(
                np.sin(2 * np.pi * k * pitch * turns) / k for k in range(1, harmonics + 1) if k * pitch < 7000
            )
        at += length + gap * rng.uniform(0.8, 1.2)
    return sound


def bursts(samples: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Breath, rustling, doors and coughs of a machine: noise of a tenth of a second to a second, now and then."""
    sound, at = 1e-4 * rng.standard_normal(samples), rng.uniform(0, 2)
    while at < samples / sample_rate:
        start, end = int(at * sample_rate), min(samples, int((at + rng.uniform(0.05, 0.8)) * sample_rate))
        if end - start > 64:
            burst = shaped(end - start, sample_rate, rng, rng.uniform(-2, 9), rng.uniform(0, 6))
            sound[start:end] += at_level(burst, rng.uniform(-15, 0)) * np.hanning(end - start)
        at += rng.exponential(2.0) + 0.2
    return sound


def babble(voices: Sequence[Sequence[np.ndarray]], samples: int, rng: np.random.Generator, pause: float = 0.0) -> np.ndarray:
    """Several people who talk among themselves, all equally loud on average.

    Args:
        voices: utterances (S,) of each voice.
        pause: the mean pause of a voice between two utterances, in samples.
    """
    sound = np.zeros(samples)
    for utterances in voices:
        voice = np.zeros(samples)
        at = -int(rng.integers(len(utterances[0])))
        while at < samples:
            utterance = utterances[int(rng.integers(len(utterances)))]
            begin, end = max(at, 0), min(at + len(utterance), samples)
            if end > begin:
                voice[begin:end] += utterance[begin - at : end - at] / rms(utterance)
            at += len(utterance) + int(rng.exponential(pause))
        sound += at_level(voice, 0.0)
    return sound


def in_room(audio: np.ndarray, decay: Seconds, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """The audio with the echoes of a room that die away by 60 dB in `decay`."""
    length = max(1, int(decay * sample_rate))
    tail = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    tail[0] = 0.0
    response = 0.35 * tail / np.sqrt(np.sum(np.square(tail)) + 1e-12)
    response[0] = 1.0
    return oaconvolve(audio, response)[: len(audio)]


def coloured(audio: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """The audio through a random gentle filter, as of another microphone."""
    return lfilter([1.0, *(strength * rng.uniform(-1, 1, 2))], [1.0, *(strength * rng.uniform(-0.5, 0.5, 2))], audio)


#: What is heard behind callers in training, with how often.
FAMILIES: dict[Noise, float] = {steady: 3, wandering: 3, hum: 1.5, knocks: 2, clicks: 1.5, tones: 2, bursts: 1.5}
