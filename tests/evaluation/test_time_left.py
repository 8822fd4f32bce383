"""Barge-in success where it shows whether an agent listens."""

import pytest

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.answers import Answer
from nemo_duplex.evaluation.confidence import estimate_ratio
from nemo_duplex.evaluation.outcome import Question, Reference
from nemo_duplex.evaluation.time_left import Stop, own_ends, success_with_time_left, unknown_end


@pytest.mark.parametrize(
    ("latency", "time_left", "verdict"),
    [
        (0.6, 2.4, "broke_off"),
        (1.44, 1.6, "broke_off"),  # two frames before its end
        (1.441, 1.6, "ended"),
        (1.65, 1.6, "ended"),  # no failure to listen: it was over
        (None, 5.0, "ended"),
        (0.3, 0.4, "ended"),
        (0.6, None, "unknown"),
        (None, None, "unknown"),
    ],
)
def test_whether_an_answer_was_broken_off(latency, time_left, verdict):
    assert Stop(latency, time_left).verdict == verdict


def test_only_answers_with_over_a_second_to_go_are_counted():
    stops = [Stop(0.6, 2.4), Stop(1.5, 3.0), Stop(1.501, 3.0), Stop(None, 5.0), Stop(1.5, 1.5), Stop(1.001, 1.001)]
    assert success_with_time_left(stops) == ((4, 6), (2, 6))
    assert success_with_time_left([Stop(0.9, 1.0), Stop(0.5, None), Stop(0.2, 0.2)]) == ((0, 0), (0, 0))
    assert success_with_time_left(stops, at_least=2.0) == ((2, 4), (0, 4))
    assert success_with_time_left(stops, window=1.0) == ((1, 6), (0, 6))


def test_times_are_compared_in_milliseconds():
    assert success_with_time_left([Stop(0.5 + 1.0000000001, 1.0 + 1e-9)]) == ((0, 0), (0, 0))
    assert success_with_time_left([Stop(1.5 + 1e-9, 4.0)]) == ((1, 1), (0, 1))
    assert Stop(0.1 + 0.2, 0.3 + 0.16).verdict == "broke_off"


def test_conversations_are_pooled():
    own, deaf = zip(*(success_with_time_left(stops) for stops in ([Stop(0.6, 2.4)], [Stop(None, 5.0), Stop(1.3, 1.3)], [])))
    assert (estimate_ratio(own, True).value, estimate_ratio(deaf, True).value) == (2 / 3, 1 / 3)


def test_the_own_end_of_a_turn_is_known_where_it_says_the_reference():
    def answer(asked, following, text, verdict):
        reference = Reference((text,))
        return Answer(Question(Turn("user", asked, asked + 1.0), following, reference), reference, None, verdict, False, False)

    answers = [
        answer(1.0, 6.0, "Paris, of course.", "right"),
        answer(6.0, 9.0, "Madrid.", "wrong"),
        answer(9.0, 14.0, "Rome.", "right"),
    ]
    own_end = own_ends(answers, {("paris", "of", "course"): 3.5, ("madrid",): 1.0})
    assert [own_end(turn) for turn in ((2.5, 4.0), (7.5, 8.0), (11.0, 12.0), (0.5, 0.9), (6.0, 6.5))] == [6.0, *[None] * 4]
    assert unknown_end((2.5, 4.0)) is None
