"""Another speaker made of one: pitch, formants and speed of an utterance are changed.

Signalsmith Stretch (python-stretch, MIT) shifts the whole spectrum and changes the speed, 250 times faster than real time. It
moves formants with the pitch, as a tape does; so the spectral envelope is moved to its place afterwards, by cepstral smoothing.

Word errors of Whisper tiny.en on 15 sentences (190 words), of the voice as it is and at six points of the ranges: hibari 0
and 0 %; Pico en-US 1.6 and 0.5 to 2.1, en-GB 3.7 and 3.2 to 6.3; flite rms 2.1 and 2.1 to 3.7, slt 3.7 and 3.2 to 5.8. A
low pitch with a short vocal tract, which people do not have, was worse (Pico en-US 7.9): so both are drawn together.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann

from nemo_duplex.conversation import Word
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import NotInstalled
from nemo_duplex.synthesis.tts.utterance import Perturbation, Utterance, Voice

_SEED = 7411  # of the perturbations: part of who the speakers are, not of a corpus
_METHOD = 1  # raised when a perturbation sounds different
_STRETCH_SEED = 1
# Ranges: of the size of a speaker, from a man's to a child's, follow pitch and formants; the second is what they differ by.
_SEMITONES, _MORE_SEMITONES = 3.0, 1.0
_FORMANTS, _MORE_FORMANTS = 0.11, 0.03  # of the logarithm
_SPEEDS = (0.9, 1.15)
#: The speed that no perturbation exceeds.
FASTEST = _SPEEDS[1]

_WINDOW: Seconds = 0.025
_PITCH_PERIODS: tuple[Seconds, Seconds] = (0.0022, 0.0125)  # 80 to 450 Hz
_ENVELOPE = 0.6  # of the pitch period: up to there the cepstrum is the envelope, near a whole period it is the pitch
_MOST_GAIN = 2.3  # of the logarithm, 20 dB
_DEEPEST = 1e-4  # of the loudest frequency: what is softer has no envelope
_PEAK = 0.99


def perturbation(voice: Voice, number: int) -> Perturbation | None:
    """Perturbation `number` of a voice; None, the voice as it is, is number 0. The same voice and number give the same one."""
    if not number:
        return None
    rng = np.random.default_rng([_SEED, number, *voice.id.encode()])
    size = rng.uniform(-1, 1)
    semitones = _SEMITONES * size + rng.uniform(-_MORE_SEMITONES, _MORE_SEMITONES)
    formants = np.exp(_FORMANTS * size + rng.uniform(-_MORE_FORMANTS, _MORE_FORMANTS))
    return Perturbation(voice.id, round(float(semitones), 2), round(float(formants), 3), round(float(rng.uniform(*_SPEEDS)), 3))


def perturbation_version() -> str:
    """What perturbs, with its version: part of what a corpus is made by.

    Raises:
        NotInstalled: without the package.
    """
    _stretch()
    return f"{_METHOD} python-stretch {version('python-stretch')}"


def perturbed(spoken: Utterance, by: Perturbation) -> Utterance:
    """The utterance as another speaker says it: as loud, with the word times at its speed.

    Args:
        spoken: in 16 bits or better.
        by: what is changed.

    Raises:
        NotInstalled: without python-stretch.

    Examples:
        >>> tone = 0.5 * np.sin(2 * np.pi * 200 * np.arange(16000) / 16000)
        >>> faster = perturbed(Utterance("hum", tone, 16000), Perturbation("hummer", semitones=12.0, speed=2.0))
        >>> spectrum = np.abs(np.fft.rfft(faster.audio[1000:7000]))
        >>> round(faster.duration, 2), round(int(spectrum.argmax()) * 16000 / 6000, -1)
        (0.5, 400.0)
    """
    audio, pitch = spoken.audio, 2 ** (by.semitones / 12)
    if by.semitones or by.speed != 1:
        stretch = _stretch()(_STRETCH_SEED)
        stretch.preset(1, spoken.sample_rate)
        stretch.setTransposeFactor(pitch)
        stretch.setTimeFactor(by.speed)
        audio = np.asarray(stretch.process(spoken.audio[None]))[0]
    if by.formants != pitch:
        audio = _with_envelope_at(audio, by.formants / pitch, spoken.sample_rate)
    level = np.sqrt(np.mean(np.square(spoken.audio)) / np.mean(np.square(audio)))
    gain = min(float(level), _PEAK / float(np.abs(audio).max()))
    words = tuple(Word(word.text, word.offset, word.start / by.speed, word.end / by.speed) for word in spoken.words)
    return replace(spoken, audio=(gain * audio).astype(np.float32), words=words)


def _with_envelope_at(audio: np.ndarray, factor: float, sample_rate: int) -> np.ndarray:
    """(S,) with the spectral envelope moved to `factor` times its frequencies; the pitch stays."""
    width = round(_WINDOW * sample_rate)
    size = 1 << (width - 1).bit_length()
    frames = ShortTimeFFT(hann(width, sym=False), hop=width // 4, fs=sample_rate, mfft=size)
    spectrum = frames.stft(audio)  # (frequencies, times)
    magnitude = np.abs(spectrum)
    cepstrum = np.fft.irfft(np.log(np.maximum(magnitude, _DEEPEST * magnitude.max())), axis=0)
    shortest, longest = (round(period * sample_rate) for period in _PITCH_PERIODS)
    loud = magnitude.sum(axis=0)  # voiced times count most
    last = round(_ENVELOPE * (shortest + int(np.argmax(cepstrum[shortest:longest] @ loud))))
    cepstrum[last + 1 : size - last] = 0
    envelope = np.fft.rfft(cepstrum, axis=0).real
    source = np.minimum(np.arange(len(envelope)) / factor, len(envelope) - 1)
    below = np.minimum(source.astype(int), len(envelope) - 2)
    part = (source - below)[:, None]
    moved = (1 - part) * envelope[below] + part * envelope[below + 1]
    spectrum *= np.exp(np.clip(moved - envelope, -_MOST_GAIN, _MOST_GAIN))
    return frames.istft(spectrum, k1=len(audio))


def _stretch() -> Any:
    try:
        from python_stretch import Signalsmith
    except ImportError:
        raise NotInstalled("Voices cannot be perturbed: pip install python-stretch==0.3.1") from None
    return Signalsmith.Stretch
