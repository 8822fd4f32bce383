"""Runs one measurement of a benchmark in a process of its own, so that its memory, threads and imports are its own.

figures = run_measurement("training_step", "ours", folder, setting)          in the benchmark's process

if __name__ == "__main__":                                            at the end of training_step.py
    main({"in_tree": in_tree, "ours": ours})                          calls ours(folder, **setting)
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

from nemo_duplex.benchmark.machine import cpu_threads
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError


def run_measurement(
    module: str, name: str, folder: Path, setting: Mapping[str, Any], threads: int, limit: Seconds | None = None
) -> dict[str, Any]:
    """Runs `python -m nemo_duplex.benchmark.MODULE NAME FOLDER`.

    Args:
        module, name: which file, and which of the functions that it gives to `main`.
        folder: shared by the measurements of a benchmark.
        setting: arguments of that function; plain data.
        threads: of its CPU.
        limit: after which it is ended; None: never.

    Returns:
        The figures that the function returned.

    Raises:
        InputError: if the process fails, with the last line that it wrote, or if it takes longer than `limit`.
    """
    result = folder / f"{name}.json"
    (folder / f"{name}.setting.json").write_text(json.dumps({"setting": dict(setting), "threads": threads}))
    command = [sys.executable, "-m", f"nemo_duplex.benchmark.{module}", name, str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except TimeoutExpired as error:
        raise InputError(f"The measurement {name} of the benchmark was ended after {limit:.0f} s, its limit.") from error
    if done.returncode or not result.exists():
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise InputError(f"The measurement {name} of the benchmark ended with code {done.returncode}: {last}")
    return json.loads(result.read_text())


def main(measurements: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """The process that `run_measurement` starts: runs the named measurement, and writes its figures into the folder."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    given = json.loads((folder / f"{name}.setting.json").read_text())
    with cpu_threads(given["threads"]):
        figures = measurements[name](folder, **given["setting"])
    (folder / f"{name}.json").write_text(json.dumps(figures))
