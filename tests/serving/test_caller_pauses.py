"""What the model is given of a caller's audio, second by second of a clock that a test sets."""

import numpy as np
import pytest

from nemo_duplex.serving.caller_audio import AudioRules, CallerAudio

RATE = 1000


def sound(samples: int, value: float = 1.0) -> np.ndarray:
    return np.full(samples, value, np.float32)


@pytest.fixture
def audio():
    return CallerAudio(RATE, AudioRules(patience=0.5, patience_at_start=2.0, late_gap=1.0))


def test_a_caller_who_waits_from_the_start_on_is_silent_at_once(audio):
    audio.ready(now=10.0)
    assert len(audio.take(500, now=10.5)) == 0
    audio.pause(now=10.5)
    assert audio.take(500, now=10.625).tolist() == [0.0] * 125 and audio.taken == 0
    audio.push(sound(125), now=10.75)
    assert audio.take(500, now=10.75).tolist() == [1.0] * 125 and audio.taken == 125 and audio.skipped == 0.0


def test_after_an_announced_pause_silence_comes_soon(audio):
    audio.push(sound(1000), now=0.0)
    assert len(audio.take(2000, now=1.0)) == 1000
    audio.pause(now=1.0)
    assert len(audio.take(2000, now=1.125)) == 0
    assert len(audio.take(2000, now=1.25)) == 250
    assert len(audio.take(2000, now=1.375)) == 125


def test_what_comes_after_an_announced_pause_is_never_late(audio):
    audio.push(sound(1000), now=0.0)
    audio.take(5000, now=1.0)
    audio.pause(now=1.0)
    audio.take(5000, now=1.75)
    audio.push(sound(1000), now=1.75)
    assert audio.skipped == 0.0 and len(audio.take(5000, now=1.75)) == 1000
    audio.take(5000, now=3.5)  # the pause is over: 0.75 s are missing
    audio.push(sound(1000), now=3.5)
    assert audio.skipped == 0.75


def test_it_is_known_how_far_the_callers_own_audio_was_taken(audio):
    audio.push(sound(300), now=0.0)
    audio.take(200, now=0.25)
    assert audio.taken == 200
    audio.take(200, now=0.875)  # the rest, and the first of 575 samples of silence
    assert audio.taken == 300
    audio.take(1000, now=0.875)
    assert audio.taken == 300
    audio.push(sound(700), now=0.875)  # 575 of them are late
    assert audio.skipped == 0.575
    audio.take(50, now=0.875)
    assert audio.taken == 925
    audio.take(500, now=0.875)
    assert audio.taken == 1000
