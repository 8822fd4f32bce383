"""Opus in Ogg (RFC 3533, RFC 7845) as a live stream, mono, around sphn.

caller   bytes, cut anywhere -> OggReader: packets -> OpusReader: float32 samples
agent    float32 samples of a frame -> OpusWriter: bytes, whole pages of 40 ms

sphn 0.2.1 decodes packets well, and pages badly: it ignores their checksums, fails for good after bytes that are no page, and
after 5 s of sound at once. So pages are read here, and sphn gets one packet at a time. It skips no samples at the start,
whatever the header says: a caller's sound is late by the encoder's 6.5 ms, and complete.

sphn's own header says that players shall skip the first 80 ms. Players that do (browsers, libsndfile, FFmpeg) lost the agent's
first sound. The header that `OpusWriter` sends says what is true: 6.5 ms.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
import sphn

#: Samples of one packet of `OpusWriter`: 40 ms at 24 kHz.
PACKET_SAMPLES = 960
#: By how much an Opus encoder is late, in samples at 48 kHz: 2.5 ms of overlap, and 4 ms in which its two codecs are aligned.
ENCODER_DELAY = 312
#: The longest Opus packet: 48 frames of 1275 bytes, and their lengths.
_LONGEST_PACKET = 48 * 1277 + 2
_HEAD, _TAGS = b"OpusHead", b"OpusTags"
_CAPTURE, _FIXED = b"OggS", 27  # how a page begins, and the length of its header before the table of segments
_CONTINUED, _FIRST = 1, 2  # flags of a page
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def checksum(page: bytes) -> int:
    """The CRC-32 of an Ogg page whose own checksum is zero: zlib's, with all bits in the opposite order."""
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_REVERSED), "big")


def sealed(page: bytes) -> bytes:
    """The page with its right checksum."""
    return page[:22] + struct.pack("<I", checksum(page[:22] + bytes(4) + page[26:])) + page[26:]


class OggReader:
    """Cuts a stream of bytes into packets. What is no page, or a broken one, is passed over, and the next whole page is taken.

    Pages of streams that do not begin with Opus are left out.

    Attributes:
        broken: how many pages, or stretches of bytes between pages, were passed over.
    """

    # Work that one push may spend on bytes that are no page: bytes whose checksum is computed, and so many per trial.
    _PATIENCE, _TRIAL = 1 << 19, 500

    def __init__(self) -> None:
        self.broken = 0
        self._bytes = bytearray()
        self._begun = b""  # packet whose end is on the next page
        self._following: tuple[int, int] | None = None  # stream and number of the next page if none is missing
        self._foreign: set[int] = set()  # serial numbers of streams that are not Opus

    def push(self, data: bytes) -> Iterator[bytes]:
        """The packets that the bytes complete, headers included; empty ones are left out."""
        self._bytes += data
        while (page := self._next_page()) is not None:
            yield from self._packets(page)

    def _next_page(self) -> bytes | None:
        """The first whole page, which leaves the buffer with all that is before it."""
        patience, waits = self._PATIENCE, None
        start = self._bytes.find(_CAPTURE)
        while start >= 0:
            size = self._size(start)
            if size is None or start + size > len(self._bytes):
                waits = start if waits is None else waits  # perhaps the rest will come
            else:
                page = bytes(self._bytes[start : start + size])
                if self._is_whole(page):
                    self.broken += start > 0
                    del self._bytes[: start + size]
                    return page
                patience -= size
            patience -= self._TRIAL
            if patience < 0:
                self._bytes.clear()
                self.broken += 1
                return None
            start = self._bytes.find(_CAPTURE, start + 1)
        if waits is None:  # at most the beginning of a page
            waits = max(0, len(self._bytes) - len(_CAPTURE) + 1)
        self.broken += waits > 0
        del self._bytes[:waits]
        return None

    def _size(self, start: int) -> int | None:
        """Length of the page that begins there; None if too little of it has come."""
        if len(self._bytes) < start + _FIXED:
            return None
        table = start + _FIXED
        segments = self._bytes[table - 1]
        if len(self._bytes) < table + segments:
            return None
        return _FIXED + segments + sum(self._bytes[table : table + segments])

    @staticmethod
    def _is_whole(page: bytes) -> bool:
        return page[4] == 0 and checksum(page[:22] + bytes(4) + page[26:]) == int.from_bytes(page[22:26], "little")

    def _packets(self, page: bytes) -> Iterator[bytes]:
        flags, serial, number = page[5], *struct.unpack_from("<II", page, 14)
        lacing = page[_FIXED : _FIXED + page[26]]
        if flags & _FIRST:
            opus = page[_FIXED + len(lacing) :].startswith(_HEAD)
            self._foreign = self._foreign - {serial} if opus else {*list(self._foreign)[-15:], serial}
        if serial in self._foreign:
            return
        begun = self._begun if flags & _CONTINUED and (serial, number) == self._following else b""
        lost = bool(flags & _CONTINUED) and not begun  # the beginning of the first packet
        self._following = serial, number + 1 & 0xFFFFFFFF
        place = _FIXED + len(lacing)
        for length in lacing:
            if len(begun) <= _LONGEST_PACKET:  # of longer ones, such as tags with a picture, the beginning is enough
                begun += page[place : place + length]
            place += length
            if length < 255:
                if begun and not lost:
                    yield begun
                begun, lost = b"", False
        self._begun = begun


