"""Rotary positions of a session without end: angles stay exact at any age, and keys can be moved to another position.

A rotary embedding rotates each pair of features of a key or query at position p by the angle p * frequency. Attention sees the
difference of two positions. transformers computes angles in float32: after 10^6 frames of 80 ms (a day) they are off by up to
0.03, too much between two frames in a row. Here an angle is an integer fraction of a turn, and whole turns are dropped.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

#: A whole turn. A frame rotates by less than a sixth of it, so the product with a position fits into int64 for 20 years.
_TURN = 1 << 32

#: Positions up to which a family's own float32 angles are used at most: there they are off by 0.004, and by 0.3 at 10^7, which
#: some models state. With a window such a session would depend on its age.
_OWN_ANGLES = 1 << 17

#: A layer's kind, as `config.layer_types` names it; None where the layers of a model are all of one kind.
LayerKind = str | None

#: Which features of a key are rotated together: i and i + half, or 2i and 2i + 1; a layer without positions rotates none.
RopeLayout = Literal["half", "interleaved", "none"]


def cos_sin(frequencies: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine (..., F) float32 of frequencies (F,), in radians per frame, at positions (...) int64 of any size."""
    step = (frequencies.float() * (_TURN / math.tau)).long()
    angle = (positions[..., None] * step % _TURN).float() * (math.tau / _TURN)
    return angle.cos(), angle.sin()


def rotate(keys: Tensor, cos: Tensor, sin: Tensor, layout: RopeLayout) -> Tensor:
    """Keys (..., D) moved on by the positions of `cos_sin` (..., F); features behind the first 2 F have no position."""
    if layout == "none":
        return keys
    size = 2 * cos.shape[-1]
    if layout == "half":
        a, b = keys[..., :size].chunk(2, dim=-1)
    else:
        a, b = keys[..., 0:size:2], keys[..., 1:size:2]
    both = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-2 if layout == "half" else -1)
    return torch.cat([both.flatten(-2).to(keys.dtype), keys[..., size:]], dim=-1)


def rope_layout(before: Tensor, after: Tensor, turn: tuple[Tensor, Tensor] | None) -> RopeLayout | None:
    """The layout by which a layer rotated the keys `before` into `after`.

    Args:
        before, after: keys (..., D) of the same features at two positions.
        turn: cosine and sine (..., F) of the angle between these positions; None where the frequencies are not known.

    Returns:
        None if the layer did something else.
    """
    tolerance = (1e-3 if before.dtype == torch.float32 else 0.05) * after.abs().max()
    if (after - before).abs().max() < tolerance:
        return "none"
    if turn is None or 2 * turn[0].shape[-1] > before.shape[-1]:
        return None
    cos, sin = turn
    layouts: tuple[RopeLayout, ...] = ("half", "interleaved")
    return next((layout for layout in layouts if (rotate(before, cos, sin, layout) - after).abs().max() < tolerance), None)


