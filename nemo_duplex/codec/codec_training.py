"""Trains a codec on one speaker: from scratch, or personalised from a trained one, in a budget of minutes.

The loss is that of reconstruction, and in the later part of the training that of discriminators too. With the encoder frozen,
the decoder learns the voice and codes keep their meaning; otherwise everything that was encoded before has to be encoded again.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from nemo.collections.tts.modules.audio_codec_modules import default_precision
from torch.utils.data import DataLoader

from nemo_duplex.codec.adversarial import AdversarialConfig, Adversary
from nemo_duplex.codec.codec_validation import CodecValidation
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.codec.harmonic_decoder import HarmonicDecoder
from nemo_duplex.codec.held_out import write_held_out
from nemo_duplex.codec.quality import mean_mel_distance, measure_quality
from nemo_duplex.codec.reconstruction import ReconstructionLoss
from nemo_duplex.codec.recordings import Crops, Recordings
from nemo_duplex.codec.wavlm_discriminator import FROZEN
from nemo_duplex.files.atomic import sha256
from nemo_duplex.inputs import InputError
from nemo_duplex.training.small_part import (
    PartTraining,
    claim,
    finish,
    fit,
)
from nemo_duplex.training.time_budget import TimeBudget

_FREE = ("max_odd_rows",)  # it ends a run or changes nothing
# Crops of so many frames may be longer than all recordings, such as single words.
_SHORT_CROP = 12
# Of the pitch that a `HarmonicDecoder` reads from the codes, in octaves.
_PITCH_WEIGHT = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CodecTrainingConfig:
    """Settings of a training: the keys of `conf/train_codec.yaml`, explained there."""

    data: str
    out: str
    codec: Mapping[str, Any]
    minutes: float
    steps: int | None
    init: str | None
    freeze_encoder: bool
    held_out: int
    held_out_data: str | None
    channel: int | None
    max_odd_rows: float
    seed: int
    batch_size: int
    crop_frames: int
    matrix_rate: float | None
    rate: float | None
    warmup_steps: int
    half: bool
    accelerator: str
    precision: str
    validate_every: int | None
    patience: int | None
    sharpen: float
    adversarial: Mapping[str, Any] | None

    def __post_init__(self) -> None:
        for name in (
            "minutes",
            "steps",
            "held_out",
            "batch_size",
            "crop_frames",
            "matrix_rate",
            "rate",
            "validate_every",
            "patience",
        ):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise InputError(f"{name}={value}: expected more than zero.")
        for name in ("seed", "warmup_steps"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}={getattr(self, name)}: expected 0 or more.")
        if not 0 <= self.sharpen <= 2:
            raise InputError(f"sharpen={self.sharpen}: expected a share, such as 0.35, or 0 for none.")
        if not 0 <= self.max_odd_rows <= 1:
            raise InputError(f"max_odd_rows={self.max_odd_rows}: expected a share from 0 to 1.")
        if self.channel is not None and self.channel < 0:
            raise InputError(f"channel={self.channel}: expected 0 for the first channel, 1 for the second, ...")
        if self.precision not in ("bf16", "fp32"):
            raise InputError(f"precision={self.precision}: expected bf16 or fp32.")
        if self.patience is not None and self.validate_every is None:
            raise InputError(f"patience={self.patience} counts validations, but there are none: give validate_every=500, say.")
        if self.adversarial is not None:
            AdversarialConfig(**self.adversarial)
        if self.freeze_encoder and self.init is None:
            raise InputError(
                "freeze_encoder=true keeps the codes of a trained codec, but none is given: add init=<codec .nemo>."
            )


class CodecTraining(PartTraining):
    """Training of an `FSQCodec` on random crops: reconstruction, and from `adversarial.start` on discriminators too.

    With Muon the small codec reached a mel distance one sixth below that with AdamW alone, in equal time on one CPU core.

    Args:
        codec: trained in place.
        config: sizes and rates.
        recordings, indices: what to draw crops from.
        budget: of minutes; the config may limit the steps too.
        validation: runs every `validate_every` steps.
    """

    def __init__(
        self,
        codec: FSQCodec,
        config: CodecTrainingConfig,
        recordings: Recordings,
        indices: list[int],
        budget: TimeBudget,
        validation: CodecValidation | None = None,
    ) -> None:
        super().__init__(_with_rates(config, codec), budget)
        self.codec = codec
        self.validation = validation
        self.recordings = recordings
        self.indices = indices
        self.loss = ReconstructionLoss(codec.sample_rate)
        adversarial = config.adversarial
        self.adversary: Adversary | None = None
        if adversarial is not None:
            self.adversary = Adversary(AdversarialConfig(**adversarial), codec.sample_rate, config.precision == "bf16")
        if config.sharpen and not isinstance(codec.model.audio_decoder, HarmonicDecoder):
            raise InputError(
                f"sharpen={config.sharpen}: the decoder {type(codec.model.audio_decoder).__name__} does not shape a source, so "
                "there is nothing to sharpen. Leave it out, or train with codec=voice."
            )
        codec.model.audio_encoder.requires_grad_(not config.freeze_encoder)
        if config.crop_frames < codec.fewest_frames:
            raise InputError(
                f"crop_frames={config.crop_frames}: the networks of this codec need {codec.fewest_frames} frames at least. "
                f"Give crop_frames={codec.fewest_frames} or more."
            )
        longest = math.ceil(max(len(recordings.samples[i]) for i in indices) / codec.samples_per_frame)
        if config.crop_frames > (most := max(longest, _SHORT_CROP, codec.fewest_frames)):
            raise InputError(
                f"crop_frames={config.crop_frames}: the longest recording has {longest} frames; the rest would be "
                f"silence. Give crop_frames={most} or less."
            )

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        matrices: list[torch.nn.Parameter] = []
        others: list[torch.nn.Parameter] = []
        for name, parameter in self.codec.model.named_parameters():
            if parameter.requires_grad:
                inner = parameter.dim() == 2 and ".head." not in name and ".original" not in name
                (matrices if inner else others).append(parameter)
        optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, betas=(0.8, 0.99), weight_decay=0.01)]
        if matrices:  # NeMo's networks are all convolutions
            optimizers.append(torch.optim.Muon(matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))
        if self.adversary is not None:
            optimizers.append(self.adversary.optimizer())
        return optimizers

    def train_dataloader(self) -> DataLoader:
        """Crops of the current epoch; a training that is resumed draws the same ones."""
        frame = self.codec.samples_per_frame
        seed = (self.config.seed, self.current_epoch)
        crops = Crops(self.recordings, self.indices, self.config.crop_frames * frame, frame, seed)
        return DataLoader(crops, batch_size=self.config.batch_size)

    def training_step(self, audio: torch.Tensor, batch_index: int) -> None:
        if not self.stopped_early:
            self._learn(audio)
            if self.config.validate_every and self.step % self.config.validate_every == 0:
                self.validate()
        if self.stopped_early:
            self.trainer.should_stop = True

    def validate(self) -> None:
        """Measures the codec as it is, and ends the training if it has not become better for long."""
        if self.validation is not None:
            self.validation.run(self.codec, self.step, counts=self.adversary is None or int(self.adversary.steps) > 0)
            self.stopped_early = self.validation.is_over

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if FROZEN not in k}
        if self.validation is not None:
            checkpoint["validation"] = self.validation.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        checkpoint["state_dict"] |= {key: value for key, value in self.state_dict().items() if FROZEN in key}
        if self.validation is not None:
            self.validation.load_state_dict(checkpoint["validation"])
            self.stopped_early = self.validation.is_over

    def _learn(self, audio: torch.Tensor) -> None:
        """One step on crops (B, S)."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            decoded, aside = self._reconstruct(audio)
        decoded = decoded.float()
        if self.adversary is None:
            self.descend(self.loss(audio, decoded) + aside)
            return
        *optimizers, of_adversary = self.optimizers()
        if self.share < self.adversary.config.start:
            self.descend(self.loss(audio, decoded) + aside, optimizers)
            return
        heard = decoded.detach().requires_grad_()
        loss = self.loss(audio, heard)
        (gradient,) = torch.autograd.grad(loss, heard)
        for group in of_adversary.param_groups:
            group["lr"] = self.adversary.config.rate * self.rate_factor
        gradient = gradient + self.adversary.pull(audio, heard, gradient.norm(), of_adversary)
        toward = (decoded * gradient).sum()
        of_audio = loss.detach() + toward - toward.detach()  # its value is the loss, its gradient is `gradient`
        self.descend(of_audio + aside, optimizers)

    def _reconstruct(self, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | float]:
        """Audio (B, S) of whole frames through encoder, quantizer (gradients pass straight through) and decoder.

        The second result is a loss beside that of the audio, of a decoder that has one.
        """
        model = self.codec.model
        lengths = torch.full((len(audio),), audio.shape[1], device=audio.device)
        if self.config.freeze_encoder:  # the very codes that the decoder will get
            codes, frames = self.codec.encode(audio, lengths)
            quantized = self.codec.dequantize(codes)
        else:
            encoded, frames = model.audio_encoder(audio=audio, audio_len=lengths)
            with default_precision(torch.float32):
                quantized, _ = model.vector_quantizer(inputs=encoded.float(), input_len=frames)
        if isinstance(model.audio_decoder, HarmonicDecoder):
            decoded, error = model.audio_decoder.follow(quantized, audio)
            return decoded, _PITCH_WEIGHT * error
        decoded, _ = model.audio_decoder(inputs=quantized, input_len=frames)
        return decoded, 0.0


