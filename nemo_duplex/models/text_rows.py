"""Which rows of the text embedding, and of the output layer, are trained (`model.text_rows`).

A language model that is adapted by LoRA knows its tokens already; new is what pad, BOS and EOS mean to an agent. With those
rows alone, training adds little to the language model, and a step has no gradient of the size of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.llm.backbone import Backbone

TextRows = Literal["all", "specials"]


def train_specials_alone(backbone: Backbone, layout: ChannelLayout) -> None:
    """Trains the rows of pad, BOS and EOS; gradients of the other rows are zero. `backbone.trained_rows` says which.

    Weight decay would change the others: see `without_decay`.
    """
    rows = torch.tensor(sorted({layout.text_pad, layout.text_bos, layout.text_eos}))
    backbone.trained_rows = rows
    for weight in _text_weights(backbone):
        if weight.requires_grad:
            weight.register_hook(_RowsOf(rows))


def without_decay(groups: Iterable[dict[str, Any]], backbone: Backbone) -> list[dict[str, Any]]:
    """The optimizer's groups of parameters, those that are trained in some rows in groups of their own without weight decay."""
    if backbone.trained_rows is None:
        return list(groups)
    of_rows = {id(weight) for weight in _text_weights(backbone)}
    split = []
    for group in groups:
        params = list(group["params"])
        apart = [p for p in params if id(p) in of_rows]
        split.append({**group, "params": [p for p in params if id(p) not in of_rows]})
        if apart:
            split.append({**group, "params": apart, "weight_decay": 0.0})
    return [group for group in split if group["params"]]


class _RowsOf:
    """Leaves the gradients of some rows, and sets those of the others to zero."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows

    def __call__(self, grad: Tensor) -> Tensor:
        rows = self._rows.to(grad.device)
        return torch.zeros_like(grad).index_copy_(0, rows, grad[rows])


def _text_weights(backbone: Backbone) -> list[nn.Parameter]:
    """The weights of the text embedding, the weights and the biases of the output layer; once where they are tied."""
    embedding, head = backbone.embed_tokens, backbone.lm_head
    weights = (embedding.weight, head.weight, getattr(head, "bias", None))
    return list({id(weight): weight for weight in weights if weight is not None}.values())
