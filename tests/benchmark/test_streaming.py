"""The streaming benchmark: all of its parts in one run of the script, the same frames on both sides, wrong keys in one line."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nemo_duplex.benchmark.stages import STAGES
from nemo_duplex.benchmark.streaming import PARTS, Setting, benchmark_streaming, check
from nemo_duplex.benchmark.streaming_tables import tables
from nemo_duplex.inputs import InputError

ROOT = Path(__file__).parent.parent.parent
TINY = Setting(size="tiny", ticks=6, most=2, histories=[1.0, 2.0], threads=1)


@pytest.mark.slow
def test_in_one_run_of_the_script(tmp_path):
    keys = ["what=stream", "size=tiny", "ticks=6", "most=2", "histories=[1,2]", "minutes=2", "threads=1"]
    command = [sys.executable, str(ROOT / "examples/benchmark.py"), *keys, f"out={tmp_path / 'figures.md'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "figures.json").read_text())
    assert list(result) == ["machine", "date", "setting", *PARTS]
    page = (tmp_path / "figures.md").read_text()
    for table in tables(result):
        assert table.title in done.stdout and table.title in page
    assert result["age"]["pairs"] == 75 and 0.2 < result["age"]["ratio"] < 5
    assert "random weights in the geometry of conf/duplex_tiny.yaml" in done.stdout


@pytest.mark.slow
def test_both_sides_make_the_same_frames():
    """The same weights on the same audio: NeMo's whole-file inference and our stream must agree, or times compare nothing."""
    result = benchmark_streaming(replace(TINY, parts=["in_tree"]))["in_tree"]
    assert result["same_frames"] == result["frames"] == 25
    assert [h["history"] for h in result["in_tree"]["histories"]] == [1.0, 2.0]
    assert all(h[name] > 0 for h in result["in_tree"]["histories"] for name in ("encode", "llm", "decode"))
    assert 0 < result["ours"]["frame"] * 25 < result["ours"]["seconds"]
    assert "tokens" not in result["ours"]


@pytest.mark.slow
def test_stages_in_a_process_of_their_own():
    result = benchmark_streaming(replace(TINY, parts=["stages"], batches=[2], precision="bf16"))
    (batch,) = result["stages"]["batches"]
    assert batch["ticks"]["sessions"] == 2 and set(batch["ticks"]["stages"]) == {*STAGES, "step"}
    stages, ticks = tables(result)
    assert [row[0] for row in stages.rows] == [f"{stage}, 2 callers" for stage in STAGES]
    assert len(ticks.rows) == 1


def test_callers_in_time():
    result = benchmark_streaming(replace(TINY, parts=["sessions"]))
    part = result["sessions"]
    assert [t["sessions"] for t in part["spread"]] in ([1, 2], [1])
    assert all(t["frames_per_tick"] == 1 for t in part["spread"])
    assert set(part["most"]) == {"spread", "together", "at_once"} and part["most"]["spread"] <= 2
    assert json.loads(json.dumps(result)) == result, "What is written is what was measured."
    titles = [table.title for table in tables(result)]
    assert titles[0] == "Sessions in time" and "Stages with 1 caller" in titles


@pytest.mark.parametrize(
    "wrong, line",
    [
        ({"parts": ["sesions"]}, r"parts=\[sesions\]: expected some of sessions, stages, in_tree, age"),
        ({"parts": []}, r"parts=\[\]: expected some of"),
        ({"device": "tpu"}, "device=tpu: expected cpu or cuda"),
        ({"precision": "16"}, "precision=16: expected 32 or bf16"),
        ({"size": "big"}, "size is 'big', expected one of tiny, small, paper"),
        ({"batches": [0]}, r"batches=\[0\]: expected numbers of 1 or more"),
        ({"batches": 4}, "batches=4: expected"),
        ({"histories": []}, r"histories=\[\]: expected numbers"),
        ({"ticks": 0}, r"ticks=\[0\]: expected numbers"),
        ({"minutes": 1.0}, "minutes=1: expected 2 or more"),
        ({"model": "nowhere.nemo"}, "model: there is no file nowhere.nemo"),
        ({"data": "nowhere"}, "data: there is no folder nowhere"),
    ],
)
def test_wrong_settings_are_one_line(wrong, line):
    with pytest.raises(InputError, match=line):
        check(replace(TINY, **wrong))
