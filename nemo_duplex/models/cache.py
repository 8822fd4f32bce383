"""Keys and values of many callers of different age, in one rectangular batch.

A Hugging Face `DynamicCache` has one length for the whole batch. Here every row has its own age and writes in a ring of C
frames, so callers join, leave and start again while the others go on, every step has the same shapes, and a conversation
never outgrows its memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class RowCache:
    """Ring buffers of L layers. Slot C, one past the ring, takes what idle rows write, and is never seen."""

    keys: Tensor  # (L, B, heads, C + 1, head size)
    values: Tensor  # (L, B, heads, C + 1, head size)
    age: Tensor  # (B,) frames written since the row was reset

    @classmethod
    def empty(
        cls, layers: int, batch_size: int, heads: int, capacity: int, head_size: int, device=None, dtype=None
    ) -> RowCache:
        keys = torch.zeros(layers, batch_size, heads, capacity + 1, head_size, device=device, dtype=dtype)
        return cls(keys, torch.zeros_like(keys), torch.zeros(batch_size, dtype=torch.long, device=device))

    @property
    def capacity(self) -> int:
        return self.keys.shape[3] - 1

    def reset(self, rows: Tensor) -> None:
        """Forgets everything of `rows` (B,) bool; nothing is erased, age 0 makes the old frames invisible."""
        self.age = torch.where(rows, 0, self.age)

    def visible(self, live: Tensor) -> Tensor:
        """(B, C + 1) bool: the slots that this step's frame may attend to, its own included."""
        slot = torch.arange(self.capacity + 1, device=self.age.device)
        age = self.age[:, None]
        ring = (slot < self.capacity) & ((slot <= age) | (age >= self.capacity))
        scratch = slot == self.capacity
        return torch.where(live[:, None], ring, scratch)  # an idle row looks at its own scratch, so softmax stays finite

    def open(self, live: Tensor) -> LayerWriter:
        """The view through which a transformers model writes and reads this step's keys and values."""
        slot = torch.where(live, self.age % self.capacity, self.capacity)
        return LayerWriter(self, slot)

    def advance(self, live: Tensor) -> None:
        """One frame has been written for every row of `live`."""
        self.age = self.age + live.long()


class LayerWriter:
    """What transformers 5 asks of a `past_key_values` during one step of one frame."""

    is_compileable = False
    layers: tuple[()] = ()

    def __init__(self, cache: RowCache, slot: Tensor) -> None:
        self._cache = cache
        self._slot = slot[:, None, None, None]

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Writes (B, heads, 1, head size) of a layer into each row's slot; returns all (B, heads, C + 1, head size)."""
        for ring, new in ((self._cache.keys, keys), (self._cache.values, values)):
            ring[layer_idx].scatter_(2, self._slot.expand_as(new), new.to(ring.dtype))
        return self._cache.keys[layer_idx], self._cache.values[layer_idx]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_max_length(self) -> int:
        return self._cache.capacity + 1

    def get_mask_sizes(self, query_length: object, layer_idx: int = 0) -> tuple[int, int]:
        return self._cache.capacity + 1, 0

    @property
    def is_sliding(self) -> list[bool]:
        return [False] * self._cache.keys.shape[0]

    def __len__(self) -> int:
        return self._cache.keys.shape[0]
