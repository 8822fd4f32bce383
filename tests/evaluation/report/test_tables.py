"""The paper's tables: which rows, which numbers, what made them, and what was not measured."""

import re

import pytest

from nemo_duplex.evaluation.paper import TABLE_2, TABLE_3
from nemo_duplex.evaluation.report.tables import (
    as_markdown,
    as_text,
    differences_table,
    like,
    paper_tables,
    table,
    table_2,
    table_3,
    table_4,
)
from nemo_duplex.evaluation.scorer import not_run


def entry(value, n=4, ci95=(0.25, 0.75), **more):
    return {"value": value, "n": n, "ci95": ci95, "bootstrap95": ci95} | more


def groups(success=0.5):
    return {
        "barge_in": {
            "success_rate": entry(success),
            "mean_stop_latency": entry(0.625, 5),
            "yield_rate": entry(0.875, 8),
            "never_listens": {"success_rate": entry(0.125, 6), "mean_stop_latency": entry(0.875, 7)},
        },
        "false_alarm": {"rate": entry(0.0625, 9)},
        "response": {"first_latency": entry(0.75, 10), "first_missing_rate": entry(0.375)},
        "answers": {"seen": entry(0.9, 10), "unseen": entry(None, 0, None)},
        "speech": {"utmos": not_run("utmos=PATH is not given"), "distillmos": entry(4.25, 11, (4, 4.5), scorer="distillmos")},
    }


def a_report(**sets):
    scorers = {"distillmos": {"name": "distillmos", "version": "0.9.1", "comparable": False, "about": "MOS by a small network"}}
    return {"sets": sets, "controls": [], "provenance": {"vad": "silero"}, "scorers": scorers}


def texts(row):
    return [cell.text for cell in row.cells]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dev", "UltraChat"),
        ("impatient", "Impatient"),
        ("dev-impatient", "Impatient"),
        ("ultra_chat", "UltraChat"),
        ("development", None),
        ("test", None),
    ],
)
def test_sets_stand_beside_the_papers_by_their_names(name, expected):
    assert like(name, TABLE_2) == expected
    assert like("asr_qa", TABLE_3["Moshi"]) == "ASR-QA"


def test_table_2_has_the_papers_columns_and_rows_of_agent_baseline_and_paper():
    found = table_2(a_report(dev=groups(), other=groups(0.25)))
    assert [(r.set_name, r.system, r.reported) for r in found.rows] == [
        ("dev", "this agent", False),
        ("dev", "if it never listened", False),
        ("dev", "SALM-Duplex on UltraChat, paper", True),
        ("dev", "Moshi on UltraChat, paper", True),
        ("other", "this agent", False),
        ("other", "if it never listened", False),
    ]
    assert [c.rstrip(" ↑↓") for c in found.columns] == [
        *("Barge-in success", "False alarms", "Stop latency", "1st response latency", "UTMOS", "DistillMOS")
    ]
    assert texts(found.rows[0]) == ["50.0 %", "6.2 %", "0.62 s", "0.75 s", "", "4.25"]
    assert [cell.n for cell in found.rows[0].cells] == ["n 4", "n 9", "n 5", "n 10", "", "n 11"]
    assert texts(found.rows[1]) == ["12.5 %", "", "0.88 s", "", "", ""]
    assert texts(found.rows[2]) == ["83.0 %", "0.0 %", "0.52 s", "0.72 s", "4.3", "–"]
    assert texts(found.rows[3]) == ["56.0 %", "0.0 %", "0.63 s", "n/a", "3.9", "–"]
    assert texts(found.rows[4])[0] == "25.0 %"


def test_each_number_says_what_made_it_and_whether_it_is_the_papers_scorer():
    report = a_report(impatient=groups())
    found = table_2(report)
    mos = found.rows[0].cells[5]
    assert mos.line == "4.25 (95 %: 4.00 to 4.50, n 11, distillmos 0.9.1, not the paper's scorer)"
    assert found.rows[0].cells[4].line == "not run: utmos=PATH is not given"
    assert "distillmos 0.9.1: MOS by a small network" in found.notes and "found by silero voice" in found.notes[0]
    report["scorers"]["distillmos"]["comparable"] = True
    assert table_2(report).rows[0].cells[5].by == "distillmos 0.9.1"
    report["sets"]["impatient"]["speech"]["distillmos"]["not_trusted"] = "it failed"
    assert table_2(report).rows[0].cells[5].by == "distillmos 0.9.1, not to be trusted: it failed"


