"""Linear layers in 8 bits: near to what they were, each row for itself, and the model untouched."""

import copy

import pytest
import torch
from torch import nn

from nemo_duplex.inputs import InputError
from nemo_duplex.kernels.linear import Int8Linear, in_int8


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Linear(300, 2000).eval()


def test_it_computes_with_rounded_weights_and_rounded_inputs():
    """Weights in 255 steps of each output, inputs in 255 steps of each row."""
    linear, x = nn.Linear(32, 6), torch.randn(5, 32)
    layer, weight = Int8Linear(linear), linear.weight.detach()
    steps, row_steps = weight.abs().amax(1, keepdim=True) / 127, x.abs().amax(1, keepdim=True) / 127
    expected = ((x / row_steps).round() * row_steps) @ ((weight / steps).round() * steps).T + linear.bias
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=0)


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


def test_layers_of_half_a_million_weights_are_converted_and_smaller_or_adapted_ones_are_not():
    module = nn.Sequential(nn.Linear(512, 1024), nn.Linear(511, 1024), nn.Sequential(nn.Linear(1024, 512)))
    adapted = nn.Module()
    adapted.base_layer, adapted.lora_A = nn.Linear(1024, 1024), nn.ModuleDict({"default": nn.Linear(1024, 1024)})
    module.append(adapted)
    found = in_int8(module)
    assert [type(layer) for layer in (found[0], found[1], found[2][0])] == [Int8Linear, nn.Linear, Int8Linear]
    assert type(found[3].base_layer) is nn.Linear and type(found[3].lora_A["default"]) is nn.Linear


def test_a_gpu_is_refused():
    with pytest.raises(InputError, match="the model is on meta. Leave int8 out"):
        in_int8(nn.Linear(8, 8, device="meta"))
