"""The parts of an agent from its config: user encoder, codec, language model and tokenizer, pretrained or described.

Each comes from where the config says (`pretrained_...`, one loading path each), or with random weights from its description.
The config of the model then describes all of them, so that a `.nemo` needs nothing but itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemo.collections.common.tokenizers import SentencePieceTokenizer
from nemo.utils import logging
from nemo.utils.app_state import AppState

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.channels.text_channel import PieceTokenizer, pad_of
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.data.text_tokenizer import HFTokenizer
from nemo_duplex.inputs import InputError, existing_file
from nemo_duplex.llm.backbone import Backbone
from nemo_duplex.llm.lora import add_lora
from nemo_duplex.llm.pretrained import (
    check_description,
    described_llm,
    llm_config,
    load_llm,
    resize_vocabulary,
)
from nemo_duplex.llm.trial import check_streaming
from nemo_duplex.models.in_tree.perception import is_in_tree_perception, our_perception
from nemo_duplex.models.model_config import ModelConfig, TokenizerConfig
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


def build_parts(config: ModelConfig) -> tuple[Parts, ModelConfig]:
    """The parts that a config names, and the config that describes them; what is given stays as it is.

    Raises:
        InputError: if a part is not given or cannot be read, or parts do not fit each other.
    """
    tokenizer, tokenizer_config = _tokenizer(config)
    codec = _codec(config)
    layout = _layout(config, tokenizer, codec)
    backbone, llm = _backbone(config, layout)
    perception = _perception(config, backbone.hidden_size)
    user_rate, agent_rate = perception.frame_rate.hz, codec.frame_rate.hz
    if user_rate != agent_rate:
        raise InputError(
            f"The user encoder has {float(user_rate):g} frames per second and the codec {float(agent_rate):g}: "
            f"they must be the same. Choose a codec of {float(user_rate):g}."
        )
    described = replace(
        config,
        pretrained_llm=None,
        pretrained_asr=None,
        pretrained_audio_codec=None,
        llm=llm,
        tokenizer=tokenizer_config,
        perception=perception.config,
        codec=codec.config,
    )
    return Parts(perception, codec, tokenizer, layout, backbone), described


def _tokenizer(config: ModelConfig) -> tuple[PieceTokenizer, TokenizerConfig]:
    """From its file; else that of the pretrained language model, written to a file."""
    given = config.tokenizer
    if given.model_path is None:
        if config.pretrained_llm is None:
            raise InputError("The model has no tokenizer: set model.tokenizer.model_path, or model.pretrained_llm.")
        with tempfile.TemporaryDirectory() as folder:
            pretrained = HFTokenizer.from_pretrained(config.pretrained_llm, folder)
            given = TokenizerConfig(str(kept_copy(pretrained.path)), *pretrained.special_tokens)
    assert given.model_path is not None, "A tokenizer has a file by now."
    path = kept_copy(_unpacked(given.model_path))
    given = replace(given, model_path=str(path))
    if path.suffix != ".json":
        return SentencePieceTokenizer(str(path)), given
    if given.pad is None or given.bos is None or given.eos is None:
        raise InputError(
            f"model.tokenizer: {path.name} is of Hugging Face: give the texts of three of its tokens as "
            "model.tokenizer.pad, model.tokenizer.bos and model.tokenizer.eos."
        )
    return HFTokenizer(path, given.pad, given.bos, given.eos), given


def _unpacked(path: str) -> Path:
    """The file at `path`; while a `.nemo` is restored, `nemo:name` is a file of it, which NeMo unpacked."""
    if path.startswith("nemo:") and (folder := AppState().nemo_file_folder):
        path = str(Path(folder) / path.removeprefix("nemo:"))
    return existing_file(path, "model.tokenizer.model_path")


def _codec(config: ModelConfig) -> FSQCodec:
    if config.pretrained_audio_codec:
        codec = FSQCodec.restore_from(config.pretrained_audio_codec, map_location="cpu")
    elif config.codec:
        codec = FSQCodec(config.codec)
    else:
        raise InputError("The model has no codec: set model.pretrained_audio_codec to a .nemo or Hugging Face id.")
    return codec.eval().requires_grad_(False)


def _layout(config: ModelConfig, tokenizer: PieceTokenizer, codec: FSQCodec) -> ChannelLayout:
    return ChannelLayout(
        text_vocab_size=tokenizer.vocab_size,
        text_pad=pad_of(tokenizer),
        text_bos=tokenizer.bos,
        text_eos=tokenizer.eos,
        num_codebooks=codec.num_codebooks,
        codebook_size=codec.codebook_size,
        speech_delay=config.speech_delay,
        turn_marks=config.turn_marks,
    )


def _backbone(config: ModelConfig, layout: ChannelLayout) -> tuple[Backbone, dict[str, Any]]:
    """The language model with a row for each text token, and its description."""
    if config.pretrained_llm:
        llm = load_llm(config.pretrained_llm, config.pretrained_weights)
    elif config.llm:
        llm = described_llm(config.llm, layout.text_vocab_size)
    else:
        raise InputError("The model has no language model: set model.pretrained_llm, or describe one in model.llm.")
    llm = resize_vocabulary(llm, layout.text_vocab_size)
    described = llm_config(llm)
    if not AppState().is_model_being_restored:  # what is saved was checked when it was built
        check_description(llm, described, layout.text_vocab_size)
    backbone = Backbone(described, config.attention_window, weights=llm, sinks=config.sinks)
    check_streaming(llm, backbone)
    if config.lora:
        add_lora(backbone.llm, config.lora)
    return backbone, described


def _perception(config: ModelConfig, output_dim: int) -> Perception | WholePerception:
    """The user encoder, whose features are those of the language model."""
    described = {**config.perception}
    if described.get("output_dim") is None:
        described["output_dim"] = output_dim
    if described["output_dim"] != output_dim:
        raise InputError(
            f"The user encoder gives {described['output_dim']} features, the language model takes {output_dim}: "
            "set model.perception.output_dim to the latter, or to null."
        )
    if config.pretrained_asr:
        return Perception.from_asr(config.pretrained_asr, described, config.pretrained_weights)
    return perception_from(described)


def perception_from(config: Mapping[str, Any]) -> Perception | WholePerception:
    """The user encoder that a configuration describes, in our words or in those of NeMo's in-tree model.

    Ours names a `WholePerception` by `whole_recordings: true`, so that it is never chosen by accident. In-tree configurations
    do not make the difference: an encoder that can be streamed becomes a `Perception`, any other one a `WholePerception`.

    Raises:
        InputError: for a configuration that is wrong, or frames that are not 80 ms long.
    """
    if not is_in_tree_perception(config):
        return WholePerception(config) if config.get("whole_recordings") else Perception(config)
    config = our_perception(config)
    try:
        return Perception(config)
    except InputError as not_streamable:
        whole = WholePerception(config)  # raises if something else is wrong
        logging.warning(f"{not_streamable} This model takes whole recordings and cannot open sessions.")
        return whole
