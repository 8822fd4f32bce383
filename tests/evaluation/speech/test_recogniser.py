"""What every recogniser does with a sound before its model hears it."""

import numpy as np
import pytest

from nemo_duplex.evaluation.speech.recogniser import RATE, pieces


def tone(seconds, rate=RATE, level=0.3):
    return (level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def test_a_long_sound_is_cut_in_its_pauses_and_keeps_every_sample():
    pause = np.full(RATE // 2, 1e-3, np.float32)
    sound = np.concatenate([tone(12), pause, tone(14), pause, tone(15), pause, tone(20)])
    found = pieces(sound, RATE)
    assert np.array_equal(np.concatenate([piece.samples for piece in found]), sound)
    assert [round(piece.start, 6) for piece in found] == pytest.approx([0, 26.9, 42.4], abs=0.002)
    assert max(len(piece.samples) for piece in found) <= 28 * RATE
    assert len(pieces(tone(28), RATE)) == 1, "a sound that fits is not cut"
    assert len(pieces(tone(28.1), RATE)) == 2


def test_a_sound_comes_at_16_khz_whatever_its_rate():
    [piece] = pieces(tone(2, 22050), 22050)
    assert len(piece.samples) == 2 * RATE and piece.samples.dtype == np.float32
    assert np.abs(piece.samples[100:-100] - tone(2)[100:-100]).max() < 0.01


def test_silence_is_left_out_and_faint_sound_is_not():
    assert pieces(np.zeros(RATE), RATE) == pieces(np.zeros(0), RATE) == pieces(tone(1, level=5e-5), RATE) == []
    assert len(pieces(tone(1, level=2e-4), RATE)) == 1
    late = np.concatenate([np.zeros(40 * RATE, np.float32), tone(1)])
    assert [round(piece.start) for piece in pieces(late, RATE)] == [28], "two pieces, of which the first is silent"
