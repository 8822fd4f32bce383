"""Trees of Full-Duplex-Bench made by hand, and what writes and hears them."""

import json

import numpy as np
import soundfile

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.frames import AGENT_SAMPLE_RATE
from tests.evaluation.agents import FakeAgent, syllables


def chunks(*words):
    """The JSON of words, each (text, start, end)."""
    listed = [{"text": text, "timestamp": [start, end]} for text, start, end in words]
    return {"text": " ".join(text for text, _, _ in words), "chunks": listed}


def sound(*spans, seconds=4.0, rate=16000):
    """(S,) that buzzes in the spans."""
    samples = np.zeros(round(seconds * rate), np.float32)
    for start, end in spans:
        samples[round(start * rate) : round(end * rate)] = syllables(end - start, rate)[
            : round(end * rate) - round(start * rate)
        ]
    return samples


def put(folder, wavs=(), **files):
    """A sample: sounds {name: (S,) at 16 kHz}, and JSON files by their stems; texts are written as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, samples in dict(wavs).items():
        soundfile.write(folder / f"{name}.wav", samples, 16000)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def buzzes(audio, sample_rate):
    """A VAD for these sounds: exact, but for what resampling adds."""
    loud = np.flatnonzero(np.abs(audio) > 0.02)
    if not len(loud):
        return []
    breaks = np.flatnonzero(np.diff(loud) > 0.1 * sample_rate)
    starts, ends = [loud[0], *loud[breaks + 1]], [*loud[breaks], loud[-1]]
    return [(a / sample_rate, (b + 1) / sample_rate) for a, b in zip(starts, ends)]


class Ears:
    """Hears two words in everything, the second one drawn out far beyond the sound."""

    scorer = Scorer("ears", "1")

    def __init__(self):
        self.heard = []

    def timed_words(self, audio, sample_rate):
        self.heard.append(len(audio) / sample_rate)
        return [("well", 0.0, 0.5), ("yes.", 0.5, 9.0)]


class Answers(FakeAgent):
    """Says four words from 1.04 to 2.0 s, and two from 2.96 to 3.52 s; counts the inputs that it is given."""

    turns = [Turn("agent", 1.04, 2.0, "one two three four"), Turn("agent", 2.96, 3.52, "five sixes")]

    def __init__(self):
        super().__init__()
        self.asked = []

    def does(self, user):
        self.asked.append(len(user))
        spans = [(turn.start, turn.end) for turn in self.turns]
        return sound(*spans, seconds=len(user) / 16000 + 1, rate=AGENT_SAMPLE_RATE), self.turns
