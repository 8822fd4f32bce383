"""By how much a codec is late: what must be known before two sounds can be compared sample by sample.

A codec's look-ahead, its windows and its filters delay what it gives back, always by the same time. It is found from several
utterances at once: their spectra in bands, over time, are shifted against each other until they agree best, which works also
for codecs that keep no waveform (all at 0.6 kbit/s, and vocoders). Where the waveforms agree too, they tell the sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import soxr

from nemo_duplex.frames import Seconds

#: A codec is taken to be at most so late, or so early.
MOST: Seconds = 0.15
_RATE, _HOP, _WINDOW = 16000, 16, 320  # Hz, samples: a spectrum of 20 ms each millisecond
_BINS, _PER_BAND = 160, 5  # 32 bands of 250 Hz
_FLOOR = 10 ** (-40 / 20)  # of the loudest band; below, spectra are noise
_NEAR: Seconds = 0.005  # around the spectra's delay, where the waveforms are asked
_TOLD: Seconds = 0.003  # less is not told by spectra of 20 ms
_ALIKE = 0.1  # correlation of waveforms from which on they are believed


def delay_of(pairs: Sequence[tuple[np.ndarray, np.ndarray]], sample_rate: int) -> int:
    """Samples by which decoded sounds are late; negative if they are early, 0 where nothing can be told.

    Args:
        pairs: originals (S,) and what came back of them (S',), both at `sample_rate`.

    Examples:
        >>> sound = np.random.default_rng(0).standard_normal(8000)
        >>> delay_of([(sound, np.concatenate([np.zeros(100), sound]))], 8000)
        100
    """
    heard = [(a, b) for a, b in pairs if np.any(a) and np.any(b)]
    if not heard:
        return 0
    most = round(MOST * _RATE / _HOP)
    spectral = np.sum([_correlation(_bands(a, sample_rate), _bands(b, sample_rate), most) for a, b in heard], axis=0)
    coarse = (int(np.argmax(spectral)) - most) * _HOP * sample_rate / _RATE
    reach = round((MOST + _NEAR) * sample_rate)
    waves = np.mean([_correlation(a[None], b[None], reach) for a, b in heard], axis=0)
    near = slice(max(0, round(coarse - _NEAR * sample_rate) + reach), round(coarse + _NEAR * sample_rate) + reach + 1)
    best = near.start + int(np.argmax(waves[near]))
    if waves[best] >= _ALIKE:
        return best - reach
    return round(coarse) if abs(coarse) > _TOLD * sample_rate else 0


def _bands(sound: np.ndarray, sample_rate: int) -> np.ndarray:
    """(32, T) log magnitudes of bands, each without its mean over time."""
    at_rate = soxr.resample(np.asarray(sound, np.float32), sample_rate, _RATE)
    padded = np.pad(at_rate, _WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    magnitudes = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW)))[:, :_BINS]
    bands = magnitudes.reshape(len(frames), -1, _PER_BAND).mean(2)
    logs = np.log(bands + max(_FLOOR * bands.max(), 1e-9))
    return (logs - logs.mean(0)).T


def _correlation(first: np.ndarray, second: np.ndarray, most: int) -> np.ndarray:
    """(2 most + 1,) correlation, 1 at most, of two (N, T) at shifts of the second from -most to most."""
    size = 1 << (max(first.shape[1], second.shape[1]) + most).bit_length()
    spectrum = (np.fft.rfft(second, size) * np.conj(np.fft.rfft(first, size))).sum(0)
    found = np.fft.irfft(spectrum, size)
    return np.concatenate([found[-most:], found[: most + 1]]) / np.sqrt(max(np.sum(first**2) * np.sum(second**2), 1e-12))
