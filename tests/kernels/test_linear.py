"""Linear layers in 8 bits: near to what they were, each row for itself, and the model untouched."""

import copy

import pytest
import torch
from torch import nn

from nemo_duplex.inputs import InputError
from nemo_duplex.kernels import linear as kernels
from nemo_duplex.kernels.linear import (
    Bfloat16FeedForward,
    Bfloat16Linear,
    FloatLinear,
    Int8Linear,
    Joined,
    in_bfloat16,
    in_int8,
    on_onednn,
    outputs,
)


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Linear(300, 2000).eval()


@pytest.mark.parametrize(("zero", "most"), [(128, 127), (64, 63)], ids=["8 bits", "7 bits, for processors without VNNI"])
def test_it_computes_with_rounded_weights_and_rounded_inputs(monkeypatch, zero, most):
    """Weights in 255 steps of each output, inputs in 255 or 127 steps of each row."""
    monkeypatch.setattr(kernels, "_ZERO", zero)
    monkeypatch.setattr(kernels, "_STEPS", most)
    linear, x = nn.Linear(32, 6), torch.randn(5, 32)
    layer, weight = Int8Linear(linear), linear.weight.detach()
    steps, row_steps = weight.abs().amax(1, keepdim=True) / 127, x.abs().amax(1, keepdim=True) / most
    expected = ((x / row_steps).round() * row_steps) @ ((weight / steps).round() * steps).T + linear.bias
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("kind", "most"), [(Int8Linear, 0.02), (Bfloat16Linear, 0.006)])
def test_it_is_near_to_what_it_was(bias, dtype, kind, most):
    torch.manual_seed(0)
    linear, x = nn.Linear(300, 2000, bias=bias).to(dtype), torch.randn(2, 3, 300, dtype=dtype)
    expected, found = linear(x), kind(linear)(x)
    assert found.shape == expected.shape and found.dtype == dtype
    assert (found - expected).float().std() < most * expected.float().std()


def test_a_row_is_the_same_to_the_bit_in_any_batch(linear):
    """Also beside one that is a thousand times as large, or not a number at all."""
    layer, x = Int8Linear(linear), torch.randn(40, 300)
    batch = torch.cat([x[:1], 1000 * x[1:], torch.full((1, 300), float("nan"))])
    assert torch.equal(layer(batch)[:1], layer(x[:1]))


def test_zeros_give_the_bias(linear):
    torch.testing.assert_close(Int8Linear(linear)(torch.zeros(1, 300))[0], linear.bias)


@pytest.mark.parametrize("bias", [True, False])
def test_an_rms_norm_before_a_layer_goes_into_the_scale_of_its_outputs(bias):
    """Also of rows that are as small as what the norm adds to them, or nothing but zeros."""
    torch.manual_seed(0)
    linear, weight = nn.Linear(300, 2000, bias=bias), torch.rand(300) * 3
    layer, x = Int8Linear(linear), torch.randn(3, 300) * torch.tensor([[1e-3], [1.0], [1e4]])
    expected = layer(nn.functional.rms_norm(x, (300,), weight, 1e-6))
    found = layer.of_normed(x, weight, 1e-6)
    assert ((found - expected).std(1) < 1e-3 * expected.std(1)).all(), "A tie may be rounded the other way."
    assert torch.equal(found[:1], layer.of_normed(x[:1], weight, 1e-6)), "A row is the same in any batch."
    zeros = layer.of_normed(torch.zeros(1, 300), weight, 1e-6)
    torch.testing.assert_close(zeros[0], linear.bias if bias else torch.zeros(2000))


def test_packing_leaves_no_trace(recwarn):
    """Which engine multiplies other quantized layers stays as it was, and nobody is warned of what torch does inside."""
    before, torch.backends.quantized.engine = torch.backends.quantized.engine, "onednn"
    torch.set_warn_always(True)
    try:
        Int8Linear(nn.Linear(8, 8))
        assert torch.backends.quantized.engine == "onednn" and not recwarn.list
    finally:
        torch.backends.quantized.engine = before
        torch.set_warn_always(False)


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


