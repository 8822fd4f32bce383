"""CTC pre-training of a small streaming encoder on the user's side of a corpus, in a budget of minutes.

Single turns come first: from random weights, an encoder learns nothing from whole conversations alone. Conversations come in
later, because an agent has to understand the user amid their noise, silences and echoes. Log-mels are augmented, so that a
small corpus lasts longer: vocal tracts of other lengths (`warped`), and hidden bands and stretches (`masked`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from nemo.collections.asr.models import EncDecCTCModelBPE
from torch import Tensor, nn
from torch.nn.functional import nll_loss
from torch.utils.data import DataLoader, IterableDataset

from nemo_duplex.data.text_tokenizer import train_tokenizer
from nemo_duplex.files.atomic import sha256
from nemo_duplex.inputs import InputError, existing_file, existing_folder
from nemo_duplex.perception.config import perception_config
from nemo_duplex.perception.ctc_data import (
    UNKNOWN,
    Utterance,
    UtteranceBatch,
    UtteranceBatches,
    read_utterances,
)
from nemo_duplex.perception.ctc_model import (
    centre_input,
    ctc_model,
    error_rate,
    save_ctc_model,
    transcribe,
)
from nemo_duplex.perception.perception import FrameEncoder
from nemo_duplex.training.small_part import (
    PartTraining,
    claim,
    finish,
    fit,
)
from nemo_duplex.training.time_budget import TimeBudget


def warped(mel: Tensor, filters: Tensor, limit: float) -> Tensor:
    """Log-mels (B, mels, M), each row as if its speaker's vocal tract were up to `limit` shorter or longer.

    Vocal tract length perturbation (Jaitly and Hinton 2013).

    Args:
        mel: (B, mels, M).
        filters: (1, mels, bins) of the spectrogram, from which the bands' frequencies follow.
        limit: 0.1 moves formants by up to 10 percent, 0 returns `mel`.
    """
    if limit == 0:
        return mel
    bins = torch.arange(filters.shape[2], device=mel.device, dtype=torch.float32)
    centres = (filters[0] * bins).sum(1) / filters[0].sum(1)  # (mels,) of the bands, rising
    factor = 1 + limit * (2 * torch.rand(len(mel), 1, device=mel.device) - 1)
    wanted = (centres * factor).clamp(centres[0], centres[-1])  # (B, mels) where each band is taken from
    above = torch.searchsorted(centres, wanted).clamp(1, len(centres) - 1)
    share = ((wanted - centres[above - 1]) / (centres[above] - centres[above - 1])).unsqueeze(2)
    lower, upper = (mel.gather(1, band.unsqueeze(2).expand_as(mel)) for band in (above - 1, above))
    return torch.lerp(lower, upper, share)


def masked(mel: Tensor, bands: int, band_width: int, stretches: int, stretch_width: int) -> Tensor:
    """Log-mels (B, mels, M) with random bands and stretches of each row set to the row's mean (SpecAugment, Park et al. 2019).

    Args:
        bands, stretches: how many of them.
        band_width, stretch_width: the largest width, in mel bands and mel frames.
    """
    mean = mel.mean(dim=(1, 2), keepdim=True)
    for axis, count, width in ((1, bands, band_width), (2, stretches, stretch_width)):
        size = mel.shape[axis]
        positions = torch.arange(size, device=mel.device)
        for _ in range(count):
            widths = torch.randint(0, min(width, size) + 1, (len(mel), 1), device=mel.device)
            starts = (torch.rand(len(mel), 1, device=mel.device) * (size - widths + 1)).long()
            hidden = (positions >= starts) & (positions < starts + widths)  # (B, size)
            mel = torch.where(hidden.unsqueeze(2 if axis == 1 else 1), mean, mel)
    return mel


# Most frames are blank. A blank counts less than a token, so that tokens are learnt from the start.
_BLANK_WEIGHT = 0.3


@dataclass(frozen=True)
class EncoderTrainingConfig:
    """The settings of a training: the keys of `conf/train_encoder.yaml`, explained there.

    Raises:
        InputError: for a value out of range, or an encoder that cannot be streamed.
    """

    data: str
    out: str
    minutes: float
    seed: int
    tokenizer_size: int
    preprocessor: Mapping[str, Any]
    encoder: Mapping[str, Any]
    batch_seconds: float
    aligned: float
    turns_alone: float
    conversations: float
    matrix_rate: float
    rate: float
    warmup_steps: int
    mel_warp: float
    mel_masks: Sequence[int]
    accelerator: str
    precision: str

    def __post_init__(self) -> None:
        for name in ("minutes", "tokenizer_size", "batch_seconds", "matrix_rate", "rate"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}={getattr(self, name)}: expected more than zero.")
        for name in ("aligned", "turns_alone", "conversations"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)}: expected a share, 0 to 1.")
        for name in ("seed", "warmup_steps"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}={getattr(self, name)}: expected 0 or more.")
        if len(self.mel_masks) != 4 or min(self.mel_masks) < 0:
            raise InputError(f"mel_masks={list(self.mel_masks)}: expected [bands, band width, stretches, stretch width].")
        if not 0 <= self.mel_warp < 0.5:
            raise InputError(f"mel_warp={self.mel_warp}: expected a small share, such as 0.12, or 0 for none.")
        perception_config({"preprocessor": self.preprocessor, "encoder": self.encoder, "output_dim": 1})


class CTCTraining(PartTraining):
    """The LightningModule around the recogniser.

    Args:
        asr: trained in place.
        config: rates and shares.
        turns, conversations: the utterances of the corpus, by turn and by conversation.
        budget: its spent share sets the learning rate and the curriculum.
    """

    def __init__(
        self,
        asr: EncDecCTCModelBPE,
        config: EncoderTrainingConfig,
        turns: Sequence[Utterance],
        conversations: Sequence[Utterance],
        budget: TimeBudget,
    ) -> None:
        super().__init__(config, budget)
        self.asr = asr
        self.turns = UtteranceBatches(turns, asr.tokenizer, config.batch_seconds, config.seed)
        self.conversations = UtteranceBatches(conversations, asr.tokenizer, config.batch_seconds, config.seed)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Curriculum(self), batch_size=None)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in self.asr.named_parameters():
            inner = parameter.dim() == 2 and ".layers." in name and "pos_bias" not in name
            (matrices if inner else others).append(parameter)
        return [
            torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01),
            torch.optim.Muon(matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        ]

    def training_step(self, batch: UtteranceBatch, batch_index: int) -> None:
        frame_encoder = FrameEncoder(self.asr.preprocessor, self.asr.encoder)
        mel = warped(
            frame_encoder.mel(batch.audio, batch.audio_lens), frame_encoder.preprocessor.featurizer.fb, self.config.mel_warp
        )
        features = frame_encoder.features(masked(mel, *self.config.mel_masks))
        log_probs = self.asr.decoder(encoder_output=features.transpose(1, 2))
        if self.share < self.config.aligned and batch.paths is not None and batch.paths.ne(UNKNOWN).any():
            loss = path_loss(log_probs, batch.paths)
        else:
            loss = self.asr.loss(
                log_probs=log_probs,
                targets=batch.tokens,
                input_lengths=frame_encoder.counts(batch.audio_lens),
                target_lengths=batch.token_lens,
            )
        self.descend(loss)


class Curriculum(IterableDataset):
    """Batches without end from the training's step on: turns alone first, then more and more conversations."""

    def __init__(self, training: CTCTraining) -> None:
        self.training = training

    def __iter__(self) -> Iterator[UtteranceBatch]:
        training, config = self.training, self.training.config
        index = training.step
        while True:
            progress = max(0.0, training.share - config.turns_alone) / max(1e-9, 1 - config.turns_alone)
            # Multiples of the golden ratio fill 0..1 evenly: conversations are spread evenly over the batches at any share.
            whole = (index * 0.6180339887498949) % 1.0 < config.conversations * min(1.0, progress)
            yield (training.conversations if whole else training.turns).batch(index)
            index += 1


