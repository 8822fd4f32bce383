"""Keys and values of many callers of different age, in one rectangular batch.

A Hugging Face `DynamicCache` has one length for the whole batch. Here every row has its own age and every layer a ring of as
many frames as it looks back on, so callers join, leave and start again while the others go on, every step has the same
shapes and the same buffers, and a conversation never outgrows its memory.

A row may keep its first frames beside the most recent ones, each row as many as its system prompt asks for:

    age 5       0 1 2 3 4 5 . . . .
    age 13      0 1 | 10 11 12 13 6 7 8 9       two frames kept, and a ring of 8

Rotary positions tell only how far two frames are apart. In the ring that never exceeds its size. The kept frames would drift
away beyond what the model was trained for, so from there on their keys are turned along, at each step anew from how they were
written: exact, and of little cost beside the attention itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nemo_duplex.models.rotary import LayerKind, Pairs, turned

#: Cosine and sine (B, F) by which the kept keys of each row are turned, of each kind of layer that turns some.
Turns = Mapping[LayerKind, tuple[Tensor, Tensor]]


class Span(NamedTuple):
    """How far a layer looks back, in frames: those that a row keeps, at most `room`, and `window` more or as many as fit."""

    slots: int  # C, for both
    window: int
    room: int

    def kept(self, cache: RowCache) -> Tensor:
        """(B,) frames that each row keeps here."""
        return cache.kept.clamp(max=self.room)

    def used(self, cache: RowCache) -> Tensor:
        """(B,) of the slots, those that each row ever uses."""
        return (self.kept(cache) + self.window).clamp(max=self.slots)


class RingShape(NamedTuple):
    """What one layer remembers of one caller."""

    span: Span
    heads: int
    key_size: int
    value_size: int
    kind: LayerKind = None
    pairs: Pairs = "none"  # of features that its rotary positions turn

    @property
    def turns(self) -> int:
        """How many keys may have to be turned along."""
        return 0 if self.pairs == "none" else self.span.room


@dataclass
class RowCache:
    """Buffers of L layers. Slot C of a layer, one past its ring, takes what idle rows write, and is never seen."""

    keys: list[Tensor]  # L times (B, heads, C + 1, key size)
    values: list[Tensor]  # L times (B, heads, C + 1, value size)
    written: list[Tensor]  # L times (B, heads, room + 1, key size): kept keys as they were written, and a scratch; or none
    age: Tensor  # (B,) frames written since the row was reset
    kept: Tensor  # (B,) first frames that the row keeps for ever
    rings: tuple[RingShape, ...]
    sinks: int  # first frames that a row without a prompt keeps

    @classmethod
    def empty(cls, rings: Sequence[RingShape], sinks: int, batch_size: int, device=None, dtype=None) -> RowCache:
        def zeros(ring: RingShape, slots: int, size: int) -> Tensor:
            return torch.zeros(batch_size, ring.heads, slots, size, device=device, dtype=dtype)

        return cls(
            keys=[zeros(r, r.span.slots + 1, r.key_size) for r in rings],
            values=[zeros(r, r.span.slots + 1, r.value_size) for r in rings],
            written=[zeros(r, r.turns + 1 if r.turns else 0, r.key_size) for r in rings],
            age=torch.zeros(batch_size, dtype=torch.long, device=device),
            kept=torch.full((batch_size,), sinks, device=device),
            rings=tuple(rings),
            sinks=sinks,
        )

    def reset(self, rows: Tensor) -> None:
        """Forgets everything of `rows` (B,) bool; nothing is erased, age 0 makes the old frames invisible."""
        self.age.masked_fill_(rows, 0)
        self.kept.masked_fill_(rows, self.sinks)

    def begin(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Writes the first n frames of all rows at once; they are kept for ever.

        Args:
            keys, values: L times (B, heads, n, size).
        """
        frames = keys[0].shape[2]
        for layer, ring in enumerate(self.rings):
            assert ring.span.room >= frames or not ring.span.room, (
                f"{frames} frames are to be kept, there is room for {ring.span.room}."
            )
            known = min(frames, ring.span.slots)  # a layer that keeps nothing may not see them all
            slots = torch.arange(frames - known, frames, device=self.age.device) % ring.span.slots
            self.keys[layer].index_copy_(2, slots, keys[layer][:, :, -known:].to(self.keys[layer].dtype))
            self.values[layer].index_copy_(2, slots, values[layer][:, :, -known:].to(self.values[layer].dtype))
            if ring.turns:
                self.written[layer][:, :, :frames].copy_(keys[layer])
        self.age.fill_(frames)
        self.kept.clamp_(min=frames)

    def visible(self, span: Span, live: Tensor) -> Tensor:
        """(B, C + 1) bool: the slots of such a layer that this step's frame may attend to, its own included."""
        slot = torch.arange(span.slots + 1, device=self.age.device)
        age, used = self.age[:, None], span.used(self)[:, None]
        ring = (slot < used) & ((slot <= age) | (age >= used))
        scratch = slot == span.slots
        return torch.where(live[:, None], ring, scratch)  # an idle row looks at its own scratch, so softmax stays finite

    def open(self, live: Tensor, turns: Turns | None = None) -> LayerWriter:
        """The view through which a transformers model writes and reads this step's keys and values.

        Args:
            live: (B,) bool, rows that have a frame now.
            turns: of the kinds of layers that turn what they keep.
        """
        return LayerWriter(self, {span: self._places(span, live) for span in {r.span for r in self.rings}}, turns or {})

    def _places(self, span: Span, live: Tensor) -> Places:
        age, kept = self.age, span.kept(self)
        ring = kept + (age - kept) % (span.used(self) - kept)
        slot = torch.where(live, torch.where(age < kept, age, ring), span.slots)
        written = torch.where(live & (age < kept), age, span.room)
        stays = torch.arange(span.room, device=age.device) < kept[:, None]
        return Places(slot[:, None, None, None], written[:, None, None, None], stays[:, None, :, None])

    def advance(self, live: Tensor) -> None:
        """One frame has been written for every row of `live`."""
        self.age.add_(live)


