"""Puts another codec inside of a trained agent's `.nemo`: a voice is personalised without training the agent again.

An agent was trained on the codes of one encoder. A codec whose decoder alone was trained (`train_codec.py init=AGENT
freeze_encoder=true`) has that encoder still, so the agent speaks with it at once. Of the file only the weights of the decoder
change; the agent is never built, and its other weights are copied from disk to disk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from nemo_duplex.codec.codec_file import AGENT, INSIDE, codec_inside
from nemo_duplex.codec.codec_network import essential_config
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.files.atomic import require_space, require_writable
from nemo_duplex.files.hub import nemo_file
from nemo_duplex.files.nemo_file import CONFIG, WEIGHTS, read_weights, unpacked_nemo
from nemo_duplex.inputs import InputError
from nemo_duplex.models.model_config import ModelConfig
from nemo_duplex.models.nemo.restore_connector import pack_nemo

_CODEC = INSIDE.partition(".")[0]
_SILENCE = f"{_CODEC}.silence_codes"


@dataclass(frozen=True)
class CodecSwap:
    """What a swap did.

    Args:
        path: of the new agent.
        before, after: the codec that the agent had, and the one that it has now.
        same_codes: whether codes mean what they meant; otherwise the agent has to be trained further.
    """

    path: Path
    before: FSQCodec = field(repr=False)
    after: FSQCodec = field(repr=False)
    same_codes: bool = True


def swap_codec(agent: str | Path, codec: str | Path, out: str | Path, allow_other_codes: bool = False) -> CodecSwap:
    """Writes the agent with another codec inside to a new `.nemo`, whole or not at all; everything else stays bit-equal.

    Weights of the codec are stored in the precision of those that they replace, except those that it cannot hold. The disk of
    temporary files takes the agent's weights twice, memory those of the codecs.

    Args:
        agent: `.nemo` of a DuplexS2SModel, a folder with one, or an id of the Hugging Face Hub.
        codec: `.nemo` of a codec (or of another agent: the one inside), likewise.
        out: the new `.nemo`.
        allow_other_codes: whether a codec of the same geometry is taken though its codes mean something else. The agent then
            has to be trained further, on data that this codec encodes.

    Raises:
        InputError: if a file is missing, broken or another model, `out` is one of them, or the codec does not fit the agent:
            other codebooks, another frame rate, another encoder or quantizer, or a decoder that cannot stream.

    Examples:
        >>> model.save_to("agent.nemo")
        >>> swap_codec("agent.nemo", "agent.nemo", "same.nemo").same_codes     # its own codec fits, of course
        True
    """
    path, source, out = nemo_file(agent, "agent"), nemo_file(codec, "codec"), Path(out)
    _check_out(out, {"agent": path, "codec": source})
    given = FSQCodec.restore_from(source, map_location="cpu")
    with unpacked_nemo(path, "agent", AGENT, artifacts=True) as (config, folder):
        try:
            ModelConfig.of(config)  # as the agent would be restored: no newer format, no key that is not known
        except InputError as error:
            raise InputError(f"agent: {path}: {error}") from error
        weights = read_weights(folder / WEIGHTS, path, "agent")
        described, inside = codec_inside(config, weights, path)
        before = FSQCodec(described)
        before.load_weights(inside, path)
        _check_geometry(before, given, source, path)
        same_codes = _codes_alike(before, given, inside)
        if not same_codes and not allow_other_codes:
            raise InputError(_other_codes(before, given, source, path))
        for place in (folder, out.absolute().parent):
            require_space(place, (folder / WEIGHTS).stat().st_size)
        swapped = _swapped(weights, given, same_codes)
        torch.save(swapped, folder / "swapped")
        os.replace(folder / "swapped", folder / WEIGHTS)
        if essential_config(described) != given.config:
            OmegaConf.save(OmegaConf.create({**config, "codec": given.config}), folder / CONFIG)
        pack_nemo(folder, out)
    after = FSQCodec(given.config)
    after.load_weights(codec_inside({"codec": given.config}, swapped, out)[1], out)
    return CodecSwap(out, before, after, same_codes)


def _check_out(out: Path, read: Mapping[str, Path]) -> None:
    if out.suffix != ".nemo":
        raise InputError(f"out: an agent is written to a .nemo file, got {out}. Give out=NAME.nemo.")
    for what, path in read.items():
        if out.exists() and out.samefile(path):
            raise InputError(f"out: {out} is the {what} itself, which would be lost. Choose another name.")
    require_writable(out.parent, "out", [out.name])


def _check_geometry(before: FSQCodec, given: FSQCodec, source: Path, path: Path) -> None:
    geometries = [
        f"{codec.num_codebooks} codebooks of {codec.codebook_size} codes at {float(codec.frame_rate.hz):g} Hz"
        for codec in (given, before)
    ]
    if geometries[0] != geometries[1]:
        raise InputError(
            f"codec: {source} has {geometries[0]}, the agent {path} speaks {geometries[1]}. Give a codec that "
            f"train_codec.py made with init={path}."
        )
    if _streams(before) and not _streams(given):
        raise InputError(
            f"codec: {source} has a decoder that looks ahead ({type(given.model.audio_decoder).__name__}), so the agent could "
            "not speak while it listens. Give a codec with a causal one."
        )


def _streams(codec: FSQCodec) -> bool:
    try:
        codec.streaming_decoder(fold=False)
    except InputError:
        return False
    return True


def _codes_alike(before: FSQCodec, given: FSQCodec, stored: Mapping[str, Tensor]) -> bool:
    """Whether both encode alike, given the precision in which the agent's file has its weights (`stored`)."""
    if before.fingerprint == given.fingerprint:
        return True
    weights = given.model.state_dict()
    rounded = FSQCodec(given.config)  # NeMo's modules cannot be copied
    rounded.load_weights({name: w.to(stored[name].dtype) if name in stored else w for name, w in weights.items()}, "codec")
    return before.fingerprint == rounded.fingerprint


def _other_codes(before: FSQCodec, given: FSQCodec, source: Path, path: Path) -> str:
    return (
        f"codec: {source} encodes otherwise (encoder and quantizer {given.fingerprint[:12]}) than the codec inside of {path} "
        f"({before.fingerprint[:12]}), so its codes mean other sounds than the agent learnt. Train its decoder alone: "
        f"train_codec.py init={path} freeze_encoder=true; or give allow_other_codes=true, and train the agent further."
    )


def _swapped(weights: Mapping[str, Tensor], given: FSQCodec, same_codes: bool) -> dict[str, Tensor]:
    """The agent's state dict with the weights of `given`. If both encode alike, those of the encoder are equal already."""
    theirs = {f"{INSIDE}{name}": weight for name, weight in given.model.state_dict().items()}
    if not same_codes:
        theirs[_SILENCE] = given.silence_codes
    usual = next((w.dtype for name, w in weights.items() if name.startswith(INSIDE) and w.is_floating_point()), torch.float32)
    swapped: dict[str, Any] = {}
    for name, weight in weights.items():
        if name in theirs:
            swapped[name] = _in_type(theirs[name], weight.dtype)
        elif not name.startswith(INSIDE):
            swapped[name] = weight
    return swapped | {name: _in_type(weight, usual) for name, weight in theirs.items() if name not in swapped}


def _in_type(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight in the type of the one that it replaces, unless that cannot hold it."""
    if not weight.is_floating_point():
        return weight
    smaller = weight.to(dtype)
    return smaller if smaller.isfinite().all() or not weight.isfinite().all() else weight
