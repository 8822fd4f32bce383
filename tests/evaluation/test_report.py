import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.activity import energy_vad
from nemo_duplex.evaluation.generation import run_conversations
from nemo_duplex.evaluation.report import _cards, _faults, interval, percent, seconds, table
from nemo_duplex.evaluation.run import evaluate
from nemo_duplex.evaluation.scores import score
from tests.evaluation.agents import Oracle, Silent, Talker


@pytest.fixture(scope="module")
def oracle(cuts, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    about = {"model": "agent<1>.nemo"}
    report = evaluate(
        Oracle(cuts), {"dev": cuts}, out, asr_turns=2, control_turns=1, examples=2, provenance=about, progress=False
    )
    return report, (out / "report.html").read_text()


def test_the_page_needs_no_other_file(oracle):
    _, page = oracle
    addresses = re.findall(r'(?:src|href)="([^"]{0,40})', page) + re.findall(r"url\(([^)]{0,40})", page)
    assert addresses and all(a.startswith("data:") for a in addresses)
    assert "http://" not in page and "https://" not in page


def test_the_paper_stands_beside_and_is_said_to_be_other_data(oracle):
    _, page = oracle
    for number in ("94.5 %", "0.69 s", "0.92 s", "83.0 %", "0.52 s", "0.72 s"):
        assert number in page
    assert "not comparable one to one" in page and "biased bigram ASR, not reportable" in page


def test_both_channels_can_be_heard(oracle):
    _, page = oracle
    sounds = re.findall(r"data:audio/flac;base64,([A-Za-z0-9+/=]+)", page)
    assert len(sounds) == 2
    audio, rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[0])))
    assert rate == 16000 and audio.shape[1] == 2
    assert abs(audio[round(1.5 * rate), 0]) > 0.01 and not audio[round(1.5 * rate), 1], "at 1.5 s the user speaks alone"


def test_names_from_outside_are_escaped(oracle):
    _, page = oracle
    assert "agent&lt;1&gt;.nemo" in page and "agent<1>.nemo" not in page


def test_the_table_tells_the_headline(oracle):
    report, _ = oracle
    rows = [re.split(r"  +", line.strip()) for line in table(report).splitlines()]
    assert rows[0] == ["dev", "paper, UltraChat", "paper, Impatient"]
    assert [row[0] for row in rows[1:]] == [
        "Barge-in success",
        "(success if it never listened)",
        "Breaks off its answer",
        "Stop latency",
        "False alarms",
        "First response",
        "No response",
        "Exact answers, seen",
        "Exact answers, unseen",
        "controls: 3 hold, 0 fail, 0 inconclusive",
    ]
    assert rows[1] == ["Barge-in success", "100.0 % (n 3)", "83.0 %", "94.5 %"]
    assert rows[2][1] == "0.0 %" and rows[3][1] == "100.0 % (n 3)"
    assert rows[4][2:] == ["0.52 s", "0.69 s"] and rows[6][2:] == ["0.72 s", "0.92 s"]
    assert rows[8][1] == rows[9][1] == "100.0 % (n 3)"


def estimate(value, n=4, ci95=(0.25, 0.75)):
    return {"value": value, "n": n, "ci95": ci95}


def some_report(**sets):
    """A report with other numbers in every row; per set the success rate."""
    report = {"sets": {}, "controls": []}
    for name, success in sets.items():
        rates = {"success_rate": success, "mean_stop_latency": 0.5, "false_alarm_rate": 0.125, "first_response_latency": 0.75}
        report["sets"][name] = {metric: estimate(value) for metric, value in rates.items()} | {
            "no_response_rate": estimate(0.375),
            "yield_rate": estimate(0.875, 8),
            "exact_match": {"seen": estimate(0.9, 10), "unseen": estimate(0.6, 5)},
            "never_listens": {"success_rate": estimate(0.1)},
        }
    return report


def test_the_table_holds_every_number_in_its_row():
    report = some_report(dev=0.5, impatient=0.25)
    report["controls"] = [
        {"name": "silence", "passed": True, "detail": "silent"},
        {"name": "interrupter muted", "passed": None, "detail": "d0: its answer ends there by itself"},
        {"name": "noise alone", "passed": False, "detail": "spoke over white -28 dB"},
    ]
    report["control_counts"] = {"passed": 1, "failed": 2, "inconclusive": 3}
    rows = [re.split(r"  +", line.strip()) for line in table(report).splitlines()]
    assert rows[0][:2] == ["dev", "impatient"]
    assert rows[1:] == [
        ["Barge-in success", "50.0 % (n 4)", "25.0 % (n 4)", "83.0 %", "94.5 %"],
        ["(success if it never listened)", "10.0 %", "10.0 %"],
        ["Breaks off its answer", "87.5 % (n 8)", "87.5 % (n 8)"],
        ["Stop latency", "0.50 s (n 4)", "0.50 s (n 4)", "0.52 s", "0.69 s"],
        ["False alarms", "12.5 % (n 4)", "12.5 % (n 4)", "0.0 %", "0.0 %"],
        ["First response", "0.75 s (n 4)", "0.75 s (n 4)", "0.72 s", "0.92 s"],
        ["No response", "37.5 %", "37.5 %"],
        ["Exact answers, seen", "90.0 % (n 10)", "90.0 % (n 10)"],
        ["Exact answers, unseen", "60.0 % (n 5)", "60.0 % (n 5)"],
        ["controls: 1 hold, 2 fail, 3 inconclusive"],
        ["control fails: noise alone: spoke over white -28 dB"],
        ["control inconclusive: interrupter muted: d0: its answer ends there by itself"],
    ]
    report["control_counts"] = {"passed": 0, "failed": 1, "inconclusive": 3}
    assert "controls: 0 hold, 1 fail, 3 inconclusive\n" in table(report), "a control that fails does tell"
    assert "controls" not in table(some_report(dev=0.5))


