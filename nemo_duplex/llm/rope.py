"""Rotary positions of a session without end: angles stay exact at any age, and keys can be turned to another position.

A rotary embedding turns each pair of features of a key or query at position p by the angle p * frequency; what attention sees
is the difference of two positions. transformers multiplies in float32, where an angle of 10^6 (a day of 80 ms frames) is only
good to 0.03: neighbours no longer fit each other. Here an angle is an integer, of which whole turns fall off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

#: A whole turn. A frame turns by less than a sixth of it, so the product with a position fits into int64 for 20 years.
_TURN = 1 << 32

#: A layer's kind, as `config.layer_types` names it; None where the layers of a model are all of one kind.
LayerKind = str | None

#: Which features of a key are turned together: i and i + half, or 2i and 2i + 1; a layer without positions turns none.
Pairs = Literal["halves", "neighbours", "none"]


def rotation(frequencies: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine (..., F) float32 of frequencies (F,), in radians per frame, at positions (...) int64 of any size."""
    step = (frequencies.float() * (_TURN / math.tau)).long()
    angle = (positions[..., None] * step % _TURN).float() * (math.tau / _TURN)
    return angle.cos(), angle.sin()


def turned(keys: Tensor, cos: Tensor, sin: Tensor, pairs: Pairs) -> Tensor:
    """Keys (..., D) moved on by the positions of `rotation` (..., F); features behind the first 2 F have no position."""
    if pairs == "none":
        return keys
    size = 2 * cos.shape[-1]
    if pairs == "halves":
        a, b = keys[..., :size].chunk(2, dim=-1)
    else:
        a, b = keys[..., 0:size:2], keys[..., 1:size:2]
    both = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-2 if pairs == "halves" else -1)
    return torch.cat([both.flatten(-2).to(keys.dtype), keys[..., size:]], dim=-1)


def pairs_turned(before: Tensor, after: Tensor, turn: tuple[Tensor, Tensor] | None) -> Pairs | None:
    """How a layer made the keys `after` of `before`.

    Args:
        turn: cosine and sine of what its frequencies say; None where nobody knows them.

    Returns:
        None if it did so in another way than those known here.
    """
    tolerance = (1e-3 if before.dtype == torch.float32 else 0.05) * after.abs().max()
    if (after - before).abs().max() < tolerance:
        return "none"
    if turn is None or 2 * turn[0].shape[-1] > before.shape[-1]:
        return None
    cos, sin = turn
    ways: tuple[Pairs, ...] = ("halves", "neighbours")
    return next((way for way in ways if (turned(before, cos, sin, way) - after).abs().max() < tolerance), None)


class EndlessRotary(nn.Module):
    """A family's rotary embedding: its own as far as the model was trained, exact beyond.

    Args:
        own: the family's, with its frequencies: scaled, partial, or one set for each kind of layer.
        kinds: of the layers.
        positions: that the model was trained for.
    """

    def __init__(self, own: nn.Module, kinds: Iterable[LayerKind], positions: int) -> None:
        super().__init__()
        self.own: nn.Module = own.own if isinstance(own, EndlessRotary) else own
        self.positions = positions
        for kind in {None} if hasattr(self.own, "inv_freq") else set(kinds):
            self.register_buffer(f"{kind}_layout", self._layout(kind), persistent=False)

    def forward(self, x: Tensor, position_ids: Tensor, layer_type: LayerKind = None) -> tuple[Tensor, Tensor]:
        """Cosine and sine (B, T, D) at positions (B, T), in the dtype of `x` and laid out as the family does it."""
        cos, sin = self.own(x, position_ids, **_named(layer_type))
        frequencies, layout = self.frequencies(layer_type), getattr(self, f"{layer_type}_layout", None)
        if frequencies is None or layout is None:
            return cos, sin
        scaling = getattr(self.own, _of(layer_type, "attention_scaling"), 1.0)
        far_cos, far_sin = ((part[..., layout] * scaling).to(x.dtype) for part in rotation(frequencies, position_ids))
        beyond = (position_ids >= self.positions)[..., None]
        return torch.where(beyond, far_cos, cos), torch.where(beyond, far_sin, sin)

    def frequencies(self, kind: LayerKind) -> Tensor | None:
        """(F,) radians per frame of layers of this kind; None where they have none."""
        shared = getattr(self.own, "inv_freq", None)
        return getattr(self.own, _of(kind, "inv_freq"), None) if shared is None else shared

    def _layout(self, kind: LayerKind) -> Tensor | None:
        """(D,) which frequency each entry of the family's cosines belongs to; None where that cannot be seen."""
        frequencies = self.frequencies(kind)
        if frequencies is None or frequencies.is_meta:
            return None
        frequencies = frequencies.float()
        first = torch.ones(1, 1, dtype=torch.long, device=frequencies.device)
        sines = self.own(frequencies, first, **_named(kind))[1][0, 0]
        apart = (sines[:, None] / getattr(self.own, _of(kind, "attention_scaling"), 1.0) - frequencies.sin()).abs()
        return apart.argmin(dim=1) if apart.amin(dim=1).max() < 1e-6 else None


def keep_frequencies(llm: nn.Module) -> None:
    """Rotary frequencies stay those of short texts, as far as the family has others for long ones (Phi-3 128k, dynamic NTK).

    transformers would change them with the age of the oldest caller in the batch: keys that were written before would no
    longer fit, and one caller would change what another one gets.
    """
    for module in llm.modules():
        kind = getattr(module, "rope_type", None)
        if isinstance(kind, dict):
            module.rope_type = {layer: _settled(k) for layer, k in kind.items()}
        elif isinstance(kind, str):
            module.rope_type = _settled(kind)


def trained_positions(config: Any) -> int:
    """How many positions a model was trained for with the frequencies that are kept."""
    rope = getattr(config, "rope_parameters", None) or {}
    own = {kind: one for kind, one in rope.items() if isinstance(one, dict)} or {None: rope}
    changing = [one for one in own.values() if _settled(one.get("rope_type", "default")) != one.get("rope_type", "default")]
    positions = config.max_position_embeddings
    return min([positions, *(one.get("original_max_position_embeddings") or positions for one in changing)])


def _settled(rope_type: str) -> str:
    return "default" if rope_type == "longrope" or "dynamic" in rope_type else rope_type


def _named(kind: LayerKind) -> dict[str, str]:
    return {} if kind is None else {"layer_type": kind}


def _of(kind: LayerKind, name: str) -> str:
    """The attribute in which a family keeps what belongs to layers of this kind."""
    return name if kind is None else f"{kind}_{name}"
