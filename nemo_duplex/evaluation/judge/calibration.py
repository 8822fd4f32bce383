"""Whether a judge can be trusted: it is given the references as answers, no answers, and answers of other conversations."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from nemo_duplex.evaluation.judge.conversations import JudgedConversation, JudgedTurn
from nemo_duplex.words import words

#: What is said in each row: a judge gives them about 10, 0, and little.
REFERENCE, EMPTY, SHUFFLED = ROWS = ("reference", "empty", "shuffled")
#: By so much the references must score more than what is no answer.
LEAST_DIFFERENCE = 2.0


def calibration_rows(conversations: Sequence[JudgedConversation], count: int, seed: int) -> dict[str, list[JudgedConversation]]:
    """The conversations of each row: `count` drawn by `seed`, whatever the order in which they are given.

    `shuffled` stays empty where the conversations have too little in common to be answered by each other's references: where
    there is one alone, or all references are equal.
    """
    ordered = sorted(conversations, key=lambda c: (c.set, c.id))
    rng = random.Random(seed)
    drawn = rng.sample(ordered, min(count, len(ordered)))
    return {
        REFERENCE: [_saying(c, [turn.reference for turn in c.turns]) for c in drawn],
        EMPTY: [_saying(c, [""] * len(c.turns)) for c in drawn],
        SHUFFLED: list(_shuffled(drawn)),
    }


def _shuffled(drawn: Sequence[JudgedConversation]) -> Iterator[JudgedConversation]:
    """Each with references of the next ones in the circle, none of which is right for the turn. They are in random order."""
    for place, conversation in enumerate(drawn):
        others = [turn.reference for c in (*drawn[place + 1 :], *drawn[:place]) for turn in c.turns]
        texts = []
        for turn in conversation.turns:
            right = [words(text) for text in turn.references]
            wrong = next((number for number, text in enumerate(others) if words(text) not in right), None)
            if wrong is None:
                break
            texts.append(others[wrong])
            others = others[wrong + 1 :] + others[: wrong + 1]
        else:
            yield _saying(conversation, texts)


def _saying(conversation: JudgedConversation, texts: Sequence[str]) -> JudgedConversation:
    turns: list[JudgedTurn] = [
        replace(turn, hypothesis=text, cut_off=False) for turn, text in zip(conversation.turns, texts, strict=True)
    ]
    return replace(conversation, turns=tuple(turns))


def broken_order(means: Mapping[str, float | None]) -> str:
    """Why a judge with these mean scores of the rows cannot be trusted; "" if it can.

    A row without a mean says nothing, but for the references.
    """
    reference = means[REFERENCE]
    if reference is None:
        return "no reference could be judged"
    for row in (EMPTY, SHUFFLED):
        mean = means[row]
        if mean is not None and reference - mean < LEAST_DIFFERENCE:
            return f"references score {reference:.1f} and {_NAMES[row]} {mean:.1f}, expected {LEAST_DIFFERENCE:g} less at least"
    return ""


_NAMES = {EMPTY: "no answers", SHUFFLED: "answers of other conversations"}
