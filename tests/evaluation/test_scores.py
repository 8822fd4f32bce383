"""The numbers of a set, worked out by hand from two short conversations."""

from dataclasses import replace

import pytest
from pytest import approx

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.outcome import Outcome, questions
from nemo_duplex.evaluation.scores import PLACES, parts, score, summary
from nemo_duplex.evaluation.turn_taking import RATIOS, Rules
from tests.evaluation.outcomes import FIRST, SECOND, outcome


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
    assert (found["barge_in"]["success_rate"]["value"], found["barge_in"]["success_rate"]["n"]) == (1, 1)
    assert found["barge_in"]["mean_stop_latency"]["value"] == pytest.approx(1.0)
    assert found["response"]["first_latency"]["value"] == pytest.approx(0.6)
    assert (found["false_alarm"]["rate"]["value"], found["false_alarm"]["rate_grace_0.5"]["value"]) == (pytest.approx(1 / 3), 0)
    assert found["response"]["first_missing_rate"]["value"] == 0.5
    assert found["hours"] == pytest.approx(30 / 3600)
    assert found["counts"]["n_barge_in"] == 1 and set(found["counts"]) >= {"n_user_turns", "n_false_alarms", "n_censored"}
    for name in ("median", "p90", "restricted_mean"):
        latency = found["barge_in"][f"{name}_stop_latency"]
        assert (latency["value"], latency["n"]) == (pytest.approx(1.0), 1), name
    assert (found["response"]["rate"]["value"], found["response"]["rate"]["n"]) == (pytest.approx(2 / 3), 3)
    assert found["latencies"]["response"] == pytest.approx([0.6, -0.3]) and found["latencies"]["stop"] == pytest.approx([1.0])
    assert (found["answers"]["all"]["value"], found["answers"]["all"]["n"]) == (0, 1), "one is cut off, one is wrong"
    assert (found["answers"]["cut_off"]["value"], found["answers"]["cut_off"]["n"]) == (1, 1)


def test_latencies_of_failures_are_listed_too():
    failed = score(outcome("slow", 20, [(1, 3, None), (6, 9, None)], [(3.6, 8.0)]))
    assert summary([failed])["latencies"]["stop"] == pytest.approx([2.0])


def test_the_headline_is_repeated_for_other_merge_gaps(found):
    places = ("barge_in.success_rate", "barge_in.mean_stop_latency")
    got = {gap: tuple(numbers[place] for place in places) for gap, numbers in found["sensitivity"].items()}
    assert got == {"0.2": (1, pytest.approx(0.4)), "0.5": (1, pytest.approx(1.0)), "1.5": (0, None)}


def test_the_text_channel_beside_the_sound(found):
    channel = found["token_channel"]
    assert (channel["unterminated"], channel["orphan_eos"]) == (3, 1)
    # Starts 0.1 s early twice, ends 0.2 s and 0.1 s late.
    assert channel["onset_difference"] == pytest.approx(0.1) and channel["offset_difference"] == pytest.approx(0.15)
    assert channel["written_but_not_heard"] == 2 and channel["heard_but_not_written"] == 0
    assert channel["barge_in"]["mean_stop_latency"]["value"] == pytest.approx(1.2)
    assert channel["counts"]["n_agent_turns"] == 4, "a turn that starts after the end of the recording is none"
    silent = summary([score(outcome("s", 10, [(1, 3, None)], [(4, 5), (7, 8)], [(3.9, 5, "x")]))])["token_channel"]
    assert (silent["written_but_not_heard"], silent["heard_but_not_written"]) == (0, 1)


def test_a_model_without_a_text_channel_has_no_numbers_of_one():
    mute = summary([score(outcome("m", 10, [(1, 3, None)], [(4, 5)], writes=False))])["token_channel"]
    assert mute["not_run"] == "the model has no text channel" and "barge_in" not in mute


def test_every_rate_has_its_place():
    assert set(PLACES) == set(RATIOS)


def test_what_each_conversation_adds_to_the_rates(found):
    """Two evaluations are compared by it, so the sums must give the rates."""
    both = [parts(score(FIRST)), parts(score(SECOND))]
    assert both[0]["barge_in.success_rate"] == (1, 1) and both[0]["false_alarm.rate"] == (1, 2)
    assert both[0]["answers.all"] == (0, 1) and both[1]["answers.all"] == (0, 0)
    for place in both[0]:
        group, name = place.split(".")
        above, below = (sum(values) for values in zip(*(one[place] for one in both), strict=True))
        assert found[group][name]["value"] == (pytest.approx(above / below) if below else None), place


