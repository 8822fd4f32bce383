"""Two channels of audio from turns: the user in a room with noise; the agent clean, as a codec needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from math import gcd
from typing import Any, Literal

import numpy as np
from scipy.signal import fftconvolve, firwin, oaconvolve, resample_poly

from nemo_duplex.conversation import Turn
from nemo_duplex.frames import Seconds
from nemo_duplex.synthesis.transmission import Transmission, transmitted
from nemo_duplex.synthesis.tts.utterance import Utterance

#: The agent fades out over this before a cut, so that the cut does not click.
CUT_FADE: Seconds = 0.010

NoiseColor = Literal["white", "pink", "brown"]
_NOISE_SLOPE: dict[NoiseColor, float] = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # amplitude falls with frequency ** slope
_PEAK = 0.99
_FAR_DECAY: Seconds = 0.4  # of the echo of what is said elsewhere in the room
_FAR_ECHO = (0.03, 0.06)  # its strength
_FAR_CUTOFF = (1800.0, 5000.0)  # Hz: what is higher is lost on the way


@dataclass(frozen=True)
class Acoustics:
    """How the user's channel may sound. Shares are chances in 0..1, pairs are ranges to draw from evenly.

    Args:
        level_db: RMS of the speech against full scale, whatever the voice.
        noise: share of recordings with noise, over their whole length.
        noise_snr_db: speech against noise, both as RMS.
        quiet_level_db: RMS of the noise where there is no speech, against full scale.
        room: share of recordings in an echoing room.
        room_decay: Seconds until the room's echo has fallen by 60 dB.
        leak: share of recordings in which the agent's loudspeaker leaks into the user's microphone.
        leak_db: level of that against the agent's own.
        leak_delay: Seconds by which that is late.
        leak_drive: how far the loudspeaker is driven: 0 is linear, at 3 it distorts the loudest half of the voice.
        leak_decay: Seconds until the echo of the loudspeaker's room has fallen by 60 dB; 0: no room.
        transmission: microphones and lines.
    """

    level_db: tuple[float, float] = (-34.0, -18.0)
    noise: float = 0.6
    noise_snr_db: tuple[float, float] = (8.0, 35.0)
    quiet_level_db: tuple[float, float] = (-60.0, -28.0)
    room: float = 0.25
    room_decay: tuple[Seconds, Seconds] = (0.1, 0.45)
    leak: float = 0.1
    leak_db: tuple[float, float] = (-35.0, -25.0)
    leak_delay: tuple[Seconds, Seconds] = (0.02, 0.12)
    leak_drive: tuple[float, float] = (0.0, 0.0)
    leak_decay: tuple[Seconds, Seconds] = (0.0, 0.0)
    transmission: Transmission = field(default_factory=Transmission)


@dataclass(frozen=True)
class HeardWith:
    """What is heard with the user's turns, at their level: an RMS of 1 is as loud as these.

    Args:
        near: (S,) float32 of the user's mouth, in the same room.
        far: (S,) float32 from elsewhere.
        rng: for the place of the far ones, the loudspeaker, and `transmission`, each with a generator of its own.
    """

    near: np.ndarray | None
    far: np.ndarray | None
    rng: np.random.Generator


def resample(audio: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """(S,) float32 at another rate, with ceil(S * to / from) samples."""
    if from_rate == to_rate:
        return audio
    up, down = to_rate // gcd(from_rate, to_rate), from_rate // gcd(from_rate, to_rate)
    return resample_poly(audio, up, down, window=_lowpass(max(up, down))).astype(np.float32)


@lru_cache(maxsize=8)
def _lowpass(factor: int) -> np.ndarray:
    """The filter that `resample_poly` makes by default, computed once."""
    return firwin(20 * factor + 1, 1 / factor, window=("kaiser", 5.0)).astype(np.float32)


def place(turns: Iterable[tuple[Turn, Utterance]], num_samples: int, sample_rate: int) -> np.ndarray:
    """(S,) float32: each utterance at its turn's start; a turn that was cut fades out and stops at its end."""
    channel = np.zeros(num_samples, dtype=np.float32)
    for turn, utterance in turns:
        audio = resample(utterance.audio, utterance.sample_rate, sample_rate)
        start = round(turn.start * sample_rate)
        if turn.was_cut:
            audio = audio[: round(turn.end * sample_rate) - start].copy()
            fade = min(len(audio), round(CUT_FADE * sample_rate))
            audio[len(audio) - fade :] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
        audio = audio[: num_samples - start]
        channel[start : start + len(audio)] += audio
    return channel


