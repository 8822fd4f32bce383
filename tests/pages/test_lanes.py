"""Two lanes on a time axis: texts that fit, waveforms that keep their peaks."""

import numpy as np

from nemo_duplex.pages.lanes import envelope, wrapped


def test_text_is_wrapped_and_shortened():
    assert wrapped("one two three four", 9, 3) == ["one two", "three", "four"]
    assert wrapped("one two three four five", 9, 2) == ["one two", "three…"]
    assert wrapped("one two", 7, 3) == ["one two"] and wrapped("one two", 6, 3) == ["one", "two"]
    assert wrapped("", 9, 2) == []
    assert wrapped("incomprehensibilities", 9, 1) == ["incomprehensibilities"]


def test_an_envelope_keeps_the_peaks_where_they_are():
    audio = np.zeros(1000, np.int16)
    audio[501] = -8000
    levels = envelope(audio, 10)
    assert levels.argmax() == 5 and levels[5] == 1 and levels.sum() == 1
    assert envelope(np.zeros(0), 4).tolist() == [0, 0, 0, 0]
    assert envelope(np.array([-32768, 16384], np.int16), 2).tolist() == [1, 0.5], "the lowest sample has no positive twin"
