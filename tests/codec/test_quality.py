"""What is written about a codec is so."""

from __future__ import annotations

import torch

from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.codec.quality import measure_quality
from nemo_duplex.codec.reconstruction import mel_distance
from tests.dummies import CODEC, speech_like


def test_figures_are_those_of_the_codec():
    codec, audio = FSQCodec(CODEC), speech_like(1.0, sample_rate=22050)
    quality = measure_quality(codec, [audio, torch.zeros(5000)])
    codes, lens = codec.encode(audio[None], torch.tensor([22050]))
    silence, silent_lens = codec.encode(torch.zeros(1, 5000), torch.tensor([5000]))
    distances = [
        mel_distance(audio, codec.decode(codes, lens)[0][0, :22050], 22050),
        mel_distance(torch.zeros(5000), codec.decode(silence, silent_lens)[0][0, :5000], 22050),
    ]
    assert abs(quality["mel_distance"] - sum(distances) / 2) < 1e-4
    used = [torch.cat([codes[0, k], silence[0, k]]).unique().numel() / 36 for k in range(2)]
    assert quality["codes_used"] == [round(share, 3) for share in used]
    assert quality["held_out"] == 2 and quality["parameters"] == sum(p.numel() for p in codec.parameters())
    assert quality["kbps"] == 0.129  # 2 codebooks of 36 at 12.5 Hz
    assert quality["step_ms"] > 0