def _with_rates(config: CodecTrainingConfig, codec: FSQCodec) -> CodecTrainingConfig:
    """The config with learning rates that suit the codec in place of those that are null.

    The small codec is personalised at a third of the rates at which it learns from scratch. NeMo's deep stacks of
    weight-normalised convolutions need far less: at 1e-3 a narrow NanoCodec had a single code left after 70 steps.
    """
    weight_norm = any(".parametrizations." in name for name, _ in codec.model.named_parameters())
    share = 1.0 if config.init is None else 1 / 3
    rate = 1e-4 if weight_norm else 3e-3 * share
    return replace(config, rate=config.rate or rate, matrix_rate=config.matrix_rate or 1e-2 * share)


def train_codec(config: CodecTrainingConfig) -> dict[str, Any]:
    """Trains, writes `<out>/codec.nemo`, `<out>/quality.json` and `<out>/held_out/`, and returns what the second holds.

    Started again with the same `out` it resumes; if it is done already, it does nothing.

    Raises:
        InputError: for data or `init` that cannot be used, or an `out` that another training wrote.
    """
    out = Path(config.out)
    codec_file, quality_file = out / "codec.nemo", out / "quality.json"
    if (out / "training.json").is_file():
        claim(out, config, _FREE)
    if codec_file.is_file() and quality_file.is_file():
        return json.loads(quality_file.read_text())

    pl.seed_everything(config.seed, verbose=False)
    codec = FSQCodec.restore_from(config.init, map_location="cpu") if config.init else FSQCodec(config.codec)
    recordings = _read(config, config.data, codec.sample_rate, "training data")
    kept, others, indices = _held_out(config, recordings)
    utterances = [others.audio(i) for i in indices]
    validation = CodecValidation(out, utterances, config.patience)
    training = CodecTraining(codec, config, recordings, kept, TimeBudget(config.minutes), validation)
    claim(out, config, _FREE)
    if is_held_out := others is not recordings or kept != indices:
        write_held_out(out, others, indices)
    before = {"mel_distance_before": mean_mel_distance(codec, utterances)} if config.init else {}
    fit(training, "codec", out, config.accelerator)

    codec.cpu()
    if config.patience is not None and [last["step"] for last in validation.distances[-1:]] != [training.step]:
        training.validate()
    if validation.best is not None:
        codec.model.load_state_dict(validation.best)
    if isinstance(codec.model.audio_decoder, HarmonicDecoder):
        codec.model.audio_decoder.sharpen(config.sharpen)
    codec.save_to(codec_file, half=config.half, keep_codes=config.freeze_encoder)
    quality = before | measure_quality(FSQCodec.restore_from(codec_file, map_location="cpu"), utterances)
    if _gives_one_code(codec, max(utterances, key=len)):
        _log.warning(
            f"{codec_file} has one code for all speech: its encoder was driven too far. Remove {out} and train with a lower "
            f"rate= and matrix_rate={', or with freeze_encoder=true' if config.init else ''}."
        )
    quality["held_out"] = len(utterances) if is_held_out else 0
    quality["data"] = {
        "utterances": len(recordings),
        "minutes": round(recordings.seconds / 60, 2),
        "left_out": recordings.left_out.describe(),
    }
    quality |= _course(training)
    quality |= {"minutes": config.minutes, "seed": config.seed, "sha256": sha256(codec_file)}
    finish(out, quality)
    return quality


