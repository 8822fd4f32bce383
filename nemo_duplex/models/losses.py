"""Masked, weighted cross-entropy of the text and the speech channels (paper, section 5.1: text : speech = 3 : 1).

A loss is a sum and the weight to divide it by. The training step divides by the weight of the *global* batch, so that a frame
counts the same on one process and on 32 (`parallel.py`).

Logits are the largest tensors of the model (1000 s of audio: 12,500 frames x (32,000 + 4 x 4037) x 4 bytes = 2.4 GB, and as
much again for their gradient). They are computed for valid frames only, a chunk at a time, and again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.channels.targets import AgentTargets
from nemo_duplex.inputs import InputError
from nemo_duplex.llm.experts import ExpertsLoss
from nemo_duplex.models.head_loss import head_loss, is_plain

# Weights within these leave sums over any batch, and gradients, within float32.
_SMALLEST, _LARGEST = 1e-9, 1e9
_WITHIN = f" (0, or {_SMALLEST:g} to {_LARGEST:g})"


@dataclass(frozen=True)
class LossWeights:
    """How much each part of a frame counts; `model.loss` in the config.

    Args:
        text, speech: weights of the two losses in their sum (paper: 3 and 1).
        text_pad: weight of a text pad, where a text token weighs 1 (paper: 1). Most frames are pad: a small model that is
            trained briefly learns to write nothing else, unless this is lower. With 0 a silent batch has no text loss;
            a step in which no frame has a weight changes nothing.
        turn: added to the weight of text BOS and EOS, which are rare and decide turn-taking (paper: 0).
        silence: share of the silent frames on which speech is trained, above 0; each of them weighs 1 / share (paper: 1).
        experts: weight of the load-balancing loss of a mixture of experts in the sum; None: the one in the config of the
            language model, 0: no such loss.
        chunk: frames whose logits exist at one time; 0: all at once, which is faster and takes more memory.

    Raises:
        InputError: for a weight that is neither 0 nor of 1e-9 to 1e9, a share outside of its range, or if nothing is trained.
    """

    text: float = 3.0
    speech: float = 1.0
    text_pad: float = 1.0
    turn: float = 0.0
    silence: float = 1.0
    experts: float | None = None
    chunk: int = 1024

    def __post_init__(self) -> None:
        for name in ("text", "speech", "text_pad", "turn"):
            value = getattr(self, name)
            if not _is_weight(value):
                raise InputError(f"model.loss.{name} is {value}, expected a weight of 0 or more{_WITHIN}.")
        if self.experts is not None and not _is_weight(self.experts):
            raise InputError(
                f"model.loss.experts is {self.experts}, expected a weight of 0 or more, or null for that of the language "
                f"model{_WITHIN}."
            )
        if self.text == self.speech == 0:
            raise InputError(
                "model.loss.text and model.loss.speech are both 0: nothing is trained. Give one a weight, such as 1."
            )
        if not _SMALLEST <= self.silence <= 1:
            raise InputError(
                f"model.loss.silence is {self.silence}, expected a share above 0, up to 1 ({_SMALLEST:g} or more). "
                "0.01 trains on every hundredth silent frame."
            )
        if self.chunk < 0:
            raise InputError(f"model.loss.chunk is {self.chunk}, expected a number of frames, or 0 for all at once.")


def _is_weight(value: float) -> bool:
    return value == 0 or _SMALLEST <= value <= _LARGEST


def with_experts(weights: LossWeights, family: ExpertsLoss | None, name: str) -> LossWeights:
    """`weights` whose `experts` is a number: for None that of the family, or 0 where the family has no such loss.

    Args:
        name: of the language model, for the error.

    Raises:
        InputError: for a weight of a loss that the language model does not have.
    """
    if family is None and weights.experts:
        raise InputError(
            f"model.loss.experts is {weights.experts:g}, but transformers defines no load-balancing loss of experts for the "
            f"language model {name}. Set it to null."
        )
    if weights.experts is None:
        return replace(weights, experts=0.0 if family is None else family.weight)
    return weights


class ChannelLoss(NamedTuple):
    """The loss of the N frames on which a channel is trained, and the model's predictions there."""

    total: Tensor  # scalar: sum of weight times cross-entropy
    weight: Tensor  # scalar: sum of the weights
    predicted: Tensor  # (N,) text tokens, or (N, K) codes: the most likely ones
    targets: Tensor  # (N,) or (N, K)

    @property
    def mean(self) -> Tensor:
        """The loss of this batch alone; scalar."""
        return self.over(self.weight)

    def over(self, weight: Tensor) -> Tensor:
        """The sum divided by a weight (scalar): 0 if no frame has any, and with a gradient of 0, so that all ranks have one."""
        return self.total / weight.where(weight > 0, 1.0)


