"""What training added to a language model, as a file of its own: an agent without the language model that everybody has.

    format, config, llm, llm_sha256     metadata, text
    NAME                                a weight in half precision; in its own type where it has one dimension or is not learnt
    NAME|8bit, NAME|scale               a matrix in whole numbers of 8 bits, and what each of its rows is multiplied by
    NAME|rows, NAME|some                rows of a weight of the language model that changed, and their numbers

Weights of the language model that are as they were are left out: with LoRA all but those of the adapters and, with
`model.text_rows=specials`, three rows of the text embedding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from nemo_duplex.files.atomic import whole_file
from nemo_duplex.files.eight_bits import from_8_bits, to_8_bits
from nemo_duplex.inputs import InputError, existing_file, one_line
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.models.model_config import ModelConfig, TokenizerConfig

_FORMAT = "nemo_duplex trained part 1"
_LLM, _CODEC = "lm.backbone.", "audio_codec."
_MOST_ROWS = 0.5  # of a weight, that are stored as rows; of more, all are
#: Of these a model has its own, so they are no part of a description.
_OF_ITS_TRAINING = ("optim", "optim_param_groups", "train_ds", "validation_ds", "test_ds", "target", "nemo_version")


def save_trained_part(
    model: DuplexS2SModel, path: str | Path, llm: str, bits: Literal[8, 16] = 16, codec: str | None = None
) -> None:
    """Writes what a training added to the language model `llm`, whole or not at all.

    Args:
        model: trained with `pretrained_llm` = `llm`; with LoRA, unmerged.
        path: of the file, `NAME.safetensors`.
        llm: hub id, folder, GGUF file or wheel, as `pretrained_llm` takes it; whoever restores the file needs it too.
        bits: of the matrices. 8 halves the file, and rounds each row to 255 steps.
        codec: a `.nemo` that everybody has too, whose weights are left out; None: those of the agent's codec are written.

    Raises:
        InputError: for other bits, if the agent was not made of `llm`, or its codec is another than `codec`.
    """
    if bits not in (8, 16):
        raise InputError(f"bits is {bits}, expected 8 or 16.")
    config = _described(model, llm)
    base = DuplexS2SModel(replace(config, pretrained_audio_codec=codec))
    before, places = base.state_dict(), set[int]()
    tensors: dict[str, Tensor] = {}
    learnt = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, weight in model.state_dict().items():
        if name not in before or before[name].shape != weight.shape:
            raise InputError(
                f"The agent was not made of {llm}: its {name} is another. Name the language model of its training."
            )
        if name.startswith(_CODEC) and codec is not None:
            if not torch.equal(weight, before[name]):
                raise InputError(f"codec: {codec} is another codec than the agent's ({name} differs). Leave codec out.")
        elif not _is_of_llm(name):  # what is computed, such as filters of mel bands, would not be the same in 8 bits
            tensors |= _stored(name, weight, bits) if name in learnt else {name: weight}
        elif weight.data_ptr() not in places and not torch.equal(weight, before[name]):  # tied weights have two names
            tensors |= _changed(name, weight, before[name], bits)
            places.add(weight.data_ptr())
    about = {"format": _FORMAT, "config": json.dumps(config.as_dict()), "llm": llm, "llm_sha256": _digest(before)}
    with whole_file(path) as part:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(part), metadata=about)


def restore_trained_part(path: str | Path, llm: str | None = None, codec: str | Path | None = None) -> DuplexS2SModel:
    """The agent of a trained part and its language model, on the CPU; with LoRA, unmerged.

    Args:
        llm: where the language model is; None: where it was when the file was written.
        codec: the `.nemo` that `save_trained_part` was given.

    Raises:
        NotInstalled: if the language model is that of a wheel that is missing.
        InputError: if the file is missing, broken or not such a file, or the language model or the codec is another one.
    """
    path = existing_file(path, "trained part")
    about, tensors = _read(path)
    config = replace(
        ModelConfig.of(json.loads(about["config"])),
        pretrained_llm=llm or about["llm"],
        pretrained_audio_codec=None if codec is None else str(codec),
    )
    model = DuplexS2SModel(config)
    state = model.state_dict()
    if _digest(state) != about["llm_sha256"]:
        raise InputError(f"{path} was trained on the language model {about['llm']}, {config.pretrained_llm} is another one.")
    found = set(_restored(state, tensors, path))
    lacking = [n for n in state if n not in found and not _is_of_llm(n) and not (codec is not None and n.startswith(_CODEC))]
    if lacking:
        raise InputError(
            f"{path} lacks {len(lacking)} weights, {lacking[0]} among them. Give the codec that it was saved with."
        )
    return model


def _described(model: DuplexS2SModel, llm: str) -> ModelConfig:
    """The agent's config, its language model and tokenizer those of `llm`."""
    section: dict[str, Any] = OmegaConf.to_container(model.cfg)  # type: ignore[assignment]
    section = {key: value for key, value in section.items() if key not in _OF_ITS_TRAINING}
    return replace(ModelConfig.of(section), pretrained_llm=llm, llm={}, tokenizer=TokenizerConfig())


def _is_of_llm(name: str) -> bool:
    """Whether a weight is the language model's own, none of an adapter."""
    return name.startswith(_LLM) and ".lora_" not in name


def _digest(state: Mapping[str, Tensor]) -> str:
    """Tells language models apart: SHA-256 of the norms' weights, which no training of adapters changes."""
    digest = hashlib.sha256()
    for name in sorted(name for name in state if _is_of_llm(name) and state[name].ndim == 1):
        digest.update(name.encode() + state[name].float().numpy().tobytes())
    return digest.hexdigest()


def _stored(name: str, weight: Tensor, bits: int) -> dict[str, Tensor]:
    if weight.ndim < 2 or not weight.is_floating_point():
        return {name: weight}
    if bits == 16:
        return {name: weight.to(torch.float16)}
    rows, scales = to_8_bits(weight)
    return {f"{name}|8bit": rows, f"{name}|scale": scales}


def _changed(name: str, weight: Tensor, before: Tensor, bits: int) -> dict[str, Tensor]:
    """A weight of the language model that a training changed: its rows that did, or all."""
    rows = (weight != before).flatten(1).any(1).nonzero()[:, 0] if weight.ndim > 1 else None
    if rows is None or len(rows) > _MOST_ROWS * len(weight):
        return _stored(name, weight, bits)
    return {f"{name}|rows": rows, f"{name}|some": weight[rows]}


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(str(path), "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except Exception as error:  # safetensors raises its own, and OSError
        raise InputError(f"{path} cannot be read as a safetensors file ({one_line(error)}). Download it again.") from error
    if about.get("format") != _FORMAT:
        raise InputError(f"{path} is no trained part of an agent (format {about.get('format')!r}, expected {_FORMAT!r}).")
    return about, tensors


@torch.no_grad()
def _restored(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path) -> Iterator[str]:
    """Writes the weights of a file into those of a model; yields the names of those that are whole."""
    for key, tensor in tensors.items():
        name, _, kind = key.partition("|")
        if kind in ("scale", "rows"):  # each belongs to another one
            continue
        if name not in state:
            raise InputError(f"{path} has a weight {name}, which the agent that it describes lacks. Download it again.")
        if kind == "some":
            state[name][tensors[f"{name}|rows"]] = tensor
            continue
        if kind == "8bit":
            tensor = from_8_bits(tensor, tensors[f"{name}|scale"])
        state[name].copy_(tensor)
        yield name
