"""Numbers of report.json: found by key, with their unit and good direction, written for people."""

import pytest

from nemo_duplex.evaluation.report.number import Number, better, interval, number, numbers, percent, seconds, unit_of, written
from nemo_duplex.evaluation.scorer import not_run
from nemo_duplex.evaluation.scores import score, summary
from tests.evaluation.outcomes import FIRST, SECOND


def test_everything_with_a_value_is_found_and_nothing_else():
    entry = {"value": 0.5, "n": 4, "ci95": [0.25, 0.75], "scorer": "ears", "p5": 0.1, "by_conversation": {"a": 0.5}}
    found = numbers(
        {
            "hours": 0.5,
            "latencies": {"stop": [0.5]},
            "speech": {"mos": entry | {"reference": entry | {"value": 0.75}}, "signature": "x", "trusted": True},
            "judge": not_run("no url"),
            "counts": {"n": 3, "none": None},
        }
    )
    assert found == {
        "hours": Number("hours", 0.5),
        "speech.mos": Number("speech.mos", 0.5, 4, (0.25, 0.75), "ears"),
        "speech.mos.reference": Number("speech.mos.reference", 0.75, 4, (0.25, 0.75), "ears"),
        "judge": Number("judge", None, 0, None, None, "no url"),
        "counts.n": Number("counts.n", 3),
        "counts.none": Number("counts.none"),
    }


def test_a_number_that_is_missing_was_not_measured():
    groups = {"judge": not_run("no url"), "speech": {"mos": not_run("no file")}}
    assert number(groups, "judge.score").why_not == "no url"
    assert number(groups, "speech.mos").why_not == "no file"
    assert number(groups, "judges.score").why_not == "not measured"


def test_what_a_summary_holds_is_found_whole():
    found = numbers(summary([score(FIRST), score(SECOND)]))
    assert {"barge_in.success_rate", "sensitivity.0.5.barge_in.success_rate", "answers.families", "floor.runaway_rate"} - {
        *found
    } == {"answers.families"}
    assert found["barge_in.success_rate"].n == 1 and found["behaviour.unprompted_rate"].ci95


@pytest.mark.parametrize(
    ("key", "unit", "direction"),
    [
        ("barge_in.success_rate", "%", "larger"),
        ("barge_in.never_listens.success_rate", "%", None),
        ("barge_in.interruption_rate", "%", None),
        ("barge_in.mean_stop_latency", "s", "smaller"),
        ("false_alarm.rate_grace_0.5", "%", "smaller"),
        ("false_alarm.per_minute", "", "smaller"),
        ("response.rate", "%", "larger"),
        ("response.first_missing_rate", "%", "smaller"),
        ("sensitivity.0.5.barge_in.mean_stop_latency", "s", "smaller"),
        ("token_channel.barge_in.success_rate", "%", "larger"),
        ("floor.overlaps_per_minute", "", None),
        ("floor.agent_talk_ratio", "%", None),
        ("floor.runaway_rate", "%", "smaller"),
        ("floor.median_floor_transfer_offset", "s", None),
        ("turn_ends.timer_wait", "s", None),
        ("floor.agent_longest_monologue_of_all", "s", None),
        ("behaviour.pause_takeover_rate", "%", "smaller"),
        ("behaviour.backchannel_ignored_rate", "%", "larger"),
        ("behaviour.side_talk_answered_rate", "%", "smaller"),
        ("behaviour.echo_interruption_rate", "%", "smaller"),
        ("turn_ends.end_recall", "%", "larger"),
        ("turn_ends.interruption_fp_rate", "%", "smaller"),
        ("answers.families.sum.seen", "%", "larger"),
        ("speech.spoken_wer", "%", "smaller"),
        ("speech.reference_wer", "%", None),
        ("speech.asr_bleu_turn", "", "larger"),
        ("speech.spoken_wer_gap", "%", "smaller"),
        ("speech.answers_by_ear.all", "%", "larger"),
        ("speech.distillmos_reference", "", None),
        ("gt_llm.exact_match", "%", "larger"),
        ("speech.distillmos", "", "larger"),
        ("rows.agent.mel_distance", "", "smaller"),
        ("rows.agent.cer", "%", "smaller"),
        ("rows.agent.secs", "", "larger"),
        ("judge.score", "", "larger"),
    ],
)
def test_unit_and_good_direction_follow_from_the_key(key, unit, direction):
    assert (unit_of(key), better(key)) == (unit, direction)


def test_numbers_are_written_for_people():
    assert (percent(0.945), percent(None), seconds(0.6912), seconds(None)) == ("94.5 %", "–", "0.69 s", "–")
    assert (written(12345, ""), written(4.256, ""), written(None, "")) == ("12 345", "4.26", "–")
    assert interval({"ci95": (0.5, 1.0)}, "%") == "50.0 to 100.0 %" and interval({"ci95": (0.5, 1)}, "s") == "0.50 to 1.00 s"
    assert interval({"ci95": None}, "s") == "" and interval({"ci95": (4, 4.5)}, "") == "4.00 to 4.50"
