"""Dialogues of a corpus to look at: drawn by a hash of their ids, so that the same ones are drawn in any order of reading."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from lhotse.cut import Cut

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.synthesis.inspection.sets import SetShard


@dataclass(frozen=True, order=True)
class _Drawn:
    rank: int
    cut_id: str
    shard_number: str
    eventful: bool


class Sample:
    """Draws cuts of one set while it is read, in constant memory: half of them with barge-ins or events, if there are any.

    Args:
        size: cuts to keep.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: dict[bool, list[tuple[int, _Drawn]]] = {True: [], False: []}  # heaps, the largest rank first

    def add(self, cut: Cut, shard: SetShard, eventful: bool) -> None:
        """Offers a cut."""
        if not self._size:
            return
        rank = int.from_bytes(blake2b(cut.id.encode(), digest_size=8).digest(), "big")
        heap = self._kept[eventful]
        heapq.heappush(heap, (-rank, _Drawn(rank, cut.id, shard.number, eventful)))
        if len(heap) > self._size:
            heapq.heappop(heap)

    def drawn(self) -> list[_Drawn]:
        """The sample, of both kinds in turn."""
        both = [sorted(drawn for _, drawn in self._kept[eventful]) for eventful in (True, False)]
        mixed = [kind[i] for i in range(self._size) for kind in both if i < len(kind)]
        return mixed[: self._size]


def read_drawn(shards: Sequence[SetShard], drawn: Sequence[_Drawn]) -> Iterator[Cut]:
    """The drawn cuts with their audio, shard by shard; where a shard cannot be read, without its cuts."""
    by_shard: defaultdict[str, set[str]] = defaultdict(set)
    for one in drawn:
        by_shard[one.shard_number].add(one.cut_id)
    for shard in shards:
        wanted = by_shard.get(shard.number, set())
        try:
            for cut in shard.cuts() if wanted else ():
                if cut.id in wanted:
                    wanted.discard(cut.id)
                    yield cut
                if not wanted:
                    break
        except OddRow:
            continue
