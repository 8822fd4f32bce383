"""Every number of agents of which it is known: all are right, and a report that is wrong anywhere is found out."""

import subprocess
import sys
from dataclasses import replace

import pytest

from nemo_duplex.evaluation.controls.selftest import Bracket, selftest, selftest_table
from nemo_duplex.evaluation.scores import score, summary


def report_of(outcomes):
    return summary([score(one) for one in outcomes])


@pytest.fixture(scope="module")
def brackets():
    return selftest(report_of)


def test_every_number_is_where_it_must_be(brackets):
    assert [one for one in brackets if not one.holds] == []
    assert len(brackets) >= 275


def test_the_numbers_of_the_issue_are_among_them(brackets):
    found = {(one.agent, one.number): one.measured for one in brackets}
    assert found["silent", "response.missing_rate"] == 1 and found["silent", "barge_in.success_rate"] is None
    assert found["always talking", "barge_in.success_rate"] == 0
    assert found["oracle", "barge_in.success_rate"] == 1
    late, early = (found[name, "response.latency"] for name in ("oracle, 0.24 s late", "oracle"))
    assert late - early == pytest.approx(0.24, abs=1e-9)
    late, early = (found[name, "barge_in.mean_stop_latency"] for name in ("oracle, 0.24 s late", "oracle"))
    assert late - early == pytest.approx(0.24, abs=1e-9)
    assert found["deaf oracle", "barge_in.success_rate"] == found["oracle", "never_listens.success_rate"] == 27 / 48
    assert found["deaf oracle", "telling.success_rate"] == found["oracle", "telling.never_listens_rate"] == 10 / 31
    assert found["stops at backchannels", "behaviour.backchannel_resume_rate"] == 0
    assert found["echo", "false_alarm.rate"] == 1 and found["echo, by ear", "leak_delay"] == pytest.approx(0.24, abs=0.001)


def test_a_number_that_is_off_undefined_or_missing_does_not_hold():
    assert (
        Bracket("a", "n", 0.5, 0.5).holds and Bracket("a", "n", 0.5, 0.5 + 9e-7).holds and Bracket("a", "n", None, None).holds
    )
    assert not Bracket("a", "n", 0.5, 0.501).holds and Bracket("a", "n", 0.5, 0.52, tolerance=0.03).holds
    assert not any(Bracket("a", "n", 0.0, wrong).holds for wrong in (None, "not in the report", float("nan")))
    assert not any(Bracket("a", "n", None, wrong).holds for wrong in (0.0, "not in the report"))


def test_a_report_without_a_group_is_named_in_the_table():
    found = selftest(lambda outcomes: {"false_alarm": {"rate": {"value": 0.25}}})
    wrong = {(one.agent, one.number): one.measured for one in found if not one.holds}
    assert wrong["oracle", "false_alarm.rate"] == 0.25 and wrong["oracle", "false_alarm.per_minute"] == "not in the report"
    lines = selftest_table(found).splitlines()
    silent = next(line for line in lines if line.startswith("WRONG  silent") and "false_alarm.rate" in line)
    assert silent.split() == ["WRONG", "silent", "false_alarm.rate", "0.000", "0.250"]
    assert lines[-1] == f"{len(found) - len(wrong)} of {len(found)} numbers are where they must be"


def test_a_window_that_is_a_millisecond_off_by_ear_or_not_is_found():
    """Each outcome is scored with the agent a frame early: latencies are off, and nothing else can hide it."""

    def early(outcomes):
        moved = [replace(one, speech=tuple((a - 0.001, b - 0.001) for a, b in one.speech)) for one in outcomes]
        return report_of(moved)

    wrong = {(one.agent, one.number) for one in selftest(early) if not one.holds}
    assert ("oracle", "response.latency") in wrong and ("oracle", "latencies.stop that are right to the millisecond") in wrong


@pytest.mark.slow
def test_it_needs_no_torch():
    check = (
        "import sys; from nemo_duplex.evaluation.controls.selftest import selftest; "
        "from nemo_duplex.evaluation.scores import score, summary; "
        "selftest(lambda outcomes: summary([score(o) for o in outcomes])); print({'torch', 'lhotse'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "set()"
