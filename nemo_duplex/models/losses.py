"""Masked, weighted cross-entropy of the text and the speech channels (paper, section 5.1: text : speech = 3 : 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from nemo_duplex.channels import ChannelLayout
from nemo_duplex.models.duplex_lm import AgentTargets


@dataclass(frozen=True)
class LossWeights:
    """How much each part of a frame counts.

    Args:
        text, speech: of the two losses in their sum (paper: 3 and 1).
        text_pad: of a text pad against a written token. Most frames are pad, and a small model that is trained briefly
            learns to write nothing; 1 as in the paper.
        turn: added for text BOS and EOS, of which there are few and on which turn-taking rests; 0 as in the paper.
        silence: share of the silent frames on which speech is trained, each standing for all the others; 1 as in the paper.
    """

    text: float = 3.0
    speech: float = 1.0
    text_pad: float = 1.0
    turn: float = 0.0
    silence: float = 1.0


class DuplexLoss(NamedTuple):
    """What is minimised, and the two means that it is the weighted sum of; scalars."""

    total: Tensor
    text: Tensor
    speech: Tensor


def text_loss(logits: Tensor, targets: Tensor, valid: Tensor, layout: ChannelLayout, weights: LossWeights) -> Tensor:
    """Mean cross-entropy of the text channel over valid frames.

    Args:
        logits: (B, T, V).
        targets: (B, T).
        valid: (B, T) bool; padding counts nothing, whatever it holds.
    """
    pad = targets == layout.text_pad
    turn = (targets == layout.text_bos) | (targets == layout.text_eos)
    weight = torch.where(pad, weights.text_pad, 1.0) + turn * weights.turn
    losses = cross_entropy(logits[valid].float(), targets[valid], reduction="none")
    weight = weight[valid]
    return (losses * weight).sum() / weight.sum().clamp(min=1e-8)


def speech_loss(
    logits_of: Callable[[Tensor], Tensor], hidden: Tensor, targets: AgentTargets, valid: Tensor, weights: LossWeights
) -> Tensor:
    """Mean cross-entropy of the K speech channels over valid frames.

    Logits of K codebooks are the largest tensor of the model, so they are made only of the frames that are trained on: all
    where the agent speaks, and a share `weights.silence` of the others, which then count 1 / share each.

    Args:
        logits_of: hidden states (N, H) -> logits (N, K, V).
        hidden: (B, T, H).
    """
    trained = targets.speaking & valid
    if weights.silence < 1:
        drawn = torch.rand(trained.shape, device=trained.device) < weights.silence
        trained = trained | (drawn & valid)
    else:
        trained = valid
    weight = torch.where(targets.speaking, 1.0, 1.0 / weights.silence)[trained]
    codes = targets.codes.transpose(1, 2)[trained]  # (N, K)
    logits = logits_of(hidden[trained]).float()  # (N, K, V)
    losses = cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view_as(codes).mean(dim=1)
    return (losses * weight).sum() / weight.sum().clamp(min=1e-8)


def duplex_loss(text: Tensor, speech: Tensor, weights: LossWeights) -> DuplexLoss:
    """The weighted sum, with its parts."""
    return DuplexLoss(weights.text * text + weights.speech * speech, text, speech)
