"""What an utterance goes through while an encoder learns from it: a clean voice as people, rooms and telephones make it sound.

    voice -> speed -> room -> + babble -> + noise -> low-pass -> balance -> clipping -> telephone -> level

Each effect is drawn for itself, in that order, from one generator, so the same generator gives the same samples. Only the
speed moves what is said, and `Augmented.speed` tells by how much; all filters keep a sound at its sample. Noises are made once
and filters are kept: with the shares of `conf/train_encoder.yaml`, 45 s take 22 ms of one core.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from scipy.signal import fftconvolve, firwin, oaconvolve

from nemo_duplex.conversation import is_time
from nemo_duplex.frames import USER_SAMPLE_RATE, Seconds
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.events import noise_files
from nemo_duplex.synthesis.mix import resample
from nemo_duplex.synthesis.noises import FAMILIES, babble
from nemo_duplex.synthesis.transmission import Transmission, transmitted

#: (generator) -> what somebody else says, (S,) float32 at 16 kHz, at least one sample.
Others = Callable[[np.random.Generator], np.ndarray]

_PEAK = 0.99
_SPEEDS = 100  # speeds are hundredths, so that few filters resample them all
_EARLY: Seconds = 0.02  # until then a room's echoes are heard one by one
_REFLECTIONS = 8  # of these
_KEPT_NOISES, _KEPT_SECONDS = 32, 10.0
_UTTERANCES_OF_A_BABBLER = 2
_QUIETEST_PART = 0.1  # noise counts with at least this share of its mean power, however quiet it is during the speech
_TAPS = 129
_BOUNDS = {
    "speed": (0.5, 2.0),
    "room_decay": (0.01, 5.0),
    "babble_voices": (1, 100),
    "lowpass_hz": (300.0, 7900.0),
    "packets_lost": (0.0, 0.99),
}


@dataclass(frozen=True)
class Augmentation(Transmission):
    """What may happen to an utterance in training. Shares are chances in 0..1, pairs are ranges to draw from evenly.

    Args:
        speed: factors, in hundredths; pace, pitch and formants change together, as on a tape.
        room: share of utterances in a room with echoes.
        room_decay: Seconds until these have fallen by 60 dB.
        room_direct_db: the direct sound against all echoes.
        babble: share of utterances with other people's talk.
        babble_voices: how many people.
        babble_snr_db: the utterance against all of them.
        noise: share of utterances with noise, of any colour and kind, or of `noise_folder`.
        noise_snr_db: the utterance against it.
        noise_folder: WAV and FLAC files, which are then every other noise; None: none.
        lowpass: share of utterances without high sounds, as from behind a door, or by a headset.
        lowpass_hz: what is higher is lost.
        gain_db: change of level at the end.
        tilt, clipping, telephone, packet_loss and theirs: as of `Transmission`.

    Raises:
        InputError: for a value out of its range.

    Examples:
        >>> Augmentation(speed=(0.9, 1.1), telephone=0.2).lowpass
        0.0
    """

    speed: tuple[float, float] = (1.0, 1.0)
    room: float = 0.0
    room_decay: tuple[Seconds, Seconds] = (0.15, 0.6)
    room_direct_db: tuple[float, float] = (-2.0, 12.0)
    babble: float = 0.0
    babble_voices: tuple[int, int] = (3, 8)
    babble_snr_db: tuple[float, float] = (5.0, 25.0)
    noise: float = 0.0
    noise_snr_db: tuple[float, float] = (5.0, 35.0)
    noise_folder: str | None = None
    lowpass: float = 0.0
    lowpass_hz: tuple[float, float] = (2000.0, 7000.0)
    gain_db: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "noise_folder":
                value = getattr(self, field.name)
                _check(field.name, value, share=isinstance(field.default, float))
                object.__setattr__(self, field.name, tuple(value) if isinstance(value, list) else value)


def _check(name: str, value: Any, share: bool) -> None:
    """Raises an InputError if a value is no share, or no range within `_BOUNDS`."""
    if share:
        if not is_time(value) or not 0 <= value <= 1:
            raise InputError(f"augmentation.{name}={value}: expected a share from 0 to 1.")
        return
    low, high = _BOUNDS.get(name, (-100.0, 100.0))
    pair = list(value) if isinstance(value, list | tuple) else [value]
    whole = name != "babble_voices" or all(isinstance(number, int) for number in pair)
    if len(pair) != 2 or not whole or not all(map(is_time, pair)) or not low <= pair[0] <= pair[1] <= high:
        kind = "whole numbers" if name == "babble_voices" else "numbers"
        raise InputError(f"augmentation.{name}={value}: expected two {kind} from {low:g} to {high:g}, the lower one first.")


@dataclass(frozen=True)
class Augmented:
    """An utterance as it is heard.

    Attributes:
        audio: (S,) float32.
        speed: what was at time t before is at t / speed.
    """

    audio: np.ndarray
    speed: float


class AcousticChain:
    """Draws what happens to utterances, and does it.

    Args:
        augmentation: what to draw from.
        others: gives the talk of a babble.
        seed: of the noises, which are made once.

    Raises:
        InputError: for a `noise_folder` that is missing or has no recordings.

    Examples:
        >>> chain = AcousticChain(Augmentation(speed=(1.25, 1.25)), others=lambda rng: np.ones(1, np.float32))
        >>> heard = chain.apply(np.zeros(16000, np.float32), [(2000, 9000)], np.random.default_rng(0))
        >>> len(heard.audio), heard.speed
        (12800, 1.25)
    """

    def __init__(self, augmentation: Augmentation, others: Others, seed: int = 0) -> None:
        self._augmentation, self._others = augmentation, others
        folder = augmentation.noise_folder
        self._files = noise_files(folder, "augmentation.noise_folder") if folder is not None else ()
        self._noises = _kept_noises(seed) if augmentation.noise else []

    def apply(self, audio: np.ndarray, speech: Sequence[tuple[int, int]], rng: np.random.Generator) -> Augmented:
        """The utterance as it is heard.

        Args:
            audio: (S,) float32 at 16 kHz.
            speech: (first sample, sample after the last) of each stretch in which somebody speaks, such as the turns of a
                conversation. Noise and babble are that much softer than the speech within them.
            rng: draws.
        """
        drawn = self._augmentation
        hundredths = int(rng.integers(round(_SPEEDS * drawn.speed[0]), round(_SPEEDS * drawn.speed[1]) + 1))
        speed = hundredths / _SPEEDS
        heard = resample(np.asarray(audio, np.float32), hundredths, _SPEEDS)
        spans = [slice(max(0, math.floor(first / speed)), math.ceil(end / speed)) for first, end in speech]
        if rng.random() < drawn.room:
            heard = in_room(heard, rng.uniform(*drawn.room_decay), rng.uniform(*drawn.room_direct_db), rng)
        level = _power(heard, spans)
        if rng.random() < drawn.babble:
            heard = heard + _as_loud(self._babble(len(heard), rng), level, rng.uniform(*drawn.babble_snr_db), spans)
        if rng.random() < drawn.noise:
            heard = heard + _as_loud(self._noise(len(heard), rng), level, rng.uniform(*drawn.noise_snr_db), spans)
        if rng.random() < drawn.lowpass:
            heard = oaconvolve(heard, _lowpass(round(rng.uniform(*drawn.lowpass_hz), -2)), mode="same")
        heard, _, _ = transmitted(heard, USER_SAMPLE_RATE, drawn, rng)
        heard = heard * 10 ** (rng.uniform(*drawn.gain_db) / 20)
        peak = float(np.abs(heard).max(initial=0.0))
        return Augmented((heard * min(1.0, _PEAK / max(peak, _PEAK))).astype(np.float32), speed)

    def _babble(self, samples: int, rng: np.random.Generator) -> np.ndarray:
        low, high = self._augmentation.babble_voices
        count = int(rng.integers(low, high + 1))
        return babble([[self._others(rng) for _ in range(_UTTERANCES_OF_A_BABBLER)] for _ in range(count)], samples, rng)

    def _noise(self, samples: int, rng: np.random.Generator) -> np.ndarray:
        """(S,) float32 of any level: a stretch of a kept noise or of a recording, from anywhere in it on, again and again."""
        if self._files and rng.random() < 0.5:
            return stretch(self._files[int(rng.integers(len(self._files)))], samples, rng)
        kept = self._noises[int(rng.integers(len(self._noises)))]
        return np.resize(np.roll(kept[:: int(rng.choice([-1, 1]))], int(rng.integers(len(kept)))), samples)


def in_room(audio: np.ndarray, decay: Seconds, direct_db: float, rng: np.random.Generator) -> np.ndarray:
    """The audio (S,) at 16 kHz with the echoes of a room; its direct sound stays as it was, at its time.

    Echoes are noise that decays by 60 dB in `decay`. Of the first 20 ms only a few samples are kept, reflections of the walls,
    which have the power of all of them. The direct sound is `direct_db` louder than all echoes together.
    """
    return fftconvolve(audio, room_response(decay, direct_db, rng))[: len(audio)]


def room_response(decay: Seconds, direct_db: float, rng: np.random.Generator) -> np.ndarray:
    """The impulse response (L,) float32 of `in_room`: 1 at sample 0, echoes after it."""
    length = max(2, round(decay * USER_SAMPLE_RATE))
    response = rng.standard_normal(length, dtype=np.float32) * np.exp(
        np.linspace(0, -3 * math.log(10), length, dtype=np.float32)
    )
    early = min(length, round(_EARLY * USER_SAMPLE_RATE))
    alone = np.zeros(early, np.float32)
    alone[rng.integers(1, early, _REFLECTIONS)] = math.sqrt(early / _REFLECTIONS)
    response[:early] *= alone
    response *= 10 ** (-direct_db / 20) / max(float(np.linalg.norm(response)), 1e-9)
    response[0] = 1.0
    return response


def _power(audio: np.ndarray, spans: Sequence[slice]) -> float:
    """Mean square over the spans; 0 where they hold no samples."""
    parts = [audio[span].astype(np.float32, copy=False) for span in spans]
    return sum(float(np.dot(part, part)) for part in parts) / max(1, sum(map(len, parts)))


def _as_loud(noise: np.ndarray, level: float, snr_db: float, spans: Sequence[slice]) -> np.ndarray:
    """The noise (S,) float32 with `snr_db` less power than `level` over the spans of speech."""
    own = max(_power(noise, spans), _QUIETEST_PART * _power(noise, [slice(None)]))
    return (noise * math.sqrt(level / own * 10 ** (-snr_db / 10) if own else 0.0)).astype(np.float32)


@lru_cache(maxsize=2)
def _kept_noises(seed: int) -> list[np.ndarray]:
    """Stretches (S,) float32 of each family of noises in turn, with a root mean square of 1."""
    rng = np.random.default_rng((seed, len(FAMILIES)))
    shares = np.array(list(FAMILIES.values()))
    families = rng.choice(len(shares), _KEPT_NOISES, p=shares / shares.sum())
    kept = [list(FAMILIES)[i](round(_KEPT_SECONDS * USER_SAMPLE_RATE), USER_SAMPLE_RATE, rng) for i in families]
    return [(noise / np.sqrt(np.mean(np.square(noise)))).astype(np.float32) for noise in kept]


def stretch(path: Path, samples: int, rng: np.random.Generator) -> np.ndarray:
    """(S,) of the first channel of a recording, from anywhere in it on, again and again."""
    try:
        with soundfile.SoundFile(path) as file:
            start = int(rng.integers(max(1, file.frames)))
            file.seek(start)
            wanted = math.ceil(samples * file.samplerate / USER_SAMPLE_RATE)
            read = file.read(wanted, dtype="float32", always_2d=True)[:, 0]
            rate = file.samplerate
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"augmentation.noise_folder: {path} cannot be read as audio ({error.error_string}). Convert it, or take it away."
        ) from error
    if not len(read) or not np.isfinite(read).all():
        raise InputError(f"augmentation.noise_folder: {path} holds no samples that are finite. Take it away.")
    return np.resize(resample(read, rate, USER_SAMPLE_RATE), samples)


@lru_cache(maxsize=128)
def _lowpass(hz: float) -> np.ndarray:
    return firwin(_TAPS, hz, fs=USER_SAMPLE_RATE).astype(np.float32)
