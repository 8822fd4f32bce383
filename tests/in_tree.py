"""Tiny parts of NeMo's in-tree DuplexS2SModel, and configurations in its words; nothing is downloaded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from tests.dummies import CODEC, LLM, PERCEPTION

MODULES = "nemo.collections.asr.modules"
CONNECTORS = "nemo.collections.speechlm2.modules.perception"
NOT_STREAMABLE = {
    "att_context_size": [-1, -1],
    "att_context_style": "regular",
    "causal_downsampling": False,
    "conv_context_size": None,
    "conv_norm_type": "batch_norm",
}
WORDS = ["<unk>", "<s>", "</s>", "<pad>", *"▁hi ▁hello ▁ok ▁okay ▁yes ▁no ▁one ▁two ▁three ▁four".split()]


def in_tree_perception(adapter: str = "IdentityConnector", preprocessor: Any = (), encoder: Any = ()) -> dict[str, Any]:
    """A `perception` section; without further arguments its encoder can be streamed."""
    adapters = {
        "IdentityConnector": {"_target_": f"{CONNECTORS}.IdentityConnector", "d_model": 16},
        "ConformerEncoder": {
            "_target_": f"{MODULES}.ConformerEncoder",
            "feat_in": 16,
            "n_layers": 1,
            "d_model": 16,
            "n_heads": 2,
            "subsampling": "dw_striding",
            "subsampling_factor": 1,
            "causal_downsampling": True,
            "att_context_size": [70, 1],
            "att_context_style": "chunked_limited",
            "conv_context_size": "causal",
            "conv_kernel_size": 9,
            "conv_norm_type": "layer_norm",
        },
    }
    preprocessor = {**PERCEPTION["preprocessor"], **dict(preprocessor)}
    return {
        "target": f"{CONNECTORS}.AudioPerceptionModule",
        "preprocessor": {"_target_": f"{MODULES}.AudioToMelSpectrogramPreprocessor", **preprocessor},
        "encoder": {"_target_": f"{MODULES}.ConformerEncoder", **PERCEPTION["encoder"], **dict(encoder)},
        "modality_adapter": copy.deepcopy(adapters[adapter]),
        "output_dim": 24,
    }


def llm_folder(folder: Path, pad: str | None = "<pad>", **changes: Any) -> Path:
    """A language model of Hugging Face's kind, its weights at random, with a tokenizer of a few words."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer, words.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token=pad
    ).save_pretrained(folder)
    config = {**LLM, "vocab_size": len(WORDS), "bos_token_id": 1, "eos_token_id": 2, **changes}
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).save_pretrained(folder)
    return folder


def codec_file(path: Path) -> Path:
    """A codec of 12.5 frames per second, its weights at random."""
    import torch

    from nemo_duplex.codec.fsq_codec import FSQCodec

    torch.manual_seed(0)
    FSQCodec(CODEC).save_to(path)
    return path


def in_tree_model(folder: Path, perception: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A `model` section whose parts lie in `folder`."""
    return {
        "pretrained_llm": str(llm_folder(folder / "llm")),
        "pretrained_audio_codec": str(codec_file(folder / "codec.nemo")),
        "pretrained_asr": "no such file: not read",
        "scoring_asr": "no such file: not read",
        "pretrained_weights": False,
        "freeze_params": [r"^audio_codec\..+$"],
        "prevent_freeze_params": [],
        "audio_loss_weight": 4,
        "text_loss_weight": 3,
        "perception": perception or in_tree_perception("ConformerEncoder"),
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 3e-4, "betas": [0.9, 0.98], "weight_decay": 0, "foreach": True},
        "lr_scheduler": {
            "_target_": "nemo.core.optim.lr_scheduler.CosineAnnealing",
            "warmup_steps": 0,
            "min_lr": 1e-6,
            "max_steps": 100,
        },
        **changes,
    }
