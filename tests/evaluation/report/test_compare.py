"""Two evaluations compared: pairing, differences worked out by hand, what cannot be compared, and the page."""

import copy
import json
import re

import pytest
from pytest import approx

from nemo_duplex.evaluation.report.compare import compare, comparison_table, pair, read_report
from nemo_duplex.evaluation.report.compare_page import write_comparison
from nemo_duplex.evaluation.scorer import not_run
from nemo_duplex.inputs import InputError

KEYS = (
    "barge_in.success_rate",
    "barge_in.mean_stop_latency",
    "false_alarm.rate",
    "speech.spoken_wer",
    "floor.overlaps_per_minute",
)


def conversation(name, success=(1, 1), latency=(0.5, 1), alarms=(0, 2), wer=(1, 10), overlaps=(2, 0.5), start=1.0):
    user = [{"start": start, "end": 3.0, "text": "hello"}]
    parts = dict(zip(KEYS, (success, latency, alarms, wer, overlaps)))
    return {"id": name, "duration": 10.0, "user": user, "parts": parts}


def a_report(conversations, vad="silero", name="dev"):
    groups = {}
    for key in KEYS:
        group, leaf = key.split(".")
        groups.setdefault(group, {})[leaf] = {"value": 0.5, "n": 9, "ci95": None, "bootstrap95": None}
    groups["speech"]["spoken_wer"]["scorer"] = "whisper"
    return {
        "schema_version": 2,
        "provenance": {"vad": vad, "versions": {"silero-vad": "6.2.3"}, "created": "2026-11-29"},
        "scorers": {"whisper": {"version": "1.0", "sha256": "a" * 64}},
        "sets": {name: groups},
        "conversations": {name: conversations},
    }


def many(**changes):
    return [conversation(f"c{i}", **changes) for i in range(8)]


def rows(first, second):
    return {c.key: c for c in compare(first, second)[1]}


def test_the_difference_is_second_minus_first_and_has_a_good_direction():
    worse = rows(a_report(many()), a_report(many(success=(0, 1), latency=(0.25, 1), alarms=(1, 2), overlaps=(1, 0.5))))
    found = {key: (c.first, c.second, c.difference.value, c.verdict) for key, c in worse.items()}
    assert found == {
        "barge_in.success_rate": (1.0, 0.0, -1.0, "worse"),
        "barge_in.mean_stop_latency": (0.5, 0.25, -0.25, "better"),
        "false_alarm.rate": (0.0, 0.5, 0.5, "worse"),
        "speech.spoken_wer": (0.1, 0.1, 0.0, "no change can be shown"),
        "floor.overlaps_per_minute": (4.0, 2.0, -2.0, "changed"),
    }
    assert list(found) == list(KEYS), "in the order of report.json"


def test_what_both_sides_have_in_common_cancels_out():
    """Every conversation is 0.1 s slower, whatever its own latency: the interval is that of the change alone."""
    latencies = [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 0.3]
    first = [conversation(f"c{i}", latency=(t, 1)) for i, t in enumerate(latencies)]
    second = [conversation(f"c{i}", latency=(t + 0.1, 1)) for i, t in enumerate(latencies)]
    found = rows(a_report(first), a_report(second[::-1]))["barge_in.mean_stop_latency"]
    assert found.verdict == "worse" and found.difference.ci95 == (approx(0.1), approx(0.1))


def test_a_change_that_chance_explains_is_none():
    first, second = many(), many()
    second[0]["parts"]["barge_in.success_rate"] = (0, 1)
    found = rows(a_report(first), a_report(second))["barge_in.success_rate"]
    assert found.difference.value == approx(-1 / 8) and found.verdict == "no change can be shown"
    assert found.difference.ci95[0] < -1 / 8 and found.difference.ci95[1] == 0


def test_too_few_conversations_show_nothing_however_large_the_change():
    few = [conversation(f"c{i}", success=(1, 1) if i < 5 else (0, 0)) for i in range(8)]
    gone = [conversation(f"c{i}", success=(0, 1) if i < 5 else (0, 0)) for i in range(8)]
    found = rows(a_report(few), a_report(gone))["barge_in.success_rate"]
    assert (found.conversations, found.verdict, found.why_not) == (5, "too few conversations", "5 of at least 6")
    assert found.difference.value == -1 and found.difference.ci95 is None
    few[5]["parts"]["barge_in.success_rate"] = (1, 1)
    gone[5]["parts"]["barge_in.success_rate"] = (0, 1)
    assert rows(a_report(few), a_report(gone))["barge_in.success_rate"].verdict == "worse"


