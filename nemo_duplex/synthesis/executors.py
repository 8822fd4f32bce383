"""Where shards are made: in this process, in several local ones, or spread over jobs of a cluster by slices."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

from nemo_duplex.inputs import InputError

Job = TypeVar("Job")


def run_locally(work: Callable[[Job], Any], jobs: Sequence[Job], workers: int) -> Generator[Any, None, None]:
    """Yields `work(job)` of each job as soon as it is done, by `workers` processes (1: by this one).

    After an error the jobs in progress are finished; on Ctrl-C they are stopped. Then no other job starts.

    Raises:
        InputError: if a process is killed, for example for lack of memory. What `work` raises is raised here too.
    """
    if workers <= 1 or len(jobs) <= 1:
        yield from map(work, jobs)
        return
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn"), initializer=_become_worker)
    waiting = iter(jobs)
    try:
        running: set[Future] = {pool.submit(_interruptible, work, job) for job in islice(waiting, workers)}
        while running:
            ready, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ready:
                running |= {pool.submit(_interruptible, work, job) for job in islice(waiting, 1)}
                yield future.result()
    except BrokenProcessPool:
        raise InputError(
            "A worker process was killed, probably for lack of memory: run again with fewer workers= and "
            "without overwrite=true. It resumes."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def parse_slice(text: str) -> tuple[int, int]:
    """`i/n` as (i, n): this job makes every n-th shard, from number i on. `1/4` is the second of four jobs.

    Raises:
        InputError: if it is not of that form with 0 <= i < n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not match or not int(match[1]) < int(match[2]):
        raise InputError(f"slice={text}: expected i/n with i from 0 to n - 1, such as 0/4 for the first of four jobs.")
    return int(match[1]), int(match[2])


def _become_worker() -> None:
    """Prepares a worker: between jobs it leaves Ctrl-C to its parent, and it ends when its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _interruptible(work: Callable[[Job], Any], job: Job) -> Any:
    """Runs a job that Ctrl-C, which reaches the whole process group, ends like any exception, so that it cleans up."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return work(job)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "a worker has a parent"
    connection.wait([parent.sentinel])
    os._exit(1)
