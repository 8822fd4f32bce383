"""What an agent that never listens would score, and how often one breaks off, worked out by hand."""

import pytest

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.controls.baseline import (
    lengths_of_answers,
    never_listens,
    own_stop,
    says_the_reference,
    telling,
    yields,
)
from nemo_duplex.evaluation.outcome import Outcome, Question, Reference
from nemo_duplex.evaluation.scores import score
from tests.evaluation.agents import dialogue


def interrupted(stop, text="it is", onset=3.5, interrupter=6.0):
    """A question at 1 to 3 s; the agent answers from `onset` to `stop`, and the user interrupts at 6 s."""
    questions = (
        Question(Turn("user", 1, 3, "q"), interrupter, Reference(("it is Paris",))),
        Question(Turn("user", interrupter, 9, "r"), 20.0, None),
    )
    turns = (Turn("agent", onset, stop, text),)
    return score(Outcome(Conversation("c", 20.0), questions, turns, ((onset, stop),)))


LENGTHS = {("it", "is", "paris"): 3.75}  # from 3.5 to 7.25: 1.25 s after the user's onset


def test_lengths_are_of_whole_answers():
    assert lengths_of_answers([dialogue("d")]) == {
        ("the", "capital", "of", "france", "is", "paris"): 4.0,
        ("it", "is", "madrid"): 1.6,
        ("a", "word"): 1.92,
    }


@pytest.mark.parametrize(
    ("turn", "following", "known"),
    [
        (Turn("agent", 2, 3.5, "a"), 4.01, {("a",): 1.5}),
        (Turn("agent", 2, 3.5, "a"), 3.9, {}),  # the user may have ended it
        (Turn("agent", 2, 3.5, "a"), 3.0, {}),
        (Turn("agent", 2, 3.5, "a", custom={"whole_duration": 1.8}), 3.0, {("a",): 1.8}),
        (Turn("agent", 2, 3.5, "a", full_text="a b"), 9.0, {}),
        (Turn("agent", 2, 3.5, "a", full_text="a b", custom={"whole_duration": 1.8}), 9.0, {("a", "b"): 1.8}),
        (Turn("agent", 2, 3.5, "a", custom={"unfinished": True}), 9.0, {}),
        (Turn("agent", 2, 3.5, "a", custom={"begun_before": True}), 9.0, {}),
        (Turn("agent", 2, 3.5, "..."), 9.0, {}),
    ],
)
def test_where_the_corpus_says_no_length_a_turn_that_nobody_interrupts_has_it(turn, following, known):
    talk = Conversation("c", 12, (Turn("user", 0, 1, "q"), turn, Turn("user", following, 10, "r")))
    assert lengths_of_answers([talk]) == known


def test_of_an_answer_that_is_said_several_times_the_median_counts_in_any_order():
    talks = [Conversation("c", 12, (Turn("agent", 2, 2 + seconds, "a"),)) for seconds in (1.0, 9.0, 2.0)]
    assert lengths_of_answers(talks) == lengths_of_answers(talks[::-1]) == {("a",): 2.0}


def test_an_answer_would_have_ended_its_length_after_its_own_onset():
    scored = interrupted(6.5)
    (event,) = scored.turn_taking.barge_ins
    assert own_stop(scored, event, LENGTHS) == pytest.approx(1.25)
    assert own_stop(scored, event, {}) is None, "nobody knows how long it is"
    assert says_the_reference(scored, event)
    assert not says_the_reference(interrupted(6.5, "it was"), event)


def test_one_that_never_listens_succeeds_where_answers_end_in_time():
    """Whole answers end 1.25 s after the onset, in time; one that began 0.5 s later ends 1.75 s after it, too late."""
    rows = [interrupted(6.5), interrupted(7.0), interrupted(6.5, onset=4.0)]
    found = never_listens(rows, LENGTHS)
    assert (found["success_rate"]["value"], found["success_rate"]["n"]) == (pytest.approx(2 / 3), 3)
    assert (found["mean_stop_latency"]["value"], found["mean_stop_latency"]["n"]) == (pytest.approx(1.25), 2)
    exactly = never_listens([interrupted(6.5)], {("it", "is", "paris"): 4.0})
    assert exactly["success_rate"]["value"] == 1, "1.5 s are in time"
    unknown = never_listens(rows, {})
    assert unknown["success_rate"]["value"] is unknown["mean_stop_latency"]["value"] is None
    assert unknown["success_rate"]["not_run"].startswith("the corpus does not say how long the interrupted answers take")


