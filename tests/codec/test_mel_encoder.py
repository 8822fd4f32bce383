"""The small encoder: frames of a row, whatever pads it; and how far it looks ahead."""

from __future__ import annotations

import torch

from nemo_duplex.codec.mel import mel_filters
from nemo_duplex.codec.mel_encoder import MelEncoder

FRAME = 1764


def encoder() -> MelEncoder:
    return MelEncoder(8, 22050, FRAME, 7, mel_bins=20, channels=8, blocks=2, frame_channels=8).eval()


@torch.no_grad()
def test_a_row_does_not_hear_what_pads_it():
    network, audio = encoder(), 0.1 * torch.randn(2, 10 * FRAME)
    encoded, frames = network(audio=audio, audio_len=torch.tensor([10 * FRAME, 4 * FRAME]))
    alone, _ = network(audio=audio[1:, : 4 * FRAME], audio_len=torch.tensor([4 * FRAME]))
    assert frames.tolist() == [10, 4] and encoded.shape == (2, 8, 10)
    torch.testing.assert_close(encoded[1, :, :4], alone[0], atol=1e-5, rtol=0)
    assert encoded[1, :, 4:].abs().max() == 0


def test_its_filters_are_of_its_own_sample_rate():
    network = MelEncoder(8, 24000, 1920, 8, mel_bins=20)
    assert torch.equal(network.filters, mel_filters(24000, 960, 20)) and len(network.window) == 960


@torch.no_grad()
def test_looks_ahead_two_frames():
    """So a barge-in, a cut of the audio, changes codes from two frames before it on: why audio is cut, and never codes."""
    network, audio = encoder(), 0.1 * torch.randn(1, 12 * FRAME)
    for block in (*network.blocks, *network.frame_blocks):
        torch.nn.init.normal_(block.contract.weight)
    cut = audio.clone()
    cut[:, 8 * FRAME :] = 0
    lens = torch.tensor([12 * FRAME])
    before, after = network(audio=audio, audio_len=lens)[0], network(audio=cut, audio_len=lens)[0]
    differ = (before - after).abs().amax(dim=(0, 1)) > 1e-4
    assert differ.nonzero().flatten().tolist() == [6, 7, 8, 9, 10, 11]