def test_conversations_are_paired_by_id_and_the_others_are_named():
    first = [conversation("a"), conversation("b"), conversation("b", success=(0, 1)), conversation("c"), conversation("d")]
    second = [conversation("d", start=1.5), conversation("b", success=(0, 1)), conversation("a"), conversation("e")]
    found = pair(first, second)
    assert [(x["id"], y["id"]) for x, y in found.both] == [("a", "a"), ("b", "b")]
    assert found.both[1][1]["parts"]["barge_in.success_rate"] == (0, 1)
    assert (found.only_first, found.only_second, found.different) == (["b", "c"], ["e"], ["d"])
    assert comparison_table({"dev": found}, []).splitlines()[:4] == [
        "dev: 2 conversations on both sides",
        "dev: left out, 2 in A alone: b, c",
        "dev: left out, 1 in B alone: e",
        "dev: left out, 1 with other user turns: d",
    ]
    other = conversation("a") | {"user": [{"start": 1.0, "end": 3.0, "text": "goodbye"}]}
    assert pair(first[:1], [other]).different == ["a"], "other words are another conversation"
    late = [conversation("a", start=1.0009), conversation("b", start=1.0011)]
    assert pair(first[:2], late).different == ["b"], "a millisecond is the same time"
    names = comparison_table({"dev": pair([conversation(f"c{i}") for i in range(7)], [])}, []).splitlines()
    assert names[1] == "dev: left out, 7 in A alone: c0, c1, c2, c3, c4 and 2 more"


def test_values_are_those_of_the_conversations_on_both_sides():
    found = rows(a_report([*many(), conversation("extra", success=(0, 100))]), a_report(many()))["barge_in.success_rate"]
    assert found.first == 1.0


def test_what_was_judged_on_one_side_alone_does_not_count():
    """Two models say differently much, so that enough turns are heard of other conversations; and a judge may fail."""
    sides = [a_report(many()) for _ in range(2)]
    for side, scores in zip(sides, [{f"c{i}": 3 for i in range(8)}, {f"c{i}": 4 for i in range(6)}]):
        side["sets"]["dev"]["speech"]["distillmos"] = {"value": 3.5, "n": 8, "ci95": None, "by_conversation": scores}
    sides[0]["sets"]["dev"]["speech"]["distillmos"]["by_conversation"]["c7"] = 1
    found = rows(*sides)["speech.distillmos"]
    assert (found.first, found.second, found.difference.value, found.conversations, found.verdict) == (3, 4, 1, 6, "better")


def test_undefined_numbers_have_no_difference():
    found = rows(a_report(many(success=(0, 0))), a_report(many()))["barge_in.success_rate"]
    assert (found.first, found.difference.value, found.verdict) == (None, None, "not comparable")
    assert found.why_not == "undefined in A: nothing to count"


@pytest.mark.parametrize(
    ("change", "key", "why"),
    [
        (
            lambda r: r["scorers"]["whisper"].update(version="1.1"),
            KEYS[3],
            "A is by whisper 1.0 (aaaaaaaa), B by whisper 1.1 (aaaaaaaa)",
        ),
        (
            lambda r: r["scorers"]["whisper"].update(sha256="b" * 64),
            KEYS[3],
            "A is by whisper 1.0 (aaaaaaaa), B by whisper 1.0 (bbbbbbbb)",
        ),
        (
            lambda r: r["provenance"].update(vad="energy"),
            KEYS[0],
            "the agent's speech was found by silero 6.2.3 in A, by energy in B",
        ),
        (
            lambda r: r["provenance"]["versions"].update({"silero-vad": "7"}),
            KEYS[4],
            "the agent's speech was found by silero 6.2.3 in A, by silero 7 in B",
        ),
        (lambda r: r["provenance"].update(rules={"fa_grace": 0.5}), KEYS[2], "the rules of turn-taking differ"),
        (lambda r: r["sets"]["dev"].update(speech=not_run("no model")), KEYS[3], "B was not measured: no model"),
        (lambda r: r["sets"]["dev"]["speech"].update(spoken_wer=not_run("asr=none")), KEYS[3], "B was not measured: asr=none"),
    ],
)
def test_numbers_made_in_other_ways_are_not_compared(change, key, why):
    second = a_report(many(success=(0, 1)))
    change(second)
    found = rows(a_report(many()), second)
    assert (found[key].verdict, found[key].why_not, found[key].difference.value) == ("not comparable", why, None)
    if key == KEYS[3]:
        assert found[KEYS[0]].verdict == "worse", "the others are"
    else:
        assert found[KEYS[3]].verdict == "no change can be shown", "another VAD does not change what was said"


