"""When who speaks: utterances become the turns of a conversation. Times only, no audio.

One exchange, with the next user turn starting after the answer, and with a barge-in (paper, sections 4.1 and 4.2):

    user   |-- question --|                              |-- next --|
    agent                  <- 0.64 s ->|--- answer ---|<- gap ->

    user   |-- question --|                    |--- next ---|
    agent                  <- 0.64 s ->|--- answer ---~~~x        cut 0.64 s after the user's onset

Agent turns start and are cut on frame edges, so the model's targets have no rounding in them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterator

import numpy as np

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.frames import FRAME_RATE, FrameRate, Seconds


@dataclass(frozen=True)
class Rhythm:
    """How conversations flow. Shares are chances in 0..1, pairs are ranges to draw from evenly.

    Args:
        response_gap: silence before the agent answers (paper: 0.64 s), rounded to the nearest frame edge.
        stop_delay: how long the agent goes on after a barge-in starts (paper: 0.64 s), rounded down to a frame edge.
        barge_in: share of answers that the user interrupts; the last answer of a dialogue has no one to interrupt it.
        barge_in_at: where in the answer the interruption starts.
        gap: silence after an answer before the user goes on.
        prompt: share of user turns that start right after the answer instead, within `prompt_gap`.
        long_silence: share of user turns that let the agent wait for `long_gap`: it must not speak unasked.
        first_onset: silence before the first user turn.
        tail: silence after the last answer.
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


def schedule(
    id: str,
    exchanges: Iterator[tuple[Turn, Turn]],
    rhythm: Rhythm,
    rng: np.random.Generator,
    duration: Seconds | None = None,
    frame_rate: FrameRate = FRAME_RATE,
) -> Conversation:
    """Places exchanges in time, with gaps and barge-ins drawn from `rng`.

    Args:
        id: of the conversation.
        exchanges: (user turn, agent turn), each with times from its own start. With a `duration` they are taken until it is
            full, otherwise to the end.
        duration: a multiple of the frame. Turns over the end are cut there and marked `unfinished` in their custom. None: what
            the exchanges take, and the tail.

    Returns:
        The conversation. Every event is in the custom of its turn: `gap` (silence before it; negative: overlap), `barge_in`
        on the user turn that interrupts, `cut` (time) on the answer that stops, `exchange` (number) on both.
    """
    turns: list[Turn] = []
    onset = _draw(rng, rhythm.first_onset)
    gap, barge_in = onset, False
    pending = next(exchanges, None)
    while pending is not None and (duration is None or onset < duration):
        following = next(exchanges, None)
        user, answer = pending
        events = {"exchange": len(turns) // 2, "gap": round(gap, 4)}
        if barge_in:
            events["barge_in"] = True
        user = _at(user, onset, events)
        start = frame_rate.time(frame_rate.nearest(user.end + rhythm.response_gap))
        answer = _at(answer, start, {"exchange": len(turns) // 2, "gap": round(start - user.end, 4)})
        if following is not None:
            barge_in = rng.random() < rhythm.barge_in
            onset = _next_onset(answer, barge_in, rhythm, rng)
            gap = onset - answer.end
            if barge_in:
                answer = _stopped(answer, onset, rhythm, frame_rate)
        turns += [user, answer]
        pending = following
    if duration is not None:
        return Conversation(id, duration, _within(turns, duration, frame_rate))
    end = max([turn.end for turn in turns], default=onset)
    return Conversation(id, frame_rate.time(frame_rate.count(end + rhythm.tail)), tuple(turns))


def impatient(
    conversation: Conversation, answers: dict[int, Turn], rhythm: Rhythm, factor: float = 0.5, frame_rate: FrameRate = FRAME_RATE
) -> Conversation:
    """The same user with less patience: every silence between two user turns is `factor` of what it was (paper, section 5.2).

    The agent's turns are gone: this set is answered by the model, not compared sample by sample. What it should say
    stays in `custom["references"]`, one list of texts per user turn.

    Args:
        conversation: with all user turns whole.
        answers: exchange number -> the whole answer, before any cut, for `interrupts`.

    Returns:
        The conversation; `custom["interrupts"]` tells for each user turn whether it starts while an agent that answers as the
        references do would be speaking. Six seconds are left for the last answer, or more if it is longer.
    """
    users, interrupts, texts = [], [], []
    expected: tuple[Seconds, Seconds] | None = None
    for i, turn in enumerate(conversation.user):
        onset = turn.start if i == 0 else users[-1].end + factor * (turn.start - conversation.user[i - 1].end)
        custom = {k: v for k, v in turn.custom.items() if k not in ("gap", "barge_in")}
        moved = replace(turn.shifted(onset - turn.start), custom=_shifted_events(custom, onset - turn.start))
        interrupts.append(expected is not None and expected[0] < onset < expected[1])
        answer = answers[turn.custom["exchange"]]
        start = frame_rate.time(frame_rate.nearest(moved.end + rhythm.response_gap))
        expected = (start, start + answer.duration)
        texts.append([answer.text])
        users.append(moved)
    end = max(users[-1].end + 6.0, expected[1] + rhythm.tail) if users and expected else conversation.duration
    custom = dict(conversation.custom) | {
        "source": conversation.id,
        "factor": factor,
        "references": texts,
        "interrupts": interrupts,
    }
    return Conversation(f"{conversation.id}-impatient", frame_rate.time(frame_rate.count(end)), tuple(users), custom)


def _draw(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(rng.uniform(*bounds))


def _at(turn: Turn, start: Seconds, events: dict) -> Turn:
    """A turn moved from its own time to the conversation's, with the events of its place."""
    return replace(turn.shifted(start), custom=_shifted_events(turn.custom, start) | events)


def _shifted_events(custom, by: Seconds) -> dict:
    custom = dict(custom)
    if "pauses" in custom:
        custom["pauses"] = [[round(start + by, 4), round(end + by, 4)] for start, end in custom["pauses"]]
    return custom


def _next_onset(answer: Turn, barge_in: bool, rhythm: Rhythm, rng: np.random.Generator) -> Seconds:
    if barge_in:
        return answer.start + _draw(rng, rhythm.barge_in_at) * answer.duration
    kind = rng.random()
    if kind < rhythm.long_silence:
        return answer.end + _draw(rng, rhythm.long_gap)
    if kind < rhythm.long_silence + rhythm.prompt:
        return answer.end + _draw(rng, rhythm.prompt_gap)
    return answer.end + _draw(rng, rhythm.gap)


def _stopped(answer: Turn, onset: Seconds, rhythm: Rhythm, frame_rate: FrameRate) -> Turn:
    """The answer, cut at the frame edge at or before the stop delay. One that ends before that anyway is whole."""
    cut = frame_rate.time(frame_rate.frame_at(onset + rhythm.stop_delay))
    if not answer.start < cut < answer.end:
        return answer
    return replace(answer.cut_at(cut), custom=dict(answer.custom) | {"cut": cut})


def _within(turns: list[Turn], duration: Seconds, frame_rate: FrameRate) -> tuple[Turn, ...]:
    """Turns up to `duration`. One with less than half a frame left is not begun."""
    kept = []
    for turn in turns:
        if turn.start > duration - frame_rate.seconds / 2:
            continue
        if turn.end > duration:
            turn = replace(turn.cut_at(duration), custom=dict(turn.custom) | {"unfinished": True})
        kept.append(turn)
    return tuple(kept)
