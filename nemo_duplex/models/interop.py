"""Reads checkpoints of NeMo's in-tree DuplexS2SModel as ours, and writes ours as theirs.

Both models have the same parts under other names (`in_tree/names.py`), except for the speech vocabulary: theirs has one table
per codebook, of V + 3 rows; ours has one table with V + 5 rows per codebook (`channels/layout.py`). The first V + 3 rows mean
the same.

    row      0 ... V-1   V     V+1   V+2     V+3   V+4
    theirs   codes       BOS   EOS   delay
    ours     codes       BOS   EOS   start   pad   spare      ours to theirs: the last two are dropped. Theirs to ours: they
                                                              are zeros, with a bias under which they are never predicted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import pad

from nemo_duplex.codec.fsq_codec import PARTS
from nemo_duplex.data.text_tokenizer import HFTokenizer
from nemo_duplex.files.atomic import whole_folder
from nemo_duplex.inputs import InputError, existing_file, existing_folder, one_line
from nemo_duplex.llm.lora import merged_state_dict
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.models.in_tree.config import our_config, their_model
from nemo_duplex.models.in_tree.names import in_tree_name, our_name
from nemo_duplex.models.in_tree.perception import their_perception

#: Rows of a codebook's vocabulary beyond its codes, in theirs and in ours.
_THEIR_SPECIALS, _OUR_SPECIALS = 3, 5
#: Logit of rows that theirs does not have: their probability is exactly 0 in float32, and the number fits float16.
_NEVER = -3e4

_TABLE = "lm.speech_embedding.table.weight"
_HEAD = "lm.speech_head.projection"
_LLM_FOLDER = "llm_backbone"  # where `from_pretrained` of in-tree models looks for the language model's config


def from_in_tree(path: str | Path) -> DuplexS2SModel:
    """The model of an in-tree checkpoint, on the CPU: `save_to` writes it as one `.nemo`.

    Args:
        path: a folder that `save_pretrained` wrote, or a Lightning `.ckpt`. The codec and the language model's config (and, of
            a `.ckpt`, the user encoder's) are read from where its config names them; all weights are the checkpoint's.

    Raises:
        InputError: if the checkpoint is missing, broken or of another model, or has a key or a part that is not supported.
    """
    config, weights = _read(Path(path))
    try:
        state = our_state(weights)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    model = DuplexS2SModel(_config_without_weights(config))
    _check_specials(config.get("tokenizer_path") or config["pretrained_llm"], path)
    _load(model, state, path)
    return model


def to_in_tree(model: DuplexS2SModel, folder: str | Path) -> Path:
    """Writes a model so that `nemo.collections.speechlm2.models.DuplexS2SModel.from_pretrained(folder)` reads it.

    The folder holds everything. Its config names the codec by an absolute path: change it if you move the folder.
    LoRA is merged into the weights.

    Raises:
        InputError: if the folder is not empty, or the model has what in-tree models lack: turn marks beside the codes, an mlp
            adapter, a SentencePiece tokenizer.
    """
    folder = Path(folder).absolute()
    config = their_model(model.cfg) | {"perception": their_perception(model.perception.config)}
    if not isinstance(model.tokenizer, HFTokenizer):
        raise InputError(
            "This model has a SentencePiece tokenizer, and NeMo's in-tree model reads only tokenizers of Hugging Face. "
            "Train one with the tokenizer of a pretrained_llm."
        )
    with whole_folder(folder) as part:
        _write_tokenizer(model.tokenizer, part)
        model.lm.backbone.config.save_pretrained(part / _LLM_FOLDER)
        model.audio_codec.save_to(part / "codec.nemo")
        config |= {
            "pretrained_llm": str(folder / _LLM_FOLDER),
            "tokenizer_path": str(folder),
            "pretrained_audio_codec": str(folder / "codec.nemo"),
            "pretrained_asr": None,
            "scoring_asr": None,
            "pretrained_weights": False,
        }
        (part / "config.json").write_text(json.dumps(config, indent=2))
        save_file(their_state(merged_state_dict(model), model.layout.codebook_size), part / "model.safetensors")
    return folder


def our_state(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of an in-tree model under our names, with its speech rows padded to ours.

    Raises:
        InputError: if it has no speech embeddings or no speech head: it is of another model.
    """
    found = sorted((int(m[1]), m[0]) for name in theirs if (m := re.fullmatch(r"embed_audio_tokens\.(\d+)\.weight", name)))
    if not found or "audio_head.weight" not in theirs or "audio_head.bias" not in theirs:
        raise InputError(
            "This is not a checkpoint of NeMo's in-tree DuplexS2SModel: it has no embed_audio_tokens or no audio_head."
        )
    tables = [theirs[name] for _, name in found]
    added = _OUR_SPECIALS - _THEIR_SPECIALS
    head, bias = (theirs[f"audio_head.{name}"].unflatten(0, (len(tables), -1)) for name in ("weight", "bias"))
    ours = {
        _TABLE: torch.cat([pad(table, (0, 0, 0, added)) for table in tables]),
        f"{_HEAD}.weight": pad(head, (0, 0, 0, added)).flatten(0, 1),
        f"{_HEAD}.bias": pad(bias, (0, added), value=_NEVER).flatten(),
    }
    for name, value in theirs.items():
        part, _, within = name.partition(".")
        foreign = part == "audio_codec" and within.partition(".")[0] not in PARTS  # mel filters of losses, discriminators
        if part not in ("embed_audio_tokens", "audio_head", "_control_codes") and not foreign:
            ours[our_name(name)] = value
    return ours


