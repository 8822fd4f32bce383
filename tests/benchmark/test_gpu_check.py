"""The check of a GPU, on a CPU in small form: parts that fail or no longer fit are said, and the others are measured."""

import json
import math
import runpy
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from nemo_duplex.benchmark import gpu_check
from nemo_duplex.benchmark.gpu_check import PARTS, GpuCheckSetting, Part, by_worth, check_gpu, out_of_memory, tick_floors, ticks
from nemo_duplex.benchmark.gpu_report import failed, gpu_tables, verdicts
from nemo_duplex.benchmark.roofline import STAGES, BatchTimes
from nemo_duplex.benchmark.sessions import Ticks
from nemo_duplex.benchmark.utilisation import utilisation
from nemo_duplex.inputs import InputError
from nemo_duplex.scripts.config import load

ROOT = Path(__file__).parents[2]
TINY = GpuCheckSetting(device="cpu", size="tiny", threads=1)
TESTS = """
class torch:
    class cuda:
        is_available = staticmethod(lambda: False)

def test_right():
    torch.cuda.is_available()

def test_wrong():
    assert torch.cuda.is_available()
"""


@pytest.fixture
def check(tmp_path, monkeypatch):
    """examples/gpu_check.py, run here with a folder of tests: takes keys, returns its exit code, gpu.json and gpu.md."""
    main = runpy.run_path(str(ROOT / "examples" / "gpu_check.py"))["main"]
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_some.py").write_text(TESTS)
    monkeypatch.chdir(tmp_path)

    def run(*keys: str) -> tuple[int, dict, str]:
        code = 0
        try:
            main(["device=cpu", "size=tiny", "threads=1", "tests=tests", *keys])
        except SystemExit as end:
            code = end.code
        page = Path("gpu.json")
        return code, json.loads(page.read_text()) if page.exists() else {}, Path("gpu.md").read_text() if page.exists() else ""

    return run


@pytest.fixture
def timed(monkeypatch, clock):
    """Parts that take 100 s each and return what the test says, or raise it; returns the limits that they were given."""
    limits = {}

    def part(name: str, figures: dict | Exception, least: float = 60.0, share: float = 1.0, takes: float = 100.0) -> None:
        def measure(setting, folder, limit):
            limits[name] = limit
            clock.now += takes
            if isinstance(figures, Exception):
                raise figures
            return figures

        monkeypatch.setitem(PARTS, name, Part(least, share, measure))

    monkeypatch.setattr(gpu_check, "time", SimpleNamespace(perf_counter=clock.perf_counter, strftime=lambda form: "today"))
    for name in PARTS:
        part(name, {})
    return SimpleNamespace(part=part, limits=limits)


# --- in one run ---------------------------------------------------------------------------------------------------------


def test_in_one_run_of_the_script(check, capsys, monkeypatch, measured_here, quick_machine):
    """Ticks, training and tests, one of which fails; figures of each are in gpu.json, in gpu.md and on the screen."""
    monkeypatch.setattr("nemo_duplex.benchmark.sessions._WARM_UP_CHUNKS", 1)
    keys = ["parts=[tests,training,ticks]", "callers=[2,1]", "ticks=4", "seconds=4", "warmup=1", "steps=1", "precision=32"]
    code, result, page = check(*keys)
    printed = capsys.readouterr()
    assert code == 1, "A test failed."
    assert measured_here == ["ticks", "ours_counted"] and list(result["parts"]) == ["ticks", "training", "tests"]
    assert [line for line in printed.err.splitlines() if line.endswith("...")] == ["ticks ...", "training ...", "tests ..."]
    assert [part["state"] for part in result["parts"].values()] == ["done", "done", "failed"]
    assert all(part["took"] > 0 for part in result["parts"].values())

    part, training, tests = result["parts"].values()
    assert [(row["callers"], row["count"], row["sessions"]) for row in part["rows"]] == [(1, 4, 1), (2, 4, 2)]
    for row in part["rows"]:
        assert row["p99"] >= row["p50"] > 0 and row["opened"] > 0 and row["peak_bytes"] > 1e8 and row["frames_per_tick"] == 1
        assert all(math.isfinite(floor) and floor > 0 for floor in tick_floors(part, row))
    assert training["frames_per_second"] == pytest.approx(50 / training["step_seconds"])
    assert 6 * training["product_parameters"] < training["operations_per_frame"] < 1e9
    assert (tests["passed"], tests["failed"], tests["failures"]) == (1, 1, ["test_wrong"])

    tables = gpu_tables(result)
    assert [table.title for table in tables] == ["What is expected", "Parts", "Ticks", "A training step", "GPU tests"]
    for table in tables:
        assert table.text() in printed.out and table.markdown() in page
    measured = utilisation(training["frames_per_second"], training["operations_per_frame"], training["matmul_rate"])
    assert tables[3].rows[-1] == ("MFU, of a large product's rate", f"{measured:.1%}")
    assert result["verdicts"] == verdicts(result) and {one["verdict"] for one in result["verdicts"]} == {"not run"}
    assert result["setting"]["batch"] == 1 and result["device_name"] == "cpu"


