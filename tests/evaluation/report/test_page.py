import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.report.page import _cards
from nemo_duplex.evaluation.report.tables import table
from nemo_duplex.evaluation.run import evaluate
from tests.evaluation.agents import Oracle, Silent, Talker
from tests.evaluation.settings import quick


@pytest.fixture(scope="module")
def oracle(cuts, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    about = {"model": "agent<1>.nemo"}
    report = evaluate(Oracle(cuts), {"dev": cuts}, out, quick(control_turns=1, examples=2), provenance=about, progress=False)
    return report, (out / "report.html").read_text()


def test_the_page_needs_no_other_file(oracle):
    _, page = oracle
    addresses = re.findall(r'(?:src|href)="([^"]{0,40})', page) + re.findall(r"url\(([^)]{0,40})", page)
    assert addresses and all(a.startswith("data:") for a in addresses)
    assert re.findall(r"https?://[^\"]*", page) == ["http://www.w3.org/2000/svg"], "that is a name, not an address"


def test_the_paper_stands_beside_and_is_said_to_be_other_data(oracle):
    _, page = oracle
    for number in ("83.0 %", "0.52 s", "0.72 s", "56.0 %", "n/a"):
        assert number in page
    assert "not comparable one to one" in page


def test_both_channels_can_be_heard(oracle):
    _, page = oracle
    sounds = re.findall(r"data:audio/flac;base64,([A-Za-z0-9+/=]+)", page)
    assert len(sounds) == 2
    audio, rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[0])))
    assert rate == 16000 and audio.shape[1] == 2
    assert abs(audio[round(1.5 * rate), 0]) > 0.01 and not audio[round(1.5 * rate), 1], "at 1.5 s the user speaks alone"


def test_a_long_conversation_is_seen_and_heard_from_its_start(cuts, tmp_path, monkeypatch):
    monkeypatch.setattr("nemo_duplex.evaluation.report.page.LONGEST", 2.5)
    evaluate(Talker(), {"dev": cuts[:1]}, tmp_path, quick(examples=1), progress=False)
    page = (tmp_path / "report.html").read_text()
    [sound] = re.findall(r"data:audio/flac;base64,([A-Za-z0-9+/=]+)", page)
    audio, rate = soundfile.read(io.BytesIO(base64.b64decode(sound)))
    assert len(audio) == 2.5 * rate and "16 s, the first 2.5 s are shown" in page
    assert '<span class="chip good">faultless</span>' not in page and ">3 × talked on<" in page


def test_a_faultless_conversation_is_said_to_be_one(oracle):
    _, page = oracle
    assert page.count('<span class="chip good">faultless</span>') == 2 and "s are shown" not in page


def test_names_from_outside_are_escaped(oracle):
    _, page = oracle
    assert "agent&lt;1&gt;.nemo" in page and "agent<1>.nemo" not in page


def controls_of(agent, cuts, folder):
    """What the screen and the page say about the controls: lines, and (state, name) of the page's rows."""
    report = evaluate(agent, {"dev": cuts}, folder, quick(control_turns=3), progress=False)
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


def entry(value, n=12, ci95=(0.25, 0.75)):
    return {"value": value, "n": n, "ci95": ci95}


@pytest.mark.parametrize(
    ("names", "name", "like", "paper"),
    [
        (["dev", "impatient"], "impatient", "Impatient", ["94.5 %", "0.69 s", "0.0 %", "0.92 s"]),
        (["dev", "other"], "dev", "UltraChat", ["83.0 %", "0.52 s", "0.0 %", "0.72 s"]),
        (["other", "dev"], "other", None, [""] * 4),
    ],
)
def test_the_cards_are_of_the_hardest_set_beside_the_papers(names, name, like, paper):
    groups = {
        "barge_in": {"success_rate": entry(0.5), "mean_stop_latency": entry(0.5)},
        "false_alarm": {"rate": entry(0.125)},
        "response": {"first_latency": entry(0.75)},
    }
    groups["barge_in"]["never_listens"] = {"success_rate": entry(0.0625)}
    cards = _cards({one: groups for one in names})
    assert [(c["set"], c["like"]) for c in cards] == [(name, like)] * 4
    assert [c["number"].text for c in cards] == ["50.0 %", "0.50 s", "12.5 %", "0.75 s"]
    assert [c["number"].interval for c in cards] == ["25.0 to 75.0 %", "0.25 to 0.75 s"] * 2
    assert [c["paper"] for c in cards] == paper
    assert [c["never_listens"] for c in cards] == ["6.2 %", "", "", ""]


def test_few_events_are_said_to_tell_little(oracle):
    _, page = oracle
    assert page.count("too few to tell") == 4 and ">n 3: too few to tell<" in page


@pytest.mark.parametrize("agent", [Silent, Talker])
def test_undefined_numbers_are_dashes(agent, cuts, tmp_path):
    report = evaluate(agent(), {"other": cuts[:1]}, tmp_path, quick(control_turns=1, examples=1), progress=False)
    assert "– (n 0)" in table(report)
    page = re.sub('base64,[^"]+|<script>.*</script>', "", (tmp_path / "report.html").read_text(), flags=re.DOTALL)
    assert not re.search(r"\b(None|nan|undefined)\b", page)
