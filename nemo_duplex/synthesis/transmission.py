"""What microphones and lines do to the user's channel: balance, clipping, telephone band, lost packets. No sample moves.

All filters have linear phase and are centred, also those that resample to the 8 kHz of the telephone and back, so a sound stays
where it was to the sample.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import soundfile
from scipy.signal import firwin, firwin2, oaconvolve, resample_poly

from nemo_duplex.frames import Seconds, Span

_TELEPHONE_RATE = 8000
_BAND = (300.0, 3400.0)  # Hz
_LAWS = {"mu-law": "ULAW", "A-law": "ALAW"}  # ITU-T G.711, as libsndfile calls them
_TAPS = 129  # of a filter, odd: it has a middle
_PACKET: Seconds = 0.020
_CONCEALED = 0.5  # a lost packet is the one before again, so much softer
_LOST_AGAIN = 0.35  # the chance that the packet after a lost one is lost, too


@dataclass(frozen=True)
class Transmission:
    """What happens to a recording on its way, all of it off. Shares are chances in 0..1, pairs are ranges to draw from evenly.

    Args:
        tilt: share of recordings with another balance of low and high sounds, as microphones have.
        tilt_db: dB per octave, around 1 kHz.
        clipping: share of recordings in which the loudest samples are clipped.
        clipping_db: by as much these pass the limit.
        telephone: share of recordings in the band of a telephone (300 to 3400 Hz, 8 kHz), in mu-law or A-law.
        packet_loss: share of recordings in which packets of 20 ms are lost.
        packets_lost: share of the packets of such a recording, less than 1.
    """

    tilt: float = 0.0
    tilt_db: tuple[float, float] = (-3.0, 3.0)
    clipping: float = 0.0
    clipping_db: tuple[float, float] = (3.0, 12.0)
    telephone: float = 0.0
    packet_loss: float = 0.0
    packets_lost: tuple[float, float] = (0.005, 0.05)


def transmitted(
    audio: np.ndarray, sample_rate: int, spec: Transmission, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, Any], list[Span]]:
    """The audio as it arrives.

    Args:
        audio: (S,) of any level; it is transmitted with its peak at full scale at most.
        sample_rate: Hz, a multiple of 8000.
        spec: what to draw from.
        rng: that draws.

    Returns:
        (S,), what was drawn, and the spans of lost packets.
    """
    done: dict[str, Any] = {}
    lost: list[Span] = []
    if spec.tilt and rng.random() < spec.tilt:
        done["tilt_db"] = round(float(rng.uniform(*spec.tilt_db)), 2)
        audio = oaconvolve(audio, _tilt(done["tilt_db"], sample_rate), mode="same")
    if spec.clipping and rng.random() < spec.clipping:
        done["clipping_db"] = round(float(rng.uniform(*spec.clipping_db)), 2)
        limit = float(np.abs(audio).max(initial=0.0)) * 10 ** (-done["clipping_db"] / 20)
        audio = np.clip(audio, -limit, limit)
    if spec.telephone and rng.random() < spec.telephone:
        done["telephone"] = str(rng.choice(list(_LAWS)))
        audio = by_telephone(audio, sample_rate, done["telephone"])
    if spec.packet_loss and rng.random() < spec.packet_loss:
        done["packets_lost"] = round(float(rng.uniform(*spec.packets_lost)), 4)
        audio, lost = _with_losses(audio, sample_rate, done["packets_lost"], rng)
    return audio, done, lost


def by_telephone(audio: np.ndarray, sample_rate: int, law: str) -> np.ndarray:
    """(S,) in the band of a telephone, rounded to the 8 bits of G.711 by its `mu-law` or `A-law`."""
    down = sample_rate // _TELEPHONE_RATE
    assert down * _TELEPHONE_RATE == sample_rate, f"{sample_rate} Hz is no multiple of {_TELEPHONE_RATE} Hz."
    narrow = oaconvolve(resample_poly(audio, 1, down), _band(), mode="same")
    scale = max(1.0, float(np.abs(narrow).max(initial=0.0)))
    file = io.BytesIO()
    soundfile.write(file, narrow / scale, _TELEPHONE_RATE, format="WAV", subtype=_LAWS[law])
    file.seek(0)
    heard, _ = soundfile.read(file)
    return resample_poly(heard * scale, down, 1)[: len(audio)]


@lru_cache(maxsize=1)
def _band() -> np.ndarray:
    return firwin(_TAPS, _BAND, pass_zero=False, fs=_TELEPHONE_RATE)


def _tilt(db_per_octave: float, sample_rate: int) -> np.ndarray:
    hz = np.array([0.0, *np.geomspace(62.5, sample_rate / 2, 32)])
    return firwin2(_TAPS, hz, 10 ** (db_per_octave * np.log2(np.maximum(hz, 62.5) / 1000) / 20), fs=sample_rate)


def _with_losses(audio: np.ndarray, sample_rate: int, share: float, rng: np.random.Generator) -> tuple[np.ndarray, list[Span]]:
    """With packets lost alone and in bursts, and hidden as receivers do (like G.711 appendix I): the one before, softer."""
    size = round(_PACKET * sample_rate)
    heard = audio.copy()
    spans: list[Span] = []
    chances = rng.random(-(-len(audio) // size))
    alone = share * (1 - _LOST_AGAIN)  # then the share is lost, after others or not
    last = False
    for packet, chance in enumerate(chances):
        last = bool(chance < (_LOST_AGAIN if last else alone / (1 - share)))
        if not last:
            continue
        start = packet * size
        before = heard[max(start - size, 0) : start]
        missing = heard[start : start + size]
        missing[:] = _CONCEALED * before[: len(missing)] if len(before) else 0.0
        end = min(start + size, len(audio)) / sample_rate
        if spans and abs(spans[-1][1] - start / sample_rate) < 1e-9:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start / sample_rate, end))
    return heard, spans
