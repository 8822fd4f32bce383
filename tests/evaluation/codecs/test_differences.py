"""Paired differences: who is compared with whom, over what both have, and what can be said of it."""

import pytest

from nemo_duplex.evaluation.codecs.differences import differences


def entry(*each):
    return {"value": 0.0, "each": list(each)}


def test_codecs_with_the_first_and_all_with_the_originals():
    rows = {name: {"distillmos": entry(*[float(i)] * 6), "kbps": 1.0} for i, name in enumerate(("original", "a", "b", "c"))}
    found = differences(rows, ["a", "b", "c"])
    assert [(one["first"], one["second"], one["scores"]["distillmos"]["value"]) for one in found] == [
        ("a", "b", 1.0),
        ("a", "c", 2.0),
        ("original", "a", 1.0),
        ("original", "b", 2.0),
        ("original", "c", 3.0),
    ]
    assert all(set(one["scores"]) == {"distillmos"} for one in found)


def test_errors_are_pooled_over_utterances_that_both_have_and_intervals_are_paired():
    first = [(i, 10) for i in range(8)] + [None, (9, 10)]
    second = [(i + 1, 10) for i in range(8)] + [(9, 10), None]
    rows = {"original": {}, "a": {"cer": entry(*first)}, "b": {"cer": entry(*second)}}
    [one, *rest] = differences(rows, ["a", "b"])
    assert one["scores"]["cer"] == {"value": pytest.approx(0.1), "ci95": (0.1, 0.1), "n": 8, "verdict": "worse"}
    assert [other["scores"] for other in rest] == [{}, {}]


@pytest.mark.parametrize(
    ("key", "change", "verdict"),
    [
        ("mel_distance", -0.1, "better"),
        ("mel_distance", 0.1, "worse"),
        ("secs", 0.1, "better"),
        ("stoi", -0.1, "worse"),
        ("pesq", 0.1, "better"),
        ("si_sdr", 0.1, "better"),
        ("squim", -0.1, "worse"),
        ("wer", -0.1, "better"),
    ],
)
def test_which_way_is_better(key, change, verdict):
    a = [0.1 * i for i in range(6)]
    rows = {"original": {}, "a": {key: entry(*a)}, "b": {key: entry(*[x + change for x in a])}}
    assert differences(rows, ["a", "b"])[0]["scores"][key]["verdict"] == verdict


def test_what_may_be_chance_and_what_is_too_few():
    rows = {"original": {}, "a": {"secs": entry(*[0.5] * 6)}, "b": {"secs": entry(0.4, 0.6, 0.5, 0.7, 0.3, 0.6)}}
    found = differences(rows, ["a", "b"])[0]["scores"]["secs"]
    assert found["verdict"] == "unclear" and found["ci95"][0] < 0 < found["ci95"][1] and found["n"] == 6
    for row in ("a", "b"):
        rows[row]["secs"]["each"].pop()
    found = differences(rows, ["a", "b"])[0]["scores"]["secs"]
    assert (found["verdict"], found["ci95"], found["n"]) == ("too few", None, 5) and found["value"] == pytest.approx(0.0)
    rows["b"]["secs"] = {"value": None, "not_run": "why"}
    assert differences(rows, ["a", "b"])[0]["scores"] == {}
