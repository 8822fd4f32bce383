"""Words with times of what an agent says: by a recogniser, or from the agent's own text channel.

recogniser      what is audible, in the words of Whisper tiny.en, each stretch of speech by itself
text channel    the words that the agent wrote, spread over the time in which it is heard: free, and never misheard, but a
                voice that garbles its text goes unnoticed
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.activity import SileroVad, Vad
from nemo_duplex.evaluation.full_duplex_bench.overlaps import merged
from nemo_duplex.evaluation.full_duplex_bench.transcript import TimedWord
from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.frames import Seconds, Span
from nemo_duplex.inputs import InputError

SOURCES = ("recogniser", "text_channel")
_TOGETHER: Seconds = 0.5  # stretches with shorter pauses are recognised as one
_MARGIN: Seconds = 0.2  # of sound around a stretch


class Recogniser(Protocol):
    """What gives words with times: `evaluation.speech.whisper.Whisper`."""

    @property
    def scorer(self) -> Scorer: ...

    def timed_words(self, audio: np.ndarray, sample_rate: int) -> list[tuple[str, Seconds, Seconds]]: ...


class HeardWords:
    """The words in a sound.

    Whisper draws the last word before a silence out by seconds, so each stretch of speech is recognised by itself, and its
    words end with it.

    Args:
        recogniser: None: Whisper tiny.en.
        vad: finds the stretches; None: Silero.

    Attributes:
        name: of the recogniser.

    Raises:
        NotInstalled: if a package of either is missing.
    """

    def __init__(self, recogniser: Recogniser | None = None, vad: Vad | None = None) -> None:
        from nemo_duplex.evaluation.speech.whisper import Whisper

        self._recogniser, self._vad = recogniser or Whisper(), vad or SileroVad()
        self.name = self._recogniser.scorer.name

    def of(self, sound: np.ndarray, sample_rate: int, since: Seconds = 0.0) -> tuple[TimedWord, ...]:
        """The words in (S,) samples from `since` on; the sound before is not listened to, as in the official script."""
        first = round(since * sample_rate)
        heard, words = sound[first:], []
        for start, end in merged(self._vad(heard, sample_rate), _TOGETHER):
            begin = max(0.0, start - _MARGIN)
            piece = heard[round(begin * sample_rate) : round((end + _MARGIN) * sample_rate)]
            for text, a, b in self._recogniser.timed_words(piece, sample_rate):
                a, b = (min(max(begin + time, start), end) for time in (a, b))
                words.append(TimedWord(text, a, b).shifted(first / sample_rate))
        return tuple(words)


def written_words(turns: Sequence[Turn], speech: Sequence[Span], since: Seconds = 0.0) -> tuple[TimedWord, ...]:
    """The words of an agent's text channel that begin at `since` or later.

    Args:
        turns: of the text channel, at the times at which they are heard.
        speech: when the agent's sound is speech. The letters of a turn are spread evenly over the speech within it; a turn
            without any is not heard, and has no words.
    """
    return tuple(word for turn in turns for word in _spread(turn, speech) if word.start >= since)


def _spread(turn: Turn, speech: Sequence[Span]) -> Iterator[TimedWord]:
    spans = [(max(a, turn.start), min(b, turn.end)) for a, b in speech if a < turn.end and b > turn.start]
    words = turn.text.split()
    if not spans or not words:
        return
    letters = np.cumsum([0, *(len(word) for word in words)])
    spoken = np.cumsum([0.0, *(b - a for a, b in spans)])
    edges = letters / letters[-1] * spoken[-1]
    for word, begin, end in zip(words, edges, edges[1:]):
        # a word starts in the later of two stretches that meet at its edge, and ends in the earlier one
        at = min(int(np.searchsorted(spoken, begin + 1e-9, "right")) - 1, len(spans) - 1)
        to = max(int(np.searchsorted(spoken, end - 1e-9, "left")) - 1, 0)
        yield TimedWord(word, float(spans[at][0] + begin - spoken[at]), float(spans[to][0] + end - spoken[to]))


def require_source(name: str) -> None:
    """Raises InputError if there is no such source of words."""
    if name not in SOURCES:
        raise InputError(f"words={name}: expected one of {', '.join(SOURCES)}.")
