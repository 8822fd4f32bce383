"""Where shards are made: in this process, in several local ones, or spread over jobs of a cluster by slices."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, connection, get_context, parent_process
from typing import Any, TypeVar

from nemo_duplex.inputs import InputError

Job = TypeVar("Job")

_MOST_LOST = 10  # jobs that end their process, before it is none of theirs


def run_locally(work: Callable[[Job], Any], jobs: Sequence[Job], workers: int | None) -> Generator[Any, None, None]:
    """Yields `work(job)` of each job as soon as it is done, by `workers` processes (1: by this one; None: one per core).

    After an error the jobs in progress are finished; on Ctrl-C and SIGTERM they are stopped. Then no other job starts. If a
    process is killed, the jobs that were in progress are done again, each alone; those that end their process again are left
    out.

    Raises:
        InputError: at the end, if jobs were left out. What `work` raises is raised here too.
    """
    workers = workers or os.cpu_count() or 1
    if workers == 1 or len(jobs) <= 1:
        yield from map(work, jobs)
        return
    waiting, suspects, lost = deque(jobs), deque[Job](), list[Job]()
    while (waiting or suspects) and len(lost) < _MOST_LOST:
        alone = not waiting
        queue = deque([suspects.popleft()]) if alone else waiting
        stopped = yield from _run_in_a_pool(work, queue, 1 if alone else min(workers, len(queue)))
        (lost if alone else suspects).extend(stopped)
    if lost:
        not_made = len(waiting) + len(suspects)
        others = f"{not_made} others were not made then, the rest is kept" if not_made else "the others are kept"
        raise InputError(
            f"{len(lost)} of {len(jobs)} shards ended the processes that made them, such as {lost[0]}; {others}. "
            "If memory is short, run again with fewer workers= and without overwrite=true: it resumes. If it happens again, a "
            "text of this shard ends the voice engine: leave it out of `source`."
        )


def _run_in_a_pool(work: Callable[[Job], Any], waiting: deque[Job], workers: int) -> Generator[Any, None, list[Job]]:
    """Does jobs, which are taken from `waiting`, until none is left or a process is killed; returns those in progress then."""
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_become_worker)
    running: dict[Future, Job] = {}

    def start_next() -> None:
        if waiting:
            running[pool.submit(_interruptible, work, waiting[0])] = waiting[0]
            waiting.popleft()

    try:
        for _ in range(workers):
            start_next()
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                result = future.result()
                del running[future]
                yield result
                start_next()
    except BrokenProcessPool:
        return list(running.values())
    except SystemExit:  # SIGTERM reaches this process alone: its workers would finish their shards first
        for worker in active_children():
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGINT)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return []


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
