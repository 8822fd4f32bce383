"""One side of a benchmark in a process of its own, so that its memory, threads and imports are its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from nemo_duplex.inputs import InputError


def run_side(module: str, side: str, folder: Path) -> dict[str, Any]:
    """Runs `python -m nemo_duplex.benchmark.MODULE SIDE FOLDER`, which writes its figures to FOLDER/SIDE.json.

    Raises:
        InputError: if it fails, with the last line that it wrote.
    """
    command = [sys.executable, "-m", f"nemo_duplex.benchmark.{module}", side, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    result = folder / f"{side}.json"
    if done.returncode or not result.exists():
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise InputError(f"The {side} side of the benchmark ended with code {done.returncode}: {last}")
    return json.loads(result.read_text())