def their_state(ours: Mapping[str, Tensor], codebook_size: int) -> dict[str, Tensor]:
    """Our state dict under in-tree names, without the speech rows that in-tree models lack."""
    size = codebook_size + _OUR_SPECIALS
    kept = codebook_size + _THEIR_SPECIALS
    theirs = {f"embed_audio_tokens.{k}.weight": table[:kept] for k, table in enumerate(ours[_TABLE].split(size))}
    for name in ("weight", "bias"):
        theirs[f"audio_head.{name}"] = ours[f"{_HEAD}.{name}"].unflatten(0, (-1, size))[:, :kept].flatten(0, 1)
    theirs["_control_codes"] = torch.arange(codebook_size, kept)
    for name, value in ours.items():
        if name != _TABLE and not name.startswith(_HEAD) and name != "audio_codec.silence_codes":
            theirs[in_tree_name(name)] = value
    return {name: value.detach().cpu().clone().contiguous() for name, value in theirs.items()}  # safetensors takes no tied ones


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the weights of a checkpoint; no pickled code in it is run."""
    if path.suffix == ".ckpt":
        return _read_ckpt(existing_file(path, "in-tree checkpoint"))
    folder = existing_folder(path, "in-tree checkpoint")
    try:
        config = json.loads(existing_file(folder / "config.json", "in-tree checkpoint").read_bytes())
        weights = load_file(existing_file(folder / "model.safetensors", "in-tree checkpoint"))
    except InputError:
        raise
    except Exception as error:  # json and safetensors each raise their own
        raise InputError(f"in-tree checkpoint: {folder} is truncated ({one_line(error)}). Copy it again.") from error
    if (folder / "tokenizer_config.json").is_file():
        config["tokenizer_path"] = str(folder)
    if (folder / _LLM_FOLDER / "config.json").is_file():
        config["pretrained_llm"] = str(folder / _LLM_FOLDER)
    return config, weights


def _read_ckpt(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError as error:  # torch's message advises to run the code
        raise InputError(
            f"in-tree checkpoint: {path} cannot be read without running code. Load it in NeMo, write a folder with "
            "save_pretrained, and give that folder."
        ) from error
    except Exception as error:  # torch, zipfile and pickle each raise their own
        raise InputError(f"in-tree checkpoint: {path} is truncated ({one_line(error)}). Copy it again.") from error
    config = content.get("hyper_parameters", {}).get("cfg")
    if not isinstance(config, dict) or "state_dict" not in content:
        raise InputError(f"in-tree checkpoint: {path} has no state_dict with hyper_parameters.cfg: it is of another model.")
    return config, content["state_dict"]


def _config_without_weights(theirs: dict[str, Any]) -> dict[str, Any]:
    """Our config of an in-tree model, for random weights: its encoder is the described one, or that of its `pretrained_asr`."""
    described = "encoder" in theirs.get("perception", {}) and "preprocessor" in theirs["perception"]
    ours = our_config({**theirs, "pretrained_weights": not described})
    return {**ours, "pretrained_weights": False}


def _check_specials(source: str, path: str | Path) -> None:
    """Refuses a checkpoint whose tokenizer has the same token for two of pad, bos and eos: ours would have a new one."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    specials = (tokenizer.pad_token or tokenizer.unk_token, tokenizer.bos_token, tokenizer.eos_token)
    if None in specials or len(set(specials)) < 3:
        raise InputError(
            f"{path} was trained with {specials} as text pad, bos and eos, expected three different tokens. "
            "Train it with a tokenizer that has all three."
        )


def _load(model: DuplexS2SModel, state: dict[str, Tensor], path: str | Path) -> None:
    """Loads all weights, except the two that files leave out: the second of tied weights, and our silence codes."""
    state = {**state, "audio_codec.silence_codes": model.audio_codec.silence_codes}
    embedding, head = "lm.backbone.embed_tokens.weight", "lm.backbone.lm_head.weight"
    if model.lm.backbone.lm_head.weight is model.lm.backbone.embed_tokens.weight:
        state = {embedding: state.get(head), head: state.get(embedding), **state}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:  # torch's report of weights that are missing, unknown or of another shape
        raise InputError(f"{path}: weights and configuration do not fit: {one_line(error)}") from error
    model.audio_codec.measure_silence()


def _write_tokenizer(tokenizer: HFTokenizer, folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    pad, bos, eos = tokenizer.special_tokens
    PreTrainedTokenizerFast(tokenizer_file=str(tokenizer.path), pad_token=pad, bos_token=bos, eos_token=eos).save_pretrained(
        folder
    )
