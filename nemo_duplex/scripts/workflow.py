"""Commands that build on each other: each runs once, continues after an interruption, and runs again after a change.

    out/.chain/<step>.json    digest of the step's command, of the files that it reads and of the steps before it
    out/.chain/<step>.log     output of steps that run side by side

An interrupted step keeps its outputs, because our scripts continue from them. If a step starts with another digest than
before, its outputs are removed first: another command made them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_duplex.files.atomic import whole_file
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError

_STATE = ".chain"
# A child that shares our terminal receives Ctrl-C itself; after this time it gets SIGTERM.
_EXIT_TIMEOUT: Seconds = 15.0


@dataclass(frozen=True)
class Step:
    """One command of a workflow.

    Args:
        name: a word; names the step in headers and its state file.
        about: what it does, printed in the header.
        command: program and arguments.
        outputs: what it writes, as glob patterns below the workflow's folder; each must match something at the end.
        reads: files and folders that it depends on: source, configuration, inputs.
        after: names of the steps whose output it reads.
        minutes: expected duration.
    """

    name: str
    about: str
    command: Sequence[str]
    outputs: Sequence[str]
    reads: Sequence[Path] = ()
    after: Sequence[str] = ()
    minutes: float = 0.0


@dataclass(frozen=True)
class Done:
    """A finished step: its duration without interruptions, and whether it ran now or in an earlier run."""

    name: str
    seconds: Seconds
    now: bool


class Workflow:
    """Runs steps in the folder `out`; `groups` lists them in order, those of one group side by side.

    Raises:
        InputError: if `out` holds something that no workflow has written.
    """

    def __init__(self, out: str | Path, groups: Sequence[Sequence[Step]]) -> None:
        self.out = Path(out)
        self.groups = groups
        self._state = self.out / _STATE
        if self.out.exists() and not self._state.is_dir() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise InputError(f"{self.out} holds something that this command did not write. Choose another folder: out=...")
        self._digests: dict[str, str] = {}

    def run(self) -> list[Done]:
        """Runs the steps that are not done. Returns all steps, in order.

        Raises:
            InputError: if a step ends with an error, which it has printed itself.
        """
        for step in (step for group in self.groups for step in group):
            self._digests[step.name] = self._digest(step)
        self._state.mkdir(parents=True, exist_ok=True)
        todo = [[step for step in group if not self._is_done(step)] for group in self.groups]
        expected = sum(max((step.minutes for step in group), default=0.0) for group in todo)
        started, names = time.monotonic(), [step.name for group in self.groups for step in group]
        for group, rest in zip(self.groups, todo, strict=True):
            for step in group:
                passed = (time.monotonic() - started) / 60
                when = (
                    f"{step.minutes:.1f} min; {passed:.1f} of about {expected:.1f} min are over"
                    if step in rest
                    else "done before"
                )
                print(f"[{names.index(step.name) + 1}/{len(names)}] {step.name}: {step.about} ({when})", flush=True)
            self._run_group(rest)
        ran = {step.name for rest in todo for step in rest}
        return [Done(name, self._read_note(name)["seconds"], name in ran) for name in names]

    # --- state -------------------------------------------------------------------------------------------------------

    def _digest(self, step: Step) -> str:
        parts = [*step.command, *(self._digests[name] for name in step.after)]
        parts += [hashlib.sha256(path.read_bytes()).hexdigest() for path in _files(step.reads)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _read_note(self, name: str) -> dict[str, Any]:
        path = self._state / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else {"digest": None, "done": False, "seconds": 0.0}

    def _write_note(self, step: Step, done: bool, seconds: Seconds) -> None:
        with whole_file(self._state / f"{step.name}.json") as part:
            part.write_text(json.dumps({"digest": self._digests[step.name], "done": done, "seconds": round(seconds, 3)}))

    def _is_done(self, step: Step) -> bool:
        note = self._read_note(step.name)
        return note["done"] and note["digest"] == self._digests[step.name] and self._missing(step) is None

    def _missing(self, step: Step) -> str | None:
        return next((pattern for pattern in step.outputs if not any(self.out.glob(pattern))), None)

    def _begin(self, step: Step) -> Seconds:
        """Removes the outputs of another version of the step. Returns the seconds that this version has run before."""
        note = self._read_note(step.name)
        if note["digest"] == self._digests[step.name]:
            return note["seconds"]
        for path in [found for pattern in step.outputs for found in self.out.glob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._write_note(step, done=False, seconds=0.0)
        return 0.0

    # --- running -----------------------------------------------------------------------------------------------------

    def _run_group(self, steps: Sequence[Step]) -> None:
        before = {step.name: self._begin(step) for step in steps}
        alone = len(steps) == 1
        runs = [_Run(step, None if alone else self._state / f"{step.name}.log") for step in steps]
        try:
            while any(run.is_alive for run in runs):
                time.sleep(0.1)
                if not alone:
                    _show_status(runs)
        except BaseException:
            for run in runs:
                run.stop()
            raise
        finally:
            for run in runs:
                self._write_note(run.step, run.wait() == 0, before[run.step.name] + run.seconds)
        for run in runs:
            if run.process.returncode != 0:
                where = "" if run.log is None else f" It said: {run.last_line} (all of it in {run.log})."
                raise InputError(
                    f"The step {run.step.name} ended with exit code {run.process.returncode}.{where} "
                    "Run the same command again to resume: finished steps are kept."
                )
            if missing := self._missing(run.step):
                raise InputError(f"The step {run.step.name} ended without an error, but there is no {self.out / missing}.")


class _Run:
    """A running step. It prints to our console, or with `log` to that file; `last_line` is the last line that it printed."""

    def __init__(self, step: Step, log: Path | None) -> None:
        self.step, self.log = step, log
        self.last_line, self.seconds = "", 0.0
        self._started = time.monotonic()
        pipe = subprocess.PIPE if log is not None else None
        self.process = subprocess.Popen(list(step.command), stdout=pipe, stderr=pipe and subprocess.STDOUT)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        if self.log is not None and self.process.stdout is not None:
            line = b""
            with open(self.log, "ab") as log:
                while block := os.read(self.process.stdout.fileno(), 4096):
                    log.write(block)
                    log.flush()
                    *whole, line = (line + block).replace(b"\r", b"\n").split(b"\n")
                    shown = [text for part in whole if (text := part.decode(errors="replace").strip())]
                    self.last_line = shown[-1] if shown else self.last_line
        self.process.wait()
        self.seconds = time.monotonic() - self._started

    @property
    def is_alive(self) -> bool:
        return self._reader.is_alive()

    def stop(self) -> None:
        """Waits for an interrupted process to end, then sends SIGTERM."""
        try:
            self.process.wait(_EXIT_TIMEOUT if sys.stdin.isatty() else 0.5)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Waits until the process has ended and its output is read. Returns the exit code."""
        self._reader.join()
        return self.process.returncode


def _show_status(runs: Sequence[_Run]) -> None:
    """Shows the last line of each process, side by side, on one line that is overwritten."""
    if sys.stderr.isatty():
        width = (shutil.get_terminal_size().columns - 1) // len(runs) - 2
        print("\r" + "  ".join(f"{run.last_line[:width]:<{width}}" for run in runs), end="", file=sys.stderr, flush=True)


def _files(paths: Iterable[Path]) -> list[Path]:
    """The files named and those in the folders named, without caches."""
    found = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".pyc")
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"There is no {path}.")
    return found