@pytest.mark.slow
def test_all_parts_in_processes_of_their_own(check, capsys):
    """NeMo's step too, and both ways of ours, which do the same; no figure of theirs is missing."""
    code, result, _ = check("callers=[1]", "ticks=4", "warmup=1", "steps=1", "minutes=20", "precision=32")
    states = {name: part["state"] for name, part in result["parts"].items()}
    assert states == dict.fromkeys(PARTS, "done") | {"tests": "failed"} and code == 1
    recomputed, kept = result["parts"]["training"], result["parts"]["training_kept"]
    assert recomputed["operations_per_frame"] == kept["operations_per_frame"], "What runs again does not count."
    assert recomputed["loss"] == pytest.approx(kept["loss"], rel=1e-4)
    assert gpu_tables(result)[3].columns[1:] == (
        "NeMo in-tree",
        "nemo_duplex, activations recomputed",
        "nemo_duplex, activations kept",
    )


# --- parts --------------------------------------------------------------------------------------------------------------


def test_a_part_that_fails_is_one_line_and_stops_no_other(timed):
    timed.part("ticks", RuntimeError("CUDA error:\n an illegal\n access"))
    timed.part("training", InputError("The measurement ended with code -9: no output"))
    timed.part("tests", {"not_run": "no test asks for a GPU"})
    timed.part("training_kept", {"frames": 3, "error": "half of it"})
    saved = []
    result = check_gpu(TINY, lambda found: saved.append(json.loads(json.dumps(found))))
    assert [list(found["parts"]) for found in saved] == [list(PARTS)[:n] for n in range(1, len(PARTS) + 1)]
    assert saved[-1] == result and failed(result)
    lines = [row[0] for row in gpu_tables(result)[1].rows]
    assert lines == [
        "ticks: failed: CUDA error: an illegal access",
        "training: failed: The measurement ended with code -9: no output",
        "tests: not run: no test asks for a GPU",
        "training_kept: failed: half of it",
        "in_tree: done",
    ]
    assert result["parts"]["training_kept"]["frames"] == 3 and result["parts"]["in_tree"] == {"state": "done", "took": 100.0}
    assert not failed({"parts": {"tests": result["parts"]["tests"], "in_tree": result["parts"]["in_tree"]}})


def test_what_no_longer_fits_is_not_run(timed):
    """Of 5 minutes, 10 s are gone at the start; parts take 100 s, the third one is ended after the 90 s that were left."""
    timed.part("ticks", {}, share=0.5)
    timed.part("tests", InputError("ended"), takes=90.0)
    result = check_gpu(GpuCheckSetting(**{**asdict(TINY), "minutes": 5.0}), started=1000.0 - 10.0)
    assert timed.limits == {"ticks": 150.0, "training": 190.0, "tests": 90.0}
    assert [part["state"] for part in result["parts"].values()] == ["done", "done", "failed", "not run", "not run"]
    assert gpu_tables(result)[1].rows[-1] == (
        "in_tree: not run: it needs 60 s or more, and 0 s of minutes=5 are left",
        "",
    )
    assert not failed(check_gpu(GpuCheckSetting(**{**asdict(TINY), "minutes": 0.5})))


