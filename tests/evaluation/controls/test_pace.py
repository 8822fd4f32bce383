"""How fast an agent says whole answers."""

import pytest

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.controls.pace import AS_THE_CORPUS, Pace, pace_of
from nemo_duplex.evaluation.outcome import Outcome, Question, Reference
from nemo_duplex.evaluation.scores import score

LENGTHS = {("it", "is", "paris"): 2.0}


def answered(seconds, text="it is Paris", following=20.0):
    """A question at 1 to 3 s, answered from 4 s on."""
    asked = (
        Question(Turn("user", 1, 3, "q"), following, Reference(("it is Paris",))),
        *([Question(Turn("user", following, following + 1, "r"), 40.0, None)] if following < 20 else []),
    )
    said = (4.0, 4.0 + seconds)
    return score(Outcome(Conversation("c", 40.0), asked, (Turn("agent", *said, text),), (said,)))


def test_it_is_the_median_and_the_shortest_twentieth():
    rows = [answered(1.6 + 0.01 * i) for i in range(40)]
    assert pace_of(rows, LENGTHS) == Pace(pytest.approx(0.8975), pytest.approx(0.81), 40)
    assert pace_of(rows[::-1], LENGTHS) == pace_of(rows, LENGTHS)


def test_eight_answers_are_needed():
    assert pace_of([answered(1.6)] * 7, LENGTHS) is AS_THE_CORPUS
    assert pace_of([answered(1.6)] * 8, LENGTHS) == Pace(pytest.approx(0.8), pytest.approx(0.8), 8)
    assert pace_of([answered(1.6)] * 8, {}) is AS_THE_CORPUS


def heard_as(*spans, turns=((4.0, 5.0),), **custom):
    """A right answer whose sound and text are these."""
    asked = (Question(Turn("user", 1, 3, "q"), 20.0, Reference(("it is Paris",))),)
    said = tuple(Turn("agent", a, b, "it is Paris", custom=custom) for a, b in turns)
    return score(Outcome(Conversation("c", 40.0), asked, said, spans))


@pytest.mark.parametrize(
    "other",
    [
        answered(1.0, text="it is Rome"),
        answered(1.0, text="it is"),
        answered(1.0, following=5.4),  # the user may have ended it
        answered(1.0, following=4.9),  # cut off
        heard_as((4.0, 5.0), unfinished=True),  # by the end of the recording
        heard_as((4.0, 5.0), (7.0, 8.0), turns=((4.0, 8.0),)),  # heard as two turns
        heard_as((4.0, 7.0), turns=((4.0, 5.0), (5.5, 7.0))),  # two turns are heard as one
        heard_as(),
    ],
)
def test_other_answers_tell_nothing(other):
    assert pace_of([answered(1.6)] * 8 + [other] * 8, LENGTHS).n == 8


def test_a_short_pause_is_part_of_an_answer():
    paused = heard_as((4.0, 4.7), (5.1, 6.0), turns=((4.0, 6.0),))
    assert pace_of([paused] * 8, LENGTHS) == Pace(pytest.approx(1.0), pytest.approx(1.0), 8)


def test_an_agent_that_breaks_off_at_random_has_no_pace():
    assert pace_of([answered(0.6 + 0.05 * i) for i in range(28)], LENGTHS) is AS_THE_CORPUS
    even = [answered(1.6)] * 18
    assert pace_of([*even, answered(0.6), answered(0.6)], LENGTHS).n == 20, "one in ten is odd"
    assert pace_of([*even[2:], *[answered(0.6)] * 4], LENGTHS) is AS_THE_CORPUS
