"""What the bits of an answer may depend on besides weights and input: arithmetic, machine, versions."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nemo_duplex.models.agent import DuplexAgent
from nemo_duplex.version import __version__

#: Group -> name -> value.
Environment = Mapping[str, Mapping[str, Any]]


def current_environment(model: DuplexAgent) -> dict[str, dict[str, Any]]:
    """The environment of this process, as plain data."""
    return {
        "model": {"dtype": str(model.lm.backbone.lm_head.weight.dtype).removeprefix("torch.")},
        "machine": {
            "device": model.device.type,
            "processor": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else _cpu(),
            "threads": torch.get_num_threads(),
            "matmul precision": torch.get_float32_matmul_precision(),
        },
        "version": {"torch": str(torch.__version__), "numpy": version("numpy"), "nemo_duplex": __version__},
    }


def differences(recorded: Environment, now: Environment) -> Iterator[str]:
    """What differs, each as "machine threads 2 (recorded: 1)"."""
    for group, values in now.items():
        for name, value in values.items():
            then = recorded.get(group, {}).get(name)
            if then != value:
                yield f"{group} {name} {_shown(value)} (recorded: {_shown(then)})"


def _shown(value: Any) -> str:
    return f"{value:.12}..." if isinstance(value, str) and len(value) == 64 else str(value)  # the beginning of a hash


def _cpu() -> str:
    """Name and instruction set of the processor; the instruction set decides which kernels torch uses."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    named = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{named} {torch.backends.cpu.get_cpu_capability()}".strip()
