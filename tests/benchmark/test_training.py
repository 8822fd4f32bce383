"""The benchmark of training: both sides train the same thing, and what is printed is what was measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nemo_duplex.benchmark.memory import PeakMemory
from nemo_duplex.benchmark.training import Setting, benchmark_training
from nemo_duplex.inputs import InputError

ROOT = Path(__file__).parent.parent.parent


def run(*keys):
    command = [sys.executable, str(ROOT / "examples/benchmark.py"), *keys]
    return subprocess.run(command, capture_output=True, text=True, timeout=400)


@pytest.mark.slow
def test_both_sides_have_the_same_loss(tmp_path):
    """The same weights on the same batch: NeMo's in-tree model and ours must agree, or the times compare nothing."""
    done = run("size=tiny", "batch=2", "seconds=4", "steps=1", "threads=1", f"out={tmp_path / 'figures.json'}")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "figures.json").read_text())
    assert result["loss_difference"] < 1e-4
    for side in ("in_tree", "ours"):
        assert result[side]["frames_per_second"] == pytest.approx(100 / result[side]["step_seconds"])
        assert result[side]["peak_bytes"] > result[side]["step_bytes"] > 0
    assert f"{result['ours']['loss']:.6f}" in done.stdout and "frames per second" in done.stdout


def test_the_peak_of_memory_is_what_was_held_at_once():
    held = 80_000_000
    with PeakMemory(torch.device("cpu")) as memory:
        for _ in range(3):
            torch.ones(held // 4).sum()
    assert 0.8 * held < memory.peak - memory.before < 1.9 * held


def test_wrong_settings_are_one_line():
    with pytest.raises(InputError, match="size is 'big', expected one of tiny, small, paper"):
        benchmark_training(Setting(size="big"))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="there is no GPU here"):
            benchmark_training(Setting(device="cuda"))
    done = run("what=flying")
    assert done.returncode == 2 and "what=flying: expected train" in done.stderr
