"""Conversations in memory in which everything happens, all of it known: for `selftest`, and to try a metric on.

    user    |- question -|              mhm              |-- next --|   (not you)
    agent                   |-- answer ---------x                      |-- answer --|
                                                ^ 0.64 s after the next question's onset

All times are whole milliseconds, drawn by the seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from nemo_duplex.conversation import SPEAKERS, Conversation, Speaker, Turn
from nemo_duplex.evaluation.controls.baseline_agents import STOPS_AFTER, murmur
from nemo_duplex.evaluation.outcome import Outcome, questions
from nemo_duplex.evaluation.sound import Samples
from nemo_duplex.frames import Seconds

#: What can happen in an exchange; `barge_in`: the next question interrupts the answer.
KINDS = ("plain", "pause", "backchannel", "cough", "side_talk", "background_voice")
_RATE = 16000  # Hz
_ROOM: Seconds = 3.2  # of silence after an answer that nobody interrupts: every reaction is seen to its end


def built_in_conversations(number: int = 32, seed: int = 0) -> list[Conversation]:
    """Conversations of six to eight exchanges, each kind of event in every one of them; in every third the agent's voice leaks.

    Answers have a `gap` (Seconds since the question's end), a `whole_duration` and the `kind` of the exchange in their custom.
    One that is interrupted with more than 0.64 s to go stops there; others end by themselves.
    """
    return [_conversation(f"built-in-{i:02d}", random.Random(f"{seed} {i}"), leaks=i % 3 == 0) for i in range(number)]


def built_in_outcomes(number: int = 32, seed: int = 0, sounds: bool = False) -> list[Outcome]:
    """The same as outcomes of an agent that says nothing.

    Args:
        sounds: whether user and reference have sound, a murmur for speech, without the events.
    """
    found = []
    for place, one in enumerate(built_in_conversations(number, seed)):
        user, reference = (
            (_murmur(one, speaker, 2 * place + i) for i, speaker in enumerate(SPEAKERS)) if sounds else (None, None)
        )
        found.append(Outcome(one, questions(one), (), user_sound=user, reference_sound=reference))
    return found


def _murmur(conversation: Conversation, speaker: Speaker, seed: int) -> Samples:
    """One speaker's turns, silent in their pauses."""
    channel = np.zeros(round(conversation.duration * _RATE), np.float32)
    for number, turn in enumerate(conversation.of(speaker)):
        start, end = round(turn.start * _RATE), round(turn.end * _RATE)
        channel[start:end] = murmur(end - start, _RATE, seed=1000 * seed + number)
        for a, b in turn.custom.get("pauses", ()):
            channel[round(a * _RATE) : round(b * _RATE)] = 0
    return Samples.of(channel, _RATE)


class _Writer:
    """Writes one conversation, exchange by exchange."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name, self.rng = name, rng
        self.turns: list[Turn] = []
        self.events: list[dict[str, Any]] = []
        self.time = self.draw(0.4, 1.5)  # where the next question begins
        self.longer_than: Seconds = 0.0  # the question that interrupts outlasts what is left of the answer

    def draw(self, low: Seconds, high: Seconds) -> Seconds:
        return round(self.rng.uniform(low, high), 3)

    def event(self, kind: str, start: Seconds, length: Seconds, speaker: str = "user") -> None:
        self.events.append({"kind": kind, "speaker": speaker, "start": round(start, 3), "end": round(start + length, 3)})

    def exchange(self, number: int, kind: str, interrupted: bool, leaks: bool) -> None:
        question = self._question(number, kind == "pause")
        start = round(question.end + self.draw(0.3, 1.0), 3)
        whole = self.draw(4.0, 7.0)
        answer = Turn("agent", start, round(start + whole, 3), self._text(number), custom=_about(number))
        answer = _with(answer, kind=kind, gap=round(start - question.end, 3), whole_duration=whole)
        if kind in ("backchannel", "cough"):
            self.event(kind, start + self.draw(0.8, 1.6), 0.8 if kind == "backchannel" else 0.4)
        if interrupted:
            left = self.draw(0.2, 2.9)
            self.time, self.longer_than = round(answer.end - left, 3), left
            answer = answer.cut_at(round(self.time + STOPS_AFTER, 3)) if left > STOPS_AFTER else answer
        else:
            self.time, self.longer_than = round(answer.end + _ROOM + self.draw(0.0, 1.0), 3), 0.0
        if kind in ("side_talk", "background_voice") and not interrupted:
            self.event(kind, answer.end + 0.5, self.draw(0.6, 1.2), "user" if kind == "side_talk" else "other")
            self.time = round(self.time + 2.0, 3)
        if leaks and not interrupted:
            self.event("leak", start + 0.05, answer.duration - 0.3, "agent")
        self.turns += [question, answer]

    def _question(self, number: int, paused: bool) -> Turn:
        length = max(self.draw(1.2, 2.6), round(self.longer_than + 0.4, 3))
        custom = _about(number)
        if paused:
            start, pause = self.time + self.longer_than + self.draw(0.5, 0.9), self.draw(0.6, 1.5)
            custom["pauses"] = [[round(start, 3), round(start + pause, 3)]]
            length = round(start + pause + self.draw(0.6, 1.2) - self.time, 3)
        return Turn("user", self.time, round(self.time + length, 3), f"question {number}", custom=custom)

    def _text(self, number: int) -> str:
        """No two answers are alike, so that each has a length of its own."""
        return f"answer {number} of {self.name} " + " ".join(f"word{i}" for i in range(self.rng.randint(4, 10)))

    def duration(self) -> Seconds:
        return round(max(turn.end for turn in self.turns) + _ROOM + 2.0, 3)


def _conversation(name: str, rng: random.Random, leaks: bool) -> Conversation:
    writer = _Writer(name, rng)
    for number, (kind, interrupted) in enumerate(_exchanges(rng)):
        writer.exchange(number, kind, interrupted, leaks)
    duration = writer.duration()
    if rng.random() < 0.5:
        writer.event("noise", 0.0, duration, "other")
    events = sorted(writer.events, key=lambda event: (event["start"], event["kind"]))
    return Conversation(name, duration, tuple(writer.turns), {"events": events})


def _exchanges(rng: random.Random) -> Iterator[tuple[str, bool]]:
    """Every kind once and one or two barge-ins into plain answers, in a drawn order; the last answer is not interrupted."""
    kinds = [(kind, False) for kind in KINDS] + [("plain", True)] * rng.randint(1, 2)
    rng.shuffle(kinds)
    yield from kinds
    if kinds[-1][1]:
        yield "plain", False


def _about(number: int) -> dict[str, Any]:
    return {"family": "built-in", "answer": f"answer {number}", "seen": number % 2 == 0}


def _with(turn: Turn, **custom: Any) -> Turn:
    return Turn(turn.speaker, turn.start, turn.end, turn.text, custom={**turn.custom, **custom})