def controls_of(agent, cuts, folder):
    """What the screen and the page say about the controls: lines, and (state, name) of the page's rows."""
    report = evaluate(agent, {"dev": cuts}, folder, asr_turns=0, control_turns=3, examples=0, progress=False)
    page = (folder / "report.html").read_text()
    rows = re.findall(r'<span class="(chip[ a-z]*)">(\w+)</span></td><th scope="row">([\w ]+)</th>', page)
    return [line for line in table(report).splitlines() if line.startswith("control")], page, rows


def test_controls_that_hold_fail_and_tell_nothing_are_told_apart(cuts, tmp_path):
    class Mixed(Oracle):
        """When nobody interrupts, it is at its end in d0 and breaks off in d1; it answers noise."""

        def turns(self, recorded, hears):
            said = super().turns(recorded, hears)
            alone = {"d0": {"end": 5.92}, "d1": {"end": 5.68, "text": "the capital"}}.get(recorded.id, {})
            return said if hears(recorded.user[1]) else [replace(said[0], **alone)]

        def does(self, user):
            said = super().does(user)
            return (said[0], [Turn("agent", 1.6, 2.4, "pardon")]) if np.abs(user).mean() > 0.02 and not said[1] else said

    lines, page, rows = controls_of(Mixed(cuts), cuts, tmp_path)
    assert lines[0] == "controls: 2 hold, 2 fail, 1 inconclusive"
    assert [line.split(": ")[:2] for line in lines[1:]] == [
        ["control fails", "noise alone"],
        ["control fails", "interrupter muted"],
        ["control inconclusive", "interrupter muted"],
    ]
    assert "2 hold, 2 fail, 1 inconclusive.</p>" in page
    assert sorted(rows) == [
        ("chip", "inconclusive", "interrupter muted"),
        ("chip bad", "fails", "interrupter muted"),
        ("chip bad", "fails", "noise alone"),
        ("chip good", "holds", "interrupter muted"),
        ("chip good", "holds", "silence"),
    ]
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["control_counts"] == {"passed": 2, "failed": 2, "inconclusive": 1}
    assert {c["passed"] for c in written["controls"]} == {True, False, None}


def test_an_evaluation_whose_controls_tell_nothing_says_so(cuts, tmp_path):
    lines, page, _ = controls_of(Silent(), cuts, tmp_path)
    assert lines[0] == "controls: 0 hold, 0 fail, 3 inconclusive: they do not tell whether the agent listens"
    assert [line.split(":")[0] for line in lines[1:]] == ["control inconclusive"] * 3
    assert "0 hold, 0 fail, 3 inconclusive: they do not tell whether the agent listens.</p>" in page


@pytest.mark.parametrize(
    ("sets", "name", "like", "success", "paper"),
    [
        ({"dev": 0.5, "impatient": 0.25}, "impatient", "Impatient", "25.0 %", "94.5 %"),
        ({"dev": 0.5, "other": 0.25}, "dev", "UltraChat", "50.0 %", "83.0 %"),
        ({"other": 0.25}, "other", "UltraChat", "25.0 %", "83.0 %"),
    ],
)
def test_the_cards_are_of_the_hardest_set_beside_the_papers(sets, name, like, success, paper):
    cards = _cards(some_report(**sets)["sets"])
    assert [(c["set"], c["like"]) for c in cards] == [(name, like)] * 4
    assert [c["value"] for c in cards] == [success, "0.50 s", "12.5 %", "0.75 s"]
    assert [c["interval"] for c in cards] == ["25.0 to 75.0 %", "0.25 to 0.75 s"] * 2
    assert cards[0]["paper"] == paper


def test_faults_are_named_and_counted(cuts):
    talker, silent = (score(run_conversations(agent, cuts[:1], energy_vad)[0]) for agent in (Talker(), Silent()))
    assert _faults(talker) == ["3 × talked on", "3 × no response"]
    assert _faults(silent) == ["3 × no response"]
    assert _faults(score(run_conversations(Oracle(cuts), cuts[:1], energy_vad)[0])) == []


@pytest.mark.parametrize("agent", [Silent, Talker])
def test_undefined_numbers_are_dashes(agent, cuts, tmp_path):
    report = evaluate(agent(), {"other": cuts[:1]}, tmp_path, asr_turns=0, control_turns=1, examples=1, progress=False)
    assert "– (n 0)" in table(report)
    page = re.sub('base64,[^"]+', "", (tmp_path / "report.html").read_text())
    assert not re.search(r"\b(None|nan|undefined)\b", page)


def test_numbers_are_written_for_people():
    assert (percent(0.945), percent(None), seconds(0.6912), seconds(None)) == ("94.5 %", "–", "0.69 s", "–")
    assert interval({"ci95": (0.5, 1.0)}, "%") == "50.0 to 100.0 %" and interval({"ci95": (0.5, 1)}, "s") == "0.50 to 1.00 s"
    assert interval({"ci95": None}, "s") == ""
