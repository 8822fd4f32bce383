"""Shards made by Ray: on the cluster that is named, or on this machine."""

from __future__ import annotations

import gc
import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from nemo_duplex.inputs import InputError

Job = TypeVar("Job")

_RETRIES = 3  # of a job whose node or process died
_IN_FLIGHT = 1000  # jobs that Ray knows of at once: enough for an autoscaler to see what is needed
_SECONDS_TO_STOP = 30  # for jobs in progress, to remove what they have written
_OBJECT_STORE = 100 << 20  # bytes; results are small
_TOKEN = secrets.token_hex(32)  # of clusters that this process starts


@dataclass(frozen=True)
class RayCluster:
    """Where Ray runs jobs, and what it reserves for each.

    Args:
        address: of a cluster (`auto`, `host:6379`, `ray://host:10001`); None: the environment's RAY_ADDRESS, and without that a
            Ray of this process on this machine, which ends with the jobs and leaves no files.
        cpus: CPU cores of a job.
        memory: GB of a job; None: nothing is reserved.
        gpus: GPUs of a job, also a part of one.

    Raises:
        InputError: if something is reserved that is less than nothing.

    Examples:
        >>> RayCluster(address="ray://head:10001", memory=2.0).cpus
        1.0
    """

    address: str | None = None
    cpus: float = 1.0
    memory: float | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        for name, amount in (("cpus", self.cpus), ("memory", self.memory or 0), ("gpus", self.gpus)):
            if not amount >= 0:
                raise InputError(f"ray.{name}={amount:g}: expected 0 or more.")

    @property
    def resources(self) -> dict[str, float]:
        """Of a job, in Ray's words."""
        asked = {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": int((self.memory or 0) * 1e9)}
        return {name: amount for name, amount in asked.items() if amount or name == "num_cpus"}


def run_on_ray(
    work: Callable[[Job], Any], jobs: Sequence[Job], workers: int | None, cluster: RayCluster, folder: Path
) -> Generator[Any, None, None]:
    """Yields `work(job)` of each job as soon as it is done.

    A job whose process or node dies is done again, up to three times; if that does not help, the others are done all the same.
    After another error, and on Ctrl-C, the jobs in progress are stopped, and no other starts.

    Args:
        work: a function that the nodes can import.
        jobs: its arguments.
        workers: jobs at once at most; None: as many as there is room for.
        cluster: where they run.
        folder: that they write to, on a disk that all nodes share.

    Raises:
        InputError: if Ray is not installed or not there, a node lacks the package or the folder, or a job ends its process
            every time. What `work` raises is raised here too.
    """
    if not jobs:
        return
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with connected(cluster, workers) as ray:
        task = partial(ray.remote(max_retries=_RETRIES, **cluster.resources)(_on_a_node).remote, work, Path.cwd(), folder)
        waiting = iter(jobs)
        running = {task(job): job for job in islice(waiting, workers or _IN_FLIGHT)}
        lost: list[str] = []
        try:
            while running:
                (ready, *_), _ = ray.wait(list(running), num_returns=1)
                job = running.pop(ready)
                try:
                    result = ray.get(ready)
                except ray.exceptions.RayTaskError as error:
                    raise _cause(error) from None
                except ray.exceptions.RayError as error:
                    lost.append(f"{job}: {first_line(error)}")
                else:
                    yield result
                running |= {task(job): job for job in islice(waiting, 1)}
        finally:
            for reference in running:
                ray.cancel(reference, force=False)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=_SECONDS_TO_STOP)
    if lost:
        raise InputError(
            f"{len(lost)} of {len(jobs)} shards ended the processes that made them, {_RETRIES + 1} times each, such as "
            f"{lost[0]}. The others are complete. If memory is short, set ray.memory to what a process needs; then run again: "
            "it resumes."
        )


def _on_a_node(work: Callable[[Job], Any], here: Path, folder: Path, job: Job) -> Any:
    """Runs a job, in the folder in which the command was given: relative paths mean the same as there."""
    prepare_node(here, folder)
    return work(job)


def prepare_node(here: Path, folder: Path) -> None:
    """Goes to folder `here` on a node.

    Raises:
        InputError: if the node has no such folder, or no `folder` for what is made.
    """
    for path, cure in ((here, "start the command in a folder"), (folder, "choose an `out`")):
        if not path.is_dir():
            raise InputError(f"executor=ray: node {socket.gethostname()} has no folder {path}: {cure} that all nodes share.")
    os.chdir(here)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@contextmanager
def connected(cluster: RayCluster, workers: int | None) -> Iterator[Any]:
    """The module `ray`, connected to a cluster; inside of another `connected`, to the same one.

    Raises:
        InputError: if Ray is not installed, or the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise InputError("executor=ray: Ray is not installed: pip install 'nemo_duplex[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = cluster.address or os.environ.get("RAY_ADDRESS") or None
    with _own_ray(cluster, workers) if address in (None, "local") else _of_others(address) as options:
        try:
            with _quiet_core():
                ray.init(**quiet, **options)
        except (ImportError, OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            where = f"the Ray cluster at {address} cannot be reached" if address else "Ray does not start on this machine"
            raise InputError(f"executor=ray: {where}: {first_line(error)}") from None
        try:
            yield ray
        finally:
            ray.shutdown()
            # Ray 2.60 leaves clients that wait for their threads when they are collected. A process that is forked later has no
            # such threads: there, a collection would never end.
            gc.collect()


@contextmanager
def _quiet_core() -> Iterator[None]:
    """Keeps Ray's core from writing to stderr from now on: it warns of each pool of actors, and says that it does not say more.

    What goes wrong comes back as an error.
    """
    if "RAY_BACKEND_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        del os.environ["RAY_BACKEND_LOG_LEVEL"]


@contextmanager
def _own_ray(cluster: RayCluster, workers: int | None) -> Iterator[dict[str, Any]]:
    """Options of a Ray of this process, whose files are in a folder that is removed.

    Ray 2.60 asks for a token by default, and writes one into the home folder unless the environment has one. Its workers have
    the lowest priority but for four steps (nice 15), so that whatever else runs on the machine would stop them.
    """
    given = {"RAY_AUTH_TOKEN": _TOKEN, "RAY_worker_niceness": "0"}
    before = {name: os.environ.get(name) for name in ("RAY_AUTH_MODE", *given)}
    os.environ.update(given | os.environ)
    files = tempfile.mkdtemp(prefix="ray-", dir="/tmp" if os.path.isdir("/tmp") else None)  # sockets need a short path
    cpus = (workers or os.cpu_count() or 1) * cluster.cpus
    try:
        yield {
            "address": "local",
            "num_cpus": max(1, round(cpus)),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE,
            "_temp_dir": files,
        }
    finally:
        shutil.rmtree(files, ignore_errors=True)
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})


@contextmanager
def _of_others(address: str) -> Iterator[dict[str, Any]]:
    yield {"address": address}


def _cause(error: Any) -> Exception:
    """What a job raised; in one line, if a node does not have what the jobs need."""
    cause = error.cause
    if isinstance(cause, ImportError):
        return InputError(f"executor=ray: a node cannot run the jobs: {cause}. Install nemo_duplex on every node.")
    return cause


def first_line(error: BaseException) -> str:
    """What an error says, or begins to say."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
