"""The stretches of a conversation's sound that are transcribed, each by itself.

The agent's turns are found in its sound. Where the model also writes, a written turn and the sound that overlaps it are one
stretch: pauses inside of a written turn do not part it, and what the voice adds to its text is heard too. Only where several
written turns share their sound, each has a stretch of its own, beside that of the sound.

    text channel      |--- a ---|          |--- b ---|  |--- c ---|
    sound               |--| |-----|         |--------------|
    stretches         |------------|       |---- b --|  |--- c ---|  and  |--------------| (what is heard, of b and c together)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.outcome import Outcome
from nemo_duplex.evaluation.spans import in_seconds, normalise
from nemo_duplex.frames import Seconds, Span

#: Whose sound: the agent's, or the corpus' own agent.
Voice = Literal["agent", "reference"]
_PAUSE = 500  # milliseconds; pauses up to this long do not end a turn of the agent's sound (as in `scores.AUDIO_RULES`)
_MARGIN: Seconds = 0.2  # of sound around a turn: a codec smears its edges


@dataclass(frozen=True)
class Stretch:
    """A stretch of one voice.

    Args:
        start, end: Seconds, with a margin.
        heard: when the agent is heard in it, by its sound; None where the stretch is of a written turn alone.
        written: the turn that should be heard: of the text channel, or of the corpus' agent; None where there is none.
    """

    voice: Voice
    start: Seconds
    end: Seconds
    heard: Span | None = None
    written: Turn | None = None

    def of(self, samples: np.ndarray, sample_rate: int) -> np.ndarray:
        """Its part of the voice's samples (S,)."""
        return samples[round(self.start * sample_rate) : round(self.end * sample_rate)]


def stretches_of(outcome: Outcome) -> list[Stretch]:
    """All stretches: of the agent in order of time, then, of the corpus' agent, the turns that are whole."""
    found = _agent_stretches(outcome) if outcome.agent_sound is not None else []
    if outcome.reference_sound is not None:
        turns = outcome.conversation.agent
        spans = [(t.start, t.end) for t in turns]
        found += [
            Stretch("reference", *_widened(span, spans, outcome.duration), written=turn)
            for turn, span in zip(turns, spans)
            if is_whole(turn)
        ]
    return found


def _agent_stretches(outcome: Outcome) -> list[Stretch]:
    sounds = in_seconds(normalise(outcome.speech, round(outcome.duration * 1000), _PAUSE)[0])
    written = [t for t in outcome.agent if t.start < outcome.duration]
    shared = {sound for sound in sounds if sum(_overlap(turn, sound) for turn in written) > 1}
    spans: list[tuple[Span, Span | None, Turn | None]] = []
    taken: set[Span] = set()
    for turn in written:
        own = [sound for sound in sounds if _overlap(turn, sound)]
        heard = None if not own or shared.intersection(own) else (own[0][0], own[-1][1])
        start, end = heard or (turn.start, turn.end)
        spans.append(((min(start, turn.start), min(max(end, turn.end), outcome.duration)), heard, turn))
        taken |= set(own) if heard else set()
    spans += [(sound, sound, None) for sound in sounds if sound not in taken]
    edges = [span for span, _, _ in spans]
    found = [Stretch("agent", *_widened(span, edges, outcome.duration), heard, turn) for span, heard, turn in spans]
    return sorted(found, key=lambda stretch: (stretch.start, stretch.end))


def _widened(span: Span, others: Sequence[Span], duration: Seconds) -> Span:
    """A span with its margin, as far as no other begins or ends there."""
    before = [end for _, end in others if end <= span[0]]
    after = [start for start, _ in others if start >= span[1]]
    return max(0.0, span[0] - _MARGIN, *before), min(duration, span[1] + _MARGIN, *after)


def is_whole(turn: Turn) -> bool:
    """Whether a turn of the corpus' agent says all of its text."""
    return bool(turn.text) and not turn.was_cut and not {"begun_before", "unfinished"} & set(turn.custom)


def _overlap(turn: Turn, sound: Span) -> bool:
    return sound[0] < turn.end + _MARGIN and turn.start - _MARGIN < sound[1]
