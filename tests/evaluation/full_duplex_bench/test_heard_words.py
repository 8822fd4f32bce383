"""Words with times, by ear and from the text channel."""

import numpy as np
import pytest

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.full_duplex_bench.heard_words import HeardWords, require_source, written_words
from nemo_duplex.inputs import InputError
from tests.evaluation.full_duplex_bench.trees import Ears, buzzes, sound


def times(words):
    return [(w.text, round(w.start, 3), round(w.end, 3)) for w in words]


def test_words_stay_within_their_stretch_of_speech():
    ears = Ears()
    heard = HeardWords(ears, buzzes).of(sound((0.1, 1.0), (1.4, 2.0), (3.0, 3.5)), 16000)
    # stretches 0.1 to 2.0 (a pause of 0.4 s) and 3.0 to 3.5, each with 0.2 s around it where there is as much
    assert times(heard) == [("well", 0.1, 0.5), ("yes.", 0.5, 2.0), ("well", 3.0, 3.3), ("yes.", 3.3, 3.5)]
    assert ears.heard == pytest.approx([2.2, 0.9], abs=2e-4)


def test_what_was_said_before_is_not_listened_to():
    ears = Ears()
    heard = HeardWords(ears, buzzes).of(sound((0.5, 2.0)), 16000, since=1.25)
    assert times(heard) == [("well", 1.25, 1.75), ("yes.", 1.75, 2.0)]
    assert ears.heard == pytest.approx([0.95], abs=2e-4), "the sound is cut, not the words"
    assert HeardWords(ears, buzzes).of(np.zeros(16000), 16000) == ()


def test_letters_are_spread_over_the_speech_of_a_turn():
    turns = [Turn("agent", 1.0, 4.0, "ab cd efgh"), Turn("agent", 5.0, 6.0, "unheard words")]
    # 2 s of speech within the turn, in two stretches: 0.25 s for each of 8 letters
    words = written_words(turns, [(0.5, 2.0), (3.0, 4.5)])
    assert times(words) == [("ab", 1.0, 1.5), ("cd", 1.5, 2.0), ("efgh", 3.0, 4.0)]
    assert times(written_words(turns, [(0.5, 2.0), (3.0, 4.5)], since=1.5)) == [("cd", 1.5, 2.0), ("efgh", 3.0, 4.0)]
    assert times(written_words(turns[:1], [(0.5, 1.25), (2.5, 3.25)])) == [
        ("ab", 1.0, 1.25),
        ("cd", 2.5, 2.75),
        ("efgh", 2.75, 3.25),
    ]


def test_unknown_source():
    with pytest.raises(InputError, match="words=ears: expected one of recogniser, text_channel"):
        require_source("ears")
