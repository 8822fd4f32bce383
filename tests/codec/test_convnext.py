"""A block sees what its caller puts around the steps, and adds to them little at first."""

from __future__ import annotations

import pytest
import torch

from nemo_duplex.codec.convnext import ConvNeXtBlock


@pytest.mark.parametrize("lead, seen", [(6, range(4, 11)), (3, range(7, 14)), (0, range(10, 17))])
def test_lead_says_which_steps_are_past(lead, seen):
    block = ConvNeXtBlock(4, 8, kernel_size=7)
    torch.nn.init.normal_(block.contract.weight)
    steps = torch.randn(1, 4, 24, requires_grad=True)
    padded = torch.nn.functional.pad(steps, (lead, block.context - lead))
    out = block(padded, lead)
    assert out.shape == steps.shape
    out[0, :, 10].sum().backward()
    assert steps.grad[0].abs().sum(0).nonzero().flatten().tolist() == list(seen)


def test_it_begins_near_the_identity():
    steps = torch.randn(2, 16, 30)
    block = ConvNeXtBlock(16, 48, kernel_size=3)
    change = block(torch.nn.functional.pad(steps, (2, 0)), lead=2) - steps
    assert 0 < change.abs().max() < 0.2
