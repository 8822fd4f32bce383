"""Keys and values of many callers of different age, in one rectangular batch.

A Hugging Face `DynamicCache` has one length for the whole batch. Here every row has its own age and every layer a ring of as
many frames as it looks back on, so callers join, leave and start again while the others go on, every step has the same
shapes and the same buffers, and a conversation never outgrows its memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class RingShape(NamedTuple):
    """What one layer remembers of one caller."""

    frames: int  # C, its window
    heads: int
    key_size: int
    value_size: int


@dataclass
class RowCache:
    """Ring buffers of L layers. Slot C of a layer, one past its ring, takes what idle rows write, and is never seen."""

    keys: list[Tensor]  # L times (B, heads, C + 1, key size)
    values: list[Tensor]  # L times (B, heads, C + 1, value size)
    age: Tensor  # (B,) frames written since the row was reset

    @classmethod
    def empty(cls, rings: Sequence[RingShape], batch_size: int, device=None, dtype=None) -> RowCache:
        def zeros(ring: RingShape, size: int) -> Tensor:
            return torch.zeros(batch_size, ring.heads, ring.frames + 1, size, device=device, dtype=dtype)

        age = torch.zeros(batch_size, dtype=torch.long, device=device)
        return cls([zeros(r, r.key_size) for r in rings], [zeros(r, r.value_size) for r in rings], age)

    def reset(self, rows: Tensor) -> None:
        """Forgets everything of `rows` (B,) bool; nothing is erased, age 0 makes the old frames invisible."""
        self.age.masked_fill_(rows, 0)

    def visible(self, frames: int, live: Tensor) -> Tensor:
        """(B, C + 1) bool: the slots of a ring of C = `frames` that this step's frame may attend to, its own included."""
        slot = torch.arange(frames + 1, device=self.age.device)
        age = self.age[:, None]
        ring = (slot < frames) & ((slot <= age) | (age >= frames))
        scratch = slot == frames
        return torch.where(live[:, None], ring, scratch)  # an idle row looks at its own scratch, so softmax stays finite

    def open(self, live: Tensor) -> LayerWriter:
        """The view through which a transformers model writes and reads this step's keys and values."""
        sizes = [keys.shape[2] - 1 for keys in self.keys]
        slots = {frames: torch.where(live, self.age % frames, frames)[:, None, None, None] for frames in set(sizes)}
        return LayerWriter(self, [slots[frames] for frames in sizes])

    def advance(self, live: Tensor) -> None:
        """One frame has been written for every row of `live`."""
        self.age.add_(live)


class LayerWriter:
    """What transformers 5 asks of a `past_key_values` during one step of one frame; masks and positions it is given."""

    is_compileable = False
    layers: tuple[()] = ()

    def __init__(self, cache: RowCache, slots: list[Tensor]) -> None:
        self._cache = cache
        self._slots = slots

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Writes (B, heads, 1, head size) of a layer into each row's slot; returns all (B, heads, C + 1, head size)."""
        rings = self._cache.keys[layer_idx], self._cache.values[layer_idx]
        for ring, new in zip(rings, (keys, values)):
            ring.scatter_(2, self._slots[layer_idx].expand_as(new), new.to(ring.dtype))
        return rings

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


class ShapeRecorder:
    """In the place of a cache for one frame: notes the shapes that each layer writes."""

    is_compileable = False
    layers: tuple[()] = ()

    def __init__(self) -> None:
        self.shapes: dict[int, tuple[int, int, int]] = {}  # layer -> heads, key size, value size

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        self.shapes[layer_idx] = (keys.shape[1], keys.shape[3], values.shape[3])
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0
