"""The settings of a training of a user encoder: the keys of `conf/train_encoder.yaml`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nemo_duplex.inputs import InputError
from nemo_duplex.perception.acoustics import Augmentation
from nemo_duplex.perception.config import perception_config
from nemo_duplex.perception.teacher import Teacher

#: As `init`: Whisper's encoder.
WHISPER = "whisper"


@dataclass(frozen=True)
class EncoderTrainingConfig:
    """The settings of a training: the keys of `conf/train_encoder.yaml`, explained there.

    Raises:
        InputError: for a value out of range, or an encoder that cannot be streamed.
    """

    data: str | None
    manifests: Sequence[str]
    held_out: Sequence[str]
    out: str
    minutes: float
    steps: int | None
    init: str | None
    keep_tokenizer: bool
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
    phonemes: float
    mel_warp: float
    mel_masks: Sequence[int]
    augmentation: Mapping[str, Any]
    teacher: Mapping[str, Any]
    validate_every: int
    accelerator: str
    precision: str

    def __post_init__(self) -> None:
        if self.data is None and not self.manifests:
            raise InputError("Nothing to learn from: give data=CORPUS (of synthesize.py), manifests=[FILE, ...] or both.")
        if self.init is None and not self.keep_tokenizer:
            raise InputError("keep_tokenizer=false: there is no tokenizer to be replaced. Give init=ENCODER, or leave it out.")
        for name in ("minutes", "steps", "tokenizer_size", "batch_seconds", "matrix_rate", "rate", "validate_every"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise InputError(f"{name}={value}: expected more than zero.")
        for name in ("aligned", "turns_alone", "conversations"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)}: expected a share, 0 to 1.")
        for name in ("seed", "warmup_steps"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}={getattr(self, name)}: expected 0 or more.")
        if len(self.mel_masks) != 4 or min(self.mel_masks) < 0:
            raise InputError(f"mel_masks={list(self.mel_masks)}: expected [bands, band width, stretches, stretch width].")
        if not 0 <= self.phonemes < math.inf:
            raise InputError(f"phonemes={self.phonemes}: expected a weight, such as 1, or 0 for none.")
        if not 0 <= self.mel_warp < 0.5:
            raise InputError(f"mel_warp={self.mel_warp}: expected a small share, such as 0.12, or 0 for none.")
        Augmentation(**self.augmentation)
        teacher = Teacher(**self.teacher)
        if (teacher.features or teacher.transcripts) and not self.manifests:
            raise InputError("teacher: Whisper hears the utterances of manifests. Give manifests=[FILE, ...].")
        perception_config({"preprocessor": self.preprocessor, "encoder": self.encoder, "output_dim": 1})
