"""An engine that hums instead of speaking: every word a tone, so tests know each sample and wait for none."""

from __future__ import annotations

import functools
import re

import numpy as np

from nemo_duplex.conversation import Word
from nemo_duplex.synthesis.tts.utterance import Utterance, Voice

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
