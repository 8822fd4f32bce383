"""The data of the list of conversations: order, what is in a row, and how it stands in a page."""

import json
from dataclasses import replace

from nemo_duplex.evaluation.report.conversation_list import conversation_rows, script_json
from nemo_duplex.evaluation.scores import score
from tests.evaluation.outcomes import FIRST, SECOND, outcome


def test_the_worst_stand_first_and_those_that_are_shown_know_their_place():
    first, second = score(FIRST), score(SECOND)
    fine = score(outcome("fine", 9, [(1, 2, None)], [(2.6, 4)]))
    rows = conversation_rows({"dev": [fine, second], "test": [first]}, [("dev", second), ("dev", fine)])
    assert [(r["set"], r["id"], r["example"]) for r in rows] == [("test", "one", None), ("dev", "two", 0), ("dev", "fine", 1)]
    one = rows[0]
    assert (one["user"], one["agent"]) == ([[1, 3], [6, 8.7]], [[3.6, 7], [8.4, 10]])
    assert one["text"] == [[3.5, 7.2], [8.3, 10.1], [15, 16]]
    assert one["faults"] == ["false alarm", "wrong answer"]
    assert one["events"][2:4] == [[6, "barge_in", "success", 1.0, ""], [8.4, "false_alarm", "failure", None, "false alarm"]]
    assert (one["response"], one["stop"]) == (0.6, 1.0)
    assert one["said"] == "question 0 question 1 yes maybe still"
    assert (rows[1]["response"], rows[1]["stop"]) == (None, None)


def test_the_slowest_stop_is_that_of_who_never_stops():
    def stop_of(speech):
        [row] = conversation_rows({"dev": [score(outcome("a", 9, [(1, 2, None), (4, 5, None)], speech))]}, [])
        return row["stop"]

    assert [stop_of(s) for s in ([(2.6, 4.5)], [(2.6, 9)], [(0.5, 1.25), (3.0, 6.0)])] == [0.5, "never", 2.0]
    censored = outcome("b", 5, [(1, 2, None), (4, 5, None)], [(2.6, 5)])
    assert conversation_rows({"dev": [score(censored)]}, [])[0]["stop"] is None


def test_long_texts_are_cut_and_times_are_short():
    long = outcome("long", 99, [(1.23456, 2, None)], [(2.6666, 4)], [(2.5, 4, "word " * 2000)])
    [row] = conversation_rows({"dev": [score(long)]}, [])
    assert len(row["said"]) == 4000 and row["user"] == [[1.24, 2]] and row["agent"] == [[2.67, 4]]


def test_nothing_in_a_text_ends_the_script():
    text = "</script><!-- & \u2028\u2029 é \ud800"
    written = script_json({"a": text})
    assert not {"<", ">", "&", "\u2028", "\u2029"} & {*written} and "é" in written
    assert json.loads(written) == {"a": text}


def test_a_thousand_minutes_are_a_small_page():
    asked = [(1 + 6 * i, 3 + 6 * i, None) for i in range(9)]
    minute = score(outcome("talk", 60.0, asked, [(3.6 + 6 * i, 7.2 + 6 * i) for i in range(9)]))
    rows = [replace(minute) for _ in range(10)]
    assert len(script_json(conversation_rows({"dev": rows}, []))) / 10 < 2500, "bytes for a conversation"
