"""Attention by products: that of torch, with a bias of any shape that expands."""

import pytest
import torch
from torch.nn import functional as F

from nemo_duplex.kernels.attention import attend


@pytest.mark.parametrize("bias", [(3, 1, 1, 9), (3, 4, 2, 9)], ids=["mask", "bias of each head and query"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_it_is_the_attention_of_torch(bias, dtype):
    torch.manual_seed(0)
    query, keys, values = torch.randn(3, 4, 2, 8), torch.randn(3, 4, 9, 8), torch.randn(3, 4, 9, 5)
    bias = torch.randn(bias).masked_fill(torch.rand(bias) < 0.3, torch.finfo(torch.float32).min)
    given = [tensor.to(dtype) for tensor in (query, keys, values, bias)]
    expected = F.scaled_dot_product_attention(*given[:3], attn_mask=given[3], scale=0.3)
    torch.testing.assert_close(attend(*given, scale=0.3), expected, atol=1e-6, rtol=0)
