"""Schedules the turns of a conversation: when who speaks. Times only, no audio.

One exchange, with the next user turn starting after the answer, and with a barge-in (paper, sections 4.1 and 4.2):

    user   |-- question --|                              |-- next --|
    agent                  <- 0.64 s ->|--- answer ---|<- gap ->

    user   |-- question --|                    |--- next ---|
    agent                  <- 0.64 s ->|--- answer ---~~~x        cut 0.64 s after the user's onset

With gaps from a distribution, the user may also take the turn before the answer has ended. The answer is then said to its end.

    user   |-- question --|                         |-- next --|
    agent                  <- 0.64 s ->|--- answer ---|

Agent turns start and are cut on frame edges, so the model's targets need no rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.frames import FRAME_RATE, FrameRate, Seconds
from nemo_duplex.synthesis.gaps import GapDistribution

#: What the last answer of an Impatient conversation has for it.
LAST_ANSWER: Seconds = 6.0
_OVERLAP = 0.5  # the largest part of a turn that the next speaker overlaps
_INSIDE = {"pauses", "hesitations"}  # what a turn's custom holds with times: [start, end, ...]
_AFTER_ASIDE: Seconds = 0.3  # between what is said to somebody else and the next turn


@dataclass(frozen=True)
class Rhythm:
    """How turns follow each other. Shares are chances in 0..1, pairs are ranges to draw from evenly.

    Args:
        response_gap: silence before the agent answers (paper: 0.64 s), rounded to the nearest frame edge.
        stop_delay: how long the agent continues after a barge-in starts (paper: 0.64 s), rounded down to a frame edge.
        barge_in: share of answers that the user interrupts; the last answer of a dialogue is never interrupted.
        barge_in_at: where in the answer the interruption starts.
        gap: silence after an answer before the user continues.
        prompt: share of user turns that start right after the answer instead, within `prompt_gap`.
        long_silence: share of user turns that start only after `long_gap`: the agent must not speak unasked.
        first_onset: silence before the first user turn.
        tail: silence after the last answer.
        gaps: silence after an answer, or overlap with it, instead of `gap`, `prompt` and `prompt_gap`; None: these.
        response_gaps: silence before the agent answers instead of `response_gap`, rounded likewise; None: that.
        impatient: part of each silence between user turns that is left of it in Impatient.
    """

    response_gap: Seconds = 0.64
    stop_delay: Seconds = 0.64
    barge_in: float = 0.5
    barge_in_at: tuple[float, float] = (0.20, 0.85)
    gap: tuple[Seconds, Seconds] = (0.3, 1.5)
    prompt: float = 0.1
    prompt_gap: tuple[Seconds, Seconds] = (0.0, 0.2)
    long_silence: float = 0.03
    long_gap: tuple[Seconds, Seconds] = (2.0, 6.0)
    first_onset: tuple[Seconds, Seconds] = (0.3, 1.5)
    tail: Seconds = 1.0
    gaps: GapDistribution | None = None
    response_gaps: GapDistribution | None = None
    impatient: float = 0.5


#: What is said after an answer without being a turn: (number of the exchange, end of the answer) -> by when, or None.
Aside = Callable[[int, Seconds], Seconds | None]


def schedule(
    id: str,
    exchanges: Iterator[tuple[Turn | None, Turn]],
    rhythm: Rhythm,
    rng: np.random.Generator,
    duration: Seconds | None = None,
    frame_rate: FrameRate = FRAME_RATE,
    gaps_rng: np.random.Generator | None = None,
    aside: Aside | None = None,
) -> Conversation:
    """Places exchanges in time, with gaps and barge-ins drawn from `rng`.

    Args:
        id: of the conversation.
        exchanges: (user turn, agent turn), each with times from its own start; the user's is None where the agent speaks
            unasked. With a `duration` they are taken until it is full, otherwise to the end.
        rhythm: gaps, barge-ins and silences.
        rng: that draws them.
        duration: a multiple of the frame. Turns that pass the end are cut there and marked `unfinished` in their custom. None:
            what the exchanges take, and the tail.
        frame_rate: of the grid.
        gaps_rng: that draws from the distributions of the rhythm, if it has some.
        aside: called after each answer that is said to its end. What it returns is when the user has finished talking to
            somebody else; the next turn comes later than that by as much as it would come after the answer.

    Returns:
        The conversation. Every event is in the custom of its turn: `gap` (silence before it; negative: overlap), `barge_in`
        on the user turn that interrupts, `cut` (time) on the answer that stops, `exchange` (number) on both.
    """
    turns: list[Turn] = []
    onset = gap = _draw(rng, rhythm.first_onset)
    barge_in, number, silent_from = False, 0, 0.0
    pending = next(exchanges, None)
    while pending is not None and (duration is None or onset < duration):
        following = next(exchanges, None)
        question, spoken = pending
        free = frame_rate.count(turns[-1].end) if turns else 0  # after a short turn, the answer before may still continue
        if question is None:
            asked, start = onset - gap, frame_rate.time(max(frame_rate.count(onset), free))
        else:
            events = {"gap": round(gap, 4)} | ({"barge_in": True} if barge_in else {})
            user = moved(question, onset, {"exchange": number} | events)
            asked = user.end
            start = frame_rate.time(max(frame_rate.nearest(user.end + _response_gap(user, rhythm, gaps_rng)), free))
            turns.append(user)
        answer = moved(spoken, start, {"exchange": number, "gap": round(start - asked, 4)})
        may_interrupt = following is None or following[0] is not None
        onset, barge_in = _next_onset(answer, rhythm, rng, gaps_rng, may_interrupt)
        barge_in = barge_in and following is not None
        if aside is not None and not barge_in and (said := aside(number, answer.end)) is not None:
            onset, silent_from = said + max(onset - answer.end, _AFTER_ASIDE), said
        onset = max(onset, asked)
        gap = onset - answer.end
        if barge_in:
            answer = _stopped(answer, onset, rhythm, frame_rate)
        turns.append(answer)
        pending, number = following, number + 1
    if duration is not None:
        return Conversation(id, duration, _within(turns, duration, frame_rate))
    end = max([silent_from, *(turn.end for turn in turns)]) if turns else onset
    return Conversation(id, frame_rate.time(frame_rate.count(end + rhythm.tail)), tuple(turns))


def impatient(conversation: Conversation, rhythm: Rhythm, frame_rate: FrameRate = FRAME_RATE) -> Conversation:
    """The same user with less patience: of every silence between two user turns half is left (paper, section 5.2).

    The agent's turns are gone: this set is answered by a model, not compared sample by sample. What it should say stays in
    `custom["references"]`, one list of texts per user turn.

    Args:
        conversation: in which the user lets the agent finish every answer.
        rhythm: its `impatient` is the part of the silences that is left; its response gap and tail are used.
        frame_rate: of the grid.

    Returns:
        The conversation. Each user turn but the first has in its custom the `silence` before it and the `source_silence`
        that it was made from. `custom["interrupts"]` tells for each whether it starts while an agent that answers
        on time with the references would speak. The last answer gets six seconds, or more if it is longer.

    Raises:
        ValueError: with the conversation's id, if an answer was cut off or is missing.
    """
    if len(conversation.user) != len(conversation.agent) or any(turn.was_cut for turn in conversation.agent):
        raise ValueError(f"Conversation {conversation.id}: Impatient needs one whole answer for every user turn.")
    users: list[Turn] = []
    factor = rhythm.impatient
    interrupts: list[bool] = []
    expected = (0.0, 0.0)  # start and end of the answer to the turn before, if it is on time
    for before, turn, answer in zip((None, *conversation.user), conversation.user, conversation.agent):
        events = {}
        onset = turn.start
        if before is not None:
            silence = turn.start - before.end
            onset = users[-1].end + factor * silence
            events = {"silence": round(factor * silence, 4), "source_silence": round(silence, 4)}
        later = moved(turn, onset - turn.start, events)
        later = replace(later, custom={k: v for k, v in later.custom.items() if k != "gap"})
        interrupts.append(expected[0] < onset < expected[1])
        start = frame_rate.time(frame_rate.nearest(later.end + rhythm.response_gap))
        expected = (start, start + answer.duration)
        users.append(later)
    end = max(users[-1].end + LAST_ANSWER, expected[1] + rhythm.tail) if users else conversation.duration
    custom = {"source": conversation.id, "factor": factor, "interrupts": interrupts}
    custom["references"] = [[answer.text] for answer in conversation.agent]
    return Conversation(
        f"{conversation.id}-impatient", frame_rate.time(frame_rate.count(end)), tuple(users), dict(conversation.custom) | custom
    )


def _draw(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(rng.uniform(*bounds))


def moved(turn: Turn, by: Seconds, events: Mapping[str, Any]) -> Turn:
    """The turn and the pauses and hesitations in its custom, `by` Seconds later; with `events` added to its custom."""
    custom = dict(turn.custom)
    for name in _INSIDE.intersection(custom):
        custom[name] = [[round(start + by, 4), round(end + by, 4), *what] for start, end, *what in custom[name]]
    return replace(turn.shifted(by), custom=custom | dict(events))


def _response_gap(user: Turn, rhythm: Rhythm, gaps_rng: np.random.Generator | None) -> Seconds:
    if rhythm.response_gaps is None:
        return rhythm.response_gap
    assert gaps_rng is not None
    return max(rhythm.response_gaps.draw(gaps_rng), -_OVERLAP * user.duration)


def _next_onset(
    answer: Turn, rhythm: Rhythm, rng: np.random.Generator, gaps_rng: np.random.Generator | None, may_interrupt: bool
) -> tuple[Seconds, bool]:
    """When the conversation continues after an answer, and whether that is a barge-in.

    All kinds are drawn before one is chosen, so that a rhythm without barge-ins differs only in the barge-ins.
    """
    inside = answer.start + _draw(rng, rhythm.barge_in_at) * answer.duration
    later = answer.end + _draw(rng, rhythm.gap)
    promptly = answer.end + _draw(rng, rhythm.prompt_gap)
    much_later = answer.end + _draw(rng, rhythm.long_gap)
    interrupts, kind = rng.random() < rhythm.barge_in, rng.random()
    if rhythm.gaps is not None:
        assert gaps_rng is not None
        shortest = -min(rhythm.stop_delay, _OVERLAP * answer.duration) if may_interrupt else 0.0
        later = promptly = answer.end + max(rhythm.gaps.draw(gaps_rng), shortest)
    if interrupts and may_interrupt:
        return inside, True
    if kind < rhythm.long_silence:
        return much_later, False
    return (promptly if kind < rhythm.long_silence + rhythm.prompt else later), False


def _stopped(answer: Turn, onset: Seconds, rhythm: Rhythm, frame_rate: FrameRate) -> Turn:
    """The answer, cut at the last frame edge within the stop delay. An answer that ends before that stays whole."""
    cut = frame_rate.time(frame_rate.frame_at(onset + rhythm.stop_delay))
    if not answer.start < cut < answer.end:
        return answer
    return replace(answer.cut_at(cut), custom=dict(answer.custom) | {"cut": cut})


def _within(turns: list[Turn], duration: Seconds, frame_rate: FrameRate) -> tuple[Turn, ...]:
    """Turns up to `duration`. A turn that would have less than half a frame is left out."""
    kept = []
    for turn in turns:
        if turn.start > duration - frame_rate.seconds / 2:
            continue
        if turn.end > duration:
            custom = dict(turn.custom) | {"unfinished": True}
            for name in _INSIDE.intersection(custom):
                custom[name] = [[start, min(end, duration), *what] for start, end, *what in custom[name] if start < duration]
            turn = replace(turn.cut_at(duration), custom=custom)
        kept.append(turn)
    return tuple(kept)
