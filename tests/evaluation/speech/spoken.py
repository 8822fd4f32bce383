"""Conversations whose sound is heard as written: every word is a level, and a recogniser that reads levels."""

from __future__ import annotations

import numpy as np

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.outcome import Outcome, questions
from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.evaluation.sound import Samples

RATE = 8000


class Reader:
    """Hears the words whose levels it finds, in order; counts how often it is asked."""

    def __init__(self, languages=("en",), name="reader"):
        self.scorer = Scorer(name, "1", "abc")
        self.words, self.languages, self.asked = ["<silence>"], languages, []

    def understands(self, language):
        return language in self.languages

    def sound(self, duration, said):
        """The sound in which each (start, end, text) is said, its words one after the other."""
        samples = np.zeros(round(duration * RATE), np.int16)
        for start, end, text in said:
            words = text.split()
            edges = np.linspace(start * RATE, end * RATE, len(words) + 1).round().astype(int)
            for word, a, b in zip(words, edges, edges[1:]):
                self.words += [word] if word not in self.words else []
                samples[a:b] = self.words.index(word)
        return Samples(samples, RATE)

    def transcribe(self, audio, sample_rate, language="en"):
        self.asked.append((len(audio) / sample_rate, language))
        levels = np.round(np.asarray(audio) * 32768).astype(int)
        changes = levels[np.flatnonzero(np.diff(levels, prepend=0))]
        return " ".join(self.words[level] for level in changes if level)


def outcome(reader, turns, said, agent=(), reference=(), duration=20.0, name="c", writes=True, custom=None):
    """A conversation of `turns` in which the agent says `said` [(start, end, text)] and writes `agent`; the corpus' agent says
    `reference`."""
    conversation = Conversation(name, duration, tuple(turns), custom or {})
    return Outcome(
        conversation,
        questions(conversation),
        tuple(agent),
        tuple((start, end) for start, end, _ in said),
        agent_sound=reader.sound(duration, said),
        reference_sound=reader.sound(duration, reference) if reference else None,
        writes=writes,
    )


def user(start, end, text="what", **custom):
    return Turn("user", start, end, text, custom=custom)


def agent(start, end, text, full_text=None, **custom):
    return Turn("agent", start, end, text, full_text, custom=custom)
