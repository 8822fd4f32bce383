"""The most memory that a stretch of work took."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """Bytes held at the start of a `with` block and at its peak: by the process on a CPU (Linux), on the device on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.before = self.peak = 0

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            self.before = torch.cuda.memory_allocated(self._device)
        else:
            ctypes.CDLL(None).malloc_trim(0)  # what building the model left behind is given back
            _RESET.write_text("5")  # the peak of the resident set begins anew
            self.before = resident_bytes()
        return self

    def __exit__(self, *_: object) -> None:
        on_gpu = self._device.type == "cuda"
        self.peak = torch.cuda.max_memory_allocated(self._device) if on_gpu else _resident("VmHWM")


def resident_bytes() -> int:
    """What the process holds now (Linux)."""
    return _resident("VmRSS")


def _resident(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"{_STATUS} has no {field}: memory of a CPU process is measured on Linux alone.")
