"""A caller's audio on a clock of our own: what is taken, to the sample, when it is on time, missing, late, or too much.

The rate is 1000 Hz, so that a sample is a millisecond; the samples count up from 1, and silence is 0.
"""

import numpy as np
import pytest

from nemo_duplex.serving.caller_audio import AudioRules, CallerAudio

RULES = AudioRules(patience=0.5, patience_at_start=2.0, late_gap=1.0, skip_after=1.0, most_queued=60.0)
ALL = 10**6


class Line:
    """A caller who counts, from 100.0 s of the clock on."""

    def __init__(self, rules=RULES):
        self.audio = CallerAudio(1000, rules)
        self.said = 0

    def say(self, at, samples):
        self.audio.push(np.arange(self.said + 1, self.said + samples + 1, dtype=np.float32), 100.0 + at)
        self.said += samples

    def take(self, at, most=ALL):
        now = 100.0 + at + 1e-7  # whole milliseconds, whatever the rounding
        return self.audio.take(most, now).astype(int).tolist()

    def wait(self, start, end):
        """Takes all, every 0.1 s of a time in which nothing is said."""
        return [sample for step in range(round(10 * start) + 1, round(10 * end) + 1) for sample in self.take(step / 10)]


def count(first, last):
    return list(range(first, last + 1))


def test_audio_that_is_on_time_is_taken_as_it_came():
    line, taken = Line(), []
    for step in range(50):
        line.say(0.08 * step, 80)
        taken += line.take(0.08 * step + 0.01)
    assert taken == count(1, 4000) and line.audio.waiting == 0
    assert (line.audio.gaps, line.audio.filled, line.audio.skipped) == (0, 0.0, 0.0)


def test_at_most_so_many_samples_are_taken_the_oldest_first():
    line = Line()
    line.say(0.0, 5)
    line.say(0.0, 5)
    assert [line.take(0.0, most) for most in (3, 4, 0, 9)] == [[1, 2, 3], [4, 5, 6, 7], [], [8, 9, 10]]


def test_a_file_that_comes_at_once_is_taken_as_fast_as_it_is_asked_for():
    line = Line()
    line.say(0.0, 30_000)
    assert line.take(0.1, 20_000) == count(1, 20_000) and line.audio.waiting == 10.0
    assert line.take(9.0) == count(20_001, 30_000)  # nothing is missing for 21 s more
    assert line.take(30.4) == [] and line.audio.skipped == 0.0
    assert line.take(30.5) == [0] * 500


def test_silence_takes_the_place_of_what_is_missing_after_some_patience_and_then_at_once():
    line = Line()
    line.say(0.0, 100)
    assert line.take(0.0) == count(1, 100)
    assert line.take(0.599) == []
    assert line.take(0.6) == [0] * 500
    assert line.take(0.68) == [0] * 80 and line.take(0.76) == [0] * 80
    assert line.audio.filled == pytest.approx(0.66) and line.audio.gaps == 1


def test_what_comes_after_a_short_gap_in_a_burst_is_late_and_skipped_up_to_now():
    line = Line()
    line.say(0.0, 100)
    line.take(0.0)
    assert line.take(0.7) == [0] * 600  # up to 0.7 s
    line.say(0.7, 600)  # what was spoken meanwhile; 0.1 s of it may be ahead of the clock
    assert line.take(0.7) == count(601, 700)
    assert line.audio.skipped == pytest.approx(0.5)
    line.say(0.75, 200)  # of the gap of 0.6 s, 0.1 s are left that may be skipped
    assert line.take(0.75) == count(801, 900) and line.audio.skipped == pytest.approx(0.6)
    line.say(0.8, 300)
    assert line.take(0.8) == count(901, 1200) and line.audio.skipped == pytest.approx(0.6)


def test_what_comes_in_its_time_after_a_gap_is_not_late():
    line = Line()
    line.say(0.0, 100)
    line.take(0.0)
    line.take(0.7)
    for step in range(30):
        line.say(0.78 + 0.08 * step, 80)
        assert line.take(0.78 + 0.08 * step) == count(101 + 80 * step, 180 + 80 * step)
    assert line.audio.skipped == 0.0


def test_a_second_after_a_gap_nothing_is_late_any_more():
    line = Line()
    line.say(0.0, 100)
    line.take(0.0)
    line.take(0.7)
    line.say(0.8, 100)
    line.wait(0.7, 1.2)
    line.say(1.8, 1500)
    assert line.take(1.8) == count(201, 1700) and line.audio.skipped == 0.0


def test_after_a_long_pause_what_comes_is_new():
    line = Line()
    line.say(0.0, 100)
    line.take(0.0)
    assert line.wait(0.0, 5.0) == [0] * 4900
    line.say(5.0, 600)
    assert line.take(5.0) == count(101, 700) and line.audio.skipped == 0.0


def test_two_gaps_count_as_two():
    line = Line()
    line.say(0.0, 100)
    line.take(0.0)
    line.wait(0.0, 1.0)
    line.say(1.0, 100)
    line.wait(1.0, 2.0)
    assert line.audio.gaps == 2 and line.audio.filled == pytest.approx(0.9 + 0.9)


def test_before_the_first_audio_the_clock_starts_some_time_after_the_call_is_ready():
    line = Line()
    assert line.take(50.0) == []  # it is not ready
    line.audio.ready(150.0)
    assert line.take(52.0) == []
    assert line.take(52.5) == [0] * 500
    line.say(52.5, 200)
    assert line.take(52.5) == count(1, 200) and line.audio.skipped == 0.0  # nothing was heard that could be late


def test_if_the_model_is_far_behind_the_oldest_audio_is_skipped():
    line = Line()
    for step in range(20):
        line.say(0.1 * step, 100)
    assert line.take(1.9, 100) == count(1901, 2000)  # 1.9 s should have been answered, none was
    assert line.audio.skipped == pytest.approx(1.9)


def test_a_second_behind_is_allowed():
    line = Line()
    for step in range(10):
        line.say(0.1 * step, 100)
    assert line.take(1.0, 100) == count(1, 100) and line.audio.skipped == 0.0


def test_what_is_ahead_of_the_clock_is_never_skipped():
    line = Line()
    line.say(0.0, 10_000)
    assert line.take(3.0) == count(3001, 10_000) and line.audio.skipped == pytest.approx(3.0)


def test_a_caller_who_has_finished_misses_nothing():
    line = Line()
    line.say(0.0, 100)
    line.audio.finish()
    assert line.take(0.0) == count(1, 100) and line.take(9.0) == [] and line.audio.filled == 0.0


def test_it_is_full_at_its_bound():
    line = Line(AudioRules(most_queued=2.0))
    line.say(0.0, 1999)
    assert not line.audio.is_full
    line.say(0.0, 1)
    assert line.audio.is_full
    line.take(0.0, 1)
    assert not line.audio.is_full


def test_it_knows_when_the_newest_audio_that_was_taken_had_come():
    line = Line()
    line.say(0.0, 80)
    line.say(0.08, 80)
    line.take(0.1, 80)
    assert line.audio.newest == 100.0
    line.take(0.1, 1)
    assert line.audio.newest == 100.08