def test_without_time_nothing_runs_and_it_is_said(check, capsys):
    code, result, _ = check("minutes=0.001")
    assert code == 0 and {part["state"] for part in result["parts"].values()} == {"not run"}
    printed = capsys.readouterr().out
    for name in PARTS:
        assert f"{name}: not run: it needs" in printed
    assert all(one["verdict"] == "not run" and "are left" in one["why"] for one in result["verdicts"])


# --- ticks --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def batches(monkeypatch, clock):
    """Ticks of a model that is none: a batch takes 10 s, or raises what the test says of it."""
    raised: dict[int, Exception] = {}
    measured = []

    def measure(model, audio, callers, count, options):
        measured.append((*callers, dict(options)))
        clock.now += 10.0
        if callers[0] in raised:
            raise raised[callers[0]]
        return [BatchTimes(Ticks(callers[0], count, 0.1, 0.1, 0.2, 0.3, 1.0, {}, 5.0), 7)]

    model = SimpleNamespace(
        parameters=lambda: [torch.zeros(4)], perception=SimpleNamespace(chunk_frames=2), device=torch.device("cpu")
    )
    monkeypatch.setattr(gpu_check, "random_model", lambda *given: model)
    monkeypatch.setattr(gpu_check, "stage_work", lambda model: {})
    monkeypatch.setattr(gpu_check, "measure_batches", measure)
    monkeypatch.setattr(gpu_check, "time", SimpleNamespace(perf_counter=clock.perf_counter, time=clock.perf_counter))
    return SimpleNamespace(raised=raised, measured=measured)


def test_out_of_memory_is_a_row_and_so_is_any_other_error(tmp_path, batches, quick_machine):
    batches.raised[512] = torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 9 GiB")
    batches.raised[8] = RuntimeError("capture failed")
    found = ticks(tmp_path, "tiny", "cpu", "32", [1, 8, 256, 512, 32], 3, until=math.inf)
    assert [callers for callers, _ in batches.measured] == [256, 1, 8, 32, 512]
    rows = {row["callers"]: row for row in found["rows"]}
    assert rows[512] == {"callers": 512, "out_of_memory": "CUDA out of memory. Tried to allocate 9 GiB"}
    assert rows[8] == {"callers": 8, "error": "capture failed"}
    assert {rows[n]["p99"] for n in (1, 32, 256)} == {0.3} and (rows[1]["opened"], rows[1]["peak_bytes"]) == (5.0, 7)
    assert json.loads((tmp_path / "ticks.rows.json").read_text()) == found


def test_on_a_gpu_graphs_are_captured(tmp_path, batches, quick_machine, monkeypatch):
    gpu_check._row(SimpleNamespace(device=torch.device("cuda")), 4, 3, 100.0, [])
    gpu_check._row(SimpleNamespace(device=torch.device("cpu")), 4, 3, 100.0, [])
    assert batches.measured == [(4, {"cuda_graphs": True}), (4, {})]


def test_callers_who_no_longer_fit_are_not_begun(tmp_path, batches, quick_machine):
    """A batch takes 10 s, one of twice as many callers is expected to take 20 s; 35 s are given."""
    found = ticks(tmp_path, "tiny", "cpu", "32", [1, 256, 512, 8], 3, until=1035.0)
    assert [callers for callers, _ in batches.measured] == [256, 1]
    assert [row.get("not_run") for row in found["rows"]] == [
        None,
        None,
        "it needs about 80 s, and 15 s are left",
        "it needs about 5120 s, and 15 s are left",
    ]


def test_a_chain_of_errors_that_began_with_memory():
    try:
        try:
            raise torch.OutOfMemoryError("too much")
        finally:
            raise RuntimeError("the capture was invalidated")
    except RuntimeError as error:
        assert out_of_memory(error)
    assert out_of_memory(RuntimeError("CUDA error: out of memory")) and out_of_memory(
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")
    )
    assert not out_of_memory(RuntimeError("an illegal memory access"))