def user_channel(
    speech: np.ndarray,
    agent: Callable[[], np.ndarray],
    sample_rate: int,
    acoustics: Acoustics,
    rng: np.random.Generator,
    heard_with: HeardWith | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """The user's channel as a microphone records it.

    Args:
        speech: (S,) float32 at `sample_rate`; zeros where there is no speech.
        agent: returns the agent's channel, likewise; called only if it leaks into the microphone.
        sample_rate: Hz.
        acoustics: what to draw from.
        rng: that draws.
        heard_with: other sounds, and the generator for `transmission` and the loudspeaker.

    Returns:
        (S,) float32, and what was drawn for it, for the custom of the cut; `lost` are the spans of lost packets.
    """
    done: dict[str, Any] = {}
    elsewhere, loudspeaker, way = (heard_with.rng if heard_with else np.random.default_rng(0)).spawn(3)
    spoken = speech[np.abs(speech) > 1e-3]
    if len(spoken):
        done["level_db"] = _draw(rng, acoustics.level_db)
        level = _amplitude(done["level_db"])
        channel = speech * (level / float(np.sqrt(np.mean(np.square(spoken)))))
        if heard_with is not None and heard_with.near is not None:
            channel = channel + level * heard_with.near
        if rng.random() < acoustics.room:
            done["room_decay"] = _draw(rng, acoustics.room_decay)
            channel = _in_room(channel, done["room_decay"], sample_rate, rng)
        if heard_with is not None and heard_with.far is not None:
            channel = channel + level * _far(heard_with.far, sample_rate, elsewhere)
        if rng.random() < acoustics.leak:
            done["leak_db"] = _draw(rng, acoustics.leak_db)
            done["leak_delay"] = round(float(rng.uniform(*acoustics.leak_delay)) * sample_rate) / sample_rate
            played = _played(agent(), acoustics, sample_rate, loudspeaker if heard_with else None, done)
            channel = channel + _late(played, round(done["leak_delay"] * sample_rate)) * _amplitude(done["leak_db"])
        noise_level = None
        if rng.random() < acoustics.noise:
            done["noise_snr_db"] = _draw(rng, acoustics.noise_snr_db)
            noise_level = level / _amplitude(done["noise_snr_db"])
    else:
        done["noise_level_db"] = _draw(rng, acoustics.quiet_level_db)
        channel, noise_level = speech, _amplitude(done["noise_level_db"])
        if heard_with is not None:
            channel = _without_turns(speech, heard_with, acoustics, sample_rate, elsewhere)
    if noise_level is not None:
        done["noise"] = str(rng.choice(list(_NOISE_SLOPE)))
        channel = channel + noise_level * noise(len(speech), sample_rate, done["noise"], rng)
    if heard_with is not None:
        channel, on_the_way, lost = transmitted(channel, sample_rate, acoustics.transmission, way)
        done |= on_the_way | ({"lost": lost} if lost else {})
    peak = float(np.max(np.abs(channel), initial=0.0))
    return (channel * min(1.0, _PEAK / max(peak, _PEAK))).astype(np.float32), done


def noise(num_samples: int, sample_rate: int, color: NoiseColor, rng: np.random.Generator) -> np.ndarray:
    """Noise (S,) of RMS 1."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    spectrum *= _colored(num_samples, sample_rate, color)
    audio = np.fft.irfft(spectrum, num_samples)
    return audio / max(float(np.sqrt(np.mean(np.square(audio)))), 1e-9)


@lru_cache(maxsize=3)  # cuts of equal length use it again
def _colored(num_samples: int, sample_rate: int, color: NoiseColor) -> np.ndarray:
    frequency = np.fft.rfftfreq(num_samples, 1 / sample_rate)
    # Brown noise would have nearly all of its power below 20 Hz, which is not audible.
    return np.where(frequency < 20, 0.0, 1 / np.maximum(frequency, 20.0) ** _NOISE_SLOPE[color])


def _in_room(
    audio: np.ndarray,
    decay: Seconds,
    sample_rate: int,
    rng: np.random.Generator,
    strength: tuple[float, float] = (0.005, 0.03),
) -> np.ndarray:
    """Adds the echo of a room: noise that decays exponentially after a direct sound at 0, so that no time shifts."""
    length = round(decay * sample_rate)
    if not length:  # no room
        return audio
    response = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length) * rng.uniform(*strength)
    response[0] = 1.0
    return fftconvolve(audio, response)[: len(audio)]


def _without_turns(
    silence: np.ndarray, heard_with: HeardWith, acoustics: Acoustics, sample_rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Other sounds of a recording in which no turn is spoken, as loud as if there were some."""
    level = _amplitude(_draw(rng, acoustics.level_db))
    near = silence if heard_with.near is None else level * heard_with.near
    return near if heard_with.far is None else near + level * _far(heard_with.far, sample_rate, rng)


def _far(audio: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """As heard from a few metres, or from somebody who looks away: duller, and the echo about as loud as the voice."""
    cutoff = rng.uniform(*_FAR_CUTOFF)
    dull = oaconvolve(audio, firwin(65, cutoff, fs=sample_rate), mode="same")
    return _in_room(dull, _FAR_DECAY, sample_rate, rng, strength=_FAR_ECHO)


def _played(
    agent: np.ndarray, acoustics: Acoustics, sample_rate: int, rng: np.random.Generator | None, done: dict[str, Any]
) -> np.ndarray:
    """The agent by a loudspeaker: distorted where it is driven too far, with the echo of the room; as loud as before."""
    if rng is not None and acoustics.leak_drive[1]:
        done["leak_drive"] = _draw(rng, acoustics.leak_drive)
        if (peak := float(np.abs(agent).max(initial=0.0))) and (drive := done["leak_drive"]):
            distorted = np.tanh(drive / peak * agent)
            agent = distorted * (np.linalg.norm(agent) / np.linalg.norm(distorted))
    if rng is not None and acoustics.leak_decay[1]:
        done["leak_decay"] = _draw(rng, acoustics.leak_decay)
        if done["leak_decay"]:
            agent = _in_room(agent, done["leak_decay"], sample_rate, rng)
    return agent


def _late(audio: np.ndarray, samples: int) -> np.ndarray:
    return np.concatenate([np.zeros(samples), audio])[: len(audio)]


def _draw(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return round(float(rng.uniform(*bounds)), 2)


def _amplitude(db: float) -> float:
    return 10 ** (db / 20)
