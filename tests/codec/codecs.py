"""Codec configs that tests share: NeMo's geometries with few channels."""

from __future__ import annotations

from typing import Any

MODULES = "nemo.collections.tts.modules.audio_codec_modules"


def hifigan_config(num_codebooks: int, levels: list[int], up_rates: list[int], sample_rate: int = 22050) -> dict[str, Any]:
    """A NeMo codec as NanoCodec is built (HiFi-GAN encoder that looks ahead, causal decoder), with 8 and 96 channels."""
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
