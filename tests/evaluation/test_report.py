import base64
import io
import re

import pytest
import soundfile

from nemo_duplex.evaluation.report import interval, percent, seconds, table
from nemo_duplex.evaluation.run import evaluate
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
    text = table(report)
    assert re.search(r"Barge-in success +100.0 % \(n 3\) +83.0 % +94.5 %", text)
    assert "controls: 3 of 3 hold" in text


@pytest.mark.parametrize("agent", [Silent, Talker])
def test_undefined_numbers_are_dashes(agent, cuts, tmp_path):
    report = evaluate(agent(), {"other": cuts[:1]}, tmp_path, asr_turns=0, control_turns=1, examples=1, progress=False)
    assert "– (n 0)" in table(report)
    page = re.sub('base64,[^"]+', "", (tmp_path / "report.html").read_text())
    assert not re.search(r"\b(None|nan|undefined)\b", page)


def test_numbers_are_written_for_people():
    assert (percent(0.945), percent(None), seconds(0.6912), seconds(None)) == ("94.5 %", "–", "0.69 s", "–")
    assert interval({"ci95": (0.5, 1.0)}, "%") == "50.0 to 100.0 %" and interval({"ci95": None}, "s") == ""
