"""Files that grow: readable at any time, right at the end."""

import io
import struct

import numpy as np
import pytest
import soundfile

from nemo_duplex.streaming.recording import growing_files
from nemo_duplex.streaming.recording.growing_files import growing_array, growing_wav


def test_a_wav_can_be_read_while_it_grows_and_after(tmp_path):
    samples = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    file = growing_wav(tmp_path / "a.wav", 44100)
    file.begin()
    for part in np.split(samples, [1, 400]):
        file.append(part.tobytes())
        heard, rate = soundfile.read(file.path, dtype="float32")
        assert rate == 44100 and np.array_equal(heard, samples[: len(heard)]) and len(heard) == file.rows
    with open(file.path, "ab") as end:
        end.write(b"\0\0\0")  # most of a sample: a disk that is full ends anywhere
    assert file.rows == 1000
    file.finish(999)
    assert file.path.stat().st_size == 94 + 4 * 999
    assert np.array_equal(soundfile.read(file.path, dtype="float32")[0], samples[:999])
    assert soundfile.info(file.path).format == "WAV"
    header = file.path.read_bytes()[:94]
    fields = struct.unpack_from("<HHIIHHH", header, header.index(b"fmt ") + 8)
    assert fields == (3, 1, 44100, 4 * 44100, 4, 32, 0), "float, channels, rate, bytes a second and a sample, bits"


def test_a_disk_that_takes_a_part_gets_the_rest(tmp_path, monkeypatch):
    """A raw write may take less than it is given (POSIX write(2)), as NFS and FUSE do."""

    class Slow(io.FileIO):
        def write(self, rows):
            return super().write(rows[:5])

    monkeypatch.setattr(growing_files, "open", lambda path, mode, buffering: Slow(path, mode), raising=False)
    file = growing_files.GrowingFile(tmp_path / "a", 1, lambda rows: b"")
    file.append(bytes(range(17)))
    assert file.path.read_bytes() == bytes(range(17))


def test_a_wav_beyond_four_gigabytes_is_rf64(tmp_path):
    """6.2 hours at 48 kHz; a sparse file, which takes no room on the disk."""
    file, samples = growing_wav(tmp_path / "long.wav", 48000), (1 << 30) + 5
    file.begin()
    with open(file.path, "r+b") as end:
        end.truncate(94 + 4 * samples)
    file.finish(samples)
    info = soundfile.info(file.path)
    assert info.frames == samples and info.format == "RF64" and info.subtype == "FLOAT"


@pytest.mark.parametrize("shape", [(), (4,)], ids=str)
def test_an_array(tmp_path, shape):
    values = np.arange(40, dtype="<i4").reshape(-1, *shape)
    file = growing_array(tmp_path / "a.npy", values.dtype, *shape)
    file.begin()
    file.append(values[:3].tobytes())
    assert file.rows == 3 and np.load(file.path).shape == (0, *shape)
    file.append(values[3:].tobytes() + b"\1")
    assert file.rows == len(values)
    file.finish(len(values))
    assert np.array_equal(np.load(file.path, mmap_mode="r"), values)
    file.finish(2)
    assert np.array_equal(np.load(file.path), values[:2])


def test_an_array_of_named_columns(tmp_path):
    rows = np.array([(1.5, 2, True)] * 3, [("made", "<f8"), ("row", "<i4"), ("user_active", "?")])
    file = growing_array(tmp_path / "a.npy", rows.dtype)
    file.begin()
    file.append(rows.tobytes())
    file.finish(3)
    assert np.array_equal(np.load(file.path), rows)
