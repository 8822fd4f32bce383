"""Known answers, and judges that do not know them."""

from __future__ import annotations

import random

import pytest

from nemo_duplex.evaluation.judge.calibration import broken_order, calibration_rows
from nemo_duplex.evaluation.judge.conversations import JudgedConversation, JudgedTurn
from tests.evaluation.judge.stub_judge import talk

TALKS = [talk(f"t{n:02d}", *["said"] * (1 + n % 3), set=("dev", "other")[n % 2]) for n in range(12)]


def said(conversation: JudgedConversation) -> list[str]:
    return [turn.hypothesis for turn in conversation.turns]


def test_each_row_says_what_is_known_of_it():
    rows = calibration_rows(TALKS, count=20, seed=0)
    assert {len(row) for row in rows.values()} == {12}
    for reference, empty, shuffled in zip(*rows.values()):
        assert reference.id == empty.id == shuffled.id
        assert said(reference) == [turn.reference for turn in reference.turns]
        assert said(empty) == [""] * len(reference.turns)
        assert all(text.startswith("right") and f" {shuffled.id} " not in text for text in said(shuffled))
        assert [t.user for t in shuffled.turns] == [t.user for t in reference.turns]
    assert list(rows) == ["reference", "empty", "shuffled"]


def test_a_sample_is_drawn_by_the_seed_and_not_by_the_order():
    mixed = random.Random(1).sample(TALKS, len(TALKS))
    first, second, other = (calibration_rows(talks, 5, seed) for talks, seed in ((TALKS, 0), (mixed, 0), (TALKS, 1)))
    assert first == second != other and len(first["shuffled"]) == 5


def test_a_right_answer_is_none_of_the_shuffled():
    """Most conversations of a corpus ask for the same few things."""

    def asks(name: str, *references: tuple[str, ...]) -> JudgedConversation:
        return JudgedConversation(name, "dev", tuple(JudgedTurn("?", texts, "") for texts in references))

    talks = [
        asks("a", ("Yes.",), ("No.",)),
        asks(
            "b",
            ("yes!", "No"),
        ),
        asks("c", ("yes",), ("Red.",)),
    ]
    shuffled = {c.id: said(c) for c in calibration_rows(talks, 3, seed=0)["shuffled"]}
    assert shuffled["b"] == ["Red."] and "yes" not in [shuffled["a"][0].lower().strip("!."), shuffled["c"][0].lower()]
    assert all(len(texts) == (1 if name == "b" else 2) for name, texts in shuffled.items())
    alike = [asks(name, ("Yes.",)) for name in "abc"]
    assert calibration_rows(alike, 3, seed=0)["shuffled"] == []
    assert calibration_rows(alike[:1], 3, seed=0)["shuffled"] == []


def test_a_cut_off_answer_is_whole_in_the_calibration():
    cut = JudgedConversation("a", "dev", (JudgedTurn("?", ("Yes, it is.",), "yes", cut_off=True),))
    assert [c.turns[0].cut_off for row in calibration_rows([cut, talk("b", "")], 2, 0).values() for c in row] == [False] * 6


ORDERS = {
    "good": ((9.5, 0.1, 1.5), ""),
    "just enough": ((6.0, 4.0, 4.0), ""),
    "flat": ((7.0, 7.0, 7.0), "references score 7.0 and no answers 7.0, expected 2 less at least"),
    "silence": ((6.0, 4.1, 1.0), "references score 6.0 and no answers 4.1, expected 2 less at least"),
    "wrong": ((6.0, 0.0, 5.0), "references score 6.0 and answers of other conversations 5.0, expected 2 less at least"),
    "upside down": ((0.0, 10.0, 5.0), "references score 0.0 and no answers 10.0, expected 2 less at least"),
    "no shuffled": ((9.0, 0.0, None), ""),
    "nothing": ((None, 0.0, 1.0), "no reference could be judged"),
}


@pytest.mark.parametrize("means, why", ORDERS.values(), ids=ORDERS)
def test_a_judge_is_trusted_by_the_order(means, why):
    assert broken_order(dict(zip(("reference", "empty", "shuffled"), means))) == why
