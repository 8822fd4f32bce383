"""Version 1.5's timing."""

from nemo_duplex.evaluation.full_duplex_bench.overlaps import merged, timing


def test_pauses_up_to_the_gap_are_no_ends():
    assert merged([(0, 1), (1.5, 2), (2.51, 3)], 0.5) == [(0, 2), (2.51, 3)]


def test_overlaps_and_gaps():
    user = [(0, 1), (1.5625, 2), (5, 7), (9, 10)]  # the first two are one turn: less than 0.6 s apart
    agent = [(1.125, 1.25), (2.25, 3), (3.5, 5.5), (6, 6.2), (11, 12)]  # from 2.25 s on 0.5 s apart, so one turn to 6.2 s
    found = timing(user, agent)
    assert found.stop == [(1.125, 1.25), (5, 6.2)]
    assert found.response == [(2, 2.25), (10, 11)], "of two user ends before a start, the later one"
    assert found.as_dict() == {
        "latency_stop_list": [[1.125, 1.25], [5, 6.2]],
        "latency_resp_list": [[2, 2.25], [10, 11]],
    }


def test_nothing_to_time():
    assert timing([(0, 1)], []) == timing([], [(0, 1)]) == ([], [])
    assert timing([(0, 2)], [(2, 3)]) == ([], []), "they touch: no overlap, and no start after the end"
