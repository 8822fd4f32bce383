"""The batches of a training whose dialogues are composed: one endless stream that can be entered at any batch.

With B dialogues in a batch and R ranks, batch i of rank r holds the dialogues from number (i R + r) B on. So no two ranks or
workers make the same dialogue, none is made twice, and a resumed training composes nothing of what it has seen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from itertools import count
from typing import TYPE_CHECKING, Any

from lhotse import CutSet, MonoCut
from lhotse.utils import fix_random_seed
from torch.utils.data import IterableDataset, get_worker_info

from nemo_duplex.data.composition import Composition
from nemo_duplex.data.loader_keys import check_composed_keys
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, one_line
from nemo_duplex.training.seeds import mixed_seed

# Where the size of a batch is not known before it is made, each place in it has numbers of its own, from a multiple of this on.
# It is a prime, so that a source of n rows gives each of them once to every place in n batches.
_APART = 1_000_000_007

if TYPE_CHECKING:
    from nemo_duplex.data.batch_stream import StreamLoader

_log = logging.getLogger(__name__)


def composed_dataloader(
    composition: Composition, keys: Mapping[str, Any], dataset: Any, rank: int = 0, world_size: int = 1, first: int = 0
) -> StreamLoader:
    """An endless loader of DuplexBatch that are composed, not read.

    Args:
        composition: makes the dialogues.
        keys: `batch_size` or `batch_duration` or both, `num_workers`, `pin_memory`, as of `duplex_dataloader`. Workers change
            nothing in the batches.
        dataset, rank, world_size, first: as of `duplex_dataloader`.

    Raises:
        InputError: for keys that do not fit (`loader_keys.py`), or if voices or source cannot be opened.
    """
    from nemo_duplex.data.batch_stream import StreamLoader  # here: workers read this file, and need no Lightning

    check_composed_keys(keys)
    for line in composition.summary() if rank == 0 else ():
        _log.info(line)
    sizes = {key: keys.get(key) for key in ("batch_size", "batch_duration")}
    stream = ComposedStream(composition, dataset, **sizes, rank=rank, world_size=world_size, first=first)
    # Engines are open in this process, and a copy of it could not use them.
    return StreamLoader(stream, keys.get("num_workers", 0), bool(keys.get("pin_memory")), fresh=True)


class ComposedStream(IterableDataset):
    """The composed batches of one rank, made by one process or by several workers that take turns.

    Args:
        composition: makes the cuts.
        dataset: makes a batch of cuts.
        batch_size: dialogues in a batch; None: as many as `batch_duration` has room for.
        batch_duration: Seconds of a batch with its padding: one that would last longer with one more dialogue like the longest
            is complete. None: no limit.
        rank, world_size: of this process among those that share the data.
        first: the batch to start with.

    Examples:
        >>> stream = ComposedStream(Composition.of({"duration": 12.8}), model.dataset(), batch_size=2, first=4)
        >>> next(iter(stream)).ids
        ['train-0-0000008', 'train-0-0000009']
    """

    def __init__(
        self,
        composition: Composition,
        dataset: Any,
        *,
        batch_size: int | None,
        batch_duration: Seconds | None = None,
        rank: int = 0,
        world_size: int = 1,
        first: int = 0,
    ) -> None:
        self.composition, self.dataset, self.first = composition, dataset, first
        self._rank, self._world_size = rank, world_size
        self._batch_size, self._batch_duration = batch_size, batch_duration

    def __iter__(self) -> Iterator[Any]:
        """The batches; None for those of the first round of the workers that were seen, which `StreamLoader` drops."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        isolated: Any = nullcontext
        if info is None:  # this is the training's process, whose random numbers are not ours
            from lightning.pytorch.utilities.seed import isolate_rng  # here: it would be seconds of every worker's start

            isolated = isolate_rng
        for index in count(self.first - self.first % workers + worker, workers):
            if index < self.first:
                yield None
                continue
            with isolated():
                batch = self._batch(index * self._world_size + self._rank)
            yield batch
            if isinstance(batch, InputError):
                return

    def _batch(self, number: int) -> Any:
        """Batch `number` of all ranks; what is wrong as a value, because torch would wrap it in a trace."""
        fix_random_seed(mixed_seed(self.composition.seed, number))
        try:
            return self.dataset[CutSet.from_cuts(self._cuts(number))]
        except InputError as error:
            return error
        except OSError as error:
            return InputError(f"The training data cannot be composed ({one_line(error)}). Check data.compose and the disk.")

    def _cuts(self, number: int) -> list[MonoCut]:
        size, limit = self._size, self._batch_duration
        numbers: Iterable[int] = count(number, _APART) if size is None else range(number * size, (number + 1) * size)
        cuts: list[MonoCut] = []
        for dialogue in numbers:
            cuts.append(self.composition.cut(dialogue))
            padded = (len(cuts) + 1) * max(cut.duration for cut in cuts)
            if size is None and (len(cuts) == self._batch_size or padded > limit):
                break
        return cuts

    @property
    def _size(self) -> int | None:
        """Dialogues in every batch; None where it takes their lengths to know."""
        duration, limit = self.composition.duration, self._batch_duration
        if limit is None:
            return self._batch_size
        if duration is None:
            return None
        fit = max(1, int(limit / duration + 1e-6))
        return fit if self._batch_size is None else min(fit, self._batch_size)
