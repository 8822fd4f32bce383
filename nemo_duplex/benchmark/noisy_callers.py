"""Callers with a known truth for the benchmark of user activity: other noises than those of its training, at fixed levels.

scene = noisy_caller(voices, others, CONDITIONS["babble of 6"], seconds=60, rng=rng)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, sosfilt

from nemo_duplex.frames import Seconds, Span
from nemo_duplex.streaming.resampler import StreamResampler
from nemo_duplex.synthesis.noises import at_level, babble, rms
from nemo_duplex.user_activity.scenes import SAMPLE_RATE, Scene, spoken

Noise = Callable[[int, np.random.Generator], np.ndarray]

#: Of the loud parts of a caller, in dB of full scale, before the gain of a condition.
_LEVEL = -26.0


def _white(samples: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(samples)


def _falling(samples: int, rng: np.random.Generator, power: float) -> np.ndarray:
    """Noise whose amplitude falls with frequency to this power."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    return at_level(np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 1) ** power, samples), 0.0)


def _fan(samples: int, rng: np.random.Generator) -> np.ndarray:
    time, pitch = np.arange(samples) / SAMPLE_RATE, rng.uniform(90, 180)
    blades = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 6))
    return _falling(samples, rng, 0.5) + 0.3 * blades * (1 + 0.2 * np.sin(2 * np.pi * rng.uniform(0.5, 3) * time))


