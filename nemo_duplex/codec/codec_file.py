"""Where codecs are found and how they are stored: in a `.nemo` of NeMo's AudioCodecModel, or inside of an agent's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from nemo.collections.tts.models.audio_codec import AudioCodecModel
from nemo.core.classes.common import PretrainedModelInfo
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector
from torch import nn

from nemo_duplex.codec.codec_network import PARTS
from nemo_duplex.files.hub import nemo_file
from nemo_duplex.files.nemo_file import read_nemo_file
from nemo_duplex.inputs import InputError, one_line

#: Class of an agent, and how the weights of the codec inside begin.
AGENT, INSIDE = "DuplexS2SModel", "audio_codec.model."
_HUB = {
    "nvidia/nemo-nano-codec-22khz-0.6kbps-12.5fps": "NanoCodec, 4 codebooks of 4032; the paper's, to be personalised",
    "nvidia/nemo-nano-codec-22khz-1.78kbps-12.5fps": "NanoCodec, 13 codebooks of 2016",
    "nvidia/nemo-nano-codec-22khz-1.89kbps-21.5fps": "NanoCodec, 8 codebooks of 2016",
}
# NeMo lists it beside the others; it has residual vector quantisation.
_OF_ANOTHER_KIND = "audio_codec_16khz_small"


def available_codecs() -> list[PretrainedModelInfo]:
    """Published codecs with finite scalar quantisation: NanoCodec on the Hugging Face Hub, and those of NeMo's list on NGC.

    Only NanoCodec streams: the decoders of the others look ahead.
    """
    hub = [PretrainedModelInfo(name, about, f"https://huggingface.co/{name}") for name, about in _HUB.items()]
    return hub + [m for m in AudioCodecModel.list_available_models() if m.pretrained_model_name != _OF_ANOTHER_KIND]


def codec_path(name: str | Path, refresh: bool = False, revision: str | None = None, token: str | None = None) -> Path:
    """The `.nemo` of a codec; arguments as `nemo_file`, and a name of `available_codecs` that is on NGC, of NVIDIA.

    Raises:
        InputError: if there is no such file or codec, or it cannot be downloaded.
    """
    if Path(name).exists() or name not in {m.pretrained_model_name for m in AudioCodecModel.list_available_models()}:
        return nemo_file(name, "codec", revision, token, refresh)
    if revision or token:
        raise InputError(f"codec: {name} is on NGC, which takes no revision and no token. Leave them out.")
    try:
        return Path(AudioCodecModel.from_pretrained(str(name), refresh_cache=refresh, return_model_file=True))
    except Exception as error:  # NeMo, NGC and the network each raise their own
        raise InputError(
            f"codec: {name} is on NGC, and NeMo could not download it ({one_line(error)}). "
            "Check the network, or give a .nemo file."
        ) from error


def read_codec_file(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Config and weights of the codec in the `.nemo` at `path`, named as in NeMo's AudioCodecModel.

    Of an agent, only its codec is read into memory.

    Raises:
        InputError: if the file is broken, or of another class.
    """
    config, weights = read_nemo_file(path, "codec", (AudioCodecModel.__name__, AGENT))
    if str(config["target"]).rsplit(".")[-1] != AGENT:
        return config, weights
    return codec_inside(config, weights, path)


def codec_inside(
    config: Mapping[str, Any], weights: Mapping[str, torch.Tensor], path: str | Path
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Config and weights of the codec inside of an agent, given those of the agent; `path` names it in the error.

    Raises:
        InputError: if there is none.
    """
    inside = config.get("codec")
    if not isinstance(inside, dict) or not inside:
        raise InputError(f"codec: {path} is an agent without a codec inside. Give one that DuplexS2SModel.save_to wrote.")
    return inside, {key.removeprefix(INSIDE): value for key, value in weights.items() if key.startswith(INSIDE)}


def fitting_weights(
    weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], path: str | Path, strict: bool = True
) -> dict[str, torch.Tensor]:
    """Those of a file's weights that belong to the codec, under today's names.

    Args:
        expected: state dict of the codec that they are for.
        strict: whether all must be there, and no others.

    Raises:
        InputError: if one has another shape; and, if `strict`, one is missing or left over.
    """
    own = {_todays_name(key): value for key, value in weights.items() if key.partition(".")[0] in PARTS}
    problems = {"has another shape of": {k for k in expected.keys() & own.keys() if expected[k].shape != own[k].shape}}
    if strict:
        problems |= {"lacks": expected.keys() - own.keys(), "has no place for": own.keys() - expected.keys()}
    for problem, keys in problems.items():
        if keys:
            raise InputError(
                f"codec: {path}: the checkpoint {problem} {len(keys)} of {len(expected)} weights, such as {min(keys)}. "
                "Its config and its weights do not belong together."
            )
    return {key: value for key, value in own.items() if key in expected}


def refuse_unsupported(save_restore_connector: SaveRestoreConnector | None, trainer: Any) -> None:
    """Refuses those arguments of NeMo's `restore_from` that an `FSQCodec` has no use for.

    Raises:
        InputError: for a trainer, a connector of one's own, or one for an unpacked folder.
    """
    if trainer is not None:
        raise InputError(
            "codec: trainer= was given, but an FSQCodec is not trained by Lightning's Trainer. Leave it out; "
            "examples/train_codec.py trains codecs, and so does NeMo's AudioCodecModel."
        )
    plain_one = save_restore_connector is None or type(save_restore_connector) is SaveRestoreConnector
    if not plain_one or getattr(save_restore_connector, "model_extracted_dir", None):
        raise InputError(
            "codec: save_restore_connector= is of another kind, or names an unpacked folder, but an FSQCodec is read from one "
            ".nemo file, and no code in it is run. Leave it out, and give the .nemo file."
        )


def halve(module: nn.Module) -> None:
    """Rounds weights to 16 bits, in place, except tensors that hold a number beyond 65504, their largest one."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point() and (half := tensor.detach().half()).isfinite().all():
            tensor.data = half


def _todays_name(key: str) -> str:
    """The name of a weight-normalised weight since torch 2.0; checkpoints of older NeMo have the former names."""
    for former, todays in (
        (".weight_g", ".parametrizations.weight.original0"),
        (".weight_v", ".parametrizations.weight.original1"),
    ):
        if key.endswith(former):
            return key.removesuffix(former) + todays
    return key
