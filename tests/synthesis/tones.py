"""An engine that hums instead of speaking: every word a tone, so tests know each sample and wait for none."""

from __future__ import annotations

import functools
import re
from dataclasses import replace

import numpy as np

from nemo_duplex.conversation import Word
from nemo_duplex.synthesis.tts.cast import Cast, EngineVoices
from nemo_duplex.synthesis.tts.utterance import SpeechEngine, Utterance, Voice
from nemo_duplex.synthesis.tts.voices import AGENT_VOICE, NUM_SPEAKERS, user_voice

SECONDS_PER_WORD = 0.3


class ToneEngine:
    name, version, sample_rate = "tones", "1", 22050

    @functools.cache  # noqa: B019
    def speak(self, text: str, voice: Voice) -> Utterance:
        spans = [m.span() for m in re.finditer(r"\w+", text)]
        samples = round(SECONDS_PER_WORD * self.sample_rate)
        tones = [np.sin(2 * np.pi * (200 + 7 * (end - begin)) * np.arange(samples) / self.sample_rate) for begin, end in spans]
        words = tuple(
            Word(text[begin:end], begin, i * SECONDS_PER_WORD, (i + 1) * SECONDS_PER_WORD)
            for i, (begin, end) in enumerate(spans)
        )
        return Utterance(text, 0.5 * np.concatenate(tones).astype(np.float32), self.sample_rate, words)


def cast_of(engine: SpeechEngine | None = None) -> Cast:
    """The speakers of eSpeak, spoken by an engine of a test."""
    engine = engine or ToneEngine()

    def user(split, number):
        return replace(user_voice(split, number), engine=engine.name)

    voices = EngineVoices(engine, replace(AGENT_VOICE, engine=engine.name), NUM_SPEAKERS, user, quick=True)
    return Cast(voices, {"train": {voices: 1.0}, "dev": {voices: 1.0}})
