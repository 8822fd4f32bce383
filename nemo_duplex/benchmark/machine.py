"""The machine of a benchmark: its name, its threads, how fast it copies and multiplies, what memory a piece of work takes."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from nemo_duplex.inputs import InputError

DEVICES = ("cpu", "cuda")
#: Size of the copy that is timed: far more than any cache holds.
_COPIED_BYTES = {"cpu": 1 << 29, "cuda": 1 << 32}
#: Rows and columns of the matrices that are multiplied.
_MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}
_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def check_device(device: str) -> None:
    """Refuses a device that this machine does not have.

    Raises:
        InputError: if it is neither `cpu` nor `cuda`, or if there is no GPU.
    """
    if device not in DEVICES:
        raise InputError(f"device={device}: expected cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda: this machine has no GPU. Use device=cpu.")


def describe_machine(device: str) -> str:
    """One line: processor or GPU, threads, load, version of torch."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
    else:
        load = os.getloadavg()[0]
        name = f"{_processor()}, {torch.get_num_threads()} threads on {os.cpu_count()} cores, load before {load:.1f}"
    return f"{name}, torch {torch.__version__}"


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """torch uses `count` CPU threads inside the block, and as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def wait_for(device: str) -> None:
    """Waits until the GPU has done its work; on a CPU there is nothing to wait for."""
    if device == "cuda":
        torch.cuda.synchronize()


def copy_bandwidth(device: str, repeats: int = 5) -> float:
    """Bytes per second of a large copy, bytes read plus bytes written; the fastest of the repeats.

    A write may first read what it overwrites. That is not counted, so reading alone can be somewhat faster than this.
    """
    size = _COPIED_BYTES[device]
    source = torch.ones(size // 4, device=device)
    target = torch.zeros_like(source)
    return 2 * size / _fastest(lambda: target.copy_(source), device, repeats)


def read_bandwidth(device: str, repeats: int = 5) -> float:
    """Bytes per second of reading alone (a sum), as a step does with its weights; the fastest of the repeats."""
    size = _COPIED_BYTES[device]
    source = torch.ones(size // 4, device=device)
    return size / _fastest(source.sum, device, repeats)


def matmul_rate(device: str, dtype: torch.dtype, repeats: int = 5) -> float:
    """Operations per second (multiplications plus additions) of a large matrix product; the fastest of the repeats."""
    size = _MATRIX_SIZE[device]
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    return 2 * size**3 / _fastest(lambda: matrix @ matrix, device, repeats)


class PeakMemory:
    """Bytes held at the start of a `with` block and at its peak: by the process on a CPU (Linux only), on the device on a GPU.

    Attributes:
        before, peak: bytes; `peak` is known after the block.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.before = self.peak = 0

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            self.before = torch.cuda.memory_allocated(self._device)
        else:
            ctypes.CDLL(None).malloc_trim(0)  # gives back what building the model left behind
            _RESET.write_text("5")  # resets the peak of the resident set
            self.before = resident_bytes()
        return self

    def __exit__(self, *_: object) -> None:
        on_gpu = self._device.type == "cuda"
        self.peak = torch.cuda.max_memory_allocated(self._device) if on_gpu else _resident("VmHWM")


def resident_bytes() -> int:
    """Bytes that the process holds now (Linux only)."""
    return _resident("VmRSS")


def _resident(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"{_STATUS} has no {field}: the memory of a CPU process is measured on Linux only.")


def _fastest(work: Callable[[], Any], device: str, repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 1):
        wait_for(device)
        start = time.perf_counter()
        work()
        wait_for(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])  # the first run touches the memory


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
