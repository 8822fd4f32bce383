"""What a benchmark ran on: its name, and how fast it copies and multiplies."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

#: Of the copy that is measured: far more than any cache holds.
_COPIED_BYTES = {"cpu": 1 << 29, "cuda": 1 << 32}
#: Rows and columns of what is multiplied.
_MULTIPLIED = {"cpu": 2048, "cuda": 8192}


def machine(device: str) -> str:
    """One line: processor or GPU, threads, load, version of torch."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
    else:
        busy = os.getloadavg()[0]
        name = f"{_processor()}, {torch.get_num_threads()} threads on {os.cpu_count()} cores, load before {busy:.1f}"
    return f"{name}, torch {torch.__version__}"


def copy_bandwidth(device: str, repeats: int = 5) -> float:
    """Bytes per second of a large copy, those read and those written counted; the fastest of some repeats.

    A write may first read what it overwrites; that is not counted, so reading alone can be somewhat faster than this.
    """
    size = _COPIED_BYTES[device]
    source = torch.ones(size // 4, device=device)
    target = torch.zeros_like(source)
    return 2 * size / _fastest(lambda: target.copy_(source), device, repeats)


def read_bandwidth(device: str, repeats: int = 5) -> float:
    """Bytes per second of reading alone (a sum), which is what a step does with its weights; the fastest of some repeats."""
    size = _COPIED_BYTES[device]
    source = torch.ones(size // 4, device=device)
    return size / _fastest(source.sum, device, repeats)


def matmul_rate(device: str, dtype: torch.dtype, repeats: int = 5) -> float:
    """Operations per second (multiplication and addition are two) of a large matrix product; the fastest of some repeats."""
    size = _MULTIPLIED[device]
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    return 2 * size**3 / _fastest(lambda: matrix @ matrix, device, repeats)


def _fastest(work: Callable[[], Any], device: str, repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 1):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
