"""Rows of events.csv: what happened, when, in which order."""

from dataclasses import replace

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.report.events import FAULTS, Event, events, events_of, faults_of
from nemo_duplex.evaluation.scores import score
from tests.evaluation.outcomes import FIRST, SECOND, outcome


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


def labelled(speech, sounds=(), pauses=(), duration=30.0):
    """The user speaks from 1 to 4 s, with pauses; `sounds` are (kind, start, end) of the user's channel."""
    turn = Turn("user", 1.0, 4.0, "question", custom={"pauses": [list(pause) for pause in pauses]})
    heard = [{"kind": kind, "speaker": "user", "start": start, "end": end} for kind, start, end in sounds]
    plain = outcome("labelled", duration, [(1, 4, None)], speech)
    talk = Conversation("labelled", duration, (turn,), custom={"events": heard})
    question = replace(plain.questions[0], turn=turn)
    return score(replace(plain, conversation=talk, questions=(question,)))


def test_pauses_and_other_sounds_are_events_with_their_verdicts():
    one = labelled(
        [(4.6, 8.4), (9.0, 12.0), (16.0, 17.5)],
        [("backchannel", 8.0, 8.3), ("side_talk", 15.0, 15.6)],
        [(1.5, 2.25)],
    )
    rows = [event for event in events_of(one) if event.event != "response"]
    assert rows == [
        Event(1.5, "pause", "waited", None, "0.75 s"),
        Event(8.0, "backchannel", "resumed", 0.6, "0.30 s"),
        Event(15.0, "side_talk", "spoke", None, "0.60 s"),
        Event(16.0, "unprompted", "after side_talk"),
    ]
    assert faults_of(one) == ["answered side talk"]


def test_faults_are_named_and_counted_in_the_order_of_their_weight():
    taken = labelled([(1.6, 3.5), (4.7, 8.0)], pauses=[(1.5, 2.25)])
    assert faults_of(taken) == ["false alarm", "took over in a pause"]
    runaway = labelled([(4.6, 40.0)], duration=60.0)
    assert [(e.time, e.event, e.verdict, e.detail) for e in events_of(runaway) if e.fault] == [
        (4.6, "runaway", "failure", "35.40 s")
    ]
    assert faults_of(labelled([(4.6, 6.0), (20.0, 21.0)])) == ["spoke unasked"]
    greeting = labelled([(0.2, 0.8), (4.6, 6.0)])
    assert [e.verdict for e in events_of(greeting) if e.event == "unprompted"] == ["greeting"] and not faults_of(greeting)
    talker = score(outcome("talker", 12, [(1, 2, None), (3, 4, None), (6, 7, None)], [(0.5, 11)]))
    assert faults_of(talker) == ["3 × talked on", "3 × no response"]


def test_sounds_that_a_speaking_agent_may_not_stop_at():
    assert {kind for kind, verdict in FAULTS if verdict == "spoke"} == {"backchannel", "cough", "side_talk", "background_voice"}
    assert FAULTS["cough", "broke_off"] == "stopped at a cough" and ("cough", "fell_silent") not in FAULTS
