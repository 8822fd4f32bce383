from __future__ import annotations

import numpy as np
import pytest

from nemo_duplex.synthesis.tts.utterance import PAUSE_FADE, Voice
from tests.synthesis.tones import SECONDS_PER_WORD, ToneEngine

UTTERANCE = ToneEngine().speak("What is it, then?", Voice("v", "v"))


def test_a_pause_is_silence_before_its_word_and_shifts_the_words_after_it():
    paused = UTTERANCE.with_pause(8, 0.5)
    start, end = round(2 * SECONDS_PER_WORD * 22050), round(2 * SECONDS_PER_WORD * 22050) + round(0.5 * 22050)
    assert not paused.audio[start:end].any()
    assert paused.duration == pytest.approx(UTTERANCE.duration + 0.5, abs=1e-4)
    assert [w.start for w in paused.words] == pytest.approx([0.0, 0.3, 1.1, 1.4], abs=1e-4)
    assert paused.words[1].end == pytest.approx(0.6)  # the word before the pause does not last through it
    faded = round(PAUSE_FADE * 22050)
    assert np.array_equal(paused.audio[: start - faded], UTTERANCE.audio[: start - faded])
    assert np.array_equal(paused.audio[end + faded :], UTTERANCE.audio[start + faded :])
    assert abs(paused.audio[start - 1]) < 1e-3 and abs(paused.audio[end]) < 1e-3


@pytest.mark.parametrize("offset", [0, 9, 100])
def test_a_pause_goes_only_before_a_word_after_the_first(offset):
    with pytest.raises(ValueError, match=f"character {offset} of 'What is it, then"):
        UTTERANCE.with_pause(offset, 0.5)
