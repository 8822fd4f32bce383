"""A clock that tests turn, and measurements of a benchmark in the test's own process, where NeMo is imported already."""

from __future__ import annotations

import runpy
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from nemo_duplex.benchmark import machine, measurement

ROOT = Path(__file__).parents[2]


class Clock:
    """Stands still unless it is told otherwise; takes the place of a module's `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def measured_here(monkeypatch):
    """`run_measurement` runs the module as `python -m` does, but here; returns the names of the measurements."""
    names = []

    def run(command, **_):
        python, dash_m, module, name, folder = command
        assert (python, dash_m) == (sys.executable, "-m")
        names.append(name)
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # runpy: the module is imported already
            patch.setattr(sys, "argv", [module, name, folder])
            runpy.run_module(module, run_name="__main__")
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(measurement, "subprocess", SimpleNamespace(run=run))
    return names


@pytest.fixture
def quick_machine(monkeypatch):
    """Its rates are measured with little."""
    monkeypatch.setattr(machine, "_COPIED_BYTES", {"cpu": 1 << 20})
    monkeypatch.setattr(machine, "_MATRIX_SIZE", {"cpu": 64})


@pytest.fixture
def script():
    """examples/benchmark.py, run here: takes its arguments, returns its exit code."""
    main = runpy.run_path(str(ROOT / "examples" / "benchmark.py"))["main"]

    def run(*arguments: str) -> int:
        try:
            main(list(arguments))
        except SystemExit as end:
            return end.code
        return 0

    return run
