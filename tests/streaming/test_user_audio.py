"""Encoder chunks are the stream, cut where the encoder wants it."""

from types import SimpleNamespace

import numpy as np
import pytest

from nemo_duplex.streaming.user_audio import ChunkQueue

FRAME, LEAD = 10, 8  # samples


def queue(chunk_frames):
    return ChunkQueue(SimpleNamespace(lead_samples=LEAD, chunk_frames=chunk_frames, count=lambda s: -(-s // FRAME)))


@pytest.mark.parametrize("chunk_frames", [1, 2, 7])
def test_chunks_are_the_stream_and_no_frame_is_lost(chunk_frames):
    rng = np.random.default_rng(0)
    for length in range(1, 3 * chunk_frames * FRAME):
        signal = rng.standard_normal(length).astype(np.float32)
        waiting, chunk = queue(chunk_frames), np.full(chunk_frames * FRAME, np.nan, np.float32)
        heard, frames, start = [], 0, 0
        while start < length:
            size = int(rng.integers(1, 25))
            waiting.push(signal[start : start + size])
            start += size
            while made := waiting.take(chunk):
                assert made == chunk_frames and waiting.total is None, "Before the end, every encoder chunk is a whole one."
                assert waiting.taken == (len(heard) + 1) * chunk_frames * FRAME - LEAD
                heard, frames = [*heard, chunk.copy()], frames + made
        assert waiting.take(chunk) == 0
        waiting.end()
        while made := waiting.take(chunk):
            heard, frames = [*heard, chunk.copy()], frames + made
        assert frames == -(-length // FRAME) == waiting.total and waiting.take(chunk) == 0
        assert waiting.taken == min(length, len(heard) * chunk_frames * FRAME - LEAD)
        # Half a window of what follows the last frame is not heard, and nothing but silence is added.
        stream = np.concatenate([np.zeros(LEAD, np.float32), signal, np.zeros(chunk_frames * FRAME, np.float32)])
        assert np.array_equal(np.concatenate(heard), stream[: len(heard) * chunk_frames * FRAME])


def test_silence_that_ends_at_once_owes_nothing():
    waiting = queue(2)
    assert waiting.total is None
    waiting.end()
    assert waiting.total == 0 and waiting.take(np.zeros(20, np.float32)) == 0
