"""The models that are measured: an agent, trained or random, and random models in the paper's geometry, in three sizes.

Sizes are described in the keys of NeMo's in-tree model. Where both models are measured, both are built from that: the in-tree
model directly, ours from its checkpoint.
"""

from __future__ import annotations

import json
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from nemo_duplex.benchmark.callers import user_speech
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.inputs import InputError, existing_file
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.scripts.config import load

Size = Literal["tiny", "small", "paper"]

_MODULES = "nemo.collections.asr.modules"
_CODEC_MODULES = "nemo.collections.tts.modules.audio_codec_modules"
_SPECIALS = ["<unk>", "<s>", "</s>"]

_BUNDLED = Path(__file__).parent.parent / "bundled"

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


class MeasuredAgent:
    """An agent and its users, loaded when they are first needed.

    Args:
        path: of a `.nemo`; None: random weights in the geometry of `make demo`, which cost the same.
        data: corpus whose dev set's users are played; None: noise.
        device: `cpu` or `cuda`.
        precision: `32`, or `bf16` for weights in bfloat16.
    """

    def __init__(self, path: str | None, data: str | None, device: str, precision: str) -> None:
        self._path, self._data, self._device, self._precision = path, data, device, precision

    @cached_property
    def model(self) -> DuplexS2SModel:
        """The agent, in evaluation mode.

        Raises:
            InputError: if the file is no agent.
        """
        if self._path is None:
            model = _random_agent()
        else:
            model = DuplexS2SModel.restore_from(existing_file(self._path, "model"), map_location=self._device)
        return model.to(self._device, torch.bfloat16 if self._precision == "bf16" else None).eval()

    @cached_property
    def users(self) -> np.ndarray:
        """(S,) float32 at the agent's user_sample_rate."""
        return user_speech(self._data, self.model.user_sample_rate)

    @property
    def about(self) -> list[str]:
        """What they are, in two lines."""
        millions = sum(p.numel() for p in self.model.parameters()) / 1e6
        random = "an agent of random weights in the geometry of conf/duplex_tiny.yaml, as no model= was given"
        noise = "noise with pauses, as no data= was given"
        return [
            f"{self._path or random}, {millions:.1f} million parameters",
            f"users: {f'dev set of {self._data}' if self._data else noise}",
        ]


def _random_agent() -> DuplexS2SModel:
    perception, codec = _BUNDLED / "user_encoder.nemo", _BUNDLED / "agent_codec.nemo"
    given = [f"model.pretrained_asr={perception}", f"model.pretrained_audio_codec={codec}", "data.train=none", "out=none"]
    config = load("duplex_tiny", given)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="nemo_duplex-benchmark-") as folder:
        tokenizer = _write_tokenizer(Path(folder), config.tokenizer_size)
        return DuplexS2SModel({**config.model, "tokenizer": tokenizer})


def random_model(size: Size, device: str, precision: str = "32") -> DuplexS2SModel:
    """Our model with random weights; one copy of them exists at a time.

    Raises:
        InputError: for an unknown size.
    """
    with tempfile.TemporaryDirectory(prefix="nemo_duplex-benchmark-") as folder:
        model = DuplexS2SModel(write_parts(Path(folder), size)).eval()
    return model.to(device, torch.bfloat16 if precision == "bf16" else None)


def check_size(size: str | None) -> None:
    """Refuses an unknown size; None is a default.

    Raises:
        InputError: naming the sizes there are.
    """
    if size is not None and size not in get_args(Size):
        raise InputError(f"size is {size!r}, expected one of {', '.join(get_args(Size))}.")


def write_parts(folder: Path, size: Size) -> dict[str, Any]:
    """Writes language model, tokenizer and codec into `folder`; returns a `model:` section for NeMo's in-tree model.

    Raises:
        InputError: for an unknown size.
    """
    check_size(size)
    torch.manual_seed(0)
    _write_llm(folder / "llm", size)
    FSQCodec(nanocodec_config(size)).save_to(folder / "codec.nemo")
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


def nanocodec_config(size: Size) -> dict[str, Any]:
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
    """Config and tokenizer. Weights are not read, so none are written."""
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


def _write_tokenizer(folder: Path, tokens: int) -> dict[str, Any]:
    """Writes a tokenizer of `tokens` words into `folder`; returns a `model.tokenizer:` section for our model."""
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


def describe_parts(config: dict[str, Any]) -> str:
    """One line that names what was measured."""
    llm = json.loads((Path(config["pretrained_llm"]) / "config.json").read_text())
    encoder = config["perception"]["encoder"]
    return (
        f"llama {llm['num_hidden_layers']} x {llm['hidden_size']}, {llm['vocab_size']} tokens; "
        f"FastConformer {encoder['n_layers']} x {encoder['d_model']}; NanoCodec 12.5 Hz x 4 x 4032"
    )
