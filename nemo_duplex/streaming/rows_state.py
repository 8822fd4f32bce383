"""All that the rows of a batch remember, in buffers that stay where they are.

Every part of the model brings its own state: the mel and the encoder, the language model, the codec. Here they are seen as one
thing: a batch of rows. A row is put, read or moved whole; the first n rows are a batch of their own (a view, nothing copied),
so an engine with few callers computes few rows; and what a step returns is written back into the same buffers, so a step can
become a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

from torch import Tensor

from nemo_duplex.codec.streaming_decoder import DecoderState
from nemo_duplex.models.duplex_lm import DuplexState
from nemo_duplex.perception.stream import StreamState
from nemo_duplex.streaming.sampling import SamplerState

Part = TypeVar("Part")


@dataclass
class RowsState:
    """The memory of B rows, each of its own age. Made by `AgentRows.init_state`; its size never changes."""

    perception: StreamState
    pending: Tensor  # (B, encoder chunk frames, H) embeddings of the encoder chunk that was heard last
    spoken: Tensor  # (B,) frames of that encoder chunk that have been answered
    lm: DuplexState
    decoder: DecoderState
    sampler: SamplerState
    frames: Tensor  # (B,) frames since the row began

    def first(self, rows: int) -> RowsState:
        """The first rows as a view: what is written into it is written here."""
        return changed(self, lambda tensor: tensor[:rows])

    def row(self, row: int) -> RowsState:
        """A copy of one row."""
        return changed(self, lambda tensor: tensor[row : row + 1].clone())

    def put(self, row: int, one: RowsState) -> None:
        """Overwrites all of a row with a state of one row; nothing of what was there is left."""
        for here, there in zip(tensors(self), tensors(one)):
            here[row].copy_(there[0])


def write(part: Part, values: Part) -> None:
    """Overwrites a part of the state with what a step returned, except for what the step has changed in place."""
    for here, there in zip(tensors(part), tensors(values)):
        if there is not here:
            here.copy_(there)


def tensors(part: Any) -> Iterator[Tensor]:
    """Each tensor (B, ...) of a part of the state."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, list | tuple):
        for item in part:
            yield from tensors(item)
    elif is_dataclass(part):
        for field in fields(part):
            yield from tensors(getattr(part, field.name))


def changed(part: Part, change: Callable[[Tensor], Tensor]) -> Part:
    """A part of the state of the same build, with `change(tensor)` in the place of each tensor."""
    if isinstance(part, Tensor):
        return change(part)
    if isinstance(part, list | tuple):
        items = [changed(item, change) for item in part]
        return part if all(new is old for new, old in zip(items, part)) else type(part)(items)
    if is_dataclass(part):
        old = {field.name: getattr(part, field.name) for field in fields(part)}
        new = {name: changed(value, change) for name, value in old.items()}
        return replace(part, **{k: value for k, value in new.items() if value is not old[k]})  # type: ignore[type-var]
    return part
