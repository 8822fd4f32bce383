"""What the detector of user activity knows of 16 ms of sound: its spectrum, beside what the stream sounded like before.

    samples ── window of 32 ms ──> 32 levels in dB ── minus their running mean; minus their own mean; ... ──> 68 features

All features but one are differences of levels, so that a quiet caller sounds like a loud one.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from nemo_duplex.frames import Seconds

#: Time between two windows; a window is twice as long.
HOP: Seconds = 0.016
#: Bands of the spectrum; features of a hop; numbers that a stream remembers.
BANDS = 32
FEATURES = 2 * BANDS + 4
REMEMBERED = BANDS + 3

# The bands, in Hz. A sample rate below 16 kHz lacks the highest ones.
_LOWEST, _HIGHEST = 100.0, 7600.0
# In dB: the level of digital silence; what a feature of 1 stands for. The largest feature.
_SILENCE, _SCALE, _LARGEST = -120.0, 20.0, 3.0
# The running mean of a band is over this many hops (2 s).
_MEAN_HOPS = 125
# In dB per hop: how fast the remembered lowest level rises and the highest falls.
_RISE, _FALL = 0.05, 0.02
# A level in the middle of those that callers have, in dB.
_USUAL = -50.0


class Window(NamedTuple):
    """How a stream of some sample rate is cut. Made by `window`."""

    hop: int  # samples
    weights: np.ndarray  # (2 * hop,) float32
    size: int  # of the Fourier transform
    edges: np.ndarray  # (B + 1,) first bin of each band that this rate has, and the end of the last one


@lru_cache(maxsize=16)
def window(sample_rate: int) -> Window:
    """The window of a sample rate in Hz. Its peak is near its end, so that a sound is noticed soon."""
    hop = round(HOP * sample_rate)
    rise, fall = 2 * hop - hop // 2, hop // 2
    up, down = (np.arange(rise) + 0.5) / rise, (np.arange(fall) + 0.5) / fall
    weights = np.concatenate([np.sin(np.pi / 2 * up), np.cos(np.pi / 2 * down)])
    size = 1 << (2 * hop - 1).bit_length()
    lowest, highest = (1127 * math.log(1 + hertz / 700) for hertz in (_LOWEST, _HIGHEST))
    hertz = 700 * (np.exp(np.linspace(lowest, highest, BANDS + 1) / 1127) - 1)
    edges = np.round(hertz * size / sample_rate).astype(int)
    for band in range(BANDS):
        edges[band + 1] = max(edges[band + 1], edges[band] + 1)  # every band has a bin
    return Window(hop, (weights / np.linalg.norm(weights)).astype(np.float32), size, edges[edges <= size // 2])


def levels(windows: np.ndarray, sample_rate: int) -> np.ndarray:
    """The levels of the bands of windows (N, 2 * hop) in dB of full scale, (N, BANDS) float32."""
    _, weights, size, edges = window(sample_rate)
    spectrum = np.fft.rfft(windows * weights, size)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    bands = np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1)
    found = np.full((len(windows), BANDS), _SILENCE, np.float32)
    found[:, : bands.shape[1]] = 10 * np.log10(bands + np.float32(10 ** (_SILENCE / 10)))
    return found


def describe(bands: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """The features (B, FEATURES) of the next hop of B streams.

    Args:
        bands: (B, BANDS) levels of the hop.
        memory: (B, REMEMBERED) of the streams, zeros where one begins; changed in place.
    """
    mean, low, high, hops = memory[:, :BANDS], memory[:, -3], memory[:, -2], memory[:, -1]
    level, begins = bands.max(axis=1), hops == 0
    hops[:] = np.minimum(hops + 1, _MEAN_HOPS)
    mean += (bands - mean) / hops[:, None]
    low[:] = np.where(begins, level, np.minimum(level, low + np.float32(_RISE)))
    high[:] = np.where(begins, level, np.maximum(level, high - np.float32(_FALL)))
    found = np.empty((len(bands), FEATURES), np.float32)
    found[:, :BANDS] = bands - mean
    found[:, BANDS:-4] = bands - bands.mean(axis=1, keepdims=True)
    found[:, -4:] = np.stack([level - low, level - high, high - low, level - np.float32(_USUAL)], axis=1)
    return np.clip(found / np.float32(_SCALE), -_LARGEST, _LARGEST, out=found)
