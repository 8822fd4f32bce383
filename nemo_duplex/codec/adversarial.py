"""The adversarial part of a codec's training: discriminators, their losses, and their pull on the decoded audio.

Two losses pull the codec, both NanoCodec's: a squared one (decoded speech should score 1) and feature matching (it should cause
the outputs of layers that recorded speech causes). Their scales do not matter: the gradient of each with respect to the decoded
audio gets a norm relative to that of reconstruction (the balancer of EnCodec, arXiv:2210.13438, section 3.4).

Discriminators are no part of the codec: they are in the checkpoint of the training and never in `codec.nemo`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from nemo.collections.tts.losses.audio_codec_loss import (
    DiscriminatorSquaredLoss,
    FeatureMatchingLoss,
    GeneratorSquaredLoss,
)
from torch import nn

from nemo_duplex.codec.discriminators import PeriodDiscriminator, StftDiscriminator
from nemo_duplex.codec.wavlm_discriminator import WavLMDiscriminator
from nemo_duplex.inputs import InputError

# Weight of a step's loss in the running mean.
_NEW = 0.02


@dataclass(frozen=True)
class AdversarialConfig:
    """The section `adversarial` of `conf/train_codec.yaml`, explained there."""

    start: float
    generator_weight: float
    feature_weight: float
    windows: Sequence[int]
    periods: Sequence[int]
    channels: int
    drawn: int | None
    update_every: int
    rate: float
    warmup_steps: int
    wavlm: str | None

    def __post_init__(self) -> None:
        if not 0 <= self.start < 1:
            raise InputError(f"adversarial.start={self.start}: expected a share of the training from 0 to below 1.")
        for name in ("channels", "update_every", "rate", "drawn"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise InputError(f"adversarial.{name}={value}: expected more than zero.")
        for name in ("generator_weight", "feature_weight", "warmup_steps"):
            if not getattr(self, name) >= 0:
                raise InputError(f"adversarial.{name}={getattr(self, name)}: expected 0 or more.")
        if bad := [size for size in self.windows if size < 64 or size % 4]:
            raise InputError(f"adversarial.windows: {bad[0]} is no window; expected multiples of 4 from 64 on.")
        if bad := [period for period in self.periods if period < 2]:
            raise InputError(f"adversarial.periods: {bad[0]} is no period; expected whole numbers from 2 on.")
        if not self.windows and not self.periods and self.wavlm is None:
            raise InputError("adversarial: neither windows nor periods nor wavlm are given. Give some, or adversarial=null.")


class Adversary(nn.Module):
    """Discriminators, some of which are drawn for each step.

    Args:
        config: sizes and weights.
        sample_rate: of the audio.
        bf16: whether their products are in bfloat16.

    Attributes:
        steps: steps in which they took part.
        loss: running mean of the discriminators' loss. 0.25 is that of blind ones; near 0 they see through all of the codec.
    """

    steps: torch.Tensor
    loss: torch.Tensor

    def __init__(self, config: AdversarialConfig, sample_rate: int, bf16: bool) -> None:
        super().__init__()
        self.config = config
        self.bf16 = bf16
        self.by_window = nn.ModuleList(StftDiscriminator(size, config.channels) for size in config.windows)
        self.by_period = nn.ModuleList(PeriodDiscriminator(period, config.channels) for period in config.periods)
        self.by_speech_model = nn.ModuleList([WavLMDiscriminator(config.wavlm, sample_rate)] if config.wavlm else [])
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("loss", torch.tensor(0.25))
        self._discriminator_loss, self._generator_loss = DiscriminatorSquaredLoss(), GeneratorSquaredLoss()
        self._feature_loss = FeatureMatchingLoss()

    def optimizer(self) -> torch.optim.Optimizer:
        """Of the discriminators: Adam with HiFi-GAN's decays; weight norm makes weight decay pointless."""
        return torch.optim.Adam(self._learning(), betas=(0.8, 0.99))

    def pull(
        self, real: torch.Tensor, decoded: torch.Tensor, norm: torch.Tensor, optimizer: torch.optim.Optimizer
    ) -> torch.Tensor:
        """One step: says how the decoded audio should change to be taken for real, and then the discriminators learn.

        Args:
            real, decoded: (B, S) float32; no gradient reaches `decoded`.
            norm: that of the gradient of reconstruction with respect to `decoded`.
            optimizer: of the discriminators.

        Returns:
            A gradient with respect to `decoded`, (B, S). Over the first `warmup_steps` it grows from zero.
        """
        decoded = decoded.detach().requires_grad_()
        real_scores, decoded_scores, real_features, decoded_features = self._judge(real, decoded)
        step = int(self.steps)
        rise = min(1.0, (step + 1) / self.config.warmup_steps) if self.config.warmup_steps else 1.0
        total = torch.zeros_like(real)
        for weight, loss in (
            (self.config.generator_weight, self._generator_loss(disc_scores_gen=decoded_scores)),
            (self.config.feature_weight, self._feature_loss(fmaps_real=real_features, fmaps_gen=decoded_features)),
        ):
            if weight:
                (gradient,) = torch.autograd.grad(loss, decoded, retain_graph=True)
                total += rise * weight * norm * gradient / gradient.norm().clamp(min=1e-20)
        if step % self.config.update_every == 0:
            loss = self._discriminator_loss(disc_scores_real=real_scores, disc_scores_gen=decoded_scores)
            self.loss += _NEW * (loss.detach() - self.loss)
            parameters = self._learning()
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True)):
                parameter.grad = gradient  # None for those that were not drawn: they rest
            optimizer.step()
            optimizer.zero_grad()
        self.steps += 1
        return total

    def _learning(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def _judge(self, real: torch.Tensor, decoded: torch.Tensor) -> tuple[list, list, list, list]:
        """Scores and features of recorded and of decoded speech, by the discriminators of this step."""
        judgements = []
        with torch.autocast(real.device.type, torch.bfloat16, enabled=self.bf16):
            for kind in (self.by_window, self.by_period, self.by_speech_model):
                for index in torch.randperm(len(kind))[: self.config.drawn].tolist():
                    judgements.append(kind[index](torch.cat([real, decoded])))
        scores = [scores.float().chunk(2) for scores, _ in judgements]
        features = [[output.float().chunk(2) for output in outputs] for _, outputs in judgements]
        return (
            [of_real for of_real, _ in scores],
            [of_decoded for _, of_decoded in scores],
            [[of_real.detach() for of_real, _ in outputs] for outputs in features],
            [[of_decoded for _, of_decoded in outputs] for outputs in features],
        )
