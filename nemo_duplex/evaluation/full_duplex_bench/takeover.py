"""The formulas of Full-Duplex-Bench v1 (arXiv 2503.04721, and its scripts at d7336bd): does the agent take the turn, and when.

A takeover is good after a turn and after an interruption, and bad in a pause and in place of a backchannel: rates of different
tasks are never averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nemo_duplex.evaluation.full_duplex_bench.transcript import TimedWord
from nemo_duplex.frames import Seconds, Span

_SHORT: Seconds = 1.0  # what is shorter, and has no more words, is no turn
_FEW_WORDS = 3
# of backchannels
_TURN: Seconds = 3.0
_FEW_WORDS_OF_A_BACKCHANNEL = 2
_BIN: Seconds = 0.2
_FLOOR = 1e-10
#: The divergence where there is no backchannel.
NO_BACKCHANNEL = 1.0


def takes_over(words: Sequence[TimedWord]) -> bool:
    """Whether the agent takes the turn: it says something that lasts 1 s, or has more than three words.

    Examples:
        >>> takes_over([TimedWord("Yes.", 0.5, 0.8)]), takes_over([TimedWord("Well,", 0.5, 0.8), TimedWord("yes.", 1.3, 1.5)])
        (False, True)
    """
    if not words:
        return False
    return not (words[-1].last - words[0].start < _SHORT and len(words) <= _FEW_WORDS)


def takeover_latency(words: Sequence[TimedWord], since: Seconds) -> Seconds:
    """From `since` to the agent's first word; 0 where it spoke earlier. Only for a takeover."""
    return max(0.0, words[0].start - since)


class Backchannels(NamedTuple):
    """What an agent did in a monologue.

    Args:
        takeover: whether it took the turn.
        frequency: backchannels per Second.
        divergence: Jensen-Shannon distance (base e) of their places from those of people; 1 without backchannels, None where
            nobody says where people have them.
    """

    takeover: bool
    frequency: float
    divergence: float | None


def backchannels(
    speech: Sequence[Span], words: Sequence[TimedWord], duration: Seconds, people: Sequence[float] | None
) -> Backchannels:
    """Backchannels of an agent, until it speaks for more than 3 s.

    Args:
        speech: of the agent, as Silero finds it, times rounded to 0.1 s; pauses not merged.
        words: that it says.
        duration: of the recording.
        people: where people have them: a density over bins of 0.2 s, of any number of bins.

    A span is no backchannel but a turn if it has more than three words, or more than two words or 1 s; the last span decides,
    as in the official script.
    """
    takeover, found = False, []
    for start, end in speech:
        if end - start > _TURN:
            takeover = True
            break
        said = sum(_within(word, start, end) for word in words)
        takeover = end - start >= 1.0 or said > _FEW_WORDS_OF_A_BACKCHANNEL
        found.append((start, end))
    return Backchannels(takeover, len(found) / duration, _divergence(found, duration, people))


def _within(word: TimedWord, start: Seconds, end: Seconds) -> bool:
    """Whether a word is counted to a span; those at an edge are."""
    if word.end is None and word.start < end:
        return False
    inside = word.start >= start and word.last <= end
    return inside or word.start <= end < word.last or word.start <= start < word.last


def _divergence(found: Sequence[Span], duration: Seconds, people: Sequence[float] | None) -> float | None:
    if people is None:
        return None
    if not found:
        return NO_BACKCHANNEL
    from scipy.spatial.distance import jensenshannon

    histogram = np.full(int(duration / _BIN) + 1, _FLOOR)
    for start, end in found:
        histogram[int(start / _BIN) : int(end / _BIN) + 1] += 1
    places = np.linspace(0, 1, len(people))
    return float(jensenshannon(histogram, np.interp(np.linspace(0, 1, len(histogram)), places, people)))
