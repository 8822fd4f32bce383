"""Small deterministic stand-ins that tests share; nothing is downloaded."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
import soxr
import torch
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel


class Letters:
    """A tokenizer of one id per character, its code point."""

    pad, bos, eos = 0, 1, 2

    def text_to_ids(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def ids_to_text(self, ids: list[int]) -> str:
        return "".join(chr(i) for i in ids)


def wav_bytes(samples: np.ndarray, sample_rate: int) -> bytes:
    """Samples (S,) or (S, channels) as the bytes of a 16-bit wav file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


CODEC = {
    "sample_rate": 22050,
    "samples_per_frame": 1764,
    "audio_encoder": {
        "_target_": "nemo_duplex.codec.mel_encoder.MelEncoder",
        "encoded_dim": 8,
        "sample_rate": 22050,
        "samples_per_frame": 1764,
        "columns_per_frame": 7,
        "mel_bins": 20,
        "channels": 8,
        "blocks": 1,
        "frame_channels": 8,
    },
    "vector_quantizer": {
        "_target_": "nemo.collections.tts.modules.audio_codec_modules.GroupFiniteScalarQuantizer",
        "num_groups": 2,
        "num_levels_per_group": [3, 3, 2, 2],
    },
    "audio_decoder": {
        "_target_": "nemo_duplex.codec.istft_decoder.IstftDecoder",
        "input_dim": 8,
        "samples_per_frame": 1764,
        "columns_per_frame": 7,
        "frame_channels": 8,
        "channels": 8,
        "blocks": 1,
    },
}

PERCEPTION = {
    "preprocessor": {
        "sample_rate": 16000,
        "features": 20,
        "window_size": 0.025,
        "window_stride": 0.01,
        "normalize": "NA",
        "n_fft": 512,
    },
    "encoder": {
        "feat_in": 20,
        "n_layers": 2,
        "d_model": 16,
        "n_heads": 2,
        "subsampling": "dw_striding",
        "subsampling_factor": 8,
        "subsampling_conv_channels": 8,
        "causal_downsampling": True,
        "att_context_size": [70, 1],
        "att_context_style": "chunked_limited",
        "conv_kernel_size": 5,
        "conv_norm_type": "layer_norm",
        "conv_context_size": "causal",
        "xscaling": False,
        "self_attention_model": "rel_pos",
    },
    "adapter": {"kind": "mlp"},
    "output_dim": 24,
}

LLM = {
    "model_type": "llama",
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
}

#: LLM with four experts in each layer, of which two compute a frame.
EXPERTS = {**LLM, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.02}


def tiny_config(folder: Path, **changes: Any) -> DictConfig:
    """The config of a model that has every part and no training; `folder` gets its tokenizer."""
    from nemo_duplex.data.text_tokenizer import train_tokenizer

    texts = folder / "texts.txt"
    texts.write_text(
        "\n".join(f"What is the {w} of {c}? It is {c}." for w in ("red", "day", "sum") for c in ("one", "two", "six"))
    )
    config = {
        "pretrained_asr": None,
        "pretrained_audio_codec": None,
        "codec": CODEC,
        "perception": PERCEPTION,
        "tokenizer": {"model_path": str(train_tokenizer(texts, folder / "tokenizer.model", 60))},
        "llm": LLM,
        "attention_window": 16,
        "speech_delay": 1,
        "turn_marks": "beside",
        "loss": {"text": 3.0, "speech": 1.0, "text_pad": 1.0, "turn": 0.0, "silence": 1.0},
        "optim": {"name": "fused_adam", "lr": 1e-3},
    }
    return OmegaConf.create(config | changes)


def tiny_model(folder: Path, **changes: Any) -> DuplexS2SModel:
    """A random model that speaks and writes something in most frames, so that comparing it proves something."""
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel

    torch.manual_seed(0)
    return talkative(DuplexS2SModel(tiny_config(folder, **changes)).eval())


def talkative(model: DuplexS2SModel) -> DuplexS2SModel:
    """`model` with weights by which it speaks and writes something in most frames."""
    with torch.no_grad():
        for weight in (model.lm.speech_embedding.table.weight, model.lm.speech_head.projection.weight):
            torch.nn.init.normal_(weight, std=0.5)  # zero at the start of training
        model.lm.speech_head.projection.bias.view(model.layout.num_codebooks, -1)[:, model.layout.codebook_size :] = -3
        for weight in model.lm.backbone.parameters():
            if weight.dim() == 2:
                torch.nn.init.normal_(weight, std=0.4)
        # What is heard must outweigh what was said, or the model repeats one token.
        heard, _ = model.perception(speech_like(4.0)[None], torch.tensor([64000]))
        scale = 3.0 / heard.std(dim=(0, 1)).clamp(min=1e-6)
        model.perception.proj.weight.mul_(scale[:, None])
        model.perception.proj.bias.copy_((model.perception.proj.bias - heard.mean(dim=(0, 1))) * scale)
    return model


def voice_like(seconds: float, seed: int = 0, sample_rate: int = 16000) -> torch.Tensor:
    """(S,) eSpeak's voice, which speaks without a pause: what `session.user_activity` takes for speech all the time."""
    said = _said(seed % len(_TEXTS))
    spoken = soxr.resample(np.resize(said, round(seconds * 22050) + 100), 22050, sample_rate)[: round(seconds * sample_rate)]
    return torch.from_numpy((0.05 * spoken / np.sqrt(np.mean(np.square(spoken)))).astype(np.float32))


_TEXTS = (
    "We wonder whether all the men are away",
    "Any lemon on our marmalade will remain yellow",
    "Our radio gave a low murmur",
)


@cache
def _said(number: int) -> np.ndarray:
    from nemo_duplex.synthesis.tts.espeak import EspeakEngine
    from nemo_duplex.synthesis.tts.utterance import Voice

    return EspeakEngine().speak(_TEXTS[number], Voice("a voice", "en-us", rate=170, pitch=40 + 10 * number)).audio


def speech_like(seconds: float, seed: int = 0, sample_rate: int = 16000) -> torch.Tensor:
    """(S,) noise in bursts: loud enough to matter, different in every frame."""
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(round(seconds * sample_rate), generator=generator)
    return 0.2 * samples * (torch.sin(torch.arange(len(samples)) * 2 * torch.pi * 1.7 / sample_rate) > 0)
