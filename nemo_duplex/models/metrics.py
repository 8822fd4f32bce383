"""How well the model predicts the agent's frames in training and validation, as sums that add up over batches and ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.channels.targets import AgentTargets
from nemo_duplex.models.losses import ChannelLoss, LossWeights


class StepSums:
    """Named sums and the counts to divide them by, in two tensors, so that one reduction over ranks adds them all.

    The names: `text_loss`, `speech_loss`; `experts_loss` (the load-balancing loss of a mixture of experts, a mean over batches;
    nothing is counted for other models); `text_accuracy` (over frames whose token is not pad), `bos_accuracy`, `eos_accuracy`
    (over the turn marks of the text channel); `speech_accuracy` (over frames in which the agent speaks, all codebooks) and
    `codebook_<k>_accuracy`; `padding_ratio` (share of padding in all frames of the batch).
    """

    def __init__(self, names: list[str], sums: Tensor, counts: Tensor, ranks: int = 1) -> None:
        self.names, self.sums, self.counts, self.ranks = names, sums, counts, ranks

    def __add__(self, other: StepSums) -> StepSums:
        assert self.names == other.names, f"Sums of different things: {self.names} and {other.names}."
        return StepSums(self.names, self.sums + other.sums, self.counts + other.counts, self.ranks)

    def __sub__(self, other: StepSums) -> StepSums:
        return StepSums(self.names, self.sums - other.sums, self.counts - other.counts, self.ranks)

    @classmethod
    def of(
        cls,
        text: ChannelLoss,
        speech: ChannelLoss,
        targets: AgentTargets,
        layout: ChannelLayout,
        experts: Tensor | None = None,
    ) -> StepSums:
        """The sums of one batch on one rank.

        Args:
            experts: load-balancing loss of a mixture of experts, a scalar; None where there is none.
        """
        right = text.predicted == text.targets
        said = right & (text.targets != layout.text_pad)
        marks = {"bos": text.targets == layout.text_bos, "eos": text.targets == layout.text_eos}
        spoken = (speech.targets < layout.codebook_size).all(dim=1)
        hits = (speech.predicted == speech.targets) & spoken[:, None]  # (N, K)
        valid = targets.valid
        none = torch.zeros((), device=valid.device)
        pairs = {
            "text_loss": (text.total, text.weight),
            "speech_loss": (speech.total, speech.weight),
            "experts_loss": (none, none) if experts is None else (experts, valid.any()),
            "text_accuracy": (said.sum(), (text.targets != layout.text_pad).sum()),
            **{f"{name}_accuracy": ((right & mark).sum(), mark.sum()) for name, mark in marks.items()},
            "speech_accuracy": (hits.sum(), spoken.sum() * hits.shape[1]),
            **{f"codebook_{k}_accuracy": (hits[:, k].sum(), spoken.sum()) for k in range(hits.shape[1])},
            "padding_ratio": ((~valid).sum(), torch.tensor(valid.numel(), device=valid.device)),
        }
        sums, counts = (torch.stack([pair[i].detach().float() for pair in pairs.values()]) for i in (0, 1))
        return cls(list(pairs), sums, counts)

    def count(self, name: str) -> Tensor:
        """What the sum `name` is divided by, a scalar."""
        return self.counts[self.names.index(name)]

    def mean(self, name: str) -> Tensor:
        """The mean `name`, a scalar; NaN where nothing was counted (a batch without a turn has no BOS)."""
        return self.sums[self.names.index(name)] / self.count(name)

    def weight(self, weights: LossWeights) -> Tensor:
        """What all frames together weigh in the loss, a scalar; 0: nothing of the batch is trained."""
        return torch.stack([share * self.count(name) for name, share in _shares(weights).items()]).sum()

    def cpu(self) -> StepSums:
        """The same on the CPU; waits for the device."""
        both = torch.stack([self.sums, self.counts]).cpu()
        return StepSums(self.names, both[0], both[1], self.ranks)

    def to(self, device: torch.device | str) -> StepSums:
        """The same on another device."""
        return StepSums(self.names, self.sums.to(device), self.counts.to(device), self.ranks)

    def logged(self, weights: LossWeights) -> dict[str, float]:
        """All means of which something was counted, and `loss`, the weighted sum that is minimised. A loss of NaN is kept.

        A channel of which no frame has a weight adds nothing to `loss`, as in training.
        """
        sums = self.cpu()
        counted = [name for name in sums.names if sums.count(name) > 0]
        means = {name: sums.mean(name).item() for name in counted}
        losses = _shares(weights)
        if losses.keys() & means.keys():
            means["loss"] = sum(weight * means.get(name, 0.0) for name, weight in losses.items())
        return means


def _shares(weights: LossWeights) -> dict[str, float]:
    """What each loss weighs in the one that is minimised."""
    return {"text_loss": weights.text, "speech_loss": weights.speech, "experts_loss": weights.experts or 0.0}
