"""What is written about a codec is so."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from nemo_duplex.codec import quality
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.codec.quality import measure_quality
from nemo_duplex.codec.reconstruction import mel_distance
from tests.dummies import CODEC, speech_like


def test_figures_are_those_of_the_codec():
    codec, audio = FSQCodec(CODEC), speech_like(1.0, sample_rate=22050)
    figures = measure_quality(codec, [audio, torch.zeros(5000)])
    codes, lens = codec.encode(audio[None], torch.tensor([22050]))
    silence, silent_lens = codec.encode(torch.zeros(1, 5000), torch.tensor([5000]))
    distances = [
        mel_distance(audio, codec.decode(codes, lens)[0][0, :22050], 22050),
        mel_distance(torch.zeros(5000), codec.decode(silence, silent_lens)[0][0, :5000], 22050),
    ]
    assert abs(figures["mel_distance"] - sum(distances) / 2) < 1e-4
    used = [torch.cat([codes[0, k], silence[0, k]]).unique().numel() / 36 for k in range(2)]
    assert figures["codes_used"] == [round(share, 3) for share in used]
    assert figures["held_out"] == 2 and figures["parameters"] == sum(p.numel() for p in codec.parameters())
    assert figures["kbps"] == 0.129  # 2 codebooks of 36 at 12.5 Hz


def test_a_step_is_the_median_of_fifty_in_milliseconds(monkeypatch):
    now, took = 0.0, iter([0.5] * 20 + [0.25] * 26 + [0.125] * 4)  # seconds

    class Decoder:
        def init_state(self, batch_size):
            return batch_size

        def step(self, codes, state):
            nonlocal now
            now += next(took)
            return codes, state

    codec = FSQCodec(CODEC)
    real = codec.streaming_decoder
    monkeypatch.setattr(codec, "streaming_decoder", lambda fold=True: Decoder() if fold else real(fold=False))
    monkeypatch.setattr(quality, "time", SimpleNamespace(perf_counter=lambda: now))
    assert measure_quality(codec, [torch.zeros(3000)])["step_ms"] == 250.0
