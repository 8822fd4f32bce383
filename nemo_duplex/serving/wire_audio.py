"""Audio as it is on the wire: 16-bit PCM, and the telephone's A-law and µ-law (ITU-T G.711), at the caller's rate.

CALLER bytes  -> WireFormat.decode -> float32 samples at its rate -> Call.push
CallFrame.audio (agent_sample_rate) -> AgentAudio.frame -> float32 samples at the caller's rate -> WireFormat.encode
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from nemo_duplex.inputs import InputError
from nemo_duplex.streaming.resampler import CALLER_SAMPLE_RATES, StreamResampler

Encoding = Literal["pcm16", "ulaw", "alaw"]


def _expansion(decode) -> np.ndarray:
    return np.array([decode(code) for code in range(256)], np.float32) / 32768


def _ulaw_value(code: int) -> int:
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << (code >> 4 & 7)) - 0x84
    return -magnitude if code & 0x80 else magnitude


def _alaw_value(code: int) -> int:
    code ^= 0x55
    segment, step = code >> 4 & 7, (code & 0x0F) << 4
    magnitude = step + 8 if segment == 0 else step + 0x108 << segment - 1
    return magnitude if code & 0x80 else -magnitude


#: (256,) float32: the sample of each code.
_ULAW, _ALAW = _expansion(_ulaw_value), _expansion(_alaw_value)


def _nearest(expansion: np.ndarray) -> np.ndarray:
    """(65536,) uint8: the code whose sample is nearest to each 16-bit sample, from -32768."""
    order = np.argsort(expansion, kind="stable")
    values = expansion[order].astype(np.float64) * 32768
    edges = (values[1:] + values[:-1]) / 2
    return order[np.searchsorted(edges, np.arange(-32768, 32768))].astype(np.uint8)


_TO_ULAW, _TO_ALAW = _nearest(_ULAW), _nearest(_ALAW)


@dataclass(frozen=True)
class WireFormat:
    """How audio is written on the wire.

    Args:
        encoding: pcm16 is little endian.
        sample_rate: in Hz.

    Raises:
        InputError: for a rate that is not supported.

    Examples:
        >>> WireFormat("ulaw", 8000).encode(np.zeros(3, np.float32)).hex()
        'ffffff'
    """

    encoding: Encoding
    sample_rate: int

    def __post_init__(self) -> None:
        if self.sample_rate not in CALLER_SAMPLE_RATES:
            expected = ", ".join(map(str, CALLER_SAMPLE_RATES))
            raise InputError(f"Audio of {self.sample_rate!r} Hz is not supported, expected one of {expected} Hz.")

    def decode(self, data: bytes) -> np.ndarray:
        """The samples (S,) float32 in -1..1 of whole samples; half of one at the end is left out (see `WireReader`)."""
        if self.encoding == "pcm16":
            return np.frombuffer(data, "<i2", count=len(data) // 2).astype(np.float32) / 32768
        return (_ULAW if self.encoding == "ulaw" else _ALAW)[np.frombuffer(data, np.uint8)]

    def encode(self, samples: np.ndarray) -> bytes:
        """Samples (S,) float32 as bytes; what is louder than full scale is clipped."""
        whole = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int32)
        if self.encoding == "pcm16":
            return whole.astype("<i2").tobytes()
        return (_TO_ULAW if self.encoding == "ulaw" else _TO_ALAW)[whole + 32768].tobytes()


class WireReader:
    """Reads a stream of bytes that is cut anywhere, also within a sample.

    Args:
        format: of the stream.
    """

    def __init__(self, format: WireFormat) -> None:
        self.format = format
        self._rest = b""

    def push(self, data: bytes) -> np.ndarray:
        """The samples (S,) float32 that the bytes complete."""
        data = self._rest + data
        whole = len(data) - len(data) % 2 if self.format.encoding == "pcm16" else len(data)
        self._rest = data[whole:]
        return self.format.decode(data[:whole])


class AgentAudio:
    """The agent's sound at a caller's rate, frame by frame; late by 2 ms (4 ms at 8 kHz), see `StreamResampler`.

    Args:
        agent_rate: of the model, in Hz.
        sample_rate: of the caller, in Hz.
    """

    def __init__(self, agent_rate: int, sample_rate: int) -> None:
        self._resampler = None if agent_rate == sample_rate else StreamResampler(agent_rate, sample_rate)

    def frame(self, audio: np.ndarray) -> np.ndarray:
        """(S,) float32 of a frame -> (S',) at the caller's rate that are due now."""
        return self._resampler.push(audio) if self._resampler else audio
