"""Linear layers in 8 bits: near to what they were, each row for itself, and the model untouched."""

import copy

import pytest
import torch
from torch import nn

from nemo_duplex.inputs import InputError
from nemo_duplex.llm.int8_linear import Int8Linear, in_int8


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Linear(300, 2000).eval()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_is_near_to_what_it_was(bias, dtype):
    torch.manual_seed(0)
    linear, x = nn.Linear(300, 2000, bias=bias).to(dtype), torch.randn(2, 3, 300, dtype=dtype)
    expected, found = linear(x), Int8Linear(linear)(x)
    assert found.shape == expected.shape and found.dtype == dtype
    assert (found - expected).float().std() < 0.02 * expected.float().std()


def test_a_row_is_the_same_to_the_bit_in_any_batch(linear):
    """Also beside one that is a thousand times as large, or not a number at all."""
    layer, x = Int8Linear(linear), torch.randn(40, 300)
    batch = torch.cat([x[:1], 1000 * x[1:], torch.full((1, 300), float("nan"))])
    assert torch.equal(layer(batch)[:1], layer(x[:1]))


def test_zeros_give_the_bias(linear):
    torch.testing.assert_close(Int8Linear(linear)(torch.zeros(1, 300))[0], linear.bias)


def test_the_module_itself_stays_as_it_was():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(800, 800), nn.LayerNorm(800), nn.Linear(800, 4)).eval()
    before, x = copy.deepcopy(module.state_dict()), torch.randn(3, 800)
    quantized = in_int8(module)
    assert isinstance(quantized[0], Int8Linear) and type(module[0]) is nn.Linear
    assert type(quantized[2]) is nn.Linear, "Small layers would only get slower."
    assert quantized[1].weight is module[1].weight, "What stays in float is shared."
    assert all(torch.equal(before[name], weight) for name, weight in module.state_dict().items())
    assert 0 < (quantized(x) - module(x)).abs().max() < 0.1


def test_a_gpu_is_refused():
    with pytest.raises(InputError, match="the model is on meta. Leave int8 out"):
        in_int8(nn.Linear(8, 8, device="meta"))