class EndlessRotary(nn.Module):
    """A family's rotary embedding: its own numbers up to the trained positions and 131,072 at most, exact angles beyond.

    Args:
        own: the family's module, with its frequencies: scaled, partial, or one set for each kind of layer.
        kinds: the kind of each layer.
        positions: how many positions the model was trained for.
    """

    def __init__(self, own: nn.Module, kinds: Iterable[LayerKind], positions: int) -> None:
        super().__init__()
        self.own: nn.Module = own.own if isinstance(own, EndlessRotary) else own
        self.positions = min(positions, _OWN_ANGLES)
        self.config = getattr(self.own, "config", None)  # Granite SWA asks for it
        for kind in {None} if hasattr(self.own, "inv_freq") else set(kinds):
            self.register_buffer(f"{kind}_layout", self._layout(kind), persistent=False)

    def forward(self, x: Tensor, position_ids: Tensor, layer_type: LayerKind = None) -> tuple[Tensor, Tensor] | Tensor:
        """Cosine and sine (B, T, D) at positions (B, T) as the family gives them, in a complex number too (DeepSeek-V2)."""
        own = self.own(x, position_ids, **_keywords(layer_type))
        frequencies, layout = self.frequencies(layer_type), getattr(self, f"{layer_type}_layout", None)
        if frequencies is None or layout is None:
            return own
        cos, sin = _parts(own)
        scaling = getattr(self.own, _attribute(layer_type, "attention_scaling"), 1.0)
        far_cos, far_sin = ((part[..., layout] * scaling).to(cos.dtype) for part in cos_sin(frequencies, position_ids))
        beyond = (position_ids >= self.positions)[..., None]
        both = torch.where(beyond, far_cos, cos), torch.where(beyond, far_sin, sin)
        return both if isinstance(own, tuple) else torch.complex(*both)

    def frequencies(self, kind: LayerKind) -> Tensor | None:
        """Radians per frame (F,) of layers of this kind; None where they have none."""
        shared = getattr(self.own, "inv_freq", None)
        return getattr(self.own, _attribute(kind, "inv_freq"), None) if shared is None else shared

    def _layout(self, kind: LayerKind) -> Tensor | None:
        """The frequency (D,) to which each entry of the family's cosines belongs; None where no frequency explains an entry."""
        frequencies = self.frequencies(kind)
        if frequencies is None or frequencies.is_meta or not frequencies.numel():  # some rotate no feature
            return None
        frequencies = frequencies.float()
        first = torch.ones(1, 1, dtype=torch.long, device=frequencies.device)
        sines = _parts(self.own(frequencies, first, **_keywords(kind)))[1][0, 0]
        apart = (sines[:, None] / getattr(self.own, _attribute(kind, "attention_scaling"), 1.0) - frequencies.sin()).abs()
        return apart.argmin(dim=1) if apart.amin(dim=1).max() < 1e-6 else None


def make_endless(llm: nn.Module, kinds: Iterable[LayerKind], positions: int) -> list[EndlessRotary]:
    """Puts an `EndlessRotary` around each rotary embedding of `llm`: one for all layers, or one in each (Moshi)."""
    made = []
    for parent in [module for module in llm.modules() if not isinstance(module, EndlessRotary)]:
        for name, child in list(parent.named_children()):
            rotates = any(buffer.endswith("inv_freq") for buffer, _ in child.named_buffers(recurse=False))
            if isinstance(child, EndlessRotary) or rotates and "position_ids" in inspect.signature(child.forward).parameters:
                made.append(EndlessRotary(child, kinds, positions))
                parent.register_module(name, made[-1])
    return made


def freeze_frequencies(llm: nn.Module) -> None:
    """Keeps the rotary frequencies of short texts in families that switch to others for long ones (Phi-3 128k, dynamic NTK).

    transformers would switch with the age of the oldest session in the batch: keys that were written before would no longer
    fit, and one session would change the output of another.
    """
    for module in llm.modules():
        kind = getattr(module, "rope_type", None)
        if isinstance(kind, dict):
            module.rope_type = {layer: _frozen(k) for layer, k in kind.items()}
        elif isinstance(kind, str):
            module.rope_type = _frozen(kind)


def stated_positions(config: Any) -> int | None:
    """The positions of a model as its family names them; None if its config does not say how many there are."""
    named = (getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len", "model_max_length"))
    return next((positions for positions in named if isinstance(positions, int) and positions > 0), None)


def trained_positions(config: Any) -> int:
    """The positions that a model was trained for with the frequencies that `freeze_frequencies` keeps."""
    rope = getattr(config, "rope_parameters", None) or {}
    own = {kind: one for kind, one in rope.items() if isinstance(one, dict)} or {None: rope}
    changing = [one for one in own.values() if _frozen(one.get("rope_type", "default")) != one.get("rope_type", "default")]
    positions = stated_positions(config)
    assert positions is not None, "A config that states no positions is refused."
    return min([positions, *(one.get("original_max_position_embeddings") or positions for one in changing)])


def _parts(rotation: tuple[Tensor, Tensor] | Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine, of a pair or of a complex number."""
    return rotation if isinstance(rotation, tuple) else (rotation.real, rotation.imag)


def _frozen(rope_type: str) -> str:
    return "default" if rope_type == "longrope" or "dynamic" in rope_type else rope_type


def _keywords(kind: LayerKind) -> dict[str, str]:
    return {} if kind is None else {"layer_type": kind}


def _attribute(kind: LayerKind, name: str) -> str:
    """The attribute in which a family stores `name` for layers of this kind."""
    return name if kind is None else f"{kind}_{name}"
