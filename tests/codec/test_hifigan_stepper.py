"""What the stepper reads of NeMo's decoder, and what it must leave alone."""

from __future__ import annotations

import pytest
import torch
from nemo.collections.tts.modules.audio_codec_modules import CausalHiFiGANDecoder

from nemo_duplex.codec.hifigan_stepper import HiFiGANStepper
from nemo_duplex.inputs import InputError


def decoder(**changes) -> CausalHiFiGANDecoder:
    return CausalHiFiGANDecoder(input_dim=4, up_sample_rates=[3, 2], base_channels=8, activation="lrelu", **changes).eval()


def test_remembers_kernel_minus_one_times_dilation_columns():
    stepper = HiFiGANStepper(decoder())
    columns = {buffer.shape[-1] for buffer in stepper.initial_buffers(1)}
    # in 7-1; out 3-1; transposed 1; residual kernels 3, 7, 11 by dilations 1, 3, 5, then by 1
    assert columns == {6, 2, 1} | {(k - 1) * d for k in (3, 7, 11) for d in (1, 3, 5)}
    assert len(stepper.initial_buffers(1)) == 2 + 2 + 2 * 3 * 3 * 2


def test_folding_leaves_the_decoder_as_it_was():
    """torch's `remove_parametrizations` on a copy also breaks the original: their classes are one."""
    network = decoder()
    keys = list(network.state_dict())
    folded = HiFiGANStepper(network, fold=True)
    codes = torch.randn(1, 4, 5)
    with torch.no_grad():
        whole, _ = network(inputs=codes, input_len=torch.tensor([5]))
        audio, _ = folded.step(codes, folded.initial_buffers(1))
        assert list(network.state_dict()) == keys
        torch.testing.assert_close(audio, whole, atol=1e-6, rtol=0)


def test_half_snakes_bend_as_far_as_they_were_trained_to():
    network = CausalHiFiGANDecoder(input_dim=4, up_sample_rates=[3, 2], base_channels=8, activation="half_snake").eval()
    codes = 3 * torch.randn(2, 4, 5)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("alpha"):  # 1 at the start
                weight.uniform_(0.3, 3)
        whole, _ = network(inputs=codes, input_len=torch.tensor([5, 5]))
        audio, _ = HiFiGANStepper(network, fold=True).step(codes, HiFiGANStepper(network).initial_buffers(2))
    torch.testing.assert_close(audio, whole, atol=1e-6, rtol=0)


def test_in_bfloat16_it_is_near_and_not_equal():
    network, codes = decoder(), torch.randn(1, 4, 5)
    with torch.no_grad():
        exact, near = (HiFiGANStepper(network, fold=True, bfloat16=bf16) for bf16 in (False, True))
        audio, _ = exact.step(codes, exact.initial_buffers(1))
        rounded, _ = near.step(codes, near.initial_buffers(1))
    assert 0 < (rounded - audio).abs().max() < 0.05 * audio.abs().max()


def test_unfolded_it_follows_the_training():
    network = decoder()
    stepper, folded = HiFiGANStepper(network), HiFiGANStepper(network, fold=True)
    codes = torch.randn(1, 4, 5)
    with torch.no_grad():
        network.post_conv.conv.parametrizations.weight.original0.mul_(3)
        whole, _ = network(inputs=codes, input_len=torch.tensor([5]))
        torch.testing.assert_close(stepper.step(codes, stepper.initial_buffers(1))[0], whole, atol=1e-6, rtol=0)
        assert not torch.allclose(folded.step(codes, folded.initial_buffers(1))[0], whole, atol=1e-4)


def looks_ahead(network, layer):
    if layer == "CausalConvTranspose1dNorm":
        network.up_sample_conv_layers[0].padding_left = 1
    else:
        network.post_conv.extra_pad_mode = "reflect"


@pytest.mark.parametrize("layer", ["CausalConvTranspose1dNorm", "CausalConv1dNorm"])
def test_a_layer_that_looks_ahead_is_refused(layer):
    network = decoder()
    looks_ahead(network, layer)
    with pytest.raises(InputError, match=f"{layer} of its decoder looks ahead"):
        HiFiGANStepper(network)
