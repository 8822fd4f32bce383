"""Keys and values of many callers of different age, in one rectangular batch.

A Hugging Face `DynamicCache` has one length for the whole batch. Here every row has its own age and every layer a ring of as
many frames as it looks back on, so callers join, leave and start again while the others go on, every step has the same
shapes and the same buffers, and a conversation never outgrows its memory.

A layer may keep its first frames (the sinks, a system prompt among them) beside the most recent ones:

    age 5       0 1 2 3 4 5 . . . .
    age 13      0 1 | 10 11 12 13 6 7 8 9       two sinks, and a ring of 8

Rotary positions tell only how far two frames are apart. In the ring that never exceeds its size. The sinks would drift away
beyond what the model was trained for, so from there on their keys are turned along, at each step anew from how they were
written: exact, and of no cost beside the attention itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nemo_duplex.models.rotary import LayerKind, Pairs, turned

#: Cosine and sine (B, F) by which the sinks of each row are turned, of each kind of layer that has sinks.
Turns = Mapping[LayerKind, tuple[Tensor, Tensor]]


class RingShape(NamedTuple):
    """What one layer remembers of one caller."""

    frames: int  # C, sinks included
    sinks: int  # S, of them the first frames, kept for ever
    heads: int
    key_size: int
    value_size: int
    kind: LayerKind = None
    pairs: Pairs = "none"  # of features that its rotary positions turn


@dataclass
class RowCache:
    """Buffers of L layers. Slot C of a layer, one past its ring, takes what idle rows write, and is never seen."""

    keys: list[Tensor]  # L times (B, heads, C + 1, key size)
    values: list[Tensor]  # L times (B, heads, C + 1, value size)
    sinks: list[Tensor]  # L times (B, heads, S + 1, key size): keys of the first S frames as they were written, and a scratch
    age: Tensor  # (B,) frames written since the row was reset
    rings: tuple[RingShape, ...]

    @classmethod
    def empty(cls, rings: Sequence[RingShape], batch_size: int, device=None, dtype=None) -> RowCache:
        def zeros(ring: RingShape, slots: int, size: int) -> Tensor:
            return torch.zeros(batch_size, ring.heads, slots, size, device=device, dtype=dtype)

        return cls(
            keys=[zeros(r, r.frames + 1, r.key_size) for r in rings],
            values=[zeros(r, r.frames + 1, r.value_size) for r in rings],
            sinks=[zeros(r, r.sinks + 1 if r.sinks else 0, r.key_size) for r in rings],
            age=torch.zeros(batch_size, dtype=torch.long, device=device),
            rings=tuple(rings),
        )

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

    def open(self, live: Tensor, turns: Turns | None = None) -> LayerWriter:
        """The view through which a transformers model writes and reads this step's keys and values.

        Args:
            live: (B,) bool, rows that have a frame now.
            turns: of the kinds of layers that have sinks.
        """
        shapes = [(ring.frames, ring.sinks) for ring in self.rings]
        slots = {shape: self._slot(*shape, live)[:, None, None, None] for shape in set(shapes)}
        first = {s: torch.where(live & (self.age < s), self.age, s)[:, None, None, None] for _, s in set(shapes) if s}
        return LayerWriter(self, [slots[shape] for shape in shapes], first, turns or {})

    def _slot(self, frames: int, sinks: int, live: Tensor) -> Tensor:
        """(B,) where each row's next frame goes."""
        ring = sinks + (self.age - sinks) % (frames - sinks)
        return torch.where(live, torch.where(self.age < sinks, self.age, ring), frames)

    def advance(self, live: Tensor) -> None:
        """One frame has been written for every row of `live`."""
        self.age.add_(live)


class LayerWriter:
    """What transformers 5 asks of a `past_key_values` during one step of one frame; masks and positions it is given."""

    is_compileable = False
    layers: tuple[()] = ()

    def __init__(self, cache: RowCache, slots: list[Tensor], first: Mapping[int, Tensor], turns: Turns) -> None:
        self._cache = cache
        self._slots = slots  # of each layer
        self._first = first  # for each number of sinks, where among them this frame goes
        self._turns = turns

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Writes (B, heads, 1, head size) of a layer into each row's slot; returns all (B, heads, C + 1, head size)."""
        rings = self._cache.keys[layer_idx], self._cache.values[layer_idx]
        for ring, new in zip(rings, (keys, values)):
            ring.scatter_(2, self._slots[layer_idx].expand_as(new), new.to(ring.dtype))
        if self._cache.rings[layer_idx].sinks:
            self._turn_sinks(keys, layer_idx)
        return rings

    def _turn_sinks(self, keys: Tensor, layer_idx: int) -> None:
        """The sinks' keys at the positions that they have for this step's frame."""
        ring, written = self._cache.rings[layer_idx], self._cache.sinks[layer_idx]
        written.scatter_(2, self._first[ring.sinks].expand_as(keys), keys.to(written.dtype))
        cos, sin = (part[:, None, None] for part in self._turns[ring.kind])
        kept = turned(written[:, :, : ring.sinks], cos, sin, ring.pairs)
        self._cache.keys[layer_idx][:, :, : ring.sinks].copy_(kept)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


class KeyRecorder:
    """In the place of a cache for one frame: notes the keys that each layer writes, and the size of its values."""

    is_compileable = False
    layers: tuple[()] = ()

    def __init__(self) -> None:
        self.keys: dict[int, Tensor] = {}  # layer -> (B, heads, 1, key size)
        self.value_sizes: dict[int, int] = {}

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        self.keys[layer_idx], self.value_sizes[layer_idx] = keys, values.shape[3]
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0
