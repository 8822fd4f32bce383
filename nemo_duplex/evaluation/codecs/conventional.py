"""Codecs without a network, at their lowest rates: what 0.6 kbit/s of a neural codec are to be compared with."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from importlib.metadata import version
from typing import Any

import numpy as np
import soxr

from nemo_duplex.evaluation.codecs.speech_codec import Decoded, SpeechCodec
from nemo_duplex.inputs import InputError, NotInstalled

_FULL_SCALE = 32767
#: Opus' own range, kbit/s (RFC 6716, 2.1.1).
_OPUS_LEAST, _OPUS_MOST = 6, 510
#: Codec2's modes: as people name them -> as pycodec2 does.
_CODEC2 = {"700C": 700, "1200": 1200, "1300": 1300, "1400": 1400, "1600": 1600, "2400": 2400, "3200": 3200}


class Opus:
    """Opus (RFC 6716) for speech at a constant rate, by libopus within PyAV; packets of 60 ms, which spare it overhead.

    Args:
        kbps: kilobits a second, 6 to 510.

    Raises:
        NotInstalled: if PyAV is missing, or was built without libopus.

    Examples:
        >>> decoded = Opus(6).send(np.zeros(16000, np.float32), 16000)
        >>> decoded.sample_rate, decoded.bits / decoded.seconds
        (48000, 6000.0)
    """

    _RATE, _PACKET = 48000, 2880

    def __init__(self, kbps: int) -> None:
        try:
            import av
        except ImportError:
            raise NotInstalled("PyAV is not installed: pip install av") from None
        if "libopus" not in av.codec.codecs_available:
            raise NotInstalled("PyAV was built without libopus: pip install --force-reinstall --only-binary :all: av")
        self.name, self._kbps = f"opus-{kbps}", kbps

    def send(self, audio: np.ndarray, sample_rate: int) -> Decoded:
        """What comes back of (S,) float32, at 48 kHz; bits and seconds are those of the packets."""
        import av

        sound = soxr.resample(np.asarray(audio, np.float32), sample_rate, self._RATE)
        encoder = av.CodecContext.create("libopus", "w")
        encoder.sample_rate, encoder.layout, encoder.format = self._RATE, "mono", "flt"
        encoder.bit_rate, encoder.time_base = 1000 * self._kbps, Fraction(1, self._RATE)
        encoder.options = {"application": "voip", "frame_duration": "60", "vbr": "off"}
        encoder.open()
        # one packet more: the encoder's look-ahead stays inside of it otherwise
        padded = np.pad(sound, (0, self._PACKET + -len(sound) % self._PACKET))
        packets = []
        for start in range(0, len(padded), self._PACKET):
            frame = av.AudioFrame.from_ndarray(padded[None, start : start + self._PACKET], format="flt", layout="mono")
            frame.sample_rate, frame.pts = self._RATE, start
            packets += [bytes(packet) for packet in encoder.encode(frame)]
        decoder = av.CodecContext.create("libopus", "r")
        decoder.sample_rate, decoder.layout, decoder.extradata = self._RATE, "mono", encoder.extradata
        decoded = [frame.to_ndarray() for packet in packets for frame in decoder.decode(av.Packet(packet))]
        samples = np.concatenate([part.reshape(-1) for part in decoded])
        if samples.dtype == np.int16:
            samples = samples / (_FULL_SCALE + 1)
        seconds = len(packets) * self._PACKET / self._RATE
        return Decoded(samples.astype(np.float32), self._RATE, 8 * sum(map(len, packets)), seconds)

    def about(self) -> dict[str, Any]:
        """Rate and library."""
        return {"codec": f"Opus, {self._kbps} kbit/s, constant rate, packets of 60 ms", "library": f"PyAV {version('av')}"}


class Codec2:
    """Codec 2 (David Rowe), a vocoder of 8 kHz for radio, by pycodec2.

    Args:
        mode: `700C`, `1200` and so on: bits a second.

    Raises:
        NotInstalled: if pycodec2 is missing.

    Examples:
        >>> decoded = Codec2("700C").send(np.zeros(8000, np.float32), 8000)                # doctest: +SKIP
        >>> decoded.bits / decoded.seconds                                                 # doctest: +SKIP
        700.0
    """

    _RATE = 8000

    def __init__(self, mode: str) -> None:
        try:
            import pycodec2  # noqa: F401
        except ImportError:
            raise NotInstalled("pycodec2 is not installed: pip install pycodec2==4.1.1 (Python 3.11 and newer)") from None
        self.name, self._mode = f"codec2-{mode}", mode

    def send(self, audio: np.ndarray, sample_rate: int) -> Decoded:
        """What comes back of (S,) float32, at 8 kHz."""
        from pycodec2 import Codec2 as Coder

        coder = Coder(_CODEC2[self._mode])
        frame = coder.samples_per_frame()
        sound = soxr.resample(np.asarray(audio, np.float32), sample_rate, self._RATE)
        whole = np.pad((sound.clip(-1, 1) * _FULL_SCALE).round().astype(np.int16), (0, -len(sound) % frame))
        decoded = [coder.decode(coder.encode(part)) for part in whole.reshape(-1, frame)]
        samples = np.concatenate(decoded or [whole]).astype(np.float32) / (_FULL_SCALE + 1)
        return Decoded(samples, self._RATE, len(decoded) * coder.bits_per_frame(), len(whole) / self._RATE)

    def about(self) -> dict[str, Any]:
        """Mode and library."""
        return {"codec": f"Codec 2, mode {self._mode}", "library": f"pycodec2 {version('pycodec2')}"}


def open_conventional(names: Sequence[str]) -> tuple[list[SpeechCodec], dict[str, str]]:
    """The codecs of names that are installed, and of the others, why they are not there.

    Args:
        names: `opus-KBPS`, `codec2-MODE`.

    Raises:
        InputError: for a name that is none.

    Examples:
        >>> [codec.name for codec in open_conventional(["opus-6"])[0]]
        ['opus-6']
    """
    found: list[SpeechCodec] = []
    missing: dict[str, str] = {}
    for name in dict.fromkeys(names):
        kind, _, rate = str(name).partition("-")
        is_opus = kind == "opus" and rate.isascii() and rate.isdigit() and _OPUS_LEAST <= int(rate) <= _OPUS_MOST
        if not is_opus and (kind != "codec2" or rate not in _CODEC2):
            raise InputError(
                f"conventional_codecs: {name!r}: expected opus-KBPS with {_OPUS_LEAST} to {_OPUS_MOST} (opus-6), or "
                f"codec2-MODE with {', '.join(_CODEC2)}."
            )
        try:
            found.append(Opus(int(rate)) if is_opus else Codec2(rate))
        except NotInstalled as why:
            missing[str(name)] = str(why)
    return found, missing
