"""Rounding between seconds, samples and frames happens in one place; here is what it must give at the edges."""

from __future__ import annotations

from fractions import Fraction

import pytest

from nemo_duplex.frames import AGENT_SAMPLE_RATE, FRAME_RATE, USER_SAMPLE_RATE, FrameRate


def test_the_papers_frame():
    assert FRAME_RATE.hz == Fraction(25, 2)
    assert FRAME_RATE.seconds == 0.08
    assert FRAME_RATE.samples_per_frame(USER_SAMPLE_RATE) == 1280
    assert FRAME_RATE.samples_per_frame(AGENT_SAMPLE_RATE) == 1764
    assert FRAME_RATE.samples(10, USER_SAMPLE_RATE) == 12800


def test_float_arithmetic_does_not_move_a_frame_edge():
    """0.64 + 1.28 is 1.9200000000000002, and 24 * 0.08 is 1.92: both are frame 24, neither 23 nor 25 frames."""
    time = 0.0
    for frame in range(5000):
        assert FRAME_RATE.frame_at(time) == FRAME_RATE.nearest(time) == FRAME_RATE.count(time) == frame
        assert FRAME_RATE.time(frame) == pytest.approx(time)
        time += 0.08


def test_between_two_edges():
    assert FRAME_RATE.frame_at(0.1) == 1
    assert FRAME_RATE.nearest(0.1) == 1
    assert FRAME_RATE.count(0.1) == 2
    assert FRAME_RATE.nearest(0.12) == 2, "a half goes up"
    assert FRAME_RATE.nearest(0.119) == 1
    assert FRAME_RATE.count(0.0) == 0


def test_equal_spans_stay_equal_wherever_they_start():
    """Python's round goes to even: 0.5 -> 0, 1.5 -> 2, so that a 1-frame span was 0, 1 or 2 frames long."""
    spans = {FRAME_RATE.nearest(0.04 + 0.08 * (k + 1)) - FRAME_RATE.nearest(0.04 + 0.08 * k) for k in range(1000)}
    assert spans == {1}


def test_count_samples_is_exact():
    assert FRAME_RATE.count_samples(0, 16000) == 0
    assert FRAME_RATE.count_samples(1, 16000) == 1
    assert FRAME_RATE.count_samples(1280, 16000) == 1
    assert FRAME_RATE.count_samples(1281, 16000) == 2
    assert FRAME_RATE.count_samples(1280 * 10**9 + 1, 16000) == 10**9 + 1


def test_other_rates_stay_exact():
    assert FrameRate(Fraction(22050, 1024)).samples_per_frame(22050) == 1024
    assert FrameRate(22050 / 1024).samples_per_frame(22050) == 1024
    assert FrameRate(12.5) == FRAME_RATE and hash(FrameRate(12.5)) == hash(FRAME_RATE)


@pytest.mark.parametrize("hz", [0, -12.5])
def test_a_rate_must_be_positive(hz):
    with pytest.raises(ValueError, match="positive"):
        FrameRate(hz)


def test_a_frame_of_a_broken_sample_is_refused():
    with pytest.raises(ValueError, match=r"44101 Hz holds 3528.080 samples"):
        FRAME_RATE.samples_per_frame(44101)