def _street(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Cars that pass by, and a horn every 20 seconds."""
    time, loudness = np.arange(samples) / SAMPLE_RATE, np.full(samples, 0.4)
    for _ in range(round(samples / SAMPLE_RATE / 5) + 1):
        loudness += 1.2 * np.exp(-np.square((time - rng.uniform(0, time[-1])) / rng.uniform(0.8, 2.5)))
    sound = _falling(samples, rng, 0.9) * loudness
    for _ in range(max(1, samples // SAMPLE_RATE // 20)):
        length = round(SAMPLE_RATE * rng.uniform(0.2, 0.5))
        start, horn = int(rng.integers(0, samples - length)), time[:length]
        sound[start : start + length] += 0.5 * (np.sin(2 * np.pi * 410 * horn) + np.sin(2 * np.pi * 515 * horn))
    return sound


def _hum(samples: int, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(samples) / SAMPLE_RATE
    harmonics = (np.sin(2 * np.pi * 50 * k * time + rng.uniform(0, 6)) / (k if k % 2 else 2 * k) for k in range(1, 25))
    return sum(harmonics) + 0.02 * rng.standard_normal(samples)


def _clicks(samples: int, rng: np.random.Generator) -> np.ndarray:
    sound = 1e-4 * rng.standard_normal(samples)
    for start in rng.integers(0, samples - 400, round(samples / SAMPLE_RATE * 2.5)):
        length = int(rng.integers(3, 120))
        sound[start : start + length] += rng.choice([-1, 1]) * np.exp(-3 * np.arange(length) / length)
    return sound


def _keyboard(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Keys that go down and up, four to twelve a second."""
    sound, start, length = 1e-4 * rng.standard_normal(samples), 0, round(0.02 * SAMPLE_RATE)
    while True:
        start += round(SAMPLE_RATE * (rng.uniform(0.08, 0.25) if rng.random() < 0.9 else rng.uniform(0.5, 1.5)))
        for late, gain in ((0, 1.0), (round(SAMPLE_RATE * rng.uniform(0.05, 0.09)), 0.5)):
            if start + late + length > samples:
                return sound
            band = butter(2, [rng.uniform(800, 2000), rng.uniform(3000, 6500)], "bandpass", fs=SAMPLE_RATE, output="sos")
            key = sosfilt(band, rng.standard_normal(length) * np.exp(-5 * np.arange(length) / length))
            sound[start + late : start + late + length] += gain * rng.uniform(0.5, 1) * key


@dataclass(frozen=True)
class Condition:
    """How a caller is heard.

    Args:
        noise: behind the caller; None: only the line's own noise.
        babble: number of other voices that talk behind the caller, with pauses of a quarter of a second on average.
        snr: of noise and babble, in dB: the caller's loud parts against them.
        line: level of the line's own noise, in dB of full scale.
        gain: of everything.
        offset: added to all samples.
        telephone: 8 kHz and 8 bits (mu-law).
        speaks: whether the caller says anything.
    """

    noise: Noise | None = None
    babble: int = 0
    snr: float = 10.0
    line: float = -75.0
    gain: float = 1.0
    offset: float = 0.0
    telephone: bool = False
    speaks: bool = True


QUIET = 0.03
CONDITIONS: dict[str, Condition] = {
    "clean": Condition(),
    "quiet": Condition(gain=QUIET),
    "quiet, digital silence": Condition(gain=QUIET, line=-140),
    "offset of 0.05": Condition(offset=0.05),
    "telephone": Condition(telephone=True),
    "white": Condition(_white),
    "white at 5 dB": Condition(_white, snr=5),
    "fan": Condition(_fan),
    "fan, quiet": Condition(_fan, gain=QUIET),
    "street": Condition(_street),
    "hum": Condition(_hum),
    "clicks": Condition(_clicks),
    "keyboard": Condition(_keyboard),
    "babble of 4": Condition(babble=4),
    "babble of 6": Condition(babble=6),
    "babble of 6, quiet": Condition(babble=6, gain=QUIET),
    "babble of 6, telephone": Condition(babble=6, telephone=True),
    "babble of 4 alone": Condition(babble=4, speaks=False),
    "babble of 6 alone": Condition(babble=6, speaks=False),
    "street alone": Condition(_street, speaks=False),
    "keyboard alone": Condition(_keyboard, speaks=False),
}


def noisy_caller(
    voices: Mapping[str, Sequence[np.ndarray]], condition: Condition, seconds: Seconds, rng: np.random.Generator
) -> Scene:
    """One caller: one of the voices; the babble is of others of them. One to three seconds lie between two turns."""
    samples = round(seconds * SAMPLE_RATE)
    names = sorted(voices)
    voice = names.pop(int(rng.integers(len(names))))
    audio, spans = _turns(voices[voice], samples, rng) if condition.speaks else (np.zeros(samples), [])
    audio = audio + at_level(rng.standard_normal(samples), condition.line)
    background = condition.noise(samples, rng) if condition.noise else None
    if condition.babble:
        others = rng.choice(names, condition.babble, replace=len(names) < condition.babble)
        background = babble([voices[other] for other in others], samples, rng, 0.25 * SAMPLE_RATE)
    if background is not None:
        audio += at_level(background, _LEVEL - condition.snr)
    audio = audio * condition.gain + condition.offset
    audio = _by_telephone(audio) if condition.telephone else audio
    return Scene((np.round(np.clip(audio, -1, 1) * 32767) / 32768).astype(np.float32), spans)


def _turns(utterances: Sequence[np.ndarray], samples: int, rng: np.random.Generator) -> tuple[np.ndarray, list[Span]]:
    audio, spans = np.zeros(samples), list[Span]()
    start = round(rng.uniform(1.5, 3.0) * SAMPLE_RATE)
    while True:
        utterance = np.asarray(utterances[int(rng.integers(len(utterances)))], np.float64)
        if start + len(utterance) > samples - SAMPLE_RATE // 2:
            return audio, spans
        found = spoken(utterance)
        speech = np.concatenate([utterance[round(a * SAMPLE_RATE) : round(b * SAMPLE_RATE)] for a, b in found])
        audio[start : start + len(utterance)] += utterance * 10 ** ((_LEVEL + rng.uniform(-2, 2)) / 20) / rms(speech)
        spans += [(a + start / SAMPLE_RATE, b + start / SAMPLE_RATE) for a, b in found]
        start += len(utterance) + round(rng.uniform(1.0, 3.0) * SAMPLE_RATE)


def _by_telephone(audio: np.ndarray) -> np.ndarray:
    """Through 8 kHz and mu-law of 8 bits, and back as a session resamples it."""
    down, up = StreamResampler(SAMPLE_RATE, 8000), StreamResampler(8000, SAMPLE_RATE)
    narrow = np.clip(np.concatenate([down.push(audio.astype(np.float32)), down.flush()]), -1, 1)
    code = np.round(127 * np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256)) / 127
    narrow = (np.sign(code) * np.expm1(np.abs(code) * np.log(256)) / 255).astype(np.float32)
    return np.concatenate([up.push(narrow), up.flush()])[: len(audio)]
