"""Models of random weights in the geometry of the paper, in three sizes, described in the words of NeMo's in-tree model.

Both sides of a benchmark are built from what is written here: the in-tree model as it is, ours from its checkpoint.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.inputs import InputError

Size = Literal["tiny", "small", "paper"]

_MODULES = "nemo.collections.asr.modules"
_CODEC_MODULES = "nemo.collections.tts.modules.audio_codec_modules"
_SPECIALS = ["<unk>", "<s>", "</s>"]

# Llama by layers, width, heads, heads of keys and values, width of the feed-forward layers, tokens ("paper": TinyLlama-1.1B).
_LLM = {
    "tiny": (2, 32, 2, 1, 64, 64),
    "small": (6, 512, 8, 4, 1408, 32000),
    "paper": (22, 2048, 32, 4, 5632, 32000),
}
# FastConformer by layers, width, heads; layers of the adapter ("paper": the 109M of stt_en_fastconformer_..._large_streaming).
_ENCODER = {"tiny": (2, 16, 2, 1), "small": (6, 256, 4, 1), "paper": (17, 512, 8, 2)}
# NanoCodec 0.6 kbps by channels of encoder and decoder; "small" has the paper's codec, which runs in every in-tree step.
_CODEC = {"tiny": (2, 64), "small": (24, 864), "paper": (24, 864)}


def write_parts(folder: Path, size: Size) -> dict[str, Any]:
    """Writes language model, tokenizer and codec into `folder`; returns a `model:` section for NeMo's in-tree model.

    Raises:
        InputError: for an unknown size.
    """
    import torch

    if size not in get_args(Size):
        raise InputError(f"size is {size!r}, expected one of {', '.join(get_args(Size))}.")
    torch.manual_seed(0)
    _write_llm(folder / "llm", size)
    FSQCodec(codec_config(size)).save_to(folder / "codec.nemo")
    return {
        "pretrained_llm": str(folder / "llm"),
        "pretrained_audio_codec": str(folder / "codec.nemo"),
        "pretrained_asr": None,
        "scoring_asr": None,
        "pretrained_weights": False,
        "freeze_params": [r"^audio_codec\..+$"],
        "prevent_freeze_params": [],
        "text_loss_weight": 3.0,
        "audio_loss_weight": 1.0,
        "perception": _perception(size),
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 3e-4},
    }


def codec_config(size: Size) -> dict[str, Any]:
    """NanoCodec at 0.6 kbps: 22.05 kHz, 12.5 Hz, 4 codebooks of 4032."""
    down, up = _CODEC[size]
    return {
        "sample_rate": 22050,
        "samples_per_frame": 1764,
        "audio_encoder": {
            "_target_": f"{_CODEC_MODULES}.HiFiGANEncoder",
            "encoded_dim": 16,
            "down_sample_rates": [2, 3, 6, 7, 7],
            "base_channels": down,
            "activation": "lrelu",
            "pad_mode": "replicate",
        },
        "vector_quantizer": {
            "_target_": f"{_CODEC_MODULES}.GroupFiniteScalarQuantizer",
            "num_groups": 4,
            "num_levels_per_group": [9, 8, 8, 7],
        },
        "audio_decoder": {
            "_target_": f"{_CODEC_MODULES}.CausalHiFiGANDecoder",
            "input_dim": 16,
            "up_sample_rates": [7, 7, 6, 3, 2],
            "base_channels": up,
            "activation": "half_snake",
            "output_activation": "clamp",
            "n_groups_equal_to_out_channels": True,
        },
    }


def _write_llm(folder: Path, size: Size) -> None:
    """Config and tokenizer; no weights are read, so none are written."""
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    layers, width, heads, key_heads, feed_forward, tokens = _LLM[size]
    config = LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        intermediate_size=feed_forward,
        vocab_size=tokens,
        max_position_embeddings=2048,
    )
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    specials = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=_words(tokens), **specials).save_pretrained(folder)


def write_tokenizer(folder: Path, tokens: int) -> dict[str, Any]:
    """Writes a tokenizer of so many words into `folder`; returns a `model.tokenizer:` section for our model."""
    path = folder / "tokenizer.json"
    _words(tokens).save(str(path))
    pad, bos, eos = _SPECIALS
    return {"model_path": str(path), "pad": pad, "bos": bos, "eos": eos}


def _words(tokens: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: i for i, word in enumerate([*_SPECIALS, *(f"w{i}" for i in range(len(_SPECIALS), tokens))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=_SPECIALS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def _perception(size: Size) -> dict[str, Any]:
    layers, width, heads, adapter_layers = _ENCODER[size]
    conformer = {
        "_target_": f"{_MODULES}.ConformerEncoder",
        "d_model": width,
        "n_heads": heads,
        "subsampling": "dw_striding",
        "causal_downsampling": True,
        "att_context_size": [70, 1],
        "att_context_style": "chunked_limited",
        "conv_kernel_size": 9,
        "conv_norm_type": "layer_norm",
        "conv_context_size": "causal",
        "xscaling": False,
        "dropout": 0.0,
        "dropout_pre_encoder": 0.0,
        "dropout_emb": 0.0,
        "dropout_att": 0.0,
    }
    return {
        "target": "nemo.collections.speechlm2.modules.perception.AudioPerceptionModule",
        "preprocessor": {
            "_target_": f"{_MODULES}.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16000,
            "features": 80,
            "n_fft": 512,
            "window_size": 0.025,
            "window_stride": 0.01,
            "normalize": "NA",
            "dither": 0.0,
            "pad_to": 0,
        },
        "encoder": {**conformer, "feat_in": 80, "n_layers": layers, "subsampling_factor": 8, "subsampling_conv_channels": 256},
        "modality_adapter": {**conformer, "feat_in": width, "n_layers": adapter_layers, "subsampling_factor": 1},
        "output_dim": _LLM[size][1],
    }


def described(config: dict[str, Any]) -> str:
    """One line that names what was measured."""
    llm = json.loads((Path(config["pretrained_llm"]) / "config.json").read_text())
    encoder = config["perception"]["encoder"]
    return (
        f"llama {llm['num_hidden_layers']} x {llm['hidden_size']}, {llm['vocab_size']} tokens; "
        f"FastConformer {encoder['n_layers']} x {encoder['d_model']}; NanoCodec 12.5 Hz x 4 x 4032"
    )
