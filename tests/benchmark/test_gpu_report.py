"""Verdicts: reached, missed, or not run and why; and the tables of a GPU that was never there."""

import copy

import pytest

from nemo_duplex.benchmark.gpu_report import gpu_tables, verdicts
from nemo_duplex.benchmark.roofline import STAGES

STAGE = {"weights": 4_800_000, "remembered": 4_800, "operations": 1_000_000}
TRAINING = {"state": "done", "took": 9.0, "step_seconds": 0.25, "peak_bytes": 5e10, "step_bytes": 4e10, "loss": 40.0}
COUNTED = {"operations_per_frame": 8e9, "product_parameters": 1_200_000_000, "matmul_rate": 800e12}


def row(callers: int, p99: float) -> dict:
    stages = {stage: {"count": 300} for stage in STAGES}
    times = {"p50": p99 / 2, "p99": p99, "count": 300, "stages": stages}
    return {"callers": callers, **times, "peak_bytes": 9e9, "opened": 2.5, "took": 10.0}


#: 50,000 frames a second of 8 GFLOP are 400 TFLOP/s: 40.4 % of 989, 50 % of 800.
RESULT = {
    "machine": "NVIDIA H200, torch 2.13",
    "device_name": "NVIDIA H200",
    "date": "2026-12-01",
    "setting": {
        "device": "cuda",
        "size": "paper",
        "precision": "bf16",
        "callers": [1, 256, 512],
        "ticks": 300,
        "batch": 25,
        "seconds": 40.0,
        "steps": 5,
        "parts": ["ticks", "training", "tests", "training_kept", "in_tree"],
    },
    "parts": {
        "ticks": {
            "state": "done",
            "took": 100.0,
            "what": "1,351 million parameters, random",
            "copy_bandwidth": 4.8e12,
            "matmul_rate": 800e12,
            "chunk_frames": 2,
            "work": dict.fromkeys(STAGES, STAGE),
            "rows": [row(1, 0.004), row(256, 0.030), {"callers": 512, "out_of_memory": "CUDA out of memory"}],
        },
        "training": {**TRAINING, **COUNTED, "frames_per_second": 40_000.0},
        "tests": {"state": "done", "took": 40.0, "passed": 8, "failed": 0, "skipped": 0, "failures": []},
        "training_kept": {**TRAINING, **COUNTED, "frames_per_second": 50_000.0},
        "in_tree": {**TRAINING, "frames_per_second": 5_000.0},
    },
}
NAMES = ("many", "one", "mfu", "tests")


@pytest.fixture
def result() -> dict:
    return copy.deepcopy(RESULT)


def judged(result: dict) -> dict[str, dict]:
    return dict(zip(NAMES, verdicts(result), strict=True))


def test_all_reached(result):
    found = judged(result)
    assert [one["verdict"] for one in found.values()] == ["reached"] * 4
    assert [one["measured"] for one in found.values()] == [
        "30 ms",
        "4 ms",
        "40.4% of the published peak (activations kept)",
        "0 of 8",
    ]
    assert [one["expected"] for one in found.values()] == ["< 40 ms", "<= 5 ms", ">= 39 %", "0"]


@pytest.mark.parametrize(
    "name, path, value, verdict",
    [
        ("many", ("ticks", "rows", 1, "p99"), 0.03999, "reached"),
        ("many", ("ticks", "rows", 1, "p99"), 0.040, "missed"),
        ("many", ("ticks", "rows", 1), {"callers": 256, "out_of_memory": "too much"}, "missed"),
        ("many", ("ticks", "rows", 1), {"callers": 256, "error": "capture failed"}, "not run"),
        ("many", ("ticks", "rows", 1), {"callers": 256, "not_run": "no time"}, "not run"),
        ("one", ("ticks", "rows", 0, "p99"), 0.005, "reached"),
        ("one", ("ticks", "rows", 0, "p99"), 0.00501, "missed"),
        ("mfu", ("training_kept", "frames_per_second"), 0.3901 * 989e12 / 8e9, "reached"),
        ("mfu", ("training_kept", "frames_per_second"), 0.3899 * 989e12 / 8e9, "missed"),
        ("tests", ("tests", "failed"), 1, "missed"),
    ],
)
def test_the_limits(result, name, path, value, verdict):
    *way, last = path
    part = result["parts"]
    for step in way:
        part = part[step]
    part[last] = value
    found = judged(result)
    assert found.pop(name)["verdict"] == verdict
    assert {one["verdict"] for one in found.values()} == {"reached"}, "The others stay."