class OpusReader:
    """A caller's Ogg/Opus bytes as samples.

    A stream may begin in the middle, end, and be followed by another one; a stereo one becomes mono.

    Args:
        sample_rate: of the samples, in Hz: 8000, 12000, 16000, 24000 or 48000.

    Attributes:
        broken: how many pages, stretches of bytes between pages, and packets were passed over.

    Examples:
        >>> data = OpusWriter(24000).push(np.zeros(1920, np.float32))
        >>> sum(len(samples) for samples in OpusReader(24000).push(data))
        1920
    """

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._ogg = OggReader()
        self._decoder = sphn.OpusStreamReader(sample_rate)
        self._undecodable = 0

    @property
    def broken(self) -> int:
        return self._ogg.broken + self._undecodable

    def push(self, data: bytes) -> Iterator[np.ndarray]:
        """The samples (S,) float32 of each packet that the bytes complete, 2.5 to 120 ms, one after the other."""
        for packet in self._ogg.push(data):
            if packet.startswith(_HEAD):
                self._decoder = sphn.OpusStreamReader(self._sample_rate)
            elif not packet.startswith(_TAGS):
                yield from self._decoded(packet)

    def _decoded(self, packet: bytes) -> Iterator[np.ndarray]:
        if len(packet) > _LONGEST_PACKET:
            self._undecodable += 1
            return
        try:
            samples = self._decoder.append_bytes(_page_of(packet))
        except ValueError:  # its decoder is as before
            self._undecodable += 1
            return
        if len(samples):
            yield samples


def _page_of(packet: bytes) -> bytes:
    """Pages of one packet, as sphn reads them: it looks at the lengths alone."""
    lacing = b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255])
    pages, place = [], 0
    for start in range(0, len(lacing), 255):
        table = lacing[start : start + 255]
        content = packet[place : place + sum(table)]
        place += len(content)
        pages.append(_CAPTURE + bytes(22) + bytes([len(table)]) + table + content)
    return b"".join(pages)


class OpusWriter:
    """The agent's samples as an Ogg/Opus stream: two headers, then one page of 40 ms for every `PACKET_SAMPLES` at 24 kHz.

    Args:
        sample_rate: of the samples, in Hz: 8000, 12000, 16000, 24000 or 48000.
        lead: samples of silence that the first push begins with; players that skip what the header says skip them too.

    Examples:
        >>> OpusWriter(24000).push(np.zeros(1920, np.float32))[:4]
        b'OggS'
    """

    def __init__(self, sample_rate: int, lead: int = 0) -> None:
        self._encoder = sphn.OpusStreamWriter(sample_rate)
        self._skip = ENCODER_DELAY + lead * 48000 // sample_rate
        self._begun = False

    def push(self, samples: np.ndarray) -> bytes:
        """The pages that (S,) float32 samples complete; what is left over waits for the next push."""
        pages = bytes(self._encoder.append_pcm(samples))
        if self._begun or not pages:
            return pages
        self._begun = True
        size = _FIXED + 1 + pages[_FIXED]  # the first page holds OpusHead alone
        head, place = pages[:size], pages.index(_HEAD) + 10
        return sealed(head[:place] + struct.pack("<H", self._skip) + head[place + 2 :]) + pages[size:]
