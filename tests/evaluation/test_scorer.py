"""A number keeps what made it; a number that was not measured keeps why."""

from nemo_duplex.evaluation.confidence import estimate_ratio
from nemo_duplex.evaluation.scorer import Scorer, made_by, not_run


def test_a_number_names_its_scorer():
    found = made_by(Scorer("ear", "1.2", "00ff"), estimate_ratio([(1, 4), (1, 4)], proportion=True))
    assert (found["value"], found["n"], found["scorer"]) == (0.25, 8, "ear")


def test_what_was_not_measured_is_no_number():
    assert not_run("ear is not installed") == {
        "value": None,
        "n": 0,
        "ci95": None,
        "bootstrap95": None,
        "not_run": "ear is not installed",
    }
