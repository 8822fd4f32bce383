"""Keys and values of many callers of different age, in one rectangular batch.

A Hugging Face `DynamicCache` has one length for the whole batch. Here every row has its own age and every layer as many slots
as it looks back on, so callers join, leave and start again while the others go on, every step has the same shapes and the same
buffers, and a conversation never outgrows its memory.

A row keeps its first frames for ever, each row as many as its system prompt asks for. How the others make room for new ones
depends on how the model was trained:

With a window, in a ring. A row of age 13 that keeps two frames, and a window of 8:

    0 1 | 10 11 12 13 6 7 8 9

Rotary positions tell only how far two frames are apart. In the ring that never exceeds its size. The kept frames would drift
away beyond what the model was trained for, so from there on their keys are turned along, at each step anew from how they were
written.

Without a window, the model has never seen a frame whose past reaches further than its positions; in a ring, every layer would
carry that past on. So such a row has two memories, half of them apart. Both hear everything; the older one answers. When it
is full it starts again, and the younger one, by then half full, answers:

    one       ████████████████ ████████████████ ██████
    other              ████████████████ ███████████████
    answers   one           one   other    one    other          all from the kept frames on, as if it had begun there
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nemo_duplex.llm.rope import LayerKind, Pairs, turned

#: Cosine and sine (B, F) by which the kept keys of each memory are turned, of each kind of layer that turns some.
Turns = Mapping[LayerKind, tuple[Tensor, Tensor]]


class Span(NamedTuple):
    """How far a layer looks back, in frames: those that a row keeps, at most `room`, and `window` more or as many as fit."""

    slots: int  # C, for both
    window: int
    room: int
    fades: bool = False  # whether a kept frame is seen as long as it lies in the window only, as any other one


class RingShape(NamedTuple):
    """What one layer remembers of one caller."""

    span: Span
    heads: int
    key_size: int
    value_size: int
    kind: LayerKind = None
    pairs: Pairs = "none"  # of features that its rotary positions turn
    turns: int = 0  # how many keys may have to be turned along


@dataclass
class RowCache:
    """Buffers of L layers and M memories of each row. Slot C, one past the others, takes what is not to be remembered."""

    keys: list[Tensor]  # L times (B, M, heads, C + 1, key size)
    values: list[Tensor]  # L times (B, M, heads, C + 1, value size)
    written: list[Tensor]  # L times (B, M, heads, turns + 1, key size): kept keys as they were written, and a scratch; or none
    age: Tensor  # (B,) frames written since the row was reset
    kept: Tensor  # (B,) first frames that the row keeps for ever
    rings: tuple[RingShape, ...]
    sinks: int  # first frames that a row without a prompt keeps

    @classmethod
    def empty(
        cls, rings: Sequence[RingShape], sinks: int, batch_size: int, memories: int = 1, device=None, dtype=None
    ) -> RowCache:
        def zeros(ring: RingShape, slots: int, size: int) -> Tensor:
            return torch.zeros(batch_size, memories, ring.heads, slots, size, device=device, dtype=dtype)

        return cls(
            keys=[zeros(r, r.span.slots + 1, r.key_size) for r in rings],
            values=[zeros(r, r.span.slots + 1, r.value_size) for r in rings],
            written=[zeros(r, r.turns + 1 if r.turns else 0, r.key_size) for r in rings],
            age=torch.zeros(batch_size, dtype=torch.long, device=device),
            kept=torch.full((batch_size,), sinks, device=device),
            rings=tuple(rings),
            sinks=sinks,
        )

    @property
    def memories(self) -> int:
        """M."""
        return self.keys[0].shape[1]

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
            assert ring.span.room >= frames or not ring.span.room, f"{frames} frames, and there is room for {ring.span.room}."
            known = min(frames, ring.span.slots)  # a layer that keeps nothing may not see them all
            slots = torch.arange(frames - known, frames, device=self.age.device) % ring.span.slots
            for buffer, new in ((self.keys[layer], keys[layer]), (self.values[layer], values[layer])):
                both = new[:, None, :, -known:].to(buffer.dtype).expand(-1, self.memories, -1, -1, -1)
                buffer.index_copy_(3, slots, both)
            if ring.turns:
                self.written[layer][:, :, :, :frames].copy_(keys[layer][:, None])
        self.age.fill_(frames)
        self.kept.clamp_(min=frames)

    def now(self, live: Tensor) -> Now:
        """What each memory does in this step, in which the rows of `live` (B,) bool have a frame."""
        if self.memories == 1:
            return Now(self.age, self.kept, live, torch.zeros_like(self.age))
        slots = max(ring.span.slots for ring in self.rings)
        half = (slots - self.kept) // 2
        since = self.age - self.kept
        first = since < half  # until then the younger memory holds but the kept frames
        one = torch.where(since < 0, self.age, self.kept + since % (2 * half))
        other = torch.where(first, torch.minimum(self.age, self.kept), self.kept + (since - half) % (2 * half))
        hears = live & ~(first & (since >= 0))
        answers = (~first & (since % (2 * half) < half)).long()
        age, kept = torch.stack([one, other], 1), self.kept[:, None].expand(-1, 2)
        return Now(age.flatten(), kept.flatten(), torch.stack([live, hears], 1).flatten(), answers)

    def advance(self, live: Tensor) -> None:
        """One frame has been written for every row of `live`."""
        self.age.add_(live)


class Now(NamedTuple):
    """One step as each of B * M memories sees it; those of a row stand side by side."""

    age: Tensor  # (B * M,) position of this frame in it
    kept: Tensor  # (B * M,) frames that it keeps
    live: Tensor  # (B * M,) bool, whether it hears the frame
    answers: Tensor  # (B,) which memory of the row does

    def visible(self, span: Span) -> Tensor:
        """(B * M, C + 1) bool: the slots of such a layer that the frame may attend to, its own included."""
        slot = torch.arange(span.slots + 1, device=self.age.device)
        age, kept, used = self.age[:, None], self._kept(span)[:, None], self._used(span)[:, None]
        first = slot <= age
        if span.fades:
            first = first & (age - slot < span.window)
        ring = (slot < used) & ((slot <= age) | (age >= used))
        scratch = slot == span.slots
        seen = torch.where(slot < kept, first, ring)
        return torch.where(self.live[:, None], seen, scratch)  # who is idle looks at the scratch, so softmax stays finite

    def places(self, span: Span) -> Places:
        """Where the frame goes."""
        age, kept = self.age, self._kept(span)
        ring = kept + (age - kept) % (self._used(span) - kept)
        slot = torch.where(self.live, torch.where(age < kept, age, ring), span.slots)
        written = torch.where(self.live & (age < kept), age, span.room)
        stays = torch.arange(span.room, device=age.device) < kept[:, None]
        return Places(slot[:, None, None, None], written[:, None, None, None], stays[:, None, :, None])

    def _kept(self, span: Span) -> Tensor:
        return self.kept.clamp(max=span.room)

    def _used(self, span: Span) -> Tensor:
        """Of the slots, those that a memory ever uses."""
        return (self._kept(span) + span.window).clamp(max=span.slots)


class Places(NamedTuple):
    """Where one step's frame goes in the layers of one span."""

    slot: Tensor  # (B * M, 1, 1, 1) among the slots
    written: Tensor  # (B * M, 1, 1, 1) among the kept keys as they were written
    stays: Tensor  # (B * M, 1, room, 1) bool: which of the first slots hold kept frames


