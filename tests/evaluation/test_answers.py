import pytest

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.answers import answers, exact_match, words
from nemo_duplex.evaluation.outcome import Outcome, Question, Reference


def outcome(agent, asked=2, reference=("It is Paris.",), **about):
    """Questions at 1 to 2 s and 6 to 7 s in 12 s, and what the agent said: (start, end, text)."""
    reference = Reference(tuple(reference), **about)
    questions = [Question(Turn("user", 1, 2), 6, reference), Question(Turn("user", 6, 7), 12, reference)]
    turns = tuple(Turn("agent", start, end, text, custom={"unfinished": end >= 12}) for start, end, text in agent)
    return Outcome(cut=None, questions=tuple(questions[:asked]), agent=turns, speech=(), audio=None, sample_rate=22050)


def verdicts(*agent, **about):
    return [(a.verdict, a.cut_off) for a in answers(outcome(agent, **about))]


def test_words_are_compared_without_case_punctuation_and_blanks():
    assert words("It's  PARIS, France!") == ["its", "paris", "france"]
    assert words("twenty-four o’clock_") == ["twenty", "four", "oclock"]


def test_the_first_turn_after_the_question_is_its_answer():
    assert verdicts((2.6, 4, "it is paris"), (7.6, 9, "It is Rome.")) == [("right", False), ("wrong", False)]
    assert verdicts((0.1, 0.9, "It is Paris.")) == [("missing", False), ("missing", False)]
    assert verdicts((2.6, 3, "Well."), (3.5, 5, "It is Paris.")) == [("wrong", False), ("missing", False)]


def test_a_longer_or_shorter_answer_is_wrong_when_nobody_cut_it_off():
    assert verdicts((2.6, 4, "It is"), asked=1) == [("wrong", False)]
    assert verdicts((2.6, 4, "It is Paris I think"), asked=1) == [("wrong", False)]


@pytest.mark.parametrize(
    ("text", "right"),
    [("It is Paris.", True), ("it is", True), ("it is par", True), ("it is rome", False), ("", False), ("t is paris", False)],
)
def test_an_answer_that_is_cut_off_is_right_as_far_as_it_goes(text, right):
    verdict = "right" if right else "wrong"
    assert verdicts((2.6, 6.6, text), asked=1) == [(verdict, True)], "by the next question"
    assert verdicts((7.6, 12.1, text))[1] == (verdict, True), "by the end of the recording"


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


def test_no_questions_no_share():
    match = exact_match([])
    assert match["all"].value is None and match["families"] == {}
