"""The small decoder: windows that add up to one, and nothing heard before its frame."""

from __future__ import annotations

import math

import pytest
import torch

from nemo_duplex.codec.istft_decoder import IstftDecoder, spectrum


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


def test_a_window_starts_at_its_own_hop():
    network = decoder()
    window = torch.arange(1.0, 1 + network.window_size).view(1, 1, -1)
    audio, tail = network._overlap_add(window, torch.full((1, 3, network.hop), 100.0))
    assert torch.equal(audio[0], 100 + window[0, 0, : network.hop])
    assert torch.equal(
        tail.flatten(), torch.cat([100 + window[0, 0, network.hop : 3 * network.hop], window[0, 0, -network.hop :]])
    )


@torch.no_grad()
def test_a_column_sounds_in_its_own_hop():
    """With blocks that change nothing, a frame has no other way to its samples than straight through."""
    network = decoder()
    for block in (*network.frame_blocks, *network.blocks):
        torch.nn.init.zeros_(block.contract.weight)
    codes = torch.randn(1, 4, 9)
    changed = codes.clone()
    changed[..., 5] += 1
    before, after = (network(given, torch.tensor([9]))[0][0] for given in (codes, changed))
    differ = (before != after).nonzero().flatten()
    assert 5 * 84 <= differ[0] < 5 * 84 + network.hop and differ[-1] < 6 * 84 + 3 * network.hop


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


def test_spectra_are_those_of_torch():
    """Magnitudes end at e^6."""
    levels, phases = torch.randn(2, 3, 9), 4 * torch.randn(2, 3, 9)
    torch.testing.assert_close(spectrum(levels, phases), torch.polar(levels.exp(), phases))
    torch.testing.assert_close(spectrum(levels + 100, phases).abs(), torch.full((2, 3, 9), math.exp(6.0)))