def test_differences_of_the_text_channel_do_not_cancel():
    both = outcome("b", 20, [(1, 3, None)], [(4, 5), (7, 8)], [(3.9, 5.1, "early, long"), (7.1, 7.9, "late, short")])
    channel = summary([score(both)])["token_channel"]
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
    first, second = summary(rows, seed=0), summary(rows, seed=2)
    assert first["response"]["first_latency"]["value"] == second["response"]["first_latency"]["value"]
    assert first["response"]["first_latency"]["ci95"] != second["response"]["first_latency"]["ci95"]
    assert first["answers"]["all"]["bootstrap95"] != second["answers"]["all"]["bootstrap95"]


def test_an_answer_that_was_said_to_its_end_did_not_stop_at_a_sound():
    """A cough 1.5 s before the end of an answer of 3 s; of another set, nobody knows how long it takes."""
    plain = outcome("cough", 20, [(1, 3, "yes")], [(3.6, 6.6)], [(3.6, 6.6, "yes")])
    custom = {"events": [{"kind": "cough", "speaker": "user", "start": 5.1, "end": 5.4}]}
    coughed = replace(plain, conversation=replace(plain.conversation, custom=custom))
    verdicts = [score(coughed, lengths=known).conduct.behaviour.reactions[0].status for known in (None, {("yes",): 3.0})]
    assert verdicts == ["fell_silent", "went_on"]
    assert score(coughed, lengths={("yes",): 9.0}).conduct.behaviour.reactions[0].status == "broke_off"


def test_mistakes_are_weighted():
    assert score(FIRST).mistakes == 3 + 1, "a false alarm and a wrong answer"
    assert score(SECOND).mistakes == 2, "no response"
    failed = outcome("failed", 20, [(1, 3, None), (6, 9, None)], [(3.6, 8.0), (9.5, 10)])
    assert score(failed).mistakes == 4
    assert score(outcome("good", 10, [(1, 3, "yes")], [(3.6, 5)], [(3.6, 5, "yes")])).mistakes == 0


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


# ---- beside the turns


def test_what_the_agent_makes_of_pauses_and_sounds_is_in_the_numbers():
    """It waits in a pause, resumes after a mhm, stops for an interruption and finds both ends of the user's turns."""
    asked = Conversation(
        "beside",
        20.0,
        (Turn("user", 1, 3, "a", custom={"pauses": [[1.5, 2.0]]}), Turn("user", 10, 12, "b")),
        {"events": [{"kind": "backchannel", "speaker": "user", "start": 5.0, "end": 5.6}]},
    )
    spoken = ((3.6, 5.4), (6.2, 10.5), (12.6, 15.0))
    one = score(Outcome(asked, questions(asked), (), spoken))
    found = summary([one])
    behaviour = found["behaviour"]
    assert (behaviour["pause_takeover_rate"]["value"], behaviour["pause_takeover_rate"]["n"]) == (0, 1)
    assert (behaviour["backchannel_resume_rate"]["value"], behaviour["backchannel_resume_time"]["value"]) == (1, approx(0.8))
    ends = found["turn_ends"]
    assert (ends["end_recall"]["value"], ends["end_recall"]["n"]) == (1, 2)
    assert ends["end_median_latency"]["value"] == approx(0.6) and ends["end_within_budget"] is True
    # the stop at 5.4 s, during the mhm, is a false positive
    assert (ends["interruption_recall"]["value"], ends["interruption_fp_rate"]["value"]) == (1, 1)
    assert ends["interruption_within_budget"] is False
    assert found["floor"]["agent_talk_ratio"]["value"] == approx((1.8 + 4.3 + 2.4) / 20)
    row = one.as_dict()
    assert [p["status"] for p in row["pauses"]] == ["waited"] and [r["status"] for r in row["reactions"]] == ["resumed"]
    assert row["parts"]["behaviour.backchannel_resume_rate"] == (1, 1) and row["parts"]["turn_ends.end_recall"] == (2, 2)
