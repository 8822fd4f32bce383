"""Models of NeMo's text-to-speech collection with random weights, small enough to be made in a test: files that speak noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from nemo.core.classes import ModelPT
from omegaconf import OmegaConf

from nemo_duplex.codec.fsq_codec import FSQCodec
from tests.codec.codecs import hifigan_config

_TTS = "nemo.collections.tts"
_MELS, _WIDTH = 8, 16
_TOKENIZERS = "nemo.collections.common.tokenizers.text_to_speech.tts_tokenizers"
_PREPROCESSOR = {
    "_target_": "nemo.collections.asr.parts.preprocessing.features.FilterbankFeatures",
    "sample_rate": 16000, "n_window_size": 64, "n_window_stride": 64, "window": "hann", "nfilt": _MELS, "n_fft": 64,
    "highfreq": 8000, "preemph": None, "dither": 0.0, "pad_to": 1, "use_grads": False, "exact_pad": True,
}  # fmt: skip


def _untrained(cls: type[ModelPT], config: dict[str, Any]) -> Any:
    """A model that asks for no data: NeMo builds it as if it came from a file."""
    cls._set_model_restore_state(is_being_restored=True)
    try:
        return cls(OmegaConf.create(config))
    finally:
        cls._set_model_restore_state(is_being_restored=False)


def _fft(name: str, conditions: list[str]) -> dict[str, Any]:
    return {
        "_target_": f"{_TTS}.modules.transformer.{name}", "n_layer": 1, "n_head": 1, "d_model": _WIDTH, "d_head": 8,
        "d_inner": 16, "kernel_size": 3, "dropout": 0.1, "dropatt": 0.1, "dropemb": 0.0, "condition_types": conditions,
    }  # fmt: skip


def fastpitch(path: Path, speakers: int = 1, tokenizer: str = "EnglishCharsTokenizer", **changes) -> Path:
    """A FastPitch of 16 kHz that says each character for 12 frames of 4 ms, by letters."""
    from nemo.collections.tts.models import FastPitchModel

    conditions = ["add"] if speakers > 1 else []
    predictor = {
        "_target_": f"{_TTS}.modules.fastpitch.TemporalPredictor", "input_size": _WIDTH, "kernel_size": 3, "filter_size": 8,
        "dropout": 0.1, "n_layers": 1,
    }  # fmt: skip
    config = {
        "learn_alignment": True, "n_speakers": speakers, "n_mel_channels": _MELS, "symbols_embedding_dim": _WIDTH,
        "pitch_embedding_kernel_size": 3, "max_token_duration": 75, "min_token_duration": 12,
        "text_tokenizer": {"_target_": f"{_TOKENIZERS}.{tokenizer}"},
        "train_ds": {"dataset": {"_target_": f"{_TTS}.data.dataset.TTSDataset"}},
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor", "features": _MELS,
            "sample_rate": 16000, "n_window_size": 64, "n_window_stride": 64, "window_size": False, "window_stride": False,
            "n_fft": 64, "highfreq": 8000,
        },
        "alignment_module": {
            "_target_": f"{_TTS}.modules.aligner.AlignmentEncoder", "n_text_channels": _WIDTH, "n_mel_channels": _MELS,
        },
        "input_fft": {**_fft("FFTransformerEncoder", conditions), "d_embed": _WIDTH},
        "output_fft": _fft("FFTransformerDecoder", conditions), "duration_predictor": predictor, "pitch_predictor": predictor,
    } | changes  # fmt: skip
    torch.manual_seed(1)
    _untrained(FastPitchModel, config).save_to(str(path))
    return path


def hifigan(path: Path, **preprocessor) -> Path:
    """Its vocoder, loud enough to be heard."""
    from nemo.collections.tts.models import HifiGanModel

    config = {
        "train_ds": {"dataset": {"_target_": f"{_TTS}.data.vocoder_dataset.VocoderDataset"}},
        "preprocessor": _PREPROCESSOR | preprocessor, "max_steps": 1, "debug": True,
        "generator": {
            "_target_": f"{_TTS}.modules.hifigan_modules.Generator", "resblock": 2, "upsample_rates": [8, 8],
            "upsample_kernel_sizes": [16, 16], "upsample_initial_channel": 16, "resblock_kernel_sizes": [3],
            "resblock_dilation_sizes": [[1, 3]], "initial_input_size": _MELS,
        },
    }  # fmt: skip
    torch.manual_seed(2)
    _untrained(HifiGanModel, config).save_to(str(path))
    return path


def codec(path: Path) -> Path:
    """A codec of 16 kHz and 12.5 frames a second."""
    torch.manual_seed(3)
    FSQCodec(hifigan_config(2, [4, 4], [8, 8, 5, 4], sample_rate=16000)).save_to(path)
    return path


def magpie(
    path: Path, codec_path: Path, speakers: int = 5, tokenizers: Sequence[str] = ("english_phoneme",), steps: int = 300
) -> Path:
    """A MagpieTTS that ends where its random weights say so."""
    from nemo.collections.tts.models import MagpieTTSModel

    network = {"n_layers": 1, "d_model": _WIDTH, "d_ffn": 16, "sa_n_heads": 1, "kernel_size": 1, "use_learnable_pos_emb": True}
    config = {
        "codecmodel_path": str(codec_path), "model_type": "decoder_ce", "embedding_dim": _WIDTH, "hidden_dim": _WIDTH,
        "text_tokenizers": {name: {"_target_": f"{_TOKENIZERS}.EnglishCharsTokenizer"} for name in tokenizers},
        "encoder": {**network, "is_causal": False, "max_length_causal_mask": 512},
        "context_encoder": {**network, "is_causal": False, "max_length_causal_mask": 512},
        "decoder": {
            **network, "has_xattn": True, "xa_d_memory": _WIDTH, "xa_n_heads": 1, "is_causal": True,
            "max_length_causal_mask": 512,
        },
        "local_transformer_type": "autoregressive", "local_transformer_hidden_dim": _WIDTH, "local_transformer_n_layers": 1,
        "inference_parameters": {"max_decoder_steps": steps, "topk": 8},
        "prior_scaling_factor": None, "prior_scaledown_start_step": 0, "prior_end_step": 0,
        "indefinite_prior_prob": 0.0, "alignment_loss_scale": 0.0, "cfg_unconditional_prob": 0.0,
    }  # fmt: skip
    torch.manual_seed(4)
    model = _untrained(MagpieTTSModel, config)
    if speakers:
        frames = 4
        model.baked_context_embedding = torch.nn.Embedding(speakers, frames * _WIDTH)
        model._baked_embedding_T, model._baked_embedding_D = torch.tensor(frames), torch.tensor(_WIDTH)
        model.baked_context_embedding_len = torch.full((speakers,), frames)
    model.save_to(str(path))
    return path
