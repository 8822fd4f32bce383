"""What is too like what came before is refused, and nothing else."""

from __future__ import annotations

import numpy as np

from nemo_duplex.synthesis.writing.near_duplicates import NEAR_DUPLICATE, SAME_OPENING, SAME_QUESTION, AcceptedSoFar

DEW = [
    "What is dew on the grass?",
    "Dew is water from the air that settles on cool grass at night.",
    "Why does it go away so soon?",
    "The morning sun warms the grass, and the drops rise into the air again.",
]


def test_the_same_question_in_other_letters():
    accepted = AcceptedSoFar()
    assert accepted.refuses(DEW) is None
    assert accepted.refuses(["what is DEW on the grass", "Something else that nobody said before."]) == SAME_QUESTION
    assert len(accepted) == 1


def test_a_dialogue_with_a_few_other_words():
    accepted = AcceptedSoFar()
    accepted.refuses(DEW)
    assert accepted.refuses(["Well, what is dew on the grass?", *DEW[1:]]) == NEAR_DUPLICATE
    assert accepted.refuses(["Well, what is fog in the hills?", *(text.replace("grass", "stone") for text in DEW[1:2])]) is None


def test_other_dialogues_are_not_refused():
    accepted, rng = AcceptedSoFar(), np.random.default_rng(0)
    words = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in "dlmnrst"]
    dialogues = [[" ".join(rng.choice(words, 12)) for _ in range(4)] for _ in range(500)]
    refused = [accepted.refuses(turns) for turns in dialogues]
    assert refused == [None] * 500


def test_an_opening_may_not_take_over():
    """Five times, and two more for every hundred dialogues."""
    accepted = AcceptedSoFar()
    refused = [
        accepted.refuses([f"Could you please tell me {chr(97 + n)}?", f"answer{n} word{n} more{n} last{n}"]) for n in range(9)
    ]
    assert refused == [None] * 6 + [SAME_OPENING] * 3


def test_what_is_refused_depends_on_the_order_alone():
    assert AcceptedSoFar().refuses(DEW) is None
    first, second = AcceptedSoFar(), AcceptedSoFar()
    assert [a.refuses(turns) for a in (first, second) for turns in (DEW, DEW)] == [None, SAME_QUESTION] * 2
