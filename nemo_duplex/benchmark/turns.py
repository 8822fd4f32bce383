"""Two builds of this package measured in turns, block by block, so that a machine that is slower for a while slows both.

with build("old", checkout, "recording", threads=1, ...) as old, build("new", ...) as new:
    before, now = in_turns([(old, {}), (new, {})], rounds=10)         old, new, old, new, ...
    figures = compared("a minute", before, now, SECONDS)              new to old: of all rounds together, and of each
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nemo_duplex.benchmark import one_build
from nemo_duplex.benchmark.table import milliseconds
from nemo_duplex.inputs import InputError

#: How long a process may take to end after its last answer.
_SECONDS_TO_END = 30


class Build:
    """A process that has loaded one build, and answers questions about it.

    Attributes:
        name: in messages.
        first: what it said when it was ready.

    Raises:
        InputError: if the process fails, now or at a question, with the last line that it wrote.
    """

    def __init__(self, name: str, checkout: Path, process: subprocess.Popen[str], errors: Path) -> None:
        self.name, self._checkout, self._process, self._errors = name, checkout, process, errors
        self.first = self._answer()
        if not Path(self.first["package"]).resolve().is_relative_to(checkout.resolve()):
            raise InputError(f"The {name} build is {self.first['package']}, expected that of {checkout}.")

    def ask(self, **question: Any) -> dict[str, Any]:
        """The answer to one question; see `one_build.py`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended before; the answer says why
        return self._answer()

    def end(self) -> None:
        """Ends the process, by the end of its input.

        Raises:
            InputError: if it ends with an error.
        """
        self._process.communicate(timeout=_SECONDS_TO_END)
        if self._process.returncode:
            raise self._error()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return json.loads(line)
        raise self._error()

    def _error(self) -> InputError:
        code = self._process.wait()
        lines = [line.strip() for line in self._errors.read_text(errors="replace").splitlines() if line.strip()]
        return InputError(f"The {self.name} build ({self._checkout}) ended with code {code}: {(lines or ['no output'])[-1]}")


@contextmanager
def build(name: str, checkout: Path, part: str, threads: int, **given: Any) -> Iterator[Build]:
    """A process that measures the build in `checkout` inside the block; it has loaded everything when the block begins.

    Args:
        name: in messages.
        checkout: folder with `nemo_duplex/__init__.py`.
        part: one of `one_build.PARTS`; `given` are its arguments.
        threads: of its CPU.

    Raises:
        InputError: if it cannot load that, with the last line that it wrote.
    """
    command = [sys.executable, one_build.__file__, str(checkout), json.dumps({"part": part, "threads": threads, **given})]
    with tempfile.TemporaryDirectory(prefix="nemo_duplex-benchmark-") as folder:
        errors = Path(folder) / "stderr"
        with errors.open("w") as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            )
        try:
            one = Build(name, checkout, process, errors)
            yield one
            one.end()
        finally:
            process.kill()
            process.communicate()


def in_turns(sides: Sequence[tuple[Build, Mapping[str, Any]]], rounds: int, **question: Any) -> list[list[dict[str, Any]]]:
    """Asks one side after the other, then each again.

    Args:
        sides: builds, with what only this side is asked beside the `question`.

    Returns:
        The answers of each side, one a round.
    """
    answers: list[list[dict[str, Any]]] = [[] for _ in sides]
    for _ in range(rounds):
        for (one, own), given in zip(sides, answers):
            given.append(one.ask(**question, **own))
    return answers


# --- ratios -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unit:
    """How a figure is made of what was measured, and how it reads.

    Args:
        percentiles: that are compared.
        value: of a percentile of the times.
        text: of a value.
    """

    percentiles: Sequence[int] = (50,)
    value: Callable[[float], float] = float
    text: Callable[[float], str] = "{:.2f} s".format


MILLISECONDS = Unit((50, 95, 99), text=milliseconds)
SECONDS = Unit()
NUMBER = Unit(text="{:,.0f}".format)


def rate(amount: float) -> Unit:
    """So much of something in the time that was measured, such as frames a second."""
    return Unit(value=lambda seconds: amount / seconds, text="{:,.1f}".format)


def compared(name: str, old: Sequence[Sequence[float]], new: Sequence[Sequence[float]], unit: Unit) -> list[dict[str, Any]]:
    """What was measured of two builds, one a percentile of the unit.

    Args:
        name: of the figure; a percentile is added where there are several.
        old, new: what was measured in each round.
        unit: how it is compared.

    Returns:
        Of each percentile: `name`; `old` and `new`, of all rounds together, and as `texts`; `ratio`, new divided by old;
        `ratios`, that of each round. Plain data.
    """
    assert len(old) == len(new) > 0, "Builds are measured in the same rounds."
    rows = []
    for percentile in unit.percentiles:

        def value(measured: Any, percentile: int = percentile) -> float:
            return unit.value(float(np.percentile(measured, percentile)))

        before, now = value(np.concatenate(list(map(np.asarray, old)))), value(np.concatenate(list(map(np.asarray, new))))
        rows.append(
            {
                "name": f"{name} p{percentile}" if len(unit.percentiles) > 1 else name,
                "old": before,
                "new": now,
                "texts": [unit.text(before), unit.text(now)],
                "ratio": _ratio(now, before),
                "ratios": [_ratio(value(b), value(a)) for a, b in zip(old, new)],
            }
        )
    return rows


def _ratio(new: float, old: float) -> float:
    return new / old if old else math.nan  # of callers in time there may be none


def row(figure: Mapping[str, Any]) -> tuple[str, ...]:
    """A figure as cells, in the order of `COLUMNS`."""
    ratios = figure["ratio"], min(figure["ratios"]), max(figure["ratios"])
    return (figure["name"], *figure["texts"], *(f"{ratio:.3f}" for ratio in ratios))


COLUMNS = ("", "old", "new", "new to old", "smallest round", "largest round")