def _read(config: CodecTrainingConfig, data: str, sample_rate: int, what: str) -> Recordings:
    recordings = Recordings(data, sample_rate, config.channel, config.max_odd_rows, what)
    for line in recordings.summary():
        _log.info(line)
    return recordings


def _held_out(config: CodecTrainingConfig, recordings: Recordings) -> tuple[list[int], Recordings, list[int]]:
    """Indices of the recordings to train on; those to measure on are of the others, with these indices."""
    if config.held_out_data is None:
        kept, indices = recordings.split(config.held_out)
        if len(indices) < config.held_out:
            _log.info(f"held_out={config.held_out}: {len(indices)} are held out, a tenth of all at most")
        return kept, recordings, indices
    others = _read(config, config.held_out_data, recordings.sample_rate, "held-out data")
    count = min(config.held_out, len(others))
    return list(range(len(recordings))), others, [i * len(others) // count for i in range(count)]


def _course(training: CodecTraining) -> dict[str, Any]:
    """How the training went, for `quality.json`."""
    course: dict[str, Any] = {"steps": training.step, "stopped_early": training.stopped_early}
    if training.adversary is not None:
        steps, loss = int(training.adversary.steps), round(float(training.adversary.loss), 4)
        course["adversarial"] = {"steps": steps, "discriminator_loss": loss}
    if training.validation is not None and training.validation.distances:
        course["validations"] = training.validation.distances
        if training.validation.best is not None:
            course["best_step"] = training.validation.best_step
    return course


def _gives_one_code(codec: FSQCodec, speech: torch.Tensor) -> bool:
    """Whether all frames of an utterance (S,) of ten frames or more have the same codes."""
    codes, frames = codec.encode(speech[None], torch.tensor([len(speech)]))
    return frames.item() >= 10 and bool((codes == codes[..., :1]).all())