class Places(NamedTuple):
    """Where one step's frame goes in the layers of one span."""

    slot: Tensor  # (B, 1, 1, 1) among the slots
    written: Tensor  # (B, 1, 1, 1) among the kept keys as they were written
    stays: Tensor  # (B, 1, room, 1) bool: which of the first slots hold kept frames


class LayerWriter:
    """What transformers 5 asks of a `past_key_values` during one step of one frame; masks and positions it is given."""

    is_compileable = False
    layers: tuple[()] = ()

    def __init__(self, cache: RowCache, places: Mapping[Span, Places], turns: Turns) -> None:
        self._cache = cache
        self._places = places
        self._turns = turns

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Writes (B, heads, 1, head size) of a layer into each row's slot; returns all (B, heads, C + 1, head size)."""
        rings, shape = (self._cache.keys[layer_idx], self._cache.values[layer_idx]), self._cache.rings[layer_idx]
        places = self._places[shape.span]
        for ring, new in zip(rings, (keys, values)):
            ring.scatter_(2, places.slot.expand_as(new), new.to(ring.dtype))
        if shape.turns:
            written, first = self._cache.written[layer_idx], rings[0][:, :, : shape.turns]
            written.scatter_(2, places.written.expand_as(keys), keys.to(written.dtype))
            cos, sin = (part[:, None, None] for part in self._turns[shape.kind])
            along = turned(written[:, :, : shape.turns], cos, sin, shape.pairs)
            first.copy_(torch.where(places.stays, along, first))
        return rings

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


class KeyRecorder:
    """In the place of a cache: notes the keys and values that each layer writes for the first frames of a conversation."""

    is_compileable = False
    layers: tuple[()] = ()

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def keys(self) -> list[Tensor]:
        """Of each layer, (B, heads, n, key size)."""
        return [self._layers[layer][0] for layer in range(len(self._layers))]

    @property
    def values(self) -> list[Tensor]:
        """Of each layer, (B, heads, n, value size)."""
        return [self._layers[layer][1] for layer in range(len(self._layers))]

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        self._layers[layer_idx] = keys, values
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0
