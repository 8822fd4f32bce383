"""The baseline of barge-in success: what an agent that never listens would score, and how often an agent breaks off.

Where answers are short, the agent falls silent soon after the user's onset whether it listens or not. So for every barge-in
the report also asks when the answer would have ended by itself:

    user                  |--- next question
    agent      |-----------------x  -  -  -  |
               onset      ^ 0.64 s           onset + length of the whole answer: 1.4 s after the user, "in time" too
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lhotse.cut import Cut

from nemo_duplex.conversation import Conversation
from nemo_duplex.evaluation.confidence import Estimate, estimate_ratio
from nemo_duplex.evaluation.outcome import Question
from nemo_duplex.evaluation.scores import Scored
from nemo_duplex.evaluation.turn_taking import BargeIn
from nemo_duplex.frames import Seconds
from nemo_duplex.words import words

#: text, as words -> how long the agent takes to say it.
Lengths = Mapping[tuple[str, ...], Seconds]
#: Two frames: an answer this much shorter was broken off.
SHORTER: Seconds = 0.16
_TELLING: Seconds = 1.0  # least part of the answer left at the onset; with less, stopping and ending look alike


def lengths_of_answers(cuts: Iterable[Cut]) -> dict[tuple[str, ...], Seconds]:
    """How long each reference answer takes when it is not interrupted, as far as the corpus says (`whole_duration`)."""
    turns = [turn for cut in cuts for turn in Conversation.from_cut(cut).agent if "whole_duration" in turn.custom]
    return {tuple(words(turn.full_text or turn.text)): turn.custom["whole_duration"] for turn in turns}


def never_listens(scored: Sequence[Scored], lengths: Lengths, seed: int = 0) -> dict[str, Any]:
    """Success and mean stop latency if the agent had said every answer to its end.

    Counted are the barge-ins into an answer whose length is known; the agent's onsets are its own.
    """
    successes, latencies = [], []
    for one in scored:
        stops = [stop for b in one.turn_taking.barge_ins if (stop := own_stop(one, b, lengths)) is not None]
        in_time = [stop for stop in stops if stop <= one.turn_taking.rules.barge_in_window]
        successes.append((len(in_time), len(stops)))
        latencies.append((sum(in_time), len(in_time)))
    return {
        "success_rate": estimate_ratio(successes, proportion=True, seed=seed).as_dict(),
        "mean_stop_latency": estimate_ratio(latencies, proportion=False, seed=seed).as_dict(),
    }


def yields(scored: Sequence[Scored], lengths: Lengths, seed: int = 0) -> Estimate:
    """How often the agent breaks off: 0 for one that never listens, however short the answers are.

    Counted are the observable barge-ins that left a second or more of the answer unsaid, where the agent says the reference
    (otherwise its own end is unknown). It yields if it stops two frames short of its own end.
    """
    parts = []
    for one in scored:
        yielded = counted = 0
        for event in one.turn_taking.observable:
            own = own_stop(one, event, lengths) if says_the_reference(one, event) else None
            if own is None or own < _TELLING:
                continue
            counted += 1
            yielded += event.stop_latency is not None and event.stop_latency <= own - SHORTER
        parts.append((yielded, counted))
    return estimate_ratio(parts, proportion=True, seed=seed)


def own_stop(scored: Scored, event: BargeIn, lengths: Lengths) -> Seconds | None:
    """When after the user's onset the answer would have ended by itself, if it is the reference; None where it is unknown."""
    question = interrupted_question(scored, event)
    if question is None or question.reference is None:
        return None
    whole = lengths.get(tuple(words(question.reference.texts[0])))
    return None if whole is None else _onset(scored, event) + whole - event.user_onset


def says_the_reference(scored: Scored, event: BargeIn) -> bool:
    """Whether the turn that the user breaks into is the right answer, as far as it goes; of another one the end is unknown."""
    return interrupted_question(scored, event) in [a.question for a in scored.answers if a.verdict == "right"]


def _onset(scored: Scored, event: BargeIn) -> Seconds:
    """When the agent began the turn that the user breaks into."""
    return next(a for a, b in scored.turn_taking.agent if a < event.user_onset < b)


def interrupted_question(scored: Scored, event: BargeIn) -> Question | None:
    """The question that this turn answers; None if it came before any question."""
    onset = _onset(scored, event)
    return next((q for q in scored.outcome.questions if q.turn.start < onset < q.next_start), None)