def test_the_rate_of_a_gpu_that_nobody_published_is_measured(result):
    result["device_name"] = "NVIDIA Somenew"
    assert judged(result)["mfu"]["measured"] == "50.0% of a large product's rate (activations kept)"


@pytest.mark.parametrize("key, value", [("device", "cpu"), ("size", "tiny"), ("precision", "32")])
def test_nothing_is_reached_by_another_machine_or_size(result, key, value):
    result["setting"][key] = value
    found = judged(result)
    tests = found.pop("tests")
    assert {one["verdict"] for one in found.values()} == {"not run"}
    assert {one["why"] for one in found.values()} == {"expected of device=cuda size=paper precision=bf16"}
    assert found["many"]["measured"] == "30 ms" and tests["verdict"] == ("not run" if key == "device" else "reached")


def test_why_a_figure_is_not_there(result):
    parts = result["parts"]
    parts["ticks"] = {"state": "failed", "took": 3.0, "error": "code -9"}
    parts["training"] = {"state": "failed", "took": 3.0, "error": "no weights"}
    parts["training_kept"] = {"state": "not run", "why": "5 s are left"}
    parts["tests"] |= {"passed": 0, "skipped": 8}
    found = judged(result)
    assert {one["verdict"] for one in found.values()} == {"not run"} and {one["measured"] for one in found.values()} == {""}
    assert [one["why"] for one in found.values()] == [
        "code -9",
        "code -9",
        "training: no weights; training_kept: 5 s are left",
        "all 8 were skipped",
    ]
    del parts["tests"], parts["ticks"]
    result["setting"]["parts"] = ["ticks"]
    assert judged(result)["one"]["why"] == "the part ticks has not run yet"
    assert judged(result)["tests"]["why"] == "parts= is without tests"


def test_operations_that_could_not_be_counted(result):
    for name in ("training", "training_kept"):
        del result["parts"][name]["operations_per_frame"]
        result["parts"][name]["operations_error"] = "no counter"
    assert judged(result)["mfu"]["why"].startswith("training: operations could not be counted: no counter")
    assert "MFU: operations could not be counted: no counter" in gpu_tables(result)[3].about


def test_the_tables(result):
    expected, parts, ticks, training, tests = gpu_tables(result)
    assert expected.about == ["2026-12-01, NVIDIA H200, torch 2.13", "size paper, precision bf16, device cuda"]
    assert expected.rows[0] == ("256 callers, p99 of a tick < 40 ms", "30 ms", "reached")
    assert parts.rows[0] == ("ticks: done", "100 s")
    # weights: 4 x 1 us; remembered 1 ns, of mel and encoder half; 1 million operations take 1.25 ns, 3 x for a caller
    assert ticks.rows[0] == ("1", "2 ms", "4 ms", "0.004 ms", "3.75e-06 ms", "499.6 x", "9.00 GB", "2.5 s")
    assert ticks.rows[2] == ("512", "out of memory", *[""] * 6)
    assert "512 callers: out of memory: CUDA out of memory" in ticks.about and "4,800 GB/s" in ticks.about[3]
    assert training.columns == (
        "",
        "NeMo in-tree",
        "nemo_duplex, activations recomputed",
        "nemo_duplex, activations kept",
    )
    assert training.rows[1] == ("frames per second", "5,000", "40,000", "50,000")
    assert training.rows[-2:] == [
        ("MFU, of the published peak", "4.0%", "32.4%", "40.4%"),
        ("MFU, of a large product's rate", "5.0%", "40.0%", "50.0%"),
    ]
    assert "8 GFLOP a frame" in training.about[1] and "6 N alone: 7.2" in training.about[1]
    assert tests.rows == [("8", "0", "0")]
    for table in gpu_tables(result):
        assert len({len(cells) for cells in (table.columns, *table.rows)}) == 1, table.title
