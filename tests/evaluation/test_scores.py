"""The numbers of a set, worked out by hand from two short conversations."""

from types import SimpleNamespace

import numpy as np
import pytest

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.asr import SpokenTurn
from nemo_duplex.evaluation.outcome import Outcome, Question, Reference
from nemo_duplex.evaluation.scores import Scored, events, score, spoken_text, summary
from nemo_duplex.evaluation.turn_taking import Rules


def outcome(name, duration, asked, speech, agent=(), **more):
    """asked: (start, end, reference or None); speech: spans of sound; agent: (start, end, text) of the text channel."""
    starts = [start for start, *_ in asked]
    nexts = [*starts[1:], duration]
    questions = tuple(
        Question(Turn("user", start, end, f"question {i}"), following, Reference((text,)) if text else None)
        for i, ((start, end, text), following) in enumerate(zip(asked, nexts))
    )
    turns = tuple(Turn("agent", *turn) for turn in agent)
    cut = SimpleNamespace(id=name, duration=duration)
    return Outcome(cut, questions, turns, tuple(speech), np.zeros(0, np.int16), 22050, **more)


#: Answered after 0.6 s and interrupted at 6. Stops 1 s later (0.4 s, if pauses of 0.3 s are not merged), and falls into the
#: user's turn 0.3 s before its end.
FIRST = outcome(
    "one",
    20.0,
    [(1, 3, "yes"), (6, 8.7, "no")],
    [(3.6, 6.4), (6.7, 7.0), (8.4, 10.0)],
    [(3.5, 7.2, "yes"), (8.3, 10.1, "maybe"), (15.0, 16.0, "still")],
    unterminated=2,
    orphan_eos=1,
)
#: Not answered at all; the text channel runs over the end, and one turn of it starts after the end.
SECOND = outcome("two", 10.0, [(1, 3, None)], [], [(8.0, 12.0, "late"), (11.0, 12.0, "later")], unterminated=1)


@pytest.fixture(scope="module")
def found():
    return summary([score(FIRST), score(SECOND)])


def test_pauses_of_the_agent_are_merged_and_those_of_the_user_are_not():
    """Half a second, as a VAD needs it; user turns come from the manifest."""
    assert score(FIRST).turn_taking.agent == ((3.6, 7.0), (8.4, 10.0))
    close = score(outcome("close", 10, [(1, 2, None), (2.3, 3, None)], []))
    assert len(close.turn_taking.user) == 2
    assert score(FIRST, Rules()).turn_taking.agent == FIRST.speech


def test_rates_of_the_set(found):
    assert (found["success_rate"]["value"], found["success_rate"]["n"]) == (1, 1)
    assert found["mean_stop_latency"]["value"] == pytest.approx(1.0)
    assert found["first_response_latency"]["value"] == pytest.approx(0.6)
    assert (found["false_alarm_rate"]["value"], found["false_alarm_rate_grace_0.5"]["value"]) == (pytest.approx(1 / 3), 0)
    assert found["no_response_rate"]["value"] == 0.5
    assert found["hours"] == pytest.approx(30 / 3600)
    assert found["counts"]["n_barge_in"] == 1 and set(found["counts"]) >= {"n_user_turns", "n_false_alarms", "n_censored"}
    assert found["stop_latency"] == pytest.approx({"mean": 1, "median": 1, "p90": 1, "restricted_mean": 1})
    assert found["latencies"]["response"] == pytest.approx([0.6, -0.3]) and found["latencies"]["stop"] == pytest.approx([1.0])
    assert (found["exact_match"]["all"]["value"], found["exact_match"]["all"]["n"]) == (0, 1), "one is cut off, one is wrong"
    assert (found["exact_match"]["cut_off"]["value"], found["exact_match"]["cut_off"]["n"]) == (1, 1)


def test_latencies_of_failures_are_listed_too():
    failed = score(outcome("slow", 20, [(1, 3, None), (6, 9, None)], [(3.6, 8.0)]))
    assert summary([failed])["latencies"]["stop"] == pytest.approx([2.0])


def test_the_headline_is_repeated_for_other_merge_gaps(found):
    got = {gap: (numbers["success_rate"], numbers["mean_stop_latency"]) for gap, numbers in found["sensitivity"].items()}
    assert got == {"0.2": (1, pytest.approx(0.4)), "0.5": (1, pytest.approx(1.0)), "1.5": (0, None)}


def test_the_text_channel_beside_the_sound(found):
    channel = found["text_channel"]
    assert (channel["unterminated"], channel["orphan_eos"]) == (3, 1)
    # Starts 0.1 s early twice, ends 0.2 s and 0.1 s late.
    assert channel["onset_difference"] == pytest.approx(0.1) and channel["offset_difference"] == pytest.approx(0.15)
    assert channel["written_but_not_heard"] == 2 and channel["heard_but_not_written"] == 0
    assert channel["mean_stop_latency"] == pytest.approx(1.2)
    assert channel["n_agent_turns"] == 4, "a turn that starts after the end of the recording is none"
    silent = summary([score(outcome("s", 10, [(1, 3, None)], [(4, 5), (7, 8)], [(3.9, 5, "x")]))])["text_channel"]
    assert (silent["written_but_not_heard"], silent["heard_but_not_written"]) == (0, 1)


def test_differences_of_the_text_channel_do_not_cancel():
    both = outcome("b", 20, [(1, 3, None)], [(4, 5), (7, 8)], [(3.9, 5.1, "early, long"), (7.1, 7.9, "late, short")])
    channel = summary([score(both)])["text_channel"]
    assert channel["onset_difference"] == pytest.approx(0.1) and channel["offset_difference"] == pytest.approx(0.1)


