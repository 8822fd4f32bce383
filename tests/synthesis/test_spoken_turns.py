from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.synthesis.spoken_turns import agent_utterance
from nemo_duplex.synthesis.tts.voices import AGENT_VOICE
from tests.synthesis.tones import ToneEngine, cast_of


def test_the_agent_says_texts_in_its_own_voice_at_the_codecs_rate():
    class Engine(ToneEngine):
        sample_rate = 11025

        def speak(self, text, voice):
            assert voice == replace(AGENT_VOICE, language="de", engine="tones")
            return super().speak(text, voice)

    short, long = (agent_utterance(text, cast_of(Engine()), "de") for text in ("Two words.", "These are three."))
    assert short.text == "Two words." and short.audio.dtype == np.float32 and short.sample_rate == 22050
    assert len(long.audio) - len(short.audio) == pytest.approx(0.3 * 22050, abs=2), "Resampled from 11,025 Hz."
    with pytest.raises(OddRow, match="a turn of over 25 s of speech .the agent says 'a a a a a "):
        agent_utterance("a " * 84, cast_of())
