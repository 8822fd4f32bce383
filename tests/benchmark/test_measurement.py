"""A measurement in a process of its own: what it is given and gives back, and how it fails."""

import json
import sys

import pytest
import torch

from nemo_duplex.benchmark import measurement
from nemo_duplex.benchmark.measurement import main, run_measurement
from nemo_duplex.inputs import InputError

FAKE = """
import json, sys, time
from pathlib import Path
name, folder = sys.argv[1], Path(sys.argv[2])
if name == "broken":
    print("first line", file=sys.stderr)
    sys.exit("no such thing")
if name == "slow":
    time.sleep(60)
given = json.loads((folder / f"{name}.setting.json").read_text())
(folder / f"{name}.json").write_text(json.dumps({"given": given, "name": name}))
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The process runs a script that needs no NeMo, in place of a module of this package."""
    (tmp_path / "fake.py").write_text(FAKE)
    run = measurement.subprocess.run

    def run_fake(command, **keywords):
        python, dash_m, module, name, folder = command
        assert (python, dash_m, module) == (sys.executable, "-m", "nemo_duplex.benchmark.fake")
        return run([python, str(tmp_path / "fake.py"), name, folder], **keywords)

    monkeypatch.setattr(measurement.subprocess, "run", run_fake)


def test_figures_of_another_process(fake, tmp_path):
    figures = run_measurement("fake", "ours", tmp_path, {"seconds": 2.0}, threads=3)
    assert figures == {"given": {"setting": {"seconds": 2.0}, "threads": 3}, "name": "ours"}


def test_a_process_that_fails_is_one_line(fake, tmp_path):
    with pytest.raises(InputError, match="^The measurement broken of the benchmark ended with code 1: no such thing$"):
        run_measurement("fake", "broken", tmp_path, {}, threads=1)


def test_a_process_that_takes_too_long_is_ended(fake, tmp_path):
    with pytest.raises(InputError, match="^The measurement slow of the benchmark was ended after 1 s, its limit.$"):
        run_measurement("fake", "slow", tmp_path, {}, threads=1, limit=1.0)


def test_a_measurement_gets_its_setting_and_its_threads(tmp_path, monkeypatch):
    (tmp_path / "ours.setting.json").write_text(json.dumps({"setting": {"seconds": 2.0}, "threads": 3}))
    monkeypatch.setattr(sys, "argv", ["module", "ours", str(tmp_path)])
    main({"ours": lambda folder, seconds: {"seconds": seconds, "threads": torch.get_num_threads(), "in": str(folder)}})
    assert json.loads((tmp_path / "ours.json").read_text()) == {"seconds": 2.0, "threads": 3, "in": str(tmp_path)}
    assert torch.get_num_threads() == 1