def test_what_rates_whole_conversations_is_compared_by_their_scores():
    first, second = a_report(many()), a_report(many()[::-1])
    for side, score in ((first, 1.0), (second, 0.0)):
        numbers = [int(one["id"][1:]) for one in side["conversations"]["dev"]]
        scores = [None if i == 7 else score + i / 10 for i in numbers]
        entry = {"value": score, "n": 7, "ci95": None, "bootstrap95": None}
        side["sets"]["dev"]["speech"]["distillmos"] = entry | {"scorer": "distillmos", "by_conversation": scores}
        words = {f"c{i}": [score, 10] for i in numbers if i != 5}
        side["sets"]["dev"]["speech"]["text_wer"] = entry | {"by_conversation": words}
        judged = {f"c{i}": score + i for i in numbers}
        side["sets"]["dev"]["judge"] = {"score": entry | {"by_conversation": judged}, "per_turn": entry}
    found = rows(first, second)
    mos, judge = found["speech.distillmos"], found["judge.score"]
    assert (mos.first, mos.second, mos.verdict, mos.conversations) == (approx(1.3), approx(0.3), "worse", 7)
    assert mos.difference.ci95 == (approx(-1, abs=1e-5), approx(-1, abs=1e-5)), "each is paired with its own"
    wer = found["speech.text_wer"]
    assert (wer.first, wer.second, wer.verdict, wer.conversations) == (0.1, 0.0, "better", 7)
    assert (judge.first, judge.second, judge.conversations) == (4.5, 3.5, 8) and "judge.per_turn" not in found


def test_evaluations_without_anything_in_common_are_refused():
    with pytest.raises(InputError, match="no set in common: dev, and test"):
        compare(a_report(many()), a_report(many(), name="test"))
    with pytest.raises(InputError, match="no conversation in common: other ids in dev"):
        compare(a_report(many()), a_report([conversation("x")]))
    with pytest.raises(InputError, match="the same ids, but other user turns in dev"):
        compare(a_report(many()), a_report(many(start=2.0)))


def test_the_table_says_it_in_points_and_seconds():
    text = comparison_table(*compare(a_report(many()), a_report(many(success=(0, 1), latency=(0.25, 1)))))
    lines = [re.split(r"  +", line) for line in text.splitlines()]
    assert ["barge_in.success_rate", "100.0 %", "0.0 %", "-100.0 points", "-100.0 to -100.0 points", "8", "worse"] in lines
    assert ["barge_in.mean_stop_latency", "0.50 s", "0.25 s", "-0.25 s", "-0.25 to -0.25 s", "8", "better"] in lines
    assert "5 rates were compared at 95 %: if nothing had changed, about 0 of them would differ by chance." in text


def test_reports_are_read_from_folders_and_files(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(a_report(many())))
    assert read_report(tmp_path, "a") == read_report(tmp_path / "report.json", "a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "first: there is no {}. Give the folder"),
        ("{", "first: {} cannot be read as JSON"),
        ("[]", "first: {} has no schema_version"),
        ('{"schema_version": 1}', "first: {} has schema 1, expected 2. Evaluate again."),
        ('{"schema_version": 3}', "first: {} has schema 3, expected 2. Read it with the nemo_duplex that wrote it."),
        ('{"schema_version": 2, "sets": {}}', "first: {} has no 'conversations'"),
    ],
)
def test_files_that_are_no_reports_are_one_line(content, message, tmp_path):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(InputError) as refused:
        read_report(tmp_path, "first")
    assert message.format(tmp_path / "report.json") in str(refused.value)


def test_the_page_draws_the_differences(tmp_path):
    first, second = a_report(many()), a_report(many(success=(0, 1), latency=(0.25, 1), overlaps=(1, 0.5)))
    for side, gaps in ((first, 40), (second, 39)):
        side["sets"]["dev"]["floor"]["gaps_per_minute"] = {"value": 1.0, "n": 9, "ci95": None, "bootstrap95": None}
        for one in side["conversations"]["dev"]:
            one["parts"]["floor.gaps_per_minute"] = (gaps, 1)
    second["conversations"]["dev"].append(conversation("<b>"))
    before = copy.deepcopy((first, second))
    write_comparison(tmp_path / "compare.html", ("before", "<after>"), (first, second), *compare(first, second))
    assert (first, second) == before
    page = (tmp_path / "compare.html").read_text()
    assert "&lt;after&gt;" in page and "left out, 1 in B alone: &lt;b&gt;" in page and "<b>" not in page
    assert "1 better, 1 worse, 2 changed." in page
    drawn = dict(re.findall(r'scope="row">([\w.]+) .*?<circle cx="([-\d.]+)"', page, re.DOTALL))
    assert drawn == {  # shares have one scale, times another, and overlaps per minute their own
        "barge_in.success_rate": "-100.0",
        "barge_in.mean_stop_latency": "-100.0",
        "false_alarm.rate": "0.0",
        "speech.spoken_wer": "0.0",
        "floor.overlaps_per_minute": "-100.0",
        "floor.gaps_per_minute": "-100.0",
    }