def test_rows_of_a_process_that_died_count(tmp_path, monkeypatch):
    def dies(module, name, folder, setting, threads, limit):
        assert (module, name, setting["callers"], threads, limit) == ("gpu_check", "ticks", [1, 256], 1, 50.0)
        (folder / "ticks.rows.json").write_text(json.dumps({"what": "a model", "rows": [{"callers": 256, "p99": 0.1}]}))
        raise InputError("ended after 50 s")

    monkeypatch.setattr(gpu_check, "run_measurement", dies)
    setting = GpuCheckSetting(**{**asdict(TINY), "callers": [1, 256]}).complete()
    found = PARTS["ticks"].measure(setting, tmp_path, 50.0)
    assert found["error"] == "ended after 50 s" and found["what"] == "a model"
    assert found["rows"] == [{"callers": 1, "not_run": "ended after 50 s"}, {"callers": 256, "p99": 0.1}]


def test_a_row_that_failed_fails_the_part_but_one_out_of_memory_does_not(tmp_path, monkeypatch):
    rows = [{"callers": 1, "error": "capture failed"}, {"callers": 2, "out_of_memory": "too much"}]
    monkeypatch.setattr(gpu_check, "run_measurement", lambda *given: {"rows": list(rows)})
    assert PARTS["ticks"].measure(TINY.complete(), tmp_path, 50.0)["error"] == "1 callers: capture failed"
    del rows[0]
    assert "error" not in PARTS["ticks"].measure(TINY.complete(), tmp_path, 50.0)


def test_what_is_expected_is_measured_first():
    assert by_worth([1, 8, 32, 512, 256]) == [256, 1, 8, 32, 512] and by_worth([2, 1]) == [1, 2]


def test_the_floor_is_of_the_mean_tick():
    """1 GB/s and 1 GFLOP/s; 4 MB, 1 MB and 2 million operations a caller; the encoder hears a caller every other tick."""
    work = dict.fromkeys(STAGES, {"weights": 4_000_000, "remembered": 1_000_000, "operations": 2_000_000})
    part = {"work": work, "chunk_frames": 2, "copy_bandwidth": 1e9, "matmul_rate": 1e9}
    counts = {"mel": 10, "encoder": 10, "llm": 10, "codec": 10}  # callers came at different times: each tick hears some
    row = {"callers": 4, "count": 10, "stages": {stage: {"count": count} for stage, count in counts.items()}}
    assert tick_floors(part, row) == pytest.approx((4 * 0.004 + 2 * 0.002 + 2 * 0.004, 2 * 0.004 + 2 * 0.008))
    row["stages"]["mel"]["count"] = row["stages"]["encoder"]["count"] = 5
    assert tick_floors(part, row)[0] == pytest.approx(3 * 0.004 + 2 * 0.002 + 2 * 0.004)


# --- settings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong, line",
    [
        ({"device": "tpu"}, "device=tpu: expected cpu or cuda"),
        ({"size": "big"}, "size is 'big', expected one of tiny, small, paper"),
        ({"precision": "16"}, "precision=16: expected 32 or bf16"),
        ({"parts": ["tick"]}, r"parts=\[tick\]: expected some of ticks, training, tests, training_kept, in_tree"),
        ({"callers": [0, 1]}, r"callers=\[0, 1\]: expected numbers of 1 or more"),
        ({"tests": "nowhere"}, "tests: .*nowhere"),
    ],
)
def test_wrong_settings_are_one_line(wrong, line):
    with pytest.raises(InputError, match=line):
        check_gpu(GpuCheckSetting(**{**asdict(TINY), **wrong}))


def test_the_configuration_has_every_key_with_its_default(monkeypatch):
    configured = OmegaConf.to_container(load("gpu_check", []))
    assert configured == {**asdict(GpuCheckSetting()), "out": "gpu.json"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    full = GpuCheckSetting().complete()
    assert (full.callers, full.batch, full.seconds, full.parts) == ([1, 8, 32, 64, 128, 256, 512], 25, 40.0, list(PARTS))
    assert full.tests == str(ROOT / "tests") and full.threads >= 1
    assert GpuCheckSetting(callers=[7], ticks=9).complete().callers == [7]


def test_the_file_must_be_json(check, capsys):
    assert check("out=gpu.md")[0] == 2
    assert "out=gpu.md: expected a name that ends in .json" in capsys.readouterr().err
