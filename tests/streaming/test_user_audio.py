"""Encoder chunks are the stream, cut where the encoder wants it; speech is found over noise and through pauses."""

from types import SimpleNamespace

import numpy as np
import pytest

from nemo_duplex.streaming.user_audio import HANGOVER, ChunkQueue, UserActivity

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
                heard, frames = [*heard, chunk.copy()], frames + made
        assert waiting.take(chunk) == 0
        waiting.end()
        while made := waiting.take(chunk):
            heard, frames = [*heard, chunk.copy()], frames + made
        assert frames == -(-length // FRAME) == waiting.total and waiting.take(chunk) == 0
        # Half a window of what follows the last frame is not heard, and nothing but silence is added.
        stream = np.concatenate([np.zeros(LEAD, np.float32), signal, np.zeros(chunk_frames * FRAME, np.float32)])
        assert np.array_equal(np.concatenate(heard), stream[: len(heard) * chunk_frames * FRAME])


def test_silence_that_ends_at_once_owes_nothing():
    waiting = queue(2)
    assert waiting.total is None
    waiting.end()
    assert waiting.total == 0 and waiting.take(np.zeros(20, np.float32)) == 0


# ---------------------------------------------------------------------- user activity


RATE, SAMPLES_PER_FRAME = 16000, 1280


def noise(seconds: float, decibel: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (10 ** (decibel / 20) * samples).astype(np.float32)


def syllables(seconds: float, decibel: float) -> np.ndarray:
    """Encoder chunks of 150 ms with 100 ms of silence between them."""
    time = np.arange(round(seconds * RATE)) / RATE
    voiced = np.sin(2 * np.pi * 150 * time) + 0.5 * np.sin(2 * np.pi * 900 * time)
    return (10 ** (decibel / 20) * voiced * (time % 0.25 < 0.15)).astype(np.float32)


def heard(samples: np.ndarray, chunk: int = SAMPLES_PER_FRAME) -> np.ndarray:
    detector, frames = UserActivity(RATE, SAMPLES_PER_FRAME), []
    for start in range(0, len(samples), chunk):
        frames += detector.push(samples[start : start + chunk])
    assert len(frames) == len(samples) // SAMPLES_PER_FRAME
    return np.array(frames)


def between(frames: np.ndarray, start: float, end: float) -> np.ndarray:
    return frames[round(start / 0.08) : round(end / 0.08)]


def test_speech_over_noise_of_any_level_starts_and_ends_on_time():
    for floor in (-90, -60, -40):
        samples = noise(8.0, floor)
        samples[2 * RATE : 5 * RATE] += syllables(3.0, floor + 20 if floor > -90 else -30)
        frames = heard(samples)
        assert not between(frames, 0, 2.0).any(), floor
        assert between(frames, 2.08, 4.9).all(), floor
        assert not between(frames, 5.0 + HANGOVER + 0.08, 8.0).any(), floor


def tone(seconds: float, decibel: float) -> np.ndarray:
    """Of the same energy in each block of 10 ms."""
    return (10 ** (decibel / 20) * np.sin(2 * np.pi * 100 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def test_the_first_and_the_last_frame_of_speech():
    """It starts after 30 ms of it, and ends 0.2 s after the last: from 2.03 to 3.20 s."""
    frames = heard(np.concatenate([tone(2.0, -60), tone(1.0, -30), tone(1.0, -60)]))
    assert np.flatnonzero(frames).tolist() == list(range(25, 40)), "2.00 to 3.20 s."


def test_speech_that_becomes_softer_goes_on_but_does_not_start_so_soft():
    """16 dB above the floor start it, 10 dB hold it."""
    parts = ((1.0, 0), (1.0, 13), (0.48, 20), (0.48, 13), (0.5, 7))
    frames = heard(np.concatenate([tone(seconds, -60 + above) for seconds, above in parts]))
    assert np.flatnonzero(frames).tolist() == list(range(25, 40)), "2.00 to 3.20 s, of which the last 0.2 s are a pause."


def test_a_sound_of_20_ms_is_none_and_one_of_60_ms_is():
    for seconds, is_speech in ((0.02, False), (0.06, True)):
        assert heard(np.concatenate([tone(1.0, -60), tone(seconds, -20), tone(1.0, -60)])).any() == is_speech, seconds


def test_silence_and_steady_noise_are_nobody():
    assert not heard(np.zeros(5 * RATE, np.float32)).any()
    assert not heard(noise(10.0, -45)).any()


def test_noise_that_gets_louder_is_soon_the_new_floor():
    frames = heard(np.concatenate([noise(2.0, -60), noise(8.0, -30)]))
    assert between(frames, 2.1, 3.0).all() and not between(frames, 4.5, 10.0).any()


def test_noise_of_a_microphone_that_is_switched_on_is_nobody():
    """A stream begins with the lead of the encoder, which is digital silence; the floor does not come from there."""
    for decibel in (-60, -45):
        assert not heard(np.concatenate([np.zeros(1080, np.float32), noise(4.0, decibel)])).any()


def test_a_voice_without_a_break_stays_one():
    """Six seconds of syllables with nothing but 100 ms between them, over noise."""
    samples = noise(8.0, -55)
    samples[RATE : 7 * RATE] += syllables(6.0, -25)
    assert between(heard(samples), 1.08, 6.9).all()


def test_a_click_is_no_speech():
    samples = noise(4.0, -60)
    samples[2 * RATE : 2 * RATE + 160] = 0.5
    assert not heard(samples).any()


def test_any_chunks_hear_the_same():
    samples = np.concatenate([noise(1.0, -60), syllables(2.0, -25), noise(1.0, -60)])
    for chunk in (1, 333, 16000):
        assert np.array_equal(heard(samples, chunk), heard(samples))


def test_a_caller_of_another_rate():
    detector = UserActivity(8000, 640)
    assert not any(detector.push(np.zeros(8000, np.float32)))
    assert all(detector.push(syllables(1.0, -20)[::2])[1:])


def test_frames_that_no_block_of_10_ms_divides():
    detector = UserActivity(11025, 875)
    assert detector.push(noise(1.0, -50)[:10000]) == [False] * 11