def test_a_group_that_is_not_there_was_not_measured():
    bare = groups()
    del bare["speech"], bare["barge_in"]["never_listens"]
    found = table_2(a_report(test=bare))
    assert [row.system for row in found.rows] == ["this agent"]
    assert [cell.why_not for cell in found.rows[0].cells] == ["", "", "", "", "not measured", "not measured"]


def test_table_3_is_whole_where_something_was_judged():
    dev, topic = groups() | {"judge": {"score": entry(5.5)}}, groups() | {"judge": not_run("judge.url is not given")}
    report = a_report(dev=dev, Topic=topic, mine=groups())
    found = table_3(report)
    assert found.columns == ("dev (UltraChat)", "Topic", "mine", "Roleplay", "ASR-QA", "Alpaca")
    assert [row.system for row in found.rows] == [
        *("this agent", "GT+LLM, its backbone", "SALM-Duplex, paper", "Moshi, paper", "GT+LLM, paper")
    ]
    assert texts(found.rows[0])[0] == "5.50" and found.rows[0].cells[1].why_not == "judge.url is not given"
    assert texts(found.rows[2]) == ["3.5", "6.1", "", "4.6", "7.8", "2.9"]
    assert texts(found.rows[4]) == ["6.4", "5.5", "", "4.9", "5.8", "5.0"]
    assert [t.title[:7] for t in paper_tables(report)] == ["Table 2", "Table 3"]
    assert len(paper_tables(a_report(dev=groups()))) == 1, "nothing of it was asked for"


def test_table_4_has_the_papers_codecs_below():
    """Each scorer has a column of its own; the paper's numbers stand in those of its scorers."""
    codec = {
        "kbps": 0.5,
        "distillmos": entry(3.5, 20, scorer="distillmos"),
        "cer": not_run("no recogniser"),
        "secs": entry(0.75),
    }
    beside = {
        "stoi": entry(0.8765),
        "pesq": entry(2.5),
        "si_sdr": entry(-3.25),
        "mel_distance": entry(0.4321),
        "delay_ms": 22.5,
    }
    found = table_4({"ours": codec | beside | {"squim": entry(4.5), "wer": entry(0.071)}}, a_report()["scorers"])
    assert [title.rstrip(" ↑↓") for title in found.columns] == [
        *("Bitrate, kbit/s", "Squim MOS", "DistillMOS", "CER, %", "WER, %", "SECS by ECAPA2", "SECS by Resemblyzer", "STOI"),
        *("PESQ, wide band", "SI-SDR, dB", "Mel distance", "Delay, ms", "S2S ASR-BLEU"),
    ]
    assert texts(found.rows[0]) == [
        *("0.50", "4.50", "3.50", "", "7.1 %", "–", "0.75", "0.876", "2.50", "-3.25", "0.432", "22.50", "–")
    ]
    assert found.rows[0].cells[3].why_not == "no recogniser" and "paper's" not in found.rows[0].cells[2].by
    assert texts(found.rows[1]) == ["1.1", "4.16", "–", "3.0", "–", "0.65", "–", "–", "–", "–", "–", "–", "n/a"]
    assert found.rows[-1].system == "NanoCodec 0.6, personalized, paper" and texts(found.rows[-1])[-1] == "18.7"


def test_differences_are_points_and_numbers_with_what_can_be_said():
    scores = {
        "wer": {"value": 0.031, "ci95": (0.01, 0.05), "n": 7, "verdict": "worse"},
        "stoi": {"value": -0.0123, "ci95": (-0.02, 0.001), "n": 7, "verdict": "unclear"},
        "pesq": {"value": 0.5, "ci95": None, "n": 3, "verdict": "too few"},
    }
    found = differences_table([{"first": "a", "second": "b", "scores": scores}, {"first": "a", "second": "c", "scores": {}}])
    assert found.columns == ("WER, % ↓", "STOI ↑", "PESQ, wide band ↑")
    assert [row.system for row in found.rows] == ["b − a", "c − a"] and texts(found.rows[1]) == ["–", "–", "–"]
    assert texts(found.rows[0]) == ["+3.1 points worse", "-0.012 unclear", "+0.50 too few"]
    assert [cell.interval for cell in found.rows[0].cells] == ["1.0 to 5.0 points", "-0.020 to 0.001", ""]
    assert found.rows[0].cells[0].n == "n 7"