def test_intervals_follow_the_seed():
    rows = [
        score(
            outcome(
                f"c{i}", 20, [(1, 3, "yes")] * (1 + i % 3), [(3.2 + i * 7 % 10 / 10, 6)], [(3.1, 6, "yes" if i % 3 else "")]
            )
        )
        for i in range(30)
    ]
    first, second = summary(rows, seed=0), summary(rows, seed=1)
    assert first["first_response_latency"]["value"] == second["first_response_latency"]["value"]
    assert first["first_response_latency"]["ci95"] != second["first_response_latency"]["ci95"]
    assert first["exact_match"]["all"]["bootstrap95"] != second["exact_match"]["all"]["bootstrap95"]


def test_mistakes_are_weighted():
    assert score(FIRST).mistakes == 3 + 1, "a false alarm and a wrong answer"
    assert score(SECOND).mistakes == 2, "no response"
    failed = outcome("failed", 20, [(1, 3, None), (6, 9, None)], [(3.6, 8.0), (9.5, 10)])
    assert score(failed).mistakes == 4
    assert score(outcome("good", 10, [(1, 3, "yes")], [(3.6, 5)], [(3.6, 5, "yes")])).mistakes == 0


def test_events_are_rows_in_order_of_time():
    rows = list(events("dev", [score(FIRST), score(SECOND)]))
    assert [(r["conversation"], r["time"], r["event"], r["verdict"], r["latency"], r["detail"]) for r in rows] == [
        ("one", 3, "response", "ok", 0.6, ""),
        ("one", 3, "answer", "right", "", "yes"),
        ("one", 6, "barge_in", "success", 1.0, "resumed"),
        ("one", 8.4, "false_alarm", "failure", "", ""),
        ("one", 8.7, "response", "early", -0.3, ""),
        ("one", 8.7, "answer", "wrong", "", "maybe"),
        ("two", 3, "response", "no_response", "", ""),
    ]
    assert {r["set"] for r in rows} == {"dev"}
    odd = outcome("odd", 10, [(1, 3, None), (5, 6, None)], [(2.95, 4), (5, 5.5)])
    assert [(r["time"], r["event"], r["verdict"]) for r in events("dev", [score(odd)])] == [
        (2.95, "false_alarm", "excused"),
        (3, "response", "ok"),
        (5, "collision", ""),
        (6, "response", "no_response"),
    ]


def test_a_conversation_in_the_report():
    row = score(FIRST).as_dict()
    assert (row["id"], row["duration"], row["mistakes"]) == ("one", 20.0, 4)
    assert row["user"] == [{"start": 1, "end": 3, "text": "question 0"}, {"start": 6, "end": 8.7, "text": "question 1"}]
    assert row["agent"][1] == {"start": 8.3, "end": 10.1, "text": "maybe", "unfinished": False}
    assert row["speech"] == ((3.6, 7.0), (8.4, 10.0))
    assert row["barge_ins"] == [{"user_onset": 6.0, "status": "success", "stop_latency": 1.0, "resumed": True, "success": True}]
    assert (row["false_alarms"], row["false_alarms_excused"], row["collisions"]) == ((8.4,), (), ())
    assert [r["status"] for r in row["responses"]] == ["ok", "early"]
    first, second = row["answers"]
    assert (first["question"], first["expected"], first["said"], first["verdict"], first["cut_off"]) == (
        *("question 0", ["yes"], "yes", "right"),
        True,
    )
    assert (second["said"], second["verdict"], second["cut_off"], second["seen"]) == ("maybe", "wrong", False, None)


# ---- voice against text


class Recogniser:
    """Hears one word, or nothing in sound that is quiet."""

    unknown = ["zzyqx"]

    def transcribe(self, audio, sample_rate):
        return "one" if np.abs(audio).max(initial=0) > 0.5 else "two"


def test_the_voices_are_compared_in_points(monkeypatch):
    """The agent gets one word in four wrong, the original voice none."""
    loud, quiet = np.ones(10), np.zeros(10)
    said = [SpokenTurn("c", "one", loud, 100)] * 3 + [SpokenTurn("c", "one", quiet, 100)]
    monkeypatch.setattr("nemo_duplex.evaluation.scores.spoken_by_agent", lambda outcome: said)
    monkeypatch.setattr("nemo_duplex.evaluation.scores.spoken_by_reference", lambda outcome: said[:2])
    found = spoken_text([Scored(FIRST, score(FIRST).turn_taking, ())], Recogniser(), most=60)
    assert (found["spoken_wer"]["value"], found["spoken_wer"]["n"]) == (0.25, 4)
    assert (found["reference_wer"]["value"], found["spoken_wer_gap_points"]) == (0, 25)
    assert found["spoken_wer"]["backend"] == "biased bigram ASR, not reportable"
    assert found["words_unknown_to_asr"] == ["zzyqx"]


def test_turns_to_transcribe_are_drawn_by_the_seed(monkeypatch):
    asked = []

    class Asked(Recogniser):
        def transcribe(self, audio, sample_rate):
            asked.append(len(audio))
            return "one"

    turns = [SpokenTurn("c", "one", np.ones(n), 100) for n in range(20)]
    monkeypatch.setattr("nemo_duplex.evaluation.scores.spoken_by_agent", lambda outcome: turns)
    monkeypatch.setattr("nemo_duplex.evaluation.scores.spoken_by_reference", lambda outcome: [])
    drawn = []
    for seed in (0, 1, 0):
        asked.clear()
        found = spoken_text([score(FIRST)], Asked(), most=5, seed=seed)
        drawn.append(tuple(asked))
        assert len(asked) == found["spoken_wer"]["n"] == 5
    assert drawn[0] == drawn[2] != drawn[1]
    assert found["reference_wer"]["value"] is None and found["spoken_wer_gap_points"] is None