@pytest.mark.parametrize(
    ("convert", "kind", "smallest"), [(in_int8, Int8Linear, 1 << 19), (in_bfloat16, Bfloat16Linear, 1 << 15)]
)
def test_large_layers_are_converted_and_convolutions_of_one_column_too(convert, kind, smallest):
    module = nn.Sequential(nn.Linear(256, smallest // 256), nn.Linear(255, smallest // 256), nn.Conv1d(256, smallest // 256, 1))
    module.append(nn.Conv1d(256, smallest // 256, 3))
    assert [type(layer) for layer in convert(module)] == [kind, nn.Linear, kind, nn.Conv1d]


def test_in_8_bits_smaller_layers_of_a_large_model_are_converted_too(monkeypatch):
    """A small model keeps them: its quality was measured so."""
    module = nn.Sequential(nn.Linear(512, 512), nn.Linear(512, 511), nn.Linear(512, 1024))
    assert [type(layer) for layer in in_int8(module)] == [nn.Linear, nn.Linear, Int8Linear]
    monkeypatch.setattr("nemo_duplex.kernels.linear._LARGE_MODEL", sum(layer.weight.numel() for layer in module))
    assert [type(layer) for layer in in_int8(module)] == [Int8Linear, nn.Linear, Int8Linear]
    monkeypatch.setattr("nemo_duplex.kernels.linear._LARGE_MODEL", sum(layer.weight.numel() for layer in module) + 1)
    assert type(in_int8(module)[0]) is nn.Linear


def test_adapted_layers_are_not_converted():
    adapted = nn.Module()
    adapted.base_layer, adapted.lora_A = nn.Linear(1024, 1024), nn.ModuleDict({"default": nn.Linear(1024, 1024)})
    module = nn.Sequential(adapted, nn.Linear(1024, 1024))
    for found, kind in ((in_int8(module), Int8Linear), (on_onednn(module, rows=2), FloatLinear)):
        assert type(found[0].base_layer) is nn.Linear and type(found[0].lora_A["default"]) is nn.Linear
        assert type(found[1]) is kind


@pytest.mark.parametrize(("convert", "kind"), [(in_int8, Int8Linear), (in_bfloat16, Bfloat16Linear)])
def test_layers_of_one_input_are_joined(convert, kind):
    """The first computes all, in the order given, and a layer's own scales are its own."""
    torch.manual_seed(0)
    module = nn.ModuleList([nn.Linear(300, 400), nn.Linear(300, 200, bias=False), nn.Linear(300, 700)])
    with torch.no_grad():
        module[1].weight.mul_(100)
    found, x = convert(module, joined=[list(module)], smallest=1300 * 300), torch.randn(2, 3, 300)
    assert type(found[0]) is kind and all(isinstance(layer, Joined) for layer in found[1:])
    alone = torch.cat([kind(layer)(x) for layer in module], dim=-1)
    torch.testing.assert_close(outputs(x, *found), alone, atol=1e-5, rtol=0.01)
    assert type(convert(module, joined=[list(module)], smallest=1300 * 300 + 1)[2]) is nn.Linear
    torch.testing.assert_close(outputs(x, *module), torch.cat([layer(x) for layer in module], dim=-1))


def test_a_group_with_an_adapted_layer_is_not_joined():
    module = nn.ModuleList([nn.Linear(800, 800), nn.Sequential(nn.Linear(800, 800))])
    found = in_int8(module, joined=[list(module)])
    assert type(found[0]) is Int8Linear and type(found[1][0]) is Int8Linear
    assert outputs(torch.randn(1, 800), *found).shape == (1, 1600)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [nn.Linear, lambda i, o, bias: nn.Conv1d(i, o, 1, bias=bias)], ids=["linear", "convolution"])
def test_onednn_computes_the_same_in_float32(kind, bias):
    torch.manual_seed(0)
    layer, x = kind(300, 2000, bias=bias), torch.randn(2, 3, 300)
    expected = torch.nn.functional.linear(x, layer.weight.flatten(1), layer.bias)
    assert (FloatLinear(layer)(x) - expected).abs().max() < 1e-5


def test_onednn_shares_the_weights_and_follows_them():
    module = nn.Sequential(nn.Linear(1024, 256), nn.Linear(1024, 255))
    found = on_onednn(module, rows=2)
    assert type(found[0]) is FloatLinear and type(found[1]) is nn.Linear and type(on_onednn(module)[0]) is nn.Linear
    with torch.no_grad():
        module[0].weight.fill_(1.0), module[0].bias.zero_()
    assert torch.allclose(found[0](torch.ones(1, 1024)), torch.full((1, 256), 1024.0))


def test_onednn_leaves_other_precisions_and_devices_as_they_are():
    for module in (nn.Linear(2048, 2048, dtype=torch.bfloat16), nn.Linear(2048, 2048, device="meta")):
        assert on_onednn(module, rows=2) is module


def test_a_feed_forward_layer_in_bfloat16_is_near_to_float32():
    torch.manual_seed(0)
    expand, contract, x = nn.Linear(192, 576), nn.Linear(576, 192), torch.randn(3, 7, 192)
    expected = contract(torch.nn.functional.gelu(expand(x)))
    found = Bfloat16FeedForward(expand, contract)(x)
    assert found.dtype == torch.float32 and 0 < (found - expected).std() < 0.01 * expected.std()


@pytest.mark.parametrize("convert", [in_int8, in_bfloat16])
def test_a_gpu_is_refused(convert):
    with pytest.raises(InputError, match="the model is on meta. Leave int8 out"):
        convert(nn.Linear(8, 8, device="meta"))
