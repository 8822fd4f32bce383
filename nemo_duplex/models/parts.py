"""What a DuplexS2SModel is put together from: user encoder, codec, language model and tokenizer, pretrained or described.

Each comes from where the config says (`pretrained_...`, one loading path each), or with random weights from its description.
Afterwards the config describes all of them, so that a `.nemo` needs nothing but itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo.collections.common.tokenizers import SentencePieceTokenizer
from nemo.utils import logging
from nemo.utils.app_state import AppState
from omegaconf import DictConfig, OmegaConf

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.channels.text_channel import PieceTokenizer, pad_of
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.data.text_tokenizer import HFTokenizer
from nemo_duplex.inputs import InputError, existing_file
from nemo_duplex.llm.backbone import Backbone, check_streaming
from nemo_duplex.llm.lora import add_lora
from nemo_duplex.llm.pretrained import (
    llm_config,
    load_llm,
    random_llm,
    resize_vocabulary,
)
from nemo_duplex.models.in_tree.perception import is_in_tree_perception, our_perception
from nemo_duplex.models.nemo.artifacts import kept_copy
from nemo_duplex.perception.offline import WholePerception
from nemo_duplex.perception.perception import Perception


@dataclass(frozen=True)
class Parts:
    """A model's parts, on the CPU."""

    perception: Perception | WholePerception
    codec: FSQCodec
    tokenizer: PieceTokenizer
    layout: ChannelLayout
    backbone: Backbone


def build_parts(cfg: DictConfig) -> Parts:
    """The parts that a complete `model:` section names; afterwards it describes them.

    Raises:
        InputError: if one cannot be had, or they do not fit each other.
    """
    tokenizer = _tokenizer(cfg)
    codec = _codec(cfg)
    layout = _layout(cfg, tokenizer, codec)
    backbone = _backbone(cfg, layout)
    perception = _perception(cfg, backbone.hidden_size)
    heard, spoken = perception.frame_rate, codec.frame_rate
    if heard.hz != spoken.hz:
        raise InputError(
            f"The user encoder has {float(heard.hz):g} frames per second and the codec {float(spoken.hz):g}: "
            "they must be the same. Choose another codec or encoder."
        )
    return Parts(perception, codec, tokenizer, layout, backbone)


def _tokenizer(cfg: DictConfig) -> PieceTokenizer:
    """From its file; else that of the pretrained language model, made into a file."""
    given = cfg.tokenizer
    if given.model_path is None:
        if cfg.pretrained_llm is None:
            raise InputError("The model has no tokenizer: set model.tokenizer.model_path, or model.pretrained_llm.")
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = HFTokenizer.from_pretrained(cfg.pretrained_llm, folder)
            given.model_path = str(kept_copy(tokenizer.path))
            given.pad, given.bos, given.eos = tokenizer.special_tokens
    path = kept_copy(_unpacked(given.model_path))
    given.model_path = str(path)
    if path.suffix == ".json":
        return HFTokenizer(path, given.pad, given.bos, given.eos)
    return SentencePieceTokenizer(str(path))


def _unpacked(path: str) -> Path:
    """The file at `path`; while a `.nemo` is restored, `nemo:name` is a file of it, which NeMo unpacked."""
    if path.startswith("nemo:") and (folder := AppState().nemo_file_folder):
        path = str(Path(folder) / path.removeprefix("nemo:"))
    return existing_file(path, "model.tokenizer.model_path")


def _codec(cfg: DictConfig) -> FSQCodec:
    if cfg.pretrained_audio_codec:
        codec = FSQCodec.restore(cfg.pretrained_audio_codec)
    elif cfg.codec:
        codec = FSQCodec(OmegaConf.to_container(cfg.codec))
    else:
        raise InputError("The model has no codec: set model.pretrained_audio_codec to a .nemo or Hugging Face id.")
    cfg.pretrained_audio_codec, cfg.codec = None, codec.config
    return codec.eval().requires_grad_(False)


def _layout(cfg: DictConfig, tokenizer: PieceTokenizer, codec: FSQCodec) -> ChannelLayout:
    return ChannelLayout(
        text_vocab_size=tokenizer.vocab_size,
        text_pad=pad_of(tokenizer),
        text_bos=tokenizer.bos,
        text_eos=tokenizer.eos,
        num_codebooks=codec.num_codebooks,
        codebook_size=codec.codebook_size,
        speech_delay=cfg.speech_delay,
        turn_marks=cfg.turn_marks,
    )


def _backbone(cfg: DictConfig, layout: ChannelLayout) -> Backbone:
    if cfg.pretrained_llm:
        llm = load_llm(cfg.pretrained_llm, cfg.pretrained_weights)
    elif cfg.llm:
        rows = max(layout.text_vocab_size, cfg.llm.get("vocab_size") or 0)
        llm = random_llm({**OmegaConf.to_container(cfg.llm), "vocab_size": rows})
    else:
        raise InputError("The model has no language model: set model.pretrained_llm, or describe one in model.llm.")
    llm = resize_vocabulary(llm, layout.text_vocab_size)
    cfg.pretrained_llm, cfg.llm = None, llm_config(llm)
    backbone = Backbone(cfg.llm, cfg.attention_window, weights=llm, sinks=cfg.sinks)
    if not AppState().is_model_being_restored:  # what is saved was checked when it was built
        check_streaming(llm, backbone)
    if cfg.lora:
        add_lora(backbone.llm, cfg.lora)
    return backbone


def _perception(cfg: DictConfig, output_dim: int) -> Perception | WholePerception:
    described = OmegaConf.to_container(cfg.perception)
    if described.get("output_dim") is None:
        described["output_dim"] = output_dim
    if described["output_dim"] != output_dim:
        raise InputError(
            f"The user encoder gives {described['output_dim']} features, the language model takes {output_dim}: "
            "set model.perception.output_dim to the latter."
        )
    if cfg.pretrained_asr:
        perception = Perception.from_asr(cfg.pretrained_asr, described, cfg.pretrained_weights)
    else:
        perception = perception_from(described)
    cfg.pretrained_asr, cfg.perception = None, perception.config
    return perception


def perception_from(config: Mapping[str, Any]) -> Perception | WholePerception:
    """The user encoder that a configuration describes, in our words or in those of NeMo's in-tree model.

    Ours names a `WholePerception` by `whole_recordings: true`, so that nobody gets one by mistake. In-tree knows no such
    difference: there, an encoder that can be streamed is a `Perception`, and any other of 80 ms frames a `WholePerception`.

    Raises:
        InputError: for a configuration that is wrong, or frames that are not 80 ms long.
    """
    if not is_in_tree_perception(config):
        return WholePerception(config) if config.get("whole_recordings") else Perception(config)
    config = our_perception(config)
    try:
        return Perception(config)
    except InputError as not_streamable:
        whole = WholePerception(config)  # raises where something else is wrong
        logging.warning(f"{not_streamable} As it is, the model hears whole recordings and opens no sessions.")
        return whole
