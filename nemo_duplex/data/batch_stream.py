"""The batches of a training: one endless stream, the same at every start, that can be entered at any batch. Those of a
validation: one pass.

Batch i is a function of the data, the loader's configuration, the rank and i. So a checkpoint only needs i, and a resumed
training skips seen batches in the sampler, without loading audio.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import count, islice
from typing import Any
from unittest.mock import patch

import torch
from lhotse import CutSet
from lhotse.dataset.dataloading import LHOTSE_PROCESS_SEED
from lhotse.dataset.sampling.base import CutSampler
from lhotse.utils import fix_random_seed
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from nemo_duplex.inputs import InputError, one_line
from nemo_duplex.training.seeds import mixed_seed

# Distance of the seeds of workers that shuffle by themselves, as in Lhotse.
_SEEDS_PER_WORKER = 100
# What follows the last batch of one pass.
_END = object()


class ErrorsAsValues:
    """A dataset that returns its InputError, because torch would wrap what a worker raises in a trace."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, cuts: CutSet) -> Any:
        try:
            return self.dataset[cuts]
        except InputError as error:
            return error


class BatchStream(IterableDataset):
    """The batches of one rank, made by one process or by several workers that take turns.

    Args:
        sampler: chooses the cuts of a batch. If it ends, it is iterated again, as its next epoch.
        dataset: makes a batch of cuts.
        seed: of everything random in making a batch (augmentation), different on every rank.
        shuffle_seed: of the order of the data, for samplers with seed "randomized" inside workers.
        one_order: whether workers divide the batches of `sampler`. Otherwise each shuffles all data in its own way, as it
            must where sampling reads the data (Shar): there, every worker would have to read everything.
        first: the batch to start with; those before are skipped.
        one_pass: ends with the data, instead of repeating them.

    With W workers, batch i comes from worker i mod W. A worker starts with its batch of the round that holds `first`, and
    gives None for a batch that was seen; `StreamLoader` drops these, W - 1 at most.
    """

    def __init__(
        self,
        sampler: CutSampler,
        dataset: Any,
        *,
        seed: int,
        shuffle_seed: int,
        one_order: bool = False,
        first: int = 0,
        one_pass: bool = False,
    ) -> None:
        self.sampler, self.dataset, self._made = sampler, dataset, ErrorsAsValues(dataset).__getitem__
        self.seed, self.shuffle_seed, self.one_order = seed, shuffle_seed, one_order
        self.first, self.one_pass = first, one_pass

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        if info:
            apart = 0 if self.one_order else worker * _SEEDS_PER_WORKER
            os.environ[LHOTSE_PROCESS_SEED] = str(self.shuffle_seed + apart)
        sampled = _batches(self.sampler, [0] if self.one_pass else count(), self.one_order)
        if self.one_order:
            sampled = islice(sampled, worker, None, workers)
        first_round = self.first - self.first % workers
        for index in count(worker, workers):
            # Without workers this is the training's process, whose random numbers are not ours.
            with isolate_rng(include_cuda=info is None):
                batch = self._batch(index, sampled)
            if batch is _END:
                return
            if index >= first_round:
                yield batch
            if isinstance(batch, InputError):
                return

    def _batch(self, index: int, sampled: Iterator[CutSet]) -> Any:
        """The batch; None if it was seen; _END after one pass; an InputError as a value."""
        fix_random_seed(mixed_seed(self.seed, index))
        try:
            cuts = next(sampled)
        except StopIteration:
            if self.one_pass:
                return _END
            return InputError(
                "The training data hold no batch for this process: they are fewer than a batch with drop_last, or give fewer "
                "batches than there are processes. Give more data, or a smaller batch_size or batch_duration."
            )
        except InputError as error:
            return error
        except Exception as error:  # lhotse, tarfile, gzip and json each raise their own
            which = "validation" if self.one_pass else "training"
            return InputError(f"The {which} data cannot be read ({one_line(error)}). Check the files and the loader's keys.")
        return self._made(cuts) if index >= self.first else None


def _batches(sampler: CutSampler, epochs: Iterable[int], one_order: bool) -> Iterator[CutSet]:
    """The cuts of each batch, with `one_order` the same in every worker; of an epoch without any, it ends."""
    for epoch in epochs:
        sampler.set_epoch(epoch)
        # Lhotse 1.33 would choose buckets by the number of the worker.
        with patch("torch.utils.data.get_worker_info", lambda: None) if one_order else nullcontext():
            batches = islice(sampler, None)  # a loop over the sampler itself would begin it again
        some = False
        for cuts in batches:
            some = True
            yield cuts
        if not some:
            return


class FiniteLoader:
    """The batches of a stream of one pass, the same at every iteration.

    Its iterators stay at their end: Lightning asks the shorter of several sets again.
    """

    def __init__(self, stream: BatchStream, num_workers: int = 0, pin_memory: bool = False) -> None:
        own = torch.Generator()
        self._loader = DataLoader(stream, batch_size=None, num_workers=num_workers, pin_memory=pin_memory, generator=own)

    def __iter__(self) -> Iterator[Any]:
        for batch in self._loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch


class StreamLoader(DataLoader):
    """The batches of a stream, from its first on. A second iteration continues the first, so that a trainer's epochs differ.

    Args:
        stream: `BatchStream` or `ComposedStream`.
        num_workers, pin_memory: as torch has them.
        fresh: whether workers are new processes instead of copies of this one.
    """

    def __init__(self, stream: IterableDataset, num_workers: int = 0, pin_memory: bool = False, fresh: bool = False) -> None:
        super().__init__(
            stream,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # its own: torch would draw the workers' seeds from the training's random numbers
            multiprocessing_context="spawn" if fresh and num_workers else None,
        )
        self._fresh = fresh
        self._batches: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        if self._batches is None:
            seen = self.dataset.first % max(1, self.num_workers)
            with _deaf_to_interrupts() if self._fresh else nullcontext():
                batches = super().__iter__()
            self._batches = islice(batches, seen, None)
        for batch in self._batches:
            if isinstance(batch, InputError):
                raise batch
            yield batch


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """New processes that start meanwhile ignore Ctrl-C: this one, which ends them, has it too."""
    if threading.current_thread() is not threading.main_thread():  # where signals cannot be set
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
