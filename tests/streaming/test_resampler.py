"""A resampled stream is the resampled whole, whatever the chunks; as good as soxr's, and hardly late."""

import tracemalloc

import numpy as np
import pytest
import soxr

from nemo_duplex.inputs import InputError
from nemo_duplex.streaming.resampler import CALLER_SAMPLE_RATES, StreamResampler

CHUNKS = {"1 sample": [1], "20 ms": [960], "10 s": [480000], "random": None}
#: From callers to the model, and from the agent to callers.
PAIRS = [*((rate, 16000) for rate in CALLER_SAMPLE_RATES), *((22050, rate) for rate in CALLER_SAMPLE_RATES)]
pairs = pytest.mark.parametrize("rates", PAIRS, ids="{0[0]}-{0[1]}".format)


def noise(samples: int) -> np.ndarray:
    return 0.2 * np.random.default_rng(0).standard_normal(samples).astype(np.float32)


def sines(rate: int, frequencies: np.ndarray, seconds: float = 0.2) -> np.ndarray:
    """(N, S)"""
    return np.sin(2 * np.pi * frequencies[:, None] * np.arange(round(rate * seconds)) / rate)


def streamed(samples: np.ndarray, resampler: StreamResampler, sizes: list[int] | None = None) -> np.ndarray:
    random, out, start, i = np.random.default_rng(0), [], 0, 0
    while start < len(samples):
        size = sizes[i % len(sizes)] if sizes else int(random.choice([0, 1, 7, 160, 441, 5000]))
        out.append(resampler.push(samples[start : start + size]))
        start, i = start + size, i + 1
    return np.concatenate([*out, resampler.flush()])


def decibel(samples: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Of each row, its energy against that of the reference."""
    return 10 * np.log10(np.mean(np.square(samples), axis=1) / np.mean(np.square(reference), axis=1))


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
@pairs
def test_chunks_give_what_the_whole_gives_bit_for_bit(rates, chunks):
    samples = noise(4000 if chunks == [1] else 30000 + 123)
    whole = streamed(samples, StreamResampler(*rates), [len(samples)])
    parts = streamed(samples, StreamResampler(*rates), chunks)
    assert parts.dtype == np.float32 and len(parts) == -(-len(samples) * rates[1] // rates[0])
    assert np.array_equal(parts, whole)


@pairs
def test_a_sine_keeps_its_place_and_size(rates):
    """Up to 0.9 of what the lower rate can carry (8 kHz: 3.6 kHz); soxr, at its default quality, beside it."""
    low = min(rates)
    frequencies = np.linspace(0.01 * low, 0.45 * low, 23)
    expected = sines(rates[1], frequencies)
    ours, soxrs = [], []
    for sine in sines(rates[0], frequencies).astype(np.float32):
        ours.append(streamed(sine, StreamResampler(*rates), [960])[: expected.shape[1]])
        soxrs.append(soxr.resample(sine, *rates)[: expected.shape[1]])
    inside = slice(rates[1] // 50, -rates[1] // 50)
    for heard, most in ((ours, -75), (soxrs, -60)):
        errors = np.stack(heard)[:, inside] - expected[:, inside]
        assert (decibel(errors, expected[:, inside]) < most).all()


@pytest.mark.parametrize("rates", [pair for pair in PAIRS if pair[0] > pair[1]], ids="{0[0]}-{0[1]}".format)
def test_what_is_too_high_for_the_lower_rate_is_gone(rates):
    frequencies = np.linspace(0.55 * rates[1], 0.49 * rates[0], 23)
    given = sines(rates[0], frequencies).astype(np.float32)
    left = np.stack([streamed(sine, StreamResampler(*rates), [960]) for sine in given])
    inside = slice(rates[1] // 50, -rates[1] // 50)
    assert (decibel(left[:, inside], given) < -75).all()


@pytest.mark.parametrize("rates", [pair for pair in PAIRS if 1.2 * pair[0] < pair[1]], ids="{0[0]}-{0[1]}".format)
def test_nothing_is_heard_above_what_was_sent(rates):
    up = streamed(noise(rates[0]), StreamResampler(*rates), [960])
    power = np.abs(np.fft.rfft(up * np.hanning(len(up)))) ** 2
    edge = round(len(power) * 1.1 * rates[0] / rates[1])
    assert 10 * np.log10(power[edge:].mean() / power[: edge // 2].mean()) < -75


@pairs
def test_every_sample_comes_as_soon_as_what_it_depends_on(rates):
    resampler, block, received = StreamResampler(*rates), np.zeros(rates[0] // 50, np.float32), 0
    delays = []
    for pushed in range(1, 201):
        received += len(resampler.push(block))
        delays.append(pushed * len(block) / rates[0] - received / rates[1])
    assert max(delays) <= (0 if rates[0] == rates[1] else 32 / min(rates)) + 1 / rates[0], "At most 4 ms, from 8 kHz."
    assert max(delays[100:]) - max(delays[:100]) < 1e-9, "It must not fall behind."


def test_a_level_stays_what_it_is():
    level = np.full(44100, 0.25, np.float32)
    assert np.abs(streamed(level, StreamResampler(44100, 16000))[200:-200] - 0.25).max() < 1e-6


def test_memory_does_not_grow_with_the_stream_nor_much_with_a_chunk():
    resampler, chunk = StreamResampler(48000, 16000), noise(960)
    resampler.push(chunk)
    tracemalloc.start()
    try:
        for _ in range(50):
            resampler.push(chunk)
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(500):
            resampler.push(chunk)
        assert tracemalloc.get_traced_memory()[0] - before < 2000
        long = noise(48000 * 20)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        resampler.push(long)
        assert tracemalloc.get_traced_memory()[1] - before < 3 * long.nbytes + 10e6
    finally:
        tracemalloc.stop()


def test_reset_begins_another_stream():
    resampler, samples = StreamResampler(48000, 16000), noise(48000)
    first = streamed(samples, resampler, [960])
    resampler.reset()
    assert np.array_equal(streamed(samples, resampler, [1234]), first)


def test_one_stream_does_not_disturb_another_of_the_same_rates():
    first, second = StreamResampler(8000, 16000), StreamResampler(8000, 16000)
    samples, alone = noise(8000), streamed(noise(8000), StreamResampler(8000, 16000))
    parts = []
    for start in range(0, 8000, 100):
        parts.append(first.push(samples[start : start + 100]))
        second.push(-samples[start : start + 100])
    assert np.array_equal(np.concatenate([*parts, first.flush()]), alone)


def test_nothing_is_nothing():
    resampler = StreamResampler(44100, 16000)
    assert len(resampler.push(np.zeros(0, np.float32))) == len(resampler.flush()) == 0


def test_an_unsupported_rate_is_refused_in_one_line():
    for rate in (11025, 0, -16000, "16k", None, True, 16000.5, float("nan"), [16000], {}):
        with pytest.raises(InputError, match=r"not supported, expected one of 8000, 16000, 22050, 24000, 44100, 48000 Hz"):
            StreamResampler(rate, 16000)
    with pytest.raises(InputError, match="192000 Hz is not supported"):
        StreamResampler(16000, 192000)
