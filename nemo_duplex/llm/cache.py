"""Keys and values of many sessions of different age, in one rectangular batch.

A Hugging Face `DynamicCache` has one length for the whole batch. Here every row has its own age, and every layer has as many
slots as it looks back on. Sessions join, leave and start again while others continue. Every step has the same shapes and the
same buffers, and a session never outgrows its memory.

A row keeps its first frames permanently, as many as its system prompt needs. How new frames replace the other ones depends
on how the model was trained:

With a window: in a ring. A row of age 13 that keeps two frames, and a window of 8:

    0 1 | 10 11 12 13 6 7 8 9

Rotary positions tell only how far two frames are apart. In the ring that never exceeds its size. The kept frames, however, fall
back further than the model was trained for. From there on their keys move along: at each step they are rotated again, from the
keys as they were written.

Without a window: the model was never trained on frames that carry a past longer than its positions, and a ring would carry such
a past on through the layers. So each row has two memories, half of the positions apart. Both take every frame; the older one
answers. When it is full it starts again, and the younger one, by then half full, answers:

    one       ████████████████ ████████████████ ██████
    other              ████████████████ ███████████████
    answers   one           one   other    one    other          each starts from the kept frames, as if the session began there
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nemo_duplex.llm.rope import LayerKind, RopeLayout, rotate

# Slots that attention looks at are a multiple of these: of several rows, and of one.
_BLOCK, _BLOCK_OF_ONE = 512, 64

#: Cosine and sine (B * M, F) by which the kept keys of each memory move, for each kind of layer that moves some.
Rotations = Mapping[LayerKind, tuple[Tensor, Tensor]]


class RingSpan(NamedTuple):
    """How far a layer looks back, in frames: at most `most_kept` that a row keeps, and `window` more or as many as fit."""

    slots: int  # C, for both
    window: int
    most_kept: int
    fades: bool = False  # whether a kept frame, like any other, is visible only while it is in the window


class KeyValueShape(NamedTuple):
    """What a layer writes for one frame."""

    heads: int
    key_size: int
    value_size: int
    layout: RopeLayout | None  # by which its positions rotate keys; None where it is none of those in `rope.py`


class RingShape(NamedTuple):
    """What one layer remembers of one memory."""

    span: RingSpan
    written: KeyValueShape
    kind: LayerKind = None
    moved: int = 0  # how many kept keys may have to move along


@dataclass
class RowCache:
    """Buffers of L layers and M memories of each row. Slot C, one past the others, is a scratch for what is not remembered."""

    keys: list[Tensor]  # L times (B, M, heads, C + 1, key size)
    values: list[Tensor]  # L times (B, M, heads, C + 1, value size)
    #: L times (B, M, heads, moved + 1, key size): kept keys as they were written, and a scratch; or none.
    unmoved_keys: list[Tensor]
    age: Tensor  # (B,) frames since the row was reset
    kept: Tensor  # (B,) first frames that the row keeps permanently
    rings: tuple[RingShape, ...]
    sinks: int  # first frames that a row without a prompt keeps

    @classmethod
    def empty(
        cls,
        rings: Sequence[RingShape],
        sinks: int,
        batch_size: int,
        memories: int = 1,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> RowCache:
        """The cache of `batch_size` rows of age 0."""

        def zeros(ring: RingShape, slots: int, size: int) -> Tensor:
            return torch.zeros(batch_size, memories, ring.written.heads, slots, size, device=device, dtype=dtype)

        return cls(
            keys=[zeros(r, r.span.slots + 1, r.written.key_size) for r in rings],
            values=[zeros(r, r.span.slots + 1, r.written.value_size) for r in rings],
            unmoved_keys=[zeros(r, r.moved + 1 if r.moved else 0, r.written.key_size) for r in rings],
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
        """Forgets everything of `rows` (B,) bool. Nothing is erased: age 0 makes the old frames invisible."""
        self.age.masked_fill_(rows, 0)
        self.kept.masked_fill_(rows, self.sinks)

    def write_prompt(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Writes the first n frames of all rows at once; they are kept permanently.

        Args:
            keys, values: L times (B, heads, n, size).
        """
        frames = keys[0].shape[2]
        for layer, ring in enumerate(self.rings):
            most = ring.span.most_kept
            assert not most or frames <= most, f"The prompt has {frames} frames, the cache keeps {most}."
            known = min(frames, ring.span.slots)  # a layer that keeps nothing may not look back on all of them
            slots = torch.arange(frames - known, frames, device=self.age.device) % ring.span.slots
            for buffer, new in ((self.keys[layer], keys[layer]), (self.values[layer], values[layer])):
                both = new[:, None, :, -known:].to(buffer.dtype).expand(-1, self.memories, -1, -1, -1)
                buffer.index_copy_(3, slots, both)
            if ring.moved:
                self.unmoved_keys[layer][:, :, :, :frames].copy_(keys[layer][:, None])
        self.age.fill_(frames)
        self.kept.clamp_(min=frames)

    def step_view(self, live: Tensor, alone: bool = False) -> StepView:
        """What each memory does in this step, in which the rows of `live` (B,) bool have a frame.

        Args:
            alone: whether the first memory of a single row may step alone as long as the other one waits: half of the work,
                but another shape, and a look at the age, which a graph cannot have.
        """
        if self.memories == 1 or alone and len(live) == 1 and self._other_waits():
            return StepView(self.age, self.kept, live, torch.zeros_like(self.age))
        slots = max(ring.span.slots for ring in self.rings)
        half = (slots - self.kept) // 2  # frames by which the other memory is younger
        new = self.age - self.kept  # frames after the kept ones; negative for a kept one, which both memories take
        one = torch.where(new < 0, self.age, self.kept + new % (2 * half))
        other = torch.where(new < 0, self.age, self.kept + (new - half).clamp(min=0) % (2 * half))
        other_waits = (new >= 0) & (new < half)
        other_answers = (new >= half) & (new % (2 * half) < half)  # since `one` started again
        return StepView(
            age=torch.stack([one, other], 1).flatten(),
            kept=self.kept[:, None].expand(-1, 2).flatten(),
            live=torch.stack([live, live & ~other_waits], 1).flatten(),
            answers=other_answers.long(),
        )

    def _other_waits(self) -> bool:
        """Whether no row's second memory takes a frame in this step."""
        slots = max(ring.span.slots for ring in self.rings)
        new = self.age - self.kept
        return bool(((new >= 0) & (new < (slots - self.kept) // 2)).all())

    def advance(self, live: Tensor) -> None:
        """Counts one more frame of every row of `live` (B,) bool."""
        self.age.add_(live)


class StepView(NamedTuple):
    """One step as each of B * M memories sees it; the memories of a row are adjacent."""

    age: Tensor  # (B * M,) position of this frame in the memory
    kept: Tensor  # (B * M,) frames that it keeps
    live: Tensor  # (B * M,) bool, whether it takes the frame
    answers: Tensor  # (B,) which memory of the row answers

    def filled(self) -> int:
        """How many slots, counted from the first one, are looked at: those that hold something, rounded up.

        What attention gives does not depend on so many slots more behind those that hold something, not in the last digit
        either (`tests/llm/test_frame_step.py`), so rows of different age do not influence each other. A single row can do with
        fewer: there all depends on its own age alone.
        """
        block = _BLOCK if len(self.answers) > 1 else _BLOCK_OF_ONE
        return -(-(int(self.age.max()) + 1) // block) * block

    def visible(self, span: RingSpan) -> Tensor:
        """The slots (B * M, C + 1) bool of such a layer that the frame may attend to, its own included."""
        slot = torch.arange(span.slots + 1, device=self.age.device)
        age, kept, used = self.age[:, None], self._kept(span)[:, None], self._used(span)[:, None]
        first = slot <= age
        if span.fades:
            first = first & (age - slot < span.window)
        ring = (slot < used) & ((slot <= age) | (age >= used))
        scratch = slot == span.slots
        seen = torch.where(slot < kept, first, ring)
        return torch.where(self.live[:, None], seen, scratch)  # an idle row attends to the scratch, so softmax stays finite

    def write_slots(self, span: RingSpan) -> WriteSlots:
        """Where the layers of `span` write the frame."""
        age, kept = self.age, self._kept(span)
        ring = kept + (age - kept) % (self._used(span) - kept)
        slot = torch.where(self.live, torch.where(age < kept, age, ring), span.slots)
        unmoved = torch.where(self.live & (age < kept), age, span.most_kept)
        keeps = torch.arange(span.most_kept, device=age.device) < kept[:, None]
        return WriteSlots(slot[:, None, None, None], unmoved[:, None, None, None], keeps[:, None, :, None])

    def _kept(self, span: RingSpan) -> Tensor:
        return self.kept.clamp(max=span.most_kept)

    def _used(self, span: RingSpan) -> Tensor:
        """How many of the slots each memory ever uses."""
        return (self._kept(span) + span.window).clamp(max=span.slots)


class WriteSlots(NamedTuple):
    """Where one step's frame goes in the layers of one span."""

    slot: Tensor  # (B * M, 1, 1, 1) among the slots
    unmoved: Tensor  # (B * M, 1, 1, 1) among the unmoved keys
    keeps: Tensor  # (B * M, 1, most_kept, 1) bool, which of the first slots hold kept frames


class LayerWriter:
    """The `past_key_values` that transformers 5 needs during one step of one frame; masks and positions come separately.

    Args:
        cache: written in place.
        view: this step.
        rotations: of the kinds of layers that move their kept keys.
    """

    is_compileable = False
    is_initialized = True
    layers: tuple[()] = ()

    def __init__(self, cache: RowCache, view: StepView, rotations: Rotations) -> None:
        self._cache, self._memories = cache, len(view.age) // len(cache.age)
        self._slots = {span: view.write_slots(span) for span in {ring.span for ring in cache.rings}}
        self._rotations = rotations

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Writes (N, heads, 1, head size) of a layer into each memory's slot; returns all (N, heads, C + 1, size)."""
        cache, ring = self._cache, self._cache.rings[layer_idx]
        slots = self._slots[ring.span]
        all_keys, all_values = self._of_memories(cache.keys[layer_idx]), self._of_memories(cache.values[layer_idx])
        _write(keys, all_keys, slots.slot)
        _write(values, all_values, slots.slot)
        if ring.moved:
            first, unmoved = all_keys[:, :, : ring.moved], self._of_memories(cache.unmoved_keys[layer_idx])
            _write(keys, unmoved, slots.unmoved)
            cos, sin = (part[:, None, None] for part in self._rotations[ring.kind])
            assert ring.written.layout is not None
            moved = rotate(unmoved[:, :, : ring.moved], cos, sin, ring.written.layout)
            first.copy_(torch.where(slots.keeps, moved, first))
        return all_keys, all_values

    def _of_memories(self, buffer: Tensor) -> Tensor:
        """(B, M, heads, slots, size) -> (N, heads, slots, size) of the memories that step, as a view."""
        return buffer[:, : self._memories].flatten(0, 1)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """0: masks and positions are given, so transformers derives nothing from it."""
        return 0


def _write(new: Tensor, buffer: Tensor, slot: Tensor) -> None:
    """Writes `new` (N, heads, 1, size) into each memory's `slot` (N, 1, 1, 1) of `buffer` (N, heads, slots, size)."""
    new = new.to(buffer.dtype)
    if len(new) == 1:  # all heads of it at once, which takes a third of the time
        buffer.index_copy_(2, slot.view(1), new)
    else:
        buffer.scatter_(2, slot.expand_as(new), new)


class KeyRecorder:
    """A `past_key_values` that keeps the keys and values which each layer writes for the first frames of a conversation."""

    is_compileable = False
    is_initialized = True
    layers: tuple[()] = ()

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def keys(self) -> list[Tensor]:
        """Keys (B, heads, n, key size) of each layer."""
        return [self._layers[layer][0] for layer in range(len(self._layers))]

    @property
    def values(self) -> list[Tensor]:
        """Values (B, heads, n, value size) of each layer."""
        return [self._layers[layer][1] for layer in range(len(self._layers))]

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Keeps keys and values (B, heads, n, size) of a layer and returns them."""
        self._layers[layer_idx] = keys, values
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """0: nothing comes before the first frames."""
        return 0
