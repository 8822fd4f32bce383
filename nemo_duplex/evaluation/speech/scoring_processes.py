"""Scorers in processes of their own: several at a time, each under a time limit, none able to end the evaluation.

Networks of others hang (a call of DNSMOS did not come back once) and crash natively. Then the process that runs one is
replaced, and its sound counts as failed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple, Protocol

import numpy as np

from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.evaluation.speech.sound_scorer import Answer
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, one_line

_START: Seconds = 600.0  # within which a process has read its networks, also on a busy machine
_SPAWN = multiprocessing.get_context("spawn")  # a fork of a process that has run torch may hang


class Judge(Protocol):
    """A scorer of sound. It can be pickled, and is built anew where it is read."""

    @property
    def scorer(self) -> Scorer:
        """What it is."""
        ...

    def answer(self, audio: np.ndarray, sample_rate: int) -> Answer:
        """What it says of (S,) audio, or, if it judges pairs, of (2, S)."""
        ...


class Task(NamedTuple):
    """A sound (S,), or one and its original (2, S), for the scorer of a name; `tag` says which answer is its own."""

    tag: Any
    scorer: str
    audio: np.ndarray
    sample_rate: int


@dataclass
class _Worker:
    process: SpawnProcess
    line: Connection
    task: Task | None
    deadline: float


def score_sounds(
    tasks: Iterable[Task], scorers: Mapping[str, Judge], workers: int = 1, time_limit: Seconds = 120.0
) -> Iterator[tuple[Any, Answer]]:
    """Judges sounds.

    Args:
        tasks: read as they are needed, so that few sounds are in memory.
        scorers: by name.
        workers: processes; 0 takes this one, where nothing limits the time.
        time_limit: that an answer may take, plus the sound's own duration.

    Yields:
        (tag, answer) in any order; `{"failed": why}` where a scorer raised an error, ended its process or took too long.

    Raises:
        InputError: if a process cannot build the scorers.
    """
    if not workers:
        yield from ((task.tag, _answer(scorers[task.scorer], task)) for task in tasks)
        return
    waiting, team = iter(tasks), list[_Worker]()
    try:
        task = next(waiting, None)
        while task is not None or any(w.task for w in team):
            while task is not None and len(team) < workers and all(w.task for w in team):
                team.append(_start(scorers))
            for worker in team:
                if worker.task is None and task is not None:
                    _give(worker, task, time_limit)
                    task = next(waiting, None)
            yield from _answers(team)
    finally:
        for worker in team:
            _end(worker)


def _answers(team: list[_Worker]) -> Iterator[tuple[Any, Answer]]:
    """What the busy workers say next; one that has nothing more to say is replaced."""
    busy = [w for w in team if w.task]
    ready = wait([w.line for w in busy], max(0.0, min(w.deadline for w in busy) - time.monotonic()))
    for worker in busy:
        assert worker.task is not None
        tag, answer = worker.task.tag, None
        try:
            if worker.line in ready:
                answer = worker.line.recv()
            elif time.monotonic() >= worker.deadline:
                raise TimeoutError
        except TimeoutError:
            failed = "the scorer took too long"
        except (EOFError, OSError):
            failed = "the process of the scorer ended"
        else:
            if answer is not None:
                worker.task = None
                yield tag, answer
            continue
        _end(worker)
        team.remove(worker)
        yield tag, {"failed": failed}


def _give(worker: _Worker, task: Task, time_limit: Seconds) -> None:
    worker.task = task
    worker.deadline = time.monotonic() + time_limit + task.audio.shape[-1] / task.sample_rate
    with contextlib.suppress(OSError):  # its process has ended: `_answers` will find that out
        worker.line.send(task)


def _start(scorers: Mapping[str, Judge]) -> _Worker:
    """A process that has built the scorers.

    Raises:
        InputError: if it cannot.
    """
    line, other = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_serve, args=(other, pickle.dumps(dict(scorers))), daemon=True)
    process.start()
    other.close()
    worker = _Worker(process, line, None, 0.0)
    try:
        problem = line.recv() if line.poll(_START) else f"they are not there after {_START:.0f} s"
    except (EOFError, OSError):
        problem = "it ended. Call this from a script under `if __name__ == '__main__':`, or with workers=0"
    if problem:
        _end(worker)
        raise InputError(f"A process cannot start the scorers of speech: {problem}.")
    return worker


def _end(worker: _Worker) -> None:
    worker.line.close()
    worker.process.kill()
    worker.process.join()


def _serve(line: Connection, pickled: bytes) -> None:
    """Builds the scorers and answers tasks until the line is closed."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that is asked ends this one
    torch.set_num_threads(1)
    try:
        scorers: Mapping[str, Judge] = pickle.loads(pickled)
    except Exception as error:  # a file that is gone, a package that is broken
        line.send(one_line(error))
        return
    line.send("")
    with contextlib.suppress(EOFError):
        while True:
            task = line.recv()
            line.send(_answer(scorers[task.scorer], task))


def _answer(scorer: Judge, task: Task) -> Answer:
    try:
        return scorer.answer(task.audio, task.sample_rate)
    except Exception as error:  # of a network of somebody else
        return {"failed": f"{type(error).__name__}: {one_line(error)}"}
