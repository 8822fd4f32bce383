"""A resampled stream is the resampled whole, whatever the chunks."""

import numpy as np
import pytest
import soxr

from nemo_duplex.inputs import InputError
from nemo_duplex.streaming.resampler import CALLER_SAMPLE_RATES, StreamResampler

CHUNKS = {"1 sample": [1], "20 ms": [960], "10 s": [480000], "random": None}


def sweep(rate: int, seconds: float) -> np.ndarray:
    """A sine from 50 Hz to 0.45 times the rate: whatever a chunk's edge would do to it is heard somewhere."""
    time = np.arange(round(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * (50 * time + (0.45 * rate - 50) * time**2 / (2 * seconds)))).astype(np.float32)


def streamed(samples: np.ndarray, resampler: StreamResampler, sizes: list[int] | None) -> np.ndarray:
    random, out, start, i = np.random.default_rng(0), [], 0, 0
    while start < len(samples):
        size = sizes[i % len(sizes)] if sizes else int(random.choice([0, 1, 7, 160, 441, 5000]))
        out.append(resampler.push(samples[start : start + size]))
        start, i = start + size, i + 1
    return np.concatenate([*out, resampler.flush()])


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("rate", CALLER_SAMPLE_RATES)
def test_a_sweep_in_chunks_is_the_whole(rate, chunks):
    samples = sweep(rate, 0.5 if chunks == [1] else 4.0)[:-123]
    whole = samples if rate == 16000 else soxr.resample(samples, rate, 16000)
    parts = streamed(samples, StreamResampler(rate, 16000), chunks)
    assert parts.dtype == np.float32 and parts.shape == whole.shape
    assert np.abs(parts - whole).max() < 1e-6


@pytest.mark.parametrize("rate", [8000, 24000, 48000])
def test_what_the_agent_says_reaches_a_caller_of_any_rate(rate):
    samples = sweep(22050, 2.0)
    parts = streamed(samples, StreamResampler(22050, rate), [1764])
    assert np.abs(parts - soxr.resample(samples, 22050, rate)).max() < 1e-6


@pytest.mark.parametrize("rate", CALLER_SAMPLE_RATES)
def test_no_sample_is_held_back_for_long(rate):
    resampler, block, received = StreamResampler(rate, 16000), np.zeros(rate // 50, np.float32), 0
    for pushed in range(1, 201):
        received += len(resampler.push(block))
        assert pushed * 0.02 - received / 16000 < (0.12 if rate == 8000 else 0.045)


def test_reset_begins_another_stream():
    resampler, samples = StreamResampler(48000, 16000), sweep(48000, 1.0)
    first = streamed(samples, resampler, [960])
    resampler.reset()
    assert np.array_equal(streamed(samples, resampler, [1234]), first)


def test_an_unsupported_rate_is_refused_in_one_line():
    for rate in (11025, 0, -16000, "16k", None, True):
        with pytest.raises(InputError, match=r"not supported, expected one of 8000, 16000, 22050, 24000, 44100, 48000 Hz"):
            StreamResampler(rate, 16000)
    with pytest.raises(InputError, match="192000 Hz is not supported"):
        StreamResampler(16000, 192000)
