"""Answers word for word: right, wrong, missing, and right as far as they go."""

from dataclasses import replace

import pytest

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.answers import answers, exact_match, reference_texts
from nemo_duplex.evaluation.confidence import wilson
from nemo_duplex.evaluation.outcome import Outcome, Question, Reference


def outcome(agent, asked=2, reference=("It is Paris.",), **about):
    """Questions at 1 to 2 s and 6 to 7 s in 12 s, and what the agent said: (start, end, text), and True if no EOS ended it."""
    reference = Reference(tuple(reference), **about)
    questions = [Question(Turn("user", 1, 2), 6, reference), Question(Turn("user", 6, 7), 12, reference)]
    turns = tuple(Turn("agent", start, end, text, custom={"unfinished": bool(more)}) for start, end, text, *more in agent)
    return Outcome(Conversation("c", 20.0), tuple(questions[:asked]), turns)


def verdicts(*agent, **about):
    return [(a.verdict, a.cut_off) for a in answers(outcome(agent, **about))]


def test_the_first_turn_after_the_question_is_its_answer():
    assert verdicts((2.6, 4, "it is paris"), (7.6, 9, "It is Rome.")) == [("right", False), ("wrong", False)]
    assert verdicts((0.1, 0.9, "It is Paris.")) == [("missing", False), ("missing", False)]
    assert verdicts((7.6, 9, "It is Paris.")) == [("missing", False), ("right", False)]
    assert verdicts((2.6, 3, "Well."), (3.5, 5, "It is Paris.")) == [("wrong", False), ("missing", False)]


def test_a_longer_or_shorter_answer_is_wrong_when_nobody_cut_it_off():
    assert verdicts((2.6, 4, "It is"), asked=1) == [("wrong", False)]
    assert verdicts((2.6, 4, "It is Paris I think"), asked=1) == [("wrong", False)]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("It is Paris.", True),
        ("it is", True),
        ("it is par", True),
        ("it is rome", False),
        ("", False),
        ("t is paris", False),
        ("it ispar", False),
    ],
)
def test_an_answer_that_is_cut_off_is_right_as_far_as_it_goes(text, right):
    verdict = "right" if right else "wrong"
    assert verdicts((2.6, 6.6, text), asked=1) == [(verdict, True)], "by the next question"
    assert verdicts((7.6, 12.1, text))[1] == (verdict, True), "by the end of the recording"
    assert verdicts((7.6, 12, text, True))[1] == (verdict, True), "by the end of the recording, before its EOS"


@pytest.mark.parametrize(
    ("reference", "said", "verdict"),
    [
        ("आज दिन है", "आज दीन है", "wrong"),
        ("आज दिन है", "आज दिन है।", "right"),
        ("un été", "Un e\u0301te\u0301.", "right"),
        ("我很好。", "我 很 好", "right"),
        ("我很好。", "我不好。", "wrong"),
    ],
)
def test_answers_in_any_language(reference, said, verdict):
    assert verdicts((2.6, 4, said), asked=1, reference=[reference]) == [(verdict, False)]


@pytest.mark.parametrize(("said", "verdict"), [("我", "right"), ("我很", "right"), ("很", "wrong"), ("我好", "wrong")])
def test_without_blanks_an_answer_is_cut_off_between_characters(said, verdict):
    assert verdicts((2.6, 6.6, said), asked=1, reference=["我很好"]) == [(verdict, True)]


def test_an_answer_without_words_is_in_no_text():
    (marked,) = answers(outcome([(2.6, 4, "it is paris")], asked=1, answer="…"))
    assert not marked.has_answer


def test_half_a_word_is_not_compared_with_two():
    assert verdicts((2.6, 6.6, "it ispar"), asked=1) == [("wrong", True)]


def test_an_answer_that_ends_when_the_next_question_begins_was_not_cut_off():
    assert verdicts((2.6, 6, "it is"), asked=1) == [("wrong", False)]
    assert verdicts((7.6, 12, "It is Paris."))[1] == ("right", False)


def test_an_answer_may_begin_before_the_question_ends():
    assert verdicts((1.5, 4, "it is paris"), asked=1) == [("right", False)]


def test_any_of_the_references_will_do():
    assert verdicts((2.6, 4, "paris"), asked=1, reference=["It is Paris.", "Paris."]) == [("right", False)]


def test_shares_are_pooled_and_kept_apart():
    rows = [
        outcome([(2.6, 4, "it is paris"), (7.6, 9, "it is rome")], family="capital", seen=True, answer="Paris"),
        outcome([(2.6, 6.6, "it is"), (7.6, 9, "Paris it is")], family="capital", seen=False, answer="Paris"),
        outcome([], asked=1, family="sum", seen=True),
    ]
    match = exact_match([answers(row) for row in rows])
    assert (match["all"].value, match["all"].n) == (pytest.approx(1 / 4), 4)  # right, wrong, wrong order, missing
    assert (match["seen"].value, match["seen"].n) == (pytest.approx(1 / 3), 3)
    assert (match["unseen"].value, match["unseen"].n) == (0, 1)
    assert (match["cut_off"].value, match["cut_off"].n) == (1, 1)
    assert (match["contains_answer"].value, match["contains_answer"].n) == (pytest.approx(2 / 3), 3)
    assert match["families"]["sum"]["seen"].value == 0 and match["families"]["sum"]["unseen"].value is None
    unseen = match["families"]["capital"]["unseen"]
    assert (unseen.value, unseen.n) == (0, 1), "the one that was cut off, right so far, does not count"


def test_a_question_of_which_the_corpus_does_not_say_whether_it_was_seen_is_neither():
    match = exact_match([answers(outcome([(2.6, 4, "it is paris")], asked=1, family="sum"))])
    assert (match["all"].n, match["seen"].n, match["unseen"].n) == (1, 0, 0)


def test_families_are_kept_apart():
    rows = [
        outcome([(2.6, 4, "it is paris")], asked=1, family="capital", seen=True),
        outcome([(2.6, 4, "it is six")], asked=1, family="sum", seen=True),
        outcome([(2.6, 4, "it is paris")], asked=1, family="sum", seen=False),
    ]
    families = exact_match([answers(row) for row in rows])["families"]
    got = {name: {kind: (e.value, e.n) for kind, e in found.items()} for name, found in families.items()}
    assert got == {"capital": {"seen": (1, 1), "unseen": (None, 0)}, "sum": {"seen": (0, 1), "unseen": (1, 1)}}


def test_shares_have_wilsons_interval_and_follow_the_seed():
    rows = [answers(outcome([(2.6, 4, "it is paris" if i * 5 % 7 < 3 else "no")], asked=1 + i % 2)) for i in range(40)]
    match, again = exact_match(rows), exact_match(rows, seed=1)
    right = sum(a.verdict == "right" for row in rows for a in row)
    assert match["all"].ci95 == again["all"].ci95 == wilson(right, 60)
    assert match["all"].bootstrap95 != again["all"].bootstrap95


def test_every_reference_text_is_listed_in_order():
    rows = [outcome([], reference=("one", "two")), outcome([], asked=1, reference=("three",))]
    assert reference_texts(rows) == ["one", "two", "one", "two", "three"]


def test_a_question_without_reference_has_no_answer():
    asked = outcome([(2.6, 4, "it is paris")], asked=1)
    asked = replace(asked, questions=(replace(asked.questions[0], reference=None),))
    assert answers(asked) == [] and reference_texts([asked]) == []


def test_no_questions_no_share():
    match = exact_match([])
    assert match["all"].value is None and match["families"] == {}
