"""The datasets of a mixture (`synthesis/mixture.py`) as NeMo's loader takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nemo_duplex.inputs import InputError, one_line
from nemo_duplex.synthesis.mixture import SUMMARY


def is_mixture(folder: str | Path) -> bool:
    """Whether `synthesize` wrote a mixture of datasets there."""
    return (Path(folder) / SUMMARY).is_file()


_LEAST = 0.0005  # hours: less is 0 in the summary, and a weight of 0 is refused


def datasets_of(folder: str | Path, set_name: str) -> list[dict[str, Any]]:
    """The `input_cfg` of the datasets that have the set `set_name`; those of train are drawn in proportion to their hours.

    Raises:
        InputError: if none has it, or the summary is not one of `synthesize`.
    """
    folder = Path(folder)
    found = [
        {
            "type": "lhotse_shar",
            "shar_path": str(folder / name / set_name / "shar"),
            "weight": max(hours, _LEAST) if set_name == "train" else 1.0,
        }
        for name, hours in _hours(folder / SUMMARY).items()
        if any((folder / name / set_name / "shar").glob("cuts.*.jsonl.gz"))
    ]
    if not found:
        raise InputError(
            f"data: no dataset of the mixture {folder} has the set {set_name}. Make it with examples/synthesize.py."
        )
    return found


def _hours(path: Path) -> dict[str, float]:
    """Of train, by dataset."""
    try:
        datasets = json.loads(path.read_text(encoding="utf-8"))["datasets"]
        return {name: float(facts["hours"]) for name, facts in datasets.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"data: {path} is not the summary of a mixture ({type(error).__name__}: {one_line(error)}). Run "
            "examples/synthesize.py again, or remove the file if the folder holds no mixture."
        ) from error
