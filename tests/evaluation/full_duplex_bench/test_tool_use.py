"""Version 3's formulas."""

import pytest

from nemo_duplex.evaluation.full_duplex_bench.tool_use import Call, end_of_first_turn, same_arguments, tool_scores
from nemo_duplex.evaluation.full_duplex_bench.transcript import TimedWord

SEARCH = Call("search_flights", {"destination": "London", "date": "August 20"})
BOOK = Call("book_flight", {"passenger_name": "Alice", "flight_id": "$RESULT_0.flights[0].flight_id"})


@pytest.mark.parametrize(
    ("made", "scores"),
    [
        ([SEARCH, Call("book_flight", {"passenger_name": "alice", "flight_id": "BA7"})], (1, 1, True)),
        ([SEARCH], (2 / 3, 1 / 2, False)),
        ([SEARCH, Call("book_flight", {"passenger_name": "Alice"})], (1, 1 / 2, False)),  # what comes from a result is missing
        ([SEARCH, SEARCH, BOOK], (4 / 5, 1, False)),  # once too often
        ([], (0, 0, False)),
        ([Call("add_to_cart", {})], (0, 0, False)),
    ],
)
def test_tools_and_arguments(made, scores):
    assert tool_scores([SEARCH, BOOK], made) == pytest.approx(scores)


def test_calls_of_one_tool_are_compared_in_order():
    wanted = [Call("track_order", {"id": 1}), Call("track_order", {"id": 2})]
    assert tool_scores(wanted, wanted) == (1, 1, True)
    assert tool_scores(wanted, wanted[::-1]) == (1, 0, False)
    assert tool_scores([], []) == (1, 1, True)


def test_arguments_are_texts_but_for_writing():
    assert same_arguments({"type": "driver_license", "n": 2}, {"type": " Driver License", "n": 2, "more": "x"})
    assert not same_arguments({"n": 2}, {"n": "2"})
    assert not same_arguments({"n": 2}, {})


def test_the_first_turn_ends_before_a_pause_of_more_than_2_s():
    words = [TimedWord("a", 0.0, 0.5), TimedWord("b", 2.5, 3.0), TimedWord("c", 5.01, 6.0)]
    assert end_of_first_turn(words) == 3.0
    assert end_of_first_turn(words[:2]) == 3.0
    assert end_of_first_turn([]) is None
