"""Hostile audio of `/api/chat`: Ogg/Opus streams that are cut, mixed, repeated and changed.

python -m tests.serving.protocols.fuzz_moshi 10000        so many cases, each with its reader; prints the first that fails
"""

from __future__ import annotations

import sys

import numpy as np
import sphn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemo_duplex.serving.opus import OpusReader, sealed

#: The longest Opus packet, in samples at 24 kHz.
_LONGEST = 2880


def _pages() -> list[bytes]:
    """Whole pages of two streams, headers included."""
    cut = []
    for seed in (1, 2):
        sound = (0.3 * np.random.default_rng(seed).standard_normal(9600)).astype(np.float32)
        data = sphn.OpusStreamWriter(24000).append_pcm(sound)
        while data:
            size = 27 + data[26] + sum(data[27 : 27 + data[26]])
            cut.append(data[:size])
            data = data[size:]
    return cut


_PAGES = _pages()


@st.composite
def _page(draw) -> bytes:
    """A page whose checksum is right, of any content: packets that are Opus or not."""
    packets = draw(st.lists(st.binary(max_size=300), max_size=6))
    table = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    if table and draw(st.booleans()):
        table = table[:-1]
    flags, serial, number = draw(st.integers(0, 7)), draw(st.integers(41, 43)), draw(st.integers(0, 4))
    header = b"OggS\x00" + bytes([flags]) + bytes(8) + serial.to_bytes(4, "little") + number.to_bytes(4, "little")
    return sealed(header + bytes(4) + bytes([len(table)]) + table + b"".join(packets)[: sum(table)])


@st.composite
def _spoiled(draw) -> bytes:
    """A real page, with a byte changed or an end missing."""
    page = bytearray(draw(st.sampled_from(_PAGES)))
    page[draw(st.integers(0, len(page) - 1))] ^= draw(st.integers(1, 255))
    return bytes(page[: draw(st.integers(0, len(page)))]) if draw(st.booleans()) else bytes(page)


def broken_streams() -> st.SearchStrategy[list[bytes]]:
    """Pieces of a stream, as messages bring them."""
    piece = st.one_of(st.sampled_from(_PAGES), _page(), _spoiled(), st.binary(max_size=60), st.just(b"OggS"))
    return st.lists(piece, max_size=12)


def check_stream(stream: list[bytes]) -> None:
    """Every piece is read without an error, into finite samples, no longer than a packet; then a good page is read."""
    reader = OpusReader(24000)
    for piece in stream:
        for samples in reader.push(piece):
            assert samples.dtype == np.float32 and samples.ndim == 1 and np.isfinite(samples).all()
            assert 0 < len(samples) <= _LONGEST
    assert len(reader._ogg._bytes) <= 1 << 17
    after = [len(samples) for samples in reader.push(b"".join(_PAGES[:4]))]
    assert after[-2:] == [960, 960]


def main() -> None:
    fuzz = given(broken_streams())(check_stream)
    settings(max_examples=int(sys.argv[1]), deadline=None, suppress_health_check=list(HealthCheck))(fuzz)()


if __name__ == "__main__":
    main()
