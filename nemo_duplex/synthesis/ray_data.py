"""A stage of Ray Data: a pool of actors, each of which opens its models once, on a GPU of its own if it needs one."""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.ray_executor import RayCluster, connected, first_line, prepare_node

Work = Callable[[list[int]], Any]  # what is done with the items of a batch

_RETRIES = 3  # of a batch whose actor, or its node, died; Ray Data starts actors again as often as it takes
_MOST_BLOCKS = 10_000  # that Ray Data looks after


def map_on_ray_data(
    open_work: Callable[[], Work],
    num_items: int,
    batch: int,
    actors: int | None,
    cluster: RayCluster,
    folder: Path,
) -> Generator[Any, None, None]:
    """Yields what `open_work()(numbers)` returns for each batch of the numbers below `num_items`, as soon as it is done.

    Args:
        open_work: called once by each actor; the nodes can import it.
        num_items: how many there are.
        batch: items that an actor is given at once.
        actors: that work at once; None: one per CPU core of this machine, on a cluster as many as there is room for.
        cluster: where they run, and what each of them needs.
        folder: that they write to, on a disk that all nodes share.

    Raises:
        InputError: if Ray is not installed or not there, has no GPU that an actor needs, a node lacks the package or the
            folder, or an actor ends its process again and again. What an actor raises is raised here too.
    """
    if not num_items:
        return
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with connected(cluster, actors) as ray, _quiet_ray_data() as data:
        if cluster.gpus > (has := ray.cluster_resources().get("GPU", 0)) and not _may_grow(cluster):
            raise InputError(
                f"ray.gpus={cluster.gpus:g}: this machine has {has:g}. Give ray.gpus=0, or the address of a cluster."
            )
        if actors is None and not _may_grow(cluster):
            actors = max(1, int(ray.cluster_resources()["CPU"] / cluster.cpus))
        numbers = data.from_items(list(range(num_items)), override_num_blocks=min(-(-num_items // batch), _MOST_BLOCKS))
        pool = data.ActorPoolStrategy(size=actors) if actors else data.ActorPoolStrategy(min_size=1)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # of retries; without them, a batch that ends its actor never ends
            results = numbers.map_batches(
                _Actor,
                fn_constructor_args=(open_work, Path.cwd(), folder),
                batch_size=batch,
                compute=pool,
                max_task_retries=_RETRIES,
                **cluster.resources,
            )
        try:
            for row in results.iter_rows():
                result = pickle.loads(row["result"])
                if isinstance(result, Exception):
                    raise result
                yield result
        except ray.exceptions.RayError as error:
            raise InputError(
                f"executor=ray: an actor ends again and again: {first_line(error)}. What is made is kept. If memory is short, "
                "set ray.memory to what an actor needs; then run again: it resumes. If it happens again, a text ends the voice "
                "engine: leave it out of `source`."
            ) from None


class _Actor:
    """Works on a node. What it raises is a result too: Ray Data would wrap it in errors of its own.

    It opens its work with the first batch, so that an opening that ends the process is tried as often as a batch.
    """

    def __init__(self, open_work: Callable[[], Work], here: Path, folder: Path) -> None:
        self._open, self._here, self._folder = open_work, here, folder

    @cached_property
    def _work(self) -> Work:
        prepare_node(self._here, self._folder)
        return self._open()

    def __call__(self, items: dict[str, Any]) -> dict[str, list[bytes]]:
        try:
            result = self._work(items["item"].tolist())
        except (InputError, OSError) as error:
            result = error
        return {"result": [pickle.dumps(result)]}


def _may_grow(cluster: RayCluster) -> bool:
    """Whether Ray runs elsewhere, where nodes may be added."""
    return (cluster.address or os.environ.get("RAY_ADDRESS") or "local") != "local"


@contextmanager
def _quiet_ray_data() -> Iterator[Any]:
    """The module `ray.data`, which says nothing of its own while it works."""
    import ray.data

    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, context.print_on_execution_start, logger.level
    context.enable_progress_bars, context.print_on_execution_start = False, False
    logger.setLevel(logging.CRITICAL)
    try:
        yield ray.data
    finally:
        context.enable_progress_bars, context.print_on_execution_start, level = before
        logger.setLevel(level)