def test_the_baseline_follows_the_seed():
    rows = [interrupted(6.5, onset=3.0 + i * 37 % 29 / 41) for i in range(30)]
    first, second = (never_listens(rows, LENGTHS, seed)["mean_stop_latency"]["ci95"] for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize(
    ("stop", "text", "counted", "yielded"),
    [
        (6.6, "it is", 1, 1),
        (7.09, "it is", 1, 1),  # 0.16 s short of its own end
        (7.10, "it is", 1, 0),
        (7.25, "it is paris", 1, 0),
        (20.0, "it is paris", 1, 0),  # goes on to the end of the recording
        (6.6, "it was", 0, 0),  # not the reference: nobody knows how long it would have gone on
    ],
)
def test_it_yields_if_it_stops_short_of_its_own_end(stop, text, counted, yielded):
    found = yields([interrupted(stop, text)], LENGTHS)
    assert found.n == counted and (found.value or 0) == yielded


def test_the_interrupted_answer_is_that_of_the_question_before_it():
    """The second of three questions is answered before it ends; the user interrupts at 12 s."""
    asked = [(1, 3, 6, "one two"), (6, 9.5, 12, "it is Paris"), (12, 13, 20, "no")]
    questions = tuple(Question(Turn("user", a, b, "q"), following, Reference((text,))) for a, b, following, text in asked)
    spoken = ((3.5, 5), (9.45, 12.5))
    turns = (Turn("agent", 3.5, 5, "one two"), Turn("agent", 9.45, 12.5, "it is"))
    scored = score(Outcome(Conversation("c", 20.0), questions, turns, spoken))
    (event,) = scored.turn_taking.barge_ins
    assert own_stop(scored, event, LENGTHS | {("one", "two"): 9.0}) == pytest.approx(9.45 + 3.75 - 12)
    assert says_the_reference(scored, event)


def test_with_less_than_a_second_left_stopping_and_ending_look_alike():
    assert yields([interrupted(6.3)], {("it", "is", "paris"): 3.5}).n == 0, "1 s is left"
    assert yields([interrupted(6.3)], {("it", "is", "paris"): 3.51}).n == 1


def test_telling_barge_ins_leave_over_a_second_unsaid():
    """Of four, one is too near its end and one says something else. One of the others stops; a deaf agent would in one too."""
    late = {("it", "is", "paris"): 4.1}  # from 3.5 to 7.6 s: 1.6 s after the user's onset, too late; from 3.3 s on in time
    rows = [interrupted(6.5), interrupted(7.55, "it is paris"), interrupted(6.5, "it was"), interrupted(6.5, onset=2.85)]
    found = telling(rows, late)
    assert (found["success_rate"]["value"], found["success_rate"]["n"], found["never_listens_rate"]["value"]) == (0.5, 2, 0)
    assert found["yield_rate"]["value"] == 0.5
    assert found["verdict"] == "above the 0.0 % of an agent that never listens: 1 of 2"
    found = telling([interrupted(6.5, onset=3.3)] * 3, late)
    assert found["never_listens_rate"]["value"] == found["success_rate"]["value"] == 1
    assert found["verdict"].startswith("n too small to tell: 3 of 3 may be the 100.0 % of an agent that never listens")


def test_where_nothing_is_telling_the_reason_is_given():
    nothing, unknown = telling([interrupted(6.5, "it was")], LENGTHS), telling([interrupted(6.5)], {})
    assert nothing["success_rate"]["not_run"] == "no barge-in leaves over 1 s of an answer of known length unsaid"
    assert unknown["yield_rate"]["not_run"].startswith("the corpus does not say how long")
    assert nothing["never_listens_rate"]["value"] is None and nothing["verdict"] == "nothing to compare"


def test_a_greeting_that_is_interrupted_answers_no_question():
    scored = interrupted(1.8, onset=0.5, interrupter=6.0)
    (event,) = scored.turn_taking.barge_ins
    assert own_stop(scored, event, LENGTHS) is None and not says_the_reference(scored, event)