def test_a_terminal_gets_a_block_for_each_set():
    lines = as_text(table_2(a_report(dev=groups(), impatient=groups()))).splitlines()
    rows = [re.split(r"  +", line) for line in lines]
    assert rows[0] == ["Table 2: turn-taking and speech quality"]
    assert rows[2] == [
        "dev",
        "this agent",
        "if it never listened",
        "SALM-Duplex on UltraChat, paper",
        "Moshi on UltraChat, paper",
    ]
    assert rows[3] == ["Barge-in success ↑", "50.0 % (n 4)", "12.5 % (n 6)", "83.0 %", "56.0 %"]
    assert ["UTMOS ↑", "not run", "4.3", "3.9"] in rows
    assert lines[9] == "not run: UTMOS: utmos=PATH is not given"
    assert rows[11][0] == "impatient" and max(map(len, lines)) < 130


def test_below_the_tables_a_terminal_gets_what_explains_them():
    report = a_report(dev=groups(), impatient=groups())
    rows = [re.split(r"  +", line.strip()) for line in table(report).splitlines()]
    assert rows[-5:] == [
        ["dev", "impatient"],
        ["Breaks off its answer", "87.5 % (n 8)", "87.5 % (n 8)"],
        ["No first response", "37.5 % (n 4)", "37.5 % (n 4)"],
        ["Exact answers, seen", "90.0 % (n 10)", "90.0 % (n 10)"],
        ["Exact answers, unseen", "– (n 0)", "– (n 0)"],
    ]
    report["controls"] = [
        {"name": "silence", "passed": True, "detail": "silent"},
        {"name": "interrupter muted", "passed": None, "detail": "d0: its answer ends there by itself"},
        {"name": "noise alone", "passed": False, "detail": "spoke over white -28 dB"},
    ]
    report["control_counts"] = {"passed": 1, "failed": 2, "inconclusive": 3}
    assert table(report).splitlines()[-4:] == [
        "",
        "controls: 1 hold, 2 fail, 3 inconclusive",
        "control fails: noise alone: spoke over white -28 dB",
        "control inconclusive: interrupter muted: d0: its answer ends there by itself",
    ]
    report["control_counts"] = {"passed": 0, "failed": 1, "inconclusive": 3}
    assert "controls: 0 hold, 1 fail, 3 inconclusive\n" in table(report), "a control that fails does tell"


def test_markdown_is_a_table_whatever_names_hold():
    text = as_markdown(paper_tables(a_report(**{"a|b\n<i>*": groups()})))
    lines = text.splitlines()
    assert lines[0] == "## Table 2: turn-taking and speech quality"
    assert lines[4].startswith("| a\\|b \\<i\\>\\* | this agent | 50.0 % (95 %: 25.0 to 75.0 %, n 4) | 6.2 %")
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines[2:6]} == {9}
    paper = as_markdown([table_2(a_report(dev=groups()))])
    assert "| *dev* | *SALM-Duplex on UltraChat, paper* | *83.0 %* |" in paper


def test_barge_ins_that_tell_stand_beside_a_deaf_agent_with_a_verdict():
    """Only where there are such barge-ins; the other columns are empty."""
    told = groups() | {}
    told["barge_in"] = told["barge_in"] | {
        "telling": {
            "success_rate": entry(0.9, 10),
            "never_listens_rate": entry(0.7, 10),
            "yield_rate": entry(1.0, 10),
            "verdict": "n too small to tell: 9 of 10 may be the 70.0 % of an agent that never listens",
        }
    }
    none = groups() | {}
    none["barge_in"] = none["barge_in"] | {
        "telling": {"success_rate": not_run("no such barge-in"), "verdict": "nothing to compare"}
    }
    found = table_2(a_report(dev=told, other=none))
    rows = {row.system: texts(row) for row in found.rows if "1 s to go" in row.system}
    assert [row.set_name for row in found.rows if "1 s to go" in row.system] == ["dev", "dev"]
    assert rows["with over 1 s to go"][0] == "90.0 %" and rows["with over 1 s to go, if it never listened"][0] == "70.0 %"
    assert all(set(cells[1:]) == {""} for cells in rows.values())
    assert "dev, with over 1 s to go: n too small to tell: 9 of 10 may be the 70.0 %" in " ".join(found.notes)
    assert "other, with" not in " ".join(found.notes)
