"""The baseline of barge-in success: what an agent that never listens would score, and how often an agent breaks off.

Where answers are short, the agent falls silent soon after the user's onset whether it listens or not. So for every barge-in
the report also asks when the answer would have ended by itself:

    user                  |--- next question
    agent      |-----------------x  -  -  -  |
               onset      ^ 0.64 s           onset + length of the whole answer: 1.4 s after the user, "in time" too
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.confidence import Estimate, compared, estimate_ratio
from nemo_duplex.evaluation.outcome import Question
from nemo_duplex.evaluation.scorer import not_run
from nemo_duplex.evaluation.scores import Scored
from nemo_duplex.evaluation.spans import to_ms
from nemo_duplex.evaluation.time_left import TELLING, Lengths, Stop, own_ends, success_with_time_left
from nemo_duplex.evaluation.turn_taking import BargeIn
from nemo_duplex.frames import Seconds, Span
from nemo_duplex.words import words

#: Whose score the baseline is, in sentences.
DEAF = "an agent that never listens"
_NEAR: Seconds = 0.5  # a user who starts as close to the end of a turn may have ended it
_NO_LENGTHS = (
    "the corpus does not say how long the interrupted answers take: it has neither `whole_duration` in the custom of its agent "
    "turns nor the same answers without an interruption"
)
_NOTHING_TELLING = "no barge-in leaves over 1 s of an answer of known length unsaid"


def lengths_of_answers(conversations: Iterable[Conversation]) -> dict[tuple[str, ...], Seconds]:
    """How long each reference answer takes when it is not interrupted: the median, where it is said several times.

    It is the turn's `whole_duration`, where the corpus says it, or the duration of a turn that no user interrupts. Nothing is
    estimated from the number of words: measured on two corpora of one voice each, such an estimate is wrong by 0.5 to 0.7 s
    (standard deviation) for answers of 2 to 3 s, which is more than what has to be told.
    """
    found: dict[tuple[str, ...], list[Seconds]] = {}
    for one in conversations:
        for turn in one.agent:
            text, length = tuple(words(turn.full_text or turn.text)), _length(turn, one.user)
            if text and length:
                found.setdefault(text, []).append(length)
    return {text: statistics.median_low(lengths) for text, lengths in found.items()}


def _length(turn: Turn, user: Sequence[Turn]) -> Seconds | None:
    """Of a whole answer; None where the turn does not tell."""
    if "whole_duration" in turn.custom:
        return turn.custom["whole_duration"]
    partial = turn.was_cut or turn.custom.get("unfinished") or turn.custom.get("begun_before")
    interrupted = any(turn.start < other.start < turn.end + _NEAR for other in user)
    return None if partial or interrupted else turn.duration


def never_listens(scored: Sequence[Scored], lengths: Lengths, seed: int = 0) -> dict[str, Any]:
    """Success and mean stop latency if the agent had said every answer to its end.

    Counted are the barge-ins into an answer whose length is known; the agent's onsets are its own. Where no length is known,
    both are `not_run`.
    """
    if not lengths:
        return {"success_rate": not_run(_NO_LENGTHS), "mean_stop_latency": not_run(_NO_LENGTHS)}
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


def telling(scored: Sequence[Scored], lengths: Lengths, seed: int = 0) -> dict[str, Any]:
    """Success where it means something: in the barge-ins that leave over a second of the answer unsaid.

    Counted are the observable ones in which the agent says the reference, as its end is unknown otherwise.

    Returns:
        `success_rate` of the agent, `never_listens_rate`: that of one that would say the same answers to their ends,
        `yield_rate` (`yields`), and `verdict`: a sentence that compares the first two, or says that n is too small to tell.
        `not_run` in each where there is no such barge-in.
    """
    parts = [success_with_time_left(stops(one, lengths), window=one.turn_taking.rules.barge_in_window) for one in scored]
    success, never = (estimate_ratio([pair[i] for pair in parts], proportion=True, seed=seed) for i in (0, 1))
    if not success.n:
        missing = not_run(_NOTHING_TELLING if lengths else _NO_LENGTHS)
        return {"success_rate": missing, "never_listens_rate": missing, "yield_rate": missing, "verdict": "nothing to compare"}
    return {
        "success_rate": success.as_dict(),
        "never_listens_rate": never.as_dict(),
        "yield_rate": yields(scored, lengths, seed).as_dict(),
        "verdict": compared(success, never.value, DEAF),
    }


def yields(scored: Sequence[Scored], lengths: Lengths, seed: int = 0) -> Estimate:
    """How often the agent breaks off: 0 for one that never listens, however short the answers are.

    Counted are the barge-ins of `telling`. It yields if it stops two frames short of its own end.
    """
    parts = []
    for one in scored:
        told = [stop for stop in stops(one, lengths) if stop.time_left is not None and to_ms(stop.time_left) > to_ms(TELLING)]
        parts.append((sum(stop.verdict == "broke_off" for stop in told), len(told)))
    return estimate_ratio(parts, proportion=True, seed=seed)


def stops(one: Scored, lengths: Lengths) -> list[Stop]:
    """How the observable barge-ins of a conversation went."""
    own_end, found = own_ends(one.answers, lengths), []
    for event in one.turn_taking.observable:
        own = own_end(_interrupted(one, event))
        found.append(Stop(event.stop_latency, None if own is None else own - event.user_onset))
    return found


def own_stop(scored: Scored, event: BargeIn, lengths: Lengths) -> Seconds | None:
    """When after the user's onset the answer would have ended by itself, if it is the reference; None where it is unknown."""
    question = interrupted_question(scored, event)
    if question is None or question.reference is None:
        return None
    whole = lengths.get(tuple(words(question.reference.texts[0])))
    return None if whole is None else onset_of_interrupted(scored, event) + whole - event.user_onset


def says_the_reference(scored: Scored, event: BargeIn) -> bool:
    """Whether the turn that the user breaks into is the right answer, as far as it goes; of another one the end is unknown."""
    return interrupted_question(scored, event) in [a.question for a in scored.answers if a.verdict == "right"]


def onset_of_interrupted(scored: Scored, event: BargeIn) -> Seconds:
    """When the agent began the turn that the user breaks into."""
    return _interrupted(scored, event)[0]


def _interrupted(scored: Scored, event: BargeIn) -> Span:
    return next((a, b) for a, b in scored.turn_taking.agent if a < event.user_onset < b)


def interrupted_question(scored: Scored, event: BargeIn) -> Question | None:
    """The question that this turn answers; None if it came before any question."""
    onset = onset_of_interrupted(scored, event)
    return next((q for q in scored.outcome.questions if q.turn.start < onset < q.next_start), None)
