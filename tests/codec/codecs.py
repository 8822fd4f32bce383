"""Codec configs that tests share: NeMo's geometries with few channels."""

from __future__ import annotations

from typing import Any

import torch

from nemo_duplex.codec.fsq_codec import FSQCodec

MODULES = "nemo.collections.tts.modules.audio_codec_modules"


def hifigan_config(num_codebooks: int, levels: list[int], up_rates: list[int], sample_rate: int = 22050) -> dict[str, Any]:
    """A NeMo codec as NanoCodec is built (HiFi-GAN encoder that looks ahead, causal decoder), with 2 and 64 channels."""
    samples_per_frame = 1
    for rate in up_rates:
        samples_per_frame *= rate
    dimensions = num_codebooks * len(levels)
    return {
        "sample_rate": sample_rate,
        "samples_per_frame": samples_per_frame,
        "audio_encoder": {
            "_target_": f"{MODULES}.HiFiGANEncoder",
            "encoded_dim": dimensions,
            "down_sample_rates": up_rates[::-1],
            "base_channels": 2,
            "activation": "lrelu",
            "pad_mode": "replicate",
        },
        "vector_quantizer": {
            "_target_": f"{MODULES}.GroupFiniteScalarQuantizer",
            "num_groups": num_codebooks,
            "num_levels_per_group": levels,
        },
        "audio_decoder": {
            "_target_": f"{MODULES}.CausalHiFiGANDecoder",
            "input_dim": dimensions,
            "up_sample_rates": up_rates,
            "base_channels": 64,
            "resblock_kernel_sizes": [3, 7],
            "activation": "half_snake",
            "output_activation": "clamp",
            "n_groups_equal_to_out_channels": True,
        },
    }


def nanocodec_config() -> dict[str, Any]:
    """`nvidia/nemo-nano-codec-22khz-0.6kbps-12.5fps` in everything but the number of channels."""
    return hifigan_config(4, [9, 8, 8, 7], [7, 7, 6, 3, 2])


def voice_config(**decoder: Any) -> dict[str, Any]:
    """A codec of conf/codec/voice.yaml in everything but the number of channels."""
    geometry = {"sample_rate": 22050, "samples_per_frame": 1764}
    parts = {**geometry, "columns_per_frame": 7, "frame_channels": 8, "channels": 8, "blocks": 1}
    return {
        **geometry,
        "audio_encoder": {"_target_": "nemo_duplex.codec.mel_encoder.MelEncoder", "encoded_dim": 16, **parts},
        "vector_quantizer": {
            "_target_": f"{MODULES}.GroupFiniteScalarQuantizer",
            "num_groups": 4,
            "num_levels_per_group": [8, 5, 5, 5],
        },
        "audio_decoder": {
            "_target_": "nemo_duplex.codec.harmonic_decoder.HarmonicDecoder",
            "input_dim": 16,
            **parts,
            **decoder,
        },
    }


_MEL = {"_target_": f"{MODULES}.MelSpectrogramProcessor", "sample_rate": 22050, "mel_dim": 8}
_RESNET = {"out_channels": 16, "num_layers": 1, "hidden_channels": 4, "filters": 4}


def of_kind(kind: str) -> dict[str, Any]:
    """A tiny codec with one of NeMo's other networks, or another padding, in place of NanoCodec's.

    `reflect`, `causal`, `mel`, `bands`, `stft` are encoders; `looking ahead`, `resnet` are decoders that cannot stream.
    """
    config = hifigan_config(4, [9, 8, 8, 7], [4, 4, 3, 2])
    encoder, decoder = config["audio_encoder"], config["audio_decoder"]
    mel = {**_MEL, "hop_length": config["samples_per_frame"], "win_length": 256}
    if kind == "reflect":
        del encoder["pad_mode"]  # NeMo's default
    elif kind == "causal":
        encoder |= {"_target_": f"{MODULES}.CausalHiFiGANEncoder", "pad_mode": "reflect"}
    elif kind == "mel":
        resnet = {"_target_": f"{MODULES}.ResNetEncoder", "in_channels": 8, **_RESNET}
        config["audio_encoder"] = {"_target_": f"{MODULES}.FullBandMelEncoder", "mel_processor": mel, "encoder": resnet}
    elif kind == "bands":
        bands = {"mel_bands": [[0, 4], [4, 8]], "mel_processor": mel, **_RESNET, "out_channels": 8}
        config["audio_encoder"] = {"_target_": f"{MODULES}.MultiBandMelEncoder", **bands}
    elif kind == "stft":
        config["audio_encoder"] = {
            "_target_": f"{MODULES}.MultiResolutionSTFTEncoder",
            "out_dim": 16,
            "resolutions": [[128, 16, 128], [256, 32, 256]],
            "resolution_filter_list": [4, 8],
            "down_sample_filter_list": [8],
            "down_sample_rate_list": [3],
            "pad_mode": "reflect",
        }
    elif kind == "looking ahead":
        decoder["_target_"] = f"{MODULES}.HiFiGANDecoder"
    elif kind == "resnet":
        config["audio_decoder"] = {
            "_target_": f"{MODULES}.ResNetDecoder",
            "input_dim": 16,
            "input_filters": 4,
            "pre_up_sample_rates": [4],
            "pre_up_sample_filters": [4],
            "n_hidden_layers": 1,
            "hidden_filters": 4,
            "resblock_up_sample_rates": [4, 6],
            "resblock_up_sample_filters": [4, 4],
        }
    else:
        raise AssertionError(f"no kind {kind}")
    return config


def lively(config: dict[str, Any], seed: int = 1) -> FSQCodec:
    """A random codec whose codes differ from frame to frame, and whose codes of zeros differ from those of other codecs."""
    torch.manual_seed(seed)
    codec = FSQCodec(config)
    for part in (codec.model.audio_encoder, codec.model.audio_decoder):
        for name, parameter in part.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.3)
    network = codec.model.audio_encoder
    last = network.head if hasattr(network, "head") else network.post_conv.conv
    scale = last.weight if hasattr(network, "head") else last.parametrizations.weight.original0
    noise = 0.1 * torch.randn(1, 12 * codec.samples_per_frame)
    lens = torch.tensor([noise.shape[1]])
    with torch.no_grad():
        scale.mul_(1.5 / network(audio=noise, audio_len=lens)[0].std(dim=-1).mean())
        last.bias.sub_(network(audio=noise, audio_len=lens)[0].mean(dim=(0, 2)))
    codec.measure_silence()
    return codec
