"""From the sample rate of a caller to that of the model, and back, in chunks: what comes out is what the whole would give."""

from __future__ import annotations

import numpy as np
import soxr

from nemo_duplex.frames import AGENT_SAMPLE_RATE
from nemo_duplex.inputs import InputError

#: Rates at which callers send and receive: telephone, wideband, Moshi and OpenAI, CD, WebRTC and sound cards.
CALLER_SAMPLE_RATES = (8000, 16000, 24000, 44100, 48000)
_RATES = tuple(sorted({*CALLER_SAMPLE_RATES, AGENT_SAMPLE_RATE}))


class StreamResampler:
    """One stream of samples in another sample rate, equal to `soxr.resample` of the whole for any chunks.

    soxr works in blocks, so what is pushed comes out up to 40 ms later (8 kHz: 120 ms), and `flush` gives the rest.

    Args:
        from_rate: of the samples that are pushed, in Hz.
        to_rate: of the samples that come out, in Hz.

    Raises:
        InputError: for a rate that is not supported.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        for rate in (from_rate, to_rate):
            if isinstance(rate, bool) or rate not in _RATES:
                raise InputError(
                    f"Audio of {rate!r} Hz is not supported, expected one of {', '.join(map(str, _RATES))} Hz. "
                    "Resample it, or let the caller send one of these."
                )
        self.from_rate, self.to_rate = int(from_rate), int(to_rate)
        self._stream = None if from_rate == to_rate else soxr.ResampleStream(from_rate, to_rate, num_channels=1)
        self._flushed = False

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Takes (S,) float32 samples at `from_rate`, returns the (S',) at `to_rate` that are due, S' >= 0."""
        return self._resampled(samples, last=False)

    def flush(self) -> np.ndarray:
        """The stream has come to its end: the (S',) samples that are still owed. Only `reset` makes it useful again."""
        tail = self._resampled(np.zeros(0, np.float32), last=True)
        self._flushed = True
        return tail

    def reset(self) -> None:
        """Begins another stream."""
        if self._stream is not None:
            self._stream.clear()
        self._flushed = False

    def _resampled(self, samples: np.ndarray, last: bool) -> np.ndarray:
        assert not self._flushed, "A resampler that was flushed begins another stream with `reset`."
        assert samples.ndim == 1 and samples.dtype == np.float32, f"Got {samples.dtype} of shape {samples.shape}."
        if self._stream is None:
            return samples
        return self._stream.resample_chunk(np.ascontiguousarray(samples), last=last)
