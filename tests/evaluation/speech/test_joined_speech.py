"""Silence removed: which samples are left, in their order."""

import numpy as np

from nemo_duplex.evaluation.speech.joined_speech import joined_speech

COUNT = np.arange(100)  # ten samples a second


def kept(*spans, **given):
    return joined_speech(COUNT, 10, spans, **given).tolist()


def test_spans_are_joined_with_a_margin_of_the_sound_itself():
    assert kept((1.0, 2.0), (5.0, 6.0)) == [*range(9, 21), *range(49, 61)]
    assert kept((5.0, 6.0), (1.0, 2.0)) == kept((1.0, 2.0), (5.0, 6.0))
    assert kept((1.0, 2.0), (5.0, 6.0), margin=0.0) == [*range(10, 20), *range(50, 60)]


def test_nothing_is_heard_twice_and_a_short_pause_stays():
    assert kept((1.0, 2.0), (2.1, 3.0)) == list(range(9, 31))
    assert kept((1.0, 4.0), (2.0, 3.0)) == list(range(9, 41))
    assert kept((1.0, 2.0), (2.3, 3.0)) == [*range(9, 21), *range(22, 31)]


def test_the_edges_of_the_recording_are_kept():
    assert kept((0.0, 0.5), (9.8, 12.0)) == [*range(0, 6), *range(97, 100)]
    assert kept((11.0, 12.0)) == [] and kept() == []
    assert joined_speech(COUNT.astype(np.int16), 10, []).dtype == np.int16