LogitsOf = Callable[[Tensor], Tensor]


def text_loss(
    logits_of: LogitsOf,
    hidden: Tensor,
    targets: AgentTargets,
    layout: ChannelLayout,
    weights: LossWeights,
    head: nn.Module | None = None,
    rows: Tensor | None = None,
) -> ChannelLoss:
    """Cross-entropy of the text channel over the valid frames.

    Args:
        logits_of: hidden states (N, H) -> logits (N, V).
        hidden: (B, T, H).
        head: the layer that is all of `logits_of`, if there is one.
        rows: (R,) its only rows that are trained; None: all.
    """
    tokens = targets.tokens[targets.valid]
    pad = tokens == layout.text_pad
    turn = (tokens == layout.text_bos) | (tokens == layout.text_eos)
    weight = torch.where(pad, weights.text_pad, 1.0) + turn * weights.turn
    total, predicted = _in_chunks(logits_of, hidden[targets.valid], tokens, weight, weights.chunk, head, rows)
    return ChannelLoss(total, weight.sum(), predicted, tokens)


def speech_loss(
    logits_of: LogitsOf, hidden: Tensor, targets: AgentTargets, weights: LossWeights, head: nn.Module | None = None
) -> ChannelLoss:
    """Cross-entropy of the speech channels, a mean over codebooks, over the valid frames.

    With `weights.silence` below 1, a random share of the frames in which the agent is silent is used, and each of them weighs
    1 / share: the expected mean is the same, at a fraction of the cost.

    Args:
        logits_of: hidden states (N, H) -> logits (N, K, V).
        hidden: (B, T, H).
        head: the layer whose outputs are those logits, in rows of K * V, if there is one.
    """
    trained = targets.valid
    if weights.silence < 1:
        drawn = torch.rand(trained.shape, device=trained.device) < weights.silence
        trained = trained & (targets.speaking | drawn)
    weight = torch.where(targets.speaking, 1.0, 1.0 / weights.silence)[trained]
    codes = targets.codes.transpose(1, 2)[trained]  # (N, K)
    total, predicted = _in_chunks(logits_of, hidden[trained], codes, weight, weights.chunk, head)
    return ChannelLoss(total, weight.sum(), predicted, codes)


def _in_chunks(
    logits_of: LogitsOf,
    hidden: Tensor,
    targets: Tensor,
    weight: Tensor,
    chunk: int,
    head: nn.Module | None,
    rows: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum of the weighted cross-entropies of N frames and the most likely ids, from the logits of `chunk` frames at a time."""
    if chunk > 0 and is_plain(head):
        return head_loss(head, hidden, targets, weight, chunk, rows)

    def cost(hidden: Tensor, targets: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits_of(hidden).float()
        each = cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
        frames = each.view(len(targets), targets.shape[1:].numel())  # (N, K), or (N, 1); N may be 0
        return (frames.mean(dim=1) * weight).sum(), logits.detach().argmax(-1)

    if chunk <= 0 or len(hidden) <= chunk:
        return cost(hidden, targets, weight)
    total, predicted = hidden.new_zeros((), dtype=torch.float32), []
    for piece in zip(hidden.split(chunk), targets.split(chunk), weight.split(chunk)):
        one, ids = checkpoint(cost, *piece, use_reentrant=False, preserve_rng_state=False)
        total = total + one
        predicted.append(ids)
    return total, torch.cat(predicted)