class LayerWriter:
    """What transformers 5 asks of a `past_key_values` during one step of one frame; masks and positions it is given.

    Args:
        cache: that is written into.
        now: this step.
        turns: of the kinds of layers that turn what they keep.
    """

    is_compileable = False
    layers: tuple[()] = ()

    def __init__(self, cache: RowCache, now: Now, turns: Turns) -> None:
        self._cache = cache
        self._places = {span: now.places(span) for span in {ring.span for ring in cache.rings}}
        self._turns = turns

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Writes (B * M, heads, 1, head size) of a layer into each memory's slot; returns all (B * M, heads, C + 1, size)."""
        cache, ring = self._cache, self._cache.rings[layer_idx]
        places = self._places[ring.span]
        buffers = cache.keys[layer_idx].flatten(0, 1), cache.values[layer_idx].flatten(0, 1)
        for buffer, new in zip(buffers, (keys, values)):
            buffer.scatter_(2, places.slot.expand_as(new), new.to(buffer.dtype))
        if ring.turns:
            written, first = cache.written[layer_idx].flatten(0, 1), buffers[0][:, :, : ring.turns]
            written.scatter_(2, places.written.expand_as(keys), keys.to(written.dtype))
            cos, sin = (part[:, None, None] for part in self._turns[ring.kind])
            along = turned(written[:, :, : ring.turns], cos, sin, ring.pairs)
            first.copy_(torch.where(places.stays, along, first))
        return buffers

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
