"""Convolutions with packed weights: those of torch, whatever their shape, and near to them in bfloat16."""

import pytest
import torch
from torch import nn

from nemo_duplex.kernels.convolution import PackedConvolution, can_pack


@pytest.fixture(params=[(8, 12, 3, 1, 1), (8, 8, 7, 5, 1), (12, 12, 4, 2, 3)], ids=["plain", "dilated", "grouped"])
def convolution(request):
    torch.manual_seed(0)
    channels, outputs, kernel, dilation, groups = request.param
    return nn.Conv1d(channels, outputs, kernel, dilation=dilation, groups=groups)


def packed(convolution, bias=True, bfloat16=False):
    given = convolution.bias if bias else None
    return PackedConvolution(convolution.weight.detach(), given, convolution.dilation[0], convolution.groups, bfloat16)


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_it_computes_what_torch_computes(convolution, bias):
    """Also for another shape than that of the first call, for which the weights were packed."""
    fast = packed(convolution, bias)
    if not bias:
        convolution.bias = None
    for rows, columns in ((1, 40), (3, 57), (1, 31)):
        x = torch.randn(rows, convolution.in_channels, columns)
        torch.testing.assert_close(fast(x), convolution(x), atol=1e-5, rtol=0)


@torch.no_grad()
def test_in_bfloat16_it_is_near(convolution):
    x = torch.randn(2, convolution.in_channels, 50)
    expected, found = convolution(x), packed(convolution, bfloat16=True)(x)
    assert found.dtype == torch.float32 and 0 < (found - expected).std() < 0.02 * expected.std()


def test_only_float32_on_a_cpu_is_packed():
    assert can_pack(torch.zeros(1))
    assert not can_pack(torch.zeros(1, dtype=torch.bfloat16)) and not can_pack(torch.zeros(1, device="meta"))
