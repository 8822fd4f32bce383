"""What an agent that never listens would score: the number that barge-in success has to be read against.

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
from nemo_duplex.evaluation.answers import words
from nemo_duplex.evaluation.confidence import estimate_ratio
from nemo_duplex.evaluation.record import Record
from nemo_duplex.evaluation.scores import Judged
from nemo_duplex.frames import Seconds

#: text, as words -> how long the agent takes to say it.
Lengths = Mapping[tuple[str, ...], Seconds]


def lengths_of_answers(cuts: Iterable[Cut]) -> dict[tuple[str, ...], Seconds]:
    """How long each reference answer takes when nobody interrupts it, as far as the corpus says (`whole_duration`)."""
    turns = [turn for cut in cuts for turn in Conversation.from_cut(cut).agent if "whole_duration" in turn.custom]
    return {tuple(words(turn.full_text or turn.text)): turn.custom["whole_duration"] for turn in turns}


def never_listens(judged: Sequence[Judged], lengths: Lengths, seed: int = 0) -> dict[str, Any]:
    """Success and mean stop latency if the agent had said every answer to its end.

    Counted are the barge-ins into an answer whose length is known; the agent's onsets are its own.
    """
    successes, latencies = [], []
    for j in judged:
        window, stops = j.turn_taking.rules.barge_in_window, _own_stops(j, lengths)
        in_time = [stop for stop in stops if stop <= window]
        successes.append((len(in_time), len(stops)))
        latencies.append((sum(in_time), len(in_time)))
    return {
        "success_rate": estimate_ratio(successes, proportion=True, seed=seed).as_dict(),
        "mean_stop_latency": estimate_ratio(latencies, proportion=False, seed=seed).as_dict(),
    }


def whole_length(record: Record, start: Seconds, lengths: Lengths) -> Seconds | None:
    """How long the answer takes that the agent began at `start`, if it says what it should; None where nobody knows."""
    asked = [q for q in record.questions if q.turn.start < start < q.next_start]
    if not asked or asked[0].reference is None:
        return None
    return lengths.get(tuple(words(asked[0].reference.texts[0])))


def _own_stops(judged: Judged, lengths: Lengths) -> list[Seconds]:
    """For each barge-in whose answer is known: when after the user's onset it would have ended by itself."""
    stops = []
    for event in judged.turn_taking.barge_ins:
        start = next(a for a, b in judged.turn_taking.agent if a < event.user_onset < b)
        whole = whole_length(judged.record, start, lengths)
        if whole is not None:
            stops.append(start + whole - event.user_onset)
    return stops
