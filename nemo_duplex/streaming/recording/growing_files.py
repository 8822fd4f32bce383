"""Files that grow during a conversation: rows of equal size after a header, which is corrected at the end.

Appended rows are on disk at once. A WAV can be read and played while it grows, because its header says that it reaches to the
end of the file; a NumPy array says 0 rows until it is finished.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

# Bytes of an array's header: a multiple of 64, as NumPy wants it, enough for any shape and for structured rows.
_ARRAY_HEADER = 512
_OPEN_END = 0xFFFFFFFF  # RIFF has 32 bits for a size; this one means "to the end of the file", or "see ds64"
_IEEE_FLOAT = 3


class GrowingFile:
    """A file of rows. Nothing is held open, so hundreds of sessions can be recorded at once.

    Args:
        path: made by `begin`.
        row_bytes: size of a row.
        header: makes the header for a number of rows, or None while it is not known; always of the same size.
    """

    def __init__(self, path: Path, row_bytes: int, header: Callable[[int | None], bytes]) -> None:
        self.path, self._row_bytes, self._header = path, row_bytes, header
        self._begin = len(header(None))

    def begin(self) -> None:
        """Writes the file without rows."""
        self.path.write_bytes(self._header(None))

    def append(self, rows: bytes) -> None:
        """Writes further rows. Part of a row, which an error may leave behind, is cut off by `finish`."""
        with open(self.path, "ab", buffering=0) as file:
            view = memoryview(rows)
            while view:  # a raw write may take less than all
                view = view[file.write(view) :]

    @property
    def rows(self) -> int:
        """Whole rows in the file."""
        return max(0, self.path.stat().st_size - self._begin) // self._row_bytes

    def finish(self, rows: int) -> None:
        """Keeps the first `rows`, and writes their number into the header."""
        assert rows <= self.rows, f"{self.path} has {self.rows} rows, not {rows}."
        os.truncate(self.path, self._begin + rows * self._row_bytes)
        with open(self.path, "r+b") as file:
            file.write(self._header(rows))


def growing_wav(path: Path, sample_rate: int) -> GrowingFile:
    """Mono float32 audio, a row per sample. From 4 GB on it is RF64 (EBU Tech 3306), which all but old programs read."""

    def header(samples: int | None) -> bytes:
        size = _OPEN_END if samples is None else 4 * samples
        fmt = struct.pack("<HHIIHHH", _IEEE_FLOAT, 1, sample_rate, 4 * sample_rate, 4, 32, 0)
        whole = 86 + size  # of the file, less the 8 bytes that RIFF does not count
        if samples is None or whole < _OPEN_END:
            riff, sizes = b"RIFF", (b"JUNK", bytes(28))
            whole, count = min(whole, _OPEN_END), min(size // 4, _OPEN_END)
        else:
            riff, sizes = b"RF64", (b"ds64", struct.pack("<QQQI", whole, size, samples, 0))
            whole = size = count = _OPEN_END
        chunks = (sizes, (b"fmt ", fmt), (b"fact", struct.pack("<I", count)))
        body = b"".join(name + struct.pack("<I", len(data)) + data for name, data in chunks)
        return riff + struct.pack("<I", whole) + b"WAVE" + body + b"data" + struct.pack("<I", size)

    return GrowingFile(path, 4, header)


def growing_array(path: Path, dtype: np.dtype, *shape: int) -> GrowingFile:
    """A `.npy`: an array (rows, *shape)."""

    def header(rows: int | None) -> bytes:
        described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows or 0, *shape)}
        text = repr(described).encode().ljust(_ARRAY_HEADER - 11) + b"\n"
        assert len(text) == _ARRAY_HEADER - 10, f"The header of {path} does not fit: {described}."
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text

    return GrowingFile(path, dtype.itemsize * int(np.prod(shape)), header)
