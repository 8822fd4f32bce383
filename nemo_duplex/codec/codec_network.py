"""Builds NeMo's networks of a codec from its config, without what they were trained with."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from nemo.collections.tts.models.audio_codec import AudioCodecModel
from nemo.collections.tts.modules.audio_codec_modules import (
    FiniteScalarQuantizer,
    GroupFiniteScalarQuantizer,
    default_precision,
)
from omegaconf import OmegaConf
from torch import nn

from nemo_duplex.files.nemo_file import config_values, is_part
from nemo_duplex.inputs import InputError, one_line, plain

#: The networks of a codec, by their names in its config and its weights.
PARTS = ("audio_encoder", "vector_quantizer", "audio_decoder")
_LOSSES = "nemo.collections.tts.losses.audio_codec_loss"
# NeMo's constructor requires these, although nothing here uses them. With a resolution, it would load librosa and numba for a
# second, to make filters that are thrown away.
_TRAINED_ELSEWHERE = {
    "loss_resolutions": [],
    "mel_loss_dims": [],
    "commit_loss_scale": 0.0,
    "generator_loss": {"_target_": f"{_LOSSES}.GeneratorSquaredLoss"},
    "discriminator_loss": {"_target_": f"{_LOSSES}.DiscriminatorSquaredLoss"},
}


def essential_config(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a NeMo codec config that define the codec, as plain data.

    Raises:
        InputError: if one is missing, or it describes a codec of another kind.
    """
    given = plain(cfg)
    keys = ("sample_rate", "samples_per_frame", *PARTS)
    if missing := [key for key in keys if not given.get(key)]:
        raise InputError(f"A codec config needs {', '.join(keys)}; this one lacks {', '.join(missing)}.")
    if given.get("semantic_codec") or given.get("semantic_codec_path"):
        raise InputError("This codec has a second, semantic one inside, which is not supported: give one without.")
    if given.get("output_sample_rate", given["sample_rate"]) != given["sample_rate"]:
        rates = f"encodes {given['sample_rate']} Hz and decodes to {given['output_sample_rate']} Hz"
        raise InputError(f"This codec {rates}; expected one rate.")
    essential = copy.deepcopy({key: given[key] for key in keys})
    for place, key, value in config_values(essential):
        if key in ("_target_", "cls") and not is_part(value):  # `cls` is hydra's former word for it
            raise InputError(f"This codec config names {str(value)[:100]!r} at {place}, which is no part of a codec.")
    return essential


def build_network(config: Mapping[str, Any]) -> AudioCodecModel:
    """NeMo's model from an `essential_config`, with random weights.

    Raises:
        InputError: if it cannot be built.
    """
    try:
        model = AudioCodecModel(OmegaConf.create({**config, **_TRAINED_ELSEWHERE})).eval()
    except Exception as error:  # NeMo, hydra and the parts raise different ones for a wrong class or argument
        raise InputError(f"This codec config does not build: {one_line(error)}") from error
    for name in ("mel_loss_fn", "stft_loss_fn"):  # their filters would travel in every checkpoint
        setattr(model, name, None)
    return model


def code_vectors(quantizer: nn.Module) -> torch.Tensor:
    """The vector of each code, (K, V, D / K): the codebooks of the quantizer as a table.

    Raises:
        InputError: if it is not one of finite scalar quantisation.
    """
    if not isinstance(quantizer, (FiniteScalarQuantizer, GroupFiniteScalarQuantizer)):
        name = type(quantizer).__name__
        raise InputError(f"This codec quantizes by {name}; expected finite scalar quantisation (independent codebooks).")
    count, size = quantizer.num_codebooks, quantizer.codebook_size
    codes = torch.arange(size, dtype=torch.int32).repeat(count, 1, 1)
    with default_precision(torch.float32):
        vectors = quantizer.decode(indices=codes, input_len=torch.tensor([size]))  # (1, D, V)
    return vectors.view(count, -1, size).transpose(1, 2).contiguous()
