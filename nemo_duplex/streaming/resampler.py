"""Changes the sample rate of a stream in chunks of any size: the output is the same to the bit for all chunks.

Sample n of the output is at time n / to_rate: a sum of the samples of the input around it, weighted by a low-pass filter, which
is a sinc with a Kaiser window (Kaiser, Schafer 1980), `HALF_WIDTH` samples of the lower rate to either side. It is due as soon
as the 2 ms (4 ms at 8 kHz) after it have been pushed. (The streams of soxr work in blocks: they return a sample up to 40 ms
late, 120 ms from 8 kHz, which a live caller notices.)
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.signal import firwin, kaiser_beta

from nemo_duplex.frames import AGENT_SAMPLE_RATE
from nemo_duplex.inputs import InputError

#: Rates at which callers send and receive: telephone, wideband, Moshi and OpenAI, CD, WebRTC and sound cards.
CALLER_SAMPLE_RATES = (8000, 16000, 24000, 44100, 48000)
#: Half the length of the filter, in samples of the lower rate.
HALF_WIDTH = 32
# Attenuation of the filter outside its band, in dB.
_REJECTION = 80.0
# The most samples of the output that are computed at once: their windows take 4 MB.
_BLOCK = 4096
_RATES = tuple(sorted({*CALLER_SAMPLE_RATES, AGENT_SAMPLE_RATE}))


class StreamResampler:
    """One stream of samples in another sample rate: S samples become ceil(S * to_rate / from_rate), not shifted in time.

    A sample is returned as soon as `HALF_WIDTH` samples of the lower rate after it were pushed: 2 ms at 16 kHz, 4 ms at 8 kHz.

    Args:
        from_rate: of the pushed samples, in Hz.
        to_rate: of the returned samples, in Hz.

    Raises:
        InputError: for a rate that is not supported.

    Examples:
        >>> line = StreamResampler(8000, 16000)
        >>> parts = [line.push(np.zeros(80, np.float32)) for _ in range(10)] + [line.flush()]
        >>> sum(map(len, parts))                                            # 800 samples of 8 kHz
        1600
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        for rate in (from_rate, to_rate):
            if isinstance(rate, bool) or rate not in _RATES:
                raise InputError(
                    f"Audio of {rate!r} Hz is not supported, expected one of {', '.join(map(str, _RATES))} Hz. "
                    "Resample it, or let the caller send one of these."
                )
        self.from_rate, self.to_rate = int(from_rate), int(to_rate)
        common = math.gcd(self.from_rate, self.to_rate)
        # Sample n of the output is at sample n * step / phases of the input.
        self._phases, self._step = self.to_rate // common, self.from_rate // common
        self._reach = 0 if from_rate == to_rate else math.ceil(HALF_WIDTH * max(1.0, from_rate / to_rate))
        self._weights = _weights(self.from_rate, self._phases, self._reach, min(self.from_rate, self.to_rate) / 2)
        self._kept: np.ndarray  # the latest samples of the input, as far back as the next output needs them
        self._kept_from: int  # index of its first sample
        self._heard: int  # number of samples of the input
        self._next: int  # index of the next sample of the output
        self._flushed: bool
        self.reset()

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Takes (S,) float32 samples at `from_rate`, returns the (S',) at `to_rate` that are due, S' >= 0."""
        assert not self._flushed, "Call `reset` after `flush` to begin another stream."
        assert samples.ndim == 1 and samples.dtype == np.float32, f"Got {samples.dtype} of shape {samples.shape}."
        self._heard += len(samples)
        self._kept = np.concatenate([self._kept, samples])
        return self._made(until=max(self._next, self._first_at(self._heard - self._reach)))

    def flush(self) -> np.ndarray:
        """Ends the stream; returns the remaining samples (S',). After it, call only `reset`."""
        silence = np.zeros(self._reach, np.float32)
        self._kept = np.concatenate([self._kept, silence])
        tail = self._made(until=self._first_at(self._heard))
        self._flushed = True
        return tail

    def reset(self) -> None:
        """Begins another stream, as after silence."""
        self._kept = np.zeros(self._reach, np.float32)
        self._kept_from = -self._reach
        self._heard = self._next = 0
        self._flushed = False

    def _first_at(self, position: int) -> int:
        """The index of the first sample of the output at or after a sample of the input."""
        return -(-position * self._phases // self._step)

    def _made(self, until: int) -> np.ndarray:
        """The output from the next sample to sample `until`, exclusive."""
        made = np.empty(until - self._next, np.float32)
        for start in range(self._next, until, _BLOCK):
            behind, phase = np.divmod(np.arange(start, min(start + _BLOCK, until)) * self._step, self._phases)
            windows = np.lib.stride_tricks.sliding_window_view(self._kept, 2 * self._reach + 1)
            block = made[start - self._next :][: len(behind)]
            np.einsum("nw,nw->n", windows[behind - self._reach - self._kept_from], self._weights[phase], out=block)
        self._next = until
        past = until * self._step // self._phases - self._reach - self._kept_from
        self._kept, self._kept_from = self._kept[past:].copy(), self._kept_from + past
        return made


@lru_cache(maxsize=16)  # by pair of rates, shared by all sessions
def _weights(rate: int, phases: int, reach: int, highest: float) -> np.ndarray:
    """(phases, 2 * reach + 1) float32: row p makes the sample that is p / phases of a sample after the middle one.

    Args:
        rate: of the input, in Hz.
        highest: cutoff frequency (half amplitude), in Hz.
    """
    if reach == 0:
        return np.ones((1, 1), np.float32)
    filter_ = firwin(2 * reach * phases + 1, highest, window=("kaiser", kaiser_beta(_REJECTION)), fs=rate * phases)
    filter_ = np.concatenate(
        [filter_, np.zeros(phases - 1)]
    )  # the last sample of the window has a weight in the first phase only
    rows = filter_.reshape(-1, phases).T[:, ::-1]  # the earliest sample of the window has the last tap
    return (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)