def path_loss(log_probs: Tensor, paths: Tensor) -> Tensor:
    """Mean negative log-likelihood of the path on which every token is at the time when it is spoken; a start for CTC.

    CTC has to find out where tokens are; during that search a small model outputs nothing but blanks for minutes. Synthesised
    speech comes with word times, which replace the search.

    Args:
        log_probs: (B, T or more, V + 1), blank last.
        paths: (B, T), UNKNOWN where the token is not known.
    """
    weight = torch.ones(log_probs.shape[-1], device=log_probs.device)
    weight[-1] = _BLANK_WEIGHT
    log_probs = log_probs[:, : paths.shape[1]].float()
    return nll_loss(log_probs.flatten(0, 1), paths.flatten(), weight, ignore_index=UNKNOWN)


def train_encoder(config: EncoderTrainingConfig) -> dict[str, Any]:
    """Trains, writes `<out>/encoder.nemo` and `<out>/quality.json`, and returns the content of the latter.

    Started again with the same `out`, it continues from the last checkpoint; when it was done already, it does nothing.

    Raises:
        InputError: for data that cannot be used, an encoder that cannot be streamed, or an `out` of another training.
    """
    corpus, out = existing_folder(config.data, "data"), Path(config.out)
    existing_file(corpus / "texts.txt", "data: texts of the corpus")
    existing_folder(corpus / "train" / "shar", "data")
    claim(out, config)
    encoder_file, quality_file = out / "encoder.nemo", out / "quality.json"
    if encoder_file.is_file() and quality_file.is_file():
        return json.loads(quality_file.read_text())

    pl.seed_everything(config.seed, verbose=False)
    turns, conversations = read_utterances(corpus / "train" / "shar")
    tokenizer = train_tokenizer(corpus / "texts.txt", out / "tokenizer" / "tokenizer.model", config.tokenizer_size)
    asr = ctc_model(config.preprocessor, config.encoder, tokenizer)
    budget = TimeBudget(config.minutes)
    training = CTCTraining(asr, config, turns, conversations, budget)
    centre_input(asr, training.conversations.batch(0))
    fit(training, "encoder", out, config.accelerator, config.precision)

    save_ctc_model(asr.cpu(), encoder_file)
    quality = {"steps": training.step, "minutes": config.minutes, "seed": config.seed, "sha256": sha256(encoder_file)}
    for name in ("dev", "impatient"):
        if (shar := corpus / name / "shar").is_dir():
            quality[name] = held_out_quality(asr, *read_utterances(shar), {u.text for u in turns})
    finish(out, quality)
    return quality


def held_out_quality(
    asr: EncDecCTCModelBPE, turns: Sequence[Utterance], conversations: Sequence[Utterance], known: set[str]
) -> dict[str, Any]:
    """Word error rates of greedy decoding: single turns, turns whose text is not `known`, and whole conversations."""
    transcripts = transcribe(asr, turns)
    unseen = [i for i, turn in enumerate(turns) if turn.text not in known]
    return {
        "turns": len(turns),
        "turns_wer": round(error_rate(transcripts, turns), 4),
        "unseen_texts": len(unseen),
        "unseen_texts_wer": round(error_rate([transcripts[i] for i in unseen], [turns[i] for i in unseen]), 4)
        if unseen
        else None,
        "conversations": len(conversations),
        "conversations_wer": round(error_rate(transcribe(asr, conversations), conversations), 4),
    }
