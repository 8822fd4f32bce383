"""The small decoder: windows that add up to one, and nothing heard before its frame."""

from __future__ import annotations

import pytest
import torch

from nemo_duplex.codec.istft_decoder import IstftDecoder


def decoder(**changes) -> IstftDecoder:
    sizes = dict(input_dim=4, samples_per_frame=84, columns_per_frame=7, frame_channels=8, channels=8, blocks=2)
    return IstftDecoder(**(sizes | changes)).eval()


@pytest.mark.parametrize("overlap", [2, 3, 4])
def test_the_windows_add_up_to_one(overlap):
    network = decoder(overlap=overlap)
    audio, tail = network._overlap_add(network.window.expand(1, 20, -1), torch.zeros(1, overlap - 1, network.hop))
    torch.testing.assert_close(audio[:, (overlap - 1) * network.hop :], torch.ones(1, (21 - overlap) * network.hop))
    assert tail.shape == (1, overlap - 1, network.hop)


@torch.no_grad()
def test_a_frame_sounds_in_its_own_samples_and_later_only():
    network = decoder()
    codes = torch.randn(1, 4, 9)
    changed = codes.clone()
    changed[..., 5] += 1
    lens = torch.tensor([9])
    before, after = network(codes, lens)[0], network(changed, lens)[0]
    assert torch.equal(before[:, : 5 * 84], after[:, : 5 * 84])
    assert not torch.equal(before[:, 5 * 84 : 6 * 84], after[:, 5 * 84 : 6 * 84])


@torch.no_grad()
def test_rows_are_zero_beyond_their_length():
    audio, lens = decoder()(torch.randn(2, 4, 5), torch.tensor([5, 2]))
    assert audio.shape == (2, 5 * 84) and lens.tolist() == [5 * 84, 2 * 84]
    assert audio[1, 2 * 84 :].abs().max() == 0 and audio[1, : 2 * 84].abs().max() > 0


def test_a_gradient_reaches_every_weight():
    network = decoder()
    network(torch.randn(1, 4, 3), torch.tensor([3]))[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_loud_spectra_stay_finite():
    network = decoder()
    torch.nn.init.constant_(network.head.bias, 100.0)
    audio, _ = network(torch.randn(1, 4, 3), torch.tensor([3]))
    assert torch.isfinite(audio).all() and audio.abs().max() <= 2 * 403.5  # exp(6), in four windows that add up to one
