"""Limits for CI: what passes, what fails and with which words, and keys that nobody has."""

import pytest

from nemo_duplex.evaluation.report.limits import check_limits, known_limits
from nemo_duplex.evaluation.scorer import not_run
from nemo_duplex.inputs import InputError


def entry(value, n=20, ci95=(0.25, 0.75), **more):
    return {"value": value, "n": n, "ci95": ci95, "bootstrap95": ci95} | more


def groups(success):
    return {
        "hours": 0.5,
        "counts": {"n_user_turns": 7},
        "barge_in": {"success_rate": entry(success), "mean_stop_latency": entry(0.5, 9, (0.4, 0.625))},
        "false_alarm": {"rate": entry(0.125), "rate_grace_0.5": entry(0.0625)},
        "answers": {"all": entry(None, 0, None)},
        "speech": {"utmos": not_run("utmos_path is not given"), "distillmos": entry(4.25, scorer="distillmos")},
        "judge": not_run("judge.url is not given"),
    }


REPORT = {"sets": {"dev": groups(0.9), "impatient": groups(0.5)}}


def test_the_limit_itself_passes_and_what_is_beyond_it_fails():
    assert check_limits(REPORT, {"dev.barge_in.success_rate": 0.9, "counts.n_user_turns": 7}) == []
    assert check_limits(REPORT, fail_over={"dev.barge_in.success_rate": 0.9, "barge_in.mean_stop_latency": 0.5}) == []
    assert check_limits(REPORT, {"barge_in.success_rate": 0.9}) == [
        "impatient: barge_in.success_rate is 50.0 % (n 20), under 90.0 %"
    ]
    assert check_limits(REPORT, fail_over={"barge_in.success_rate": 0.6, "impatient.barge_in.mean_stop_latency": 0.25}) == [
        "dev: barge_in.success_rate is 90.0 % (n 20), over 60.0 %",
        "impatient: barge_in.mean_stop_latency is 0.50 s (n 9), over 0.25 s",
    ]


def test_every_set_is_checked_and_named_in_order():
    assert check_limits(REPORT, {"speech.distillmos": 4.5, "counts.n_user_turns": 8}) == [
        "dev: speech.distillmos is 4.25 (n 20), under 4.50",
        "impatient: speech.distillmos is 4.25 (n 20), under 4.50",
        "dev: counts.n_user_turns is 7, under 8.00",
        "impatient: counts.n_user_turns is 7, under 8.00",
    ]


def test_names_with_a_dot_and_limits_in_parts_are_found():
    assert check_limits(REPORT, fail_over={"dev.false_alarm.rate_grace_0.5": 0.05}) == [
        "dev: false_alarm.rate_grace_0.5 is 6.2 % (n 20), over 5.0 %"
    ]
    parts = {"dev": {"barge_in": {"success_rate": 0.95}}}
    assert check_limits(REPORT, parts) == ["dev: barge_in.success_rate is 90.0 % (n 20), under 95.0 %"]
    dotted = {"sets": {"v1.5": groups(0.5)}}
    assert check_limits(dotted, {"v1.5.barge_in.success_rate": 0.75}) == [
        "v1.5: barge_in.success_rate is 50.0 % (n 20), under 75.0 %"
    ]


def test_what_was_not_measured_does_not_pass():
    under = {"dev.answers.all": 0.5, "dev.speech.utmos": 1, "dev.judge.gpt_score": 2}
    reasons = [
        "dev: answers.all is undefined: nothing was counted (n 0)",
        "dev: speech.utmos was not measured: utmos_path is not given",
        "dev: judge.gpt_score was not measured: judge.url is not given",
    ]
    assert check_limits(REPORT, under) == reasons == check_limits(REPORT, fail_over=under)


def test_the_interval_can_be_asked_to_keep_the_limit():
    assert check_limits(REPORT, {"dev.barge_in.success_rate": 0.25}, bound="interval") == []
    assert check_limits(REPORT, {"dev.barge_in.success_rate": 0.3}, {"dev.barge_in.success_rate": 0.7}, "interval") == [
        "dev: barge_in.success_rate is 90.0 % (95 %: 25.0 to 75.0 %) (n 20), under 30.0 %",
        "dev: barge_in.success_rate is 90.0 % (95 %: 25.0 to 75.0 %) (n 20), over 70.0 %",
    ]
    assert check_limits(REPORT, {"dev.counts.n_user_turns": 1}, bound="interval") == [
        "dev: counts.n_user_turns is 7, with no interval: too few conversations, or a plain count"
    ]


def test_numbers_that_look_equal_are_written_out():
    report = {"sets": {"dev": {"barge_in": {"success_rate": entry(0.89996)}}}}
    assert check_limits(report, {"barge_in.success_rate": 0.9}) == ["dev: barge_in.success_rate is 0.89996 (n 20), under 0.9"]


@pytest.mark.parametrize(
    ("key", "limit", "message"),
    [
        (
            "barge_in.sucess_rate",
            0.9,
            "fail_under: no number is called 'barge_in.sucess_rate'. Did you mean 'barge_in.success_rate'?",
        ),
        ("dev.barge_in.sucess_rate", 0.9, "Did you mean 'barge_in.success_rate'? The sets are dev, impatient."),
        ("test.barge_in.success_rate", 0.9, "The sets are dev, impatient."),
        ("barge_in.success_rate.x", 0.9, "no number is called 'barge_in.success_rate.x'"),
        ("barge_in.success_rate", "high", "barge_in.success_rate='high': expected a number, such as 0.9."),
        ("barge_in.success_rate", True, "expected a number"),
        ("barge_in.success_rate", float("nan"), "expected a number"),
        ("barge_in.success_rate", None, "barge_in.success_rate=None: expected a number"),
        ("barge_in.success_rate", 90, "barge_in.success_rate=90: expected a share from 0 to 1. 90 % is 0.9."),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(key, limit, message):
    with pytest.raises(InputError) as refused:
        check_limits(REPORT, {key: limit})
    assert message in str(refused.value)


def test_names_can_be_checked_before_anything_runs():
    known = ["barge_in.success_rate", "judge.*"]
    limits = {"barge_in.success_rate": 1, "dev.judge.gpt_score": 3}
    assert known_limits(limits, "fail_under", ["dev"], known) == limits
    with pytest.raises(InputError, match="fail_over: no number is called 'answers.all'"):
        known_limits({"answers.all": 1}, "fail_over", ["dev"], known)
