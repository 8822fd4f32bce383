"""The machine: its name, its rates, its memory; and what a benchmark sets is set back."""

import time

import pytest
import torch

from nemo_duplex.benchmark import machine
from nemo_duplex.benchmark.machine import (
    PeakMemory,
    check_device,
    copy_bandwidth,
    cpu_threads,
    describe_machine,
    matmul_rate,
    read_bandwidth,
    resident_bytes,
)
from nemo_duplex.inputs import InputError


def test_the_peak_of_memory_is_what_was_held_at_once():
    held = 80_000_000
    with PeakMemory(torch.device("cpu")) as memory:
        for _ in range(3):
            torch.ones(held // 4).sum()
    assert 0.8 * held < memory.peak - memory.before < 1.9 * held
    kept = torch.ones(held // 4)
    assert resident_bytes() - memory.before > 0.8 * held and kept.sum() > 0


def test_threads_are_set_back_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError), cpu_threads(before + 2):
        assert torch.get_num_threads() == before + 2
        raise RuntimeError
    assert torch.get_num_threads() == before


def test_rates_are_of_the_fastest_run_but_the_first(monkeypatch, clock, quick_machine):
    """A copy of 1 MiB moves 2 MiB, a product of 64 x 64 matrices takes 2 x 64^3 operations."""
    monkeypatch.setattr(machine, "time", clock)
    seconds = iter([])

    def wait_for(device):
        clock.now += next(seconds)

    monkeypatch.setattr(machine, "wait_for", wait_for)

    def measured(rate, *arguments):
        nonlocal seconds
        seconds = iter([0.0, 0.1, 0.0, 4.0, 0.0, 2.0, 0.0, 3.0])
        return rate("cpu", *arguments, repeats=3)

    assert measured(copy_bandwidth) == pytest.approx(2 * 2**20 / 2.0)
    assert measured(read_bandwidth) == pytest.approx(2**20 / 2.0)
    assert measured(matmul_rate, torch.float32) == pytest.approx(2 * 64**3 / 2.0)


def test_a_description_names_threads_and_torch():
    line = describe_machine("cpu")
    assert f"{torch.get_num_threads()} threads" in line and torch.__version__ in line and "\n" not in line
    assert machine.time is time


def test_devices_that_are_not_there(monkeypatch):
    check_device("cpu")
    with pytest.raises(InputError, match="device=tpu: expected cpu or cuda"):
        check_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="this machine has no GPU"):
        check_device("cuda")
