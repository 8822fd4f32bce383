"""NeMo's causal HiFi-GAN codec decoder, one step at a time. It reads NeMo's modules by their attributes and imports none.

    causal convolution, kernel k, dilation d     remembers its last (k - 1) d input columns
    transposed convolution, kernel 2 s, stride s remembers its last input column: column j gives samples j s .. (j + 2) s

All begin at zero, as NeMo pads the start of an utterance, so a stream and a whole utterance give the same numbers.
"""

from __future__ import annotations

import torch
from torch import nn

from nemo_duplex.codec.streaming_decoder import Buffers
from nemo_duplex.inputs import InputError
from nemo_duplex.kernels.convolution import PackedConvolution, can_pack


class HiFiGANStepper:
    """The `FrameDecoder` of a NeMo `CausalHiFiGANDecoder`.

    Args:
        decoder: the network.
        fold: whether weight norm is computed now instead of at every step. Faster, but it takes memory, and later training or
            moving of the decoder is not followed.
        bfloat16: whether its convolutions then multiply in bfloat16, on a CPU that is faster with it.

    Raises:
        InputError: if a layer of the decoder looks ahead.
    """

    def __init__(self, decoder: nn.Module, fold: bool = False, bfloat16: bool = False) -> None:
        self.decoder = decoder
        self._layers = [m for m in decoder.modules() if hasattr(m, "padding_total") or _is_transposed(m)]
        for layer in self._layers:
            _require_causal(layer)
        self._folded = {id(layer): layer.conv.weight.detach().clone() for layer in self._layers} if fold else {}
        self._packed: dict[int, PackedConvolution] = {}
        if fold and can_pack(next(decoder.parameters())):
            for layer in self._layers:
                if not _is_transposed(layer):
                    conv, weight = layer.conv, self._folded.pop(id(layer))
                    self._packed[id(layer)] = PackedConvolution(weight, conv.bias, conv.dilation[0], conv.groups, bfloat16)
        chosen = [(module, getattr(module, "activation", None)) for module in decoder.modules() if fold]
        self._activations = {id(m): _HalfSnake(inner) for m, inner in chosen if hasattr(inner, "snake_channels")}

    def initial_buffers(self, batch_size: int) -> Buffers:
        """Zeros: the input columns that each convolution remembers, in the order of `decoder.modules()`."""
        like = next(self.decoder.parameters())
        return tuple(like.new_zeros(batch_size, m.conv.in_channels, _memory(m)) for m in self._layers)

    def step(self, inputs: torch.Tensor, buffers: Buffers) -> tuple[torch.Tensor, Buffers]:
        """Dequantised codes (B, D, n) -> audio (B, n * samples_per_frame) and the buffers after them."""
        memory = {id(layer): buffer for layer, buffer in zip(self._layers, buffers)}
        decoder = self.decoder

        def run(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
            past = memory[id(layer)]
            columns = torch.cat([past, x], dim=-1)
            memory[id(layer)] = columns[..., columns.shape[-1] - past.shape[-1] :]
            return activate(layer.activation, self._convolve(layer, columns, x.shape[-1]))

        def activate(activation: nn.Module, x: torch.Tensor) -> torch.Tensor:
            return self._activations.get(id(activation), activation)(x)

        def residual(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
            branches = []
            for branch in layer.res_blocks:
                out = x
                for block in branch.res_blocks:
                    hidden = run(block.input_conv, activate(block.input_activation, out))
                    out = out + run(block.skip_conv, activate(block.skip_activation, hidden))
                branches.append(out)
            return sum(branches) / len(branches)

        x = run(decoder.pre_conv, inputs)
        for activation, upsample, layer in zip(decoder.activations, decoder.up_sample_conv_layers, decoder.res_layers):
            x = residual(layer, run(upsample, activate(activation, x)))
        x = decoder.out_activation(run(decoder.post_conv, activate(decoder.post_activation, x)))
        return x[:, 0], tuple(memory[id(layer)] for layer in self._layers)

    def _convolve(self, layer: nn.Module, columns: torch.Tensor, new: int) -> torch.Tensor:
        """The output of `layer` for the last `new` of the columns (B, C, memory + new), before its activation."""
        if id(layer) in self._packed:
            return self._packed[id(layer)](columns)
        conv, weight = layer.conv, self._folded.get(id(layer))
        weight = conv.weight if weight is None else weight
        if not _is_transposed(layer):
            return nn.functional.conv1d(columns, weight, conv.bias, dilation=conv.dilation, groups=conv.groups)
        stride = conv.stride[0]
        out = nn.functional.conv_transpose1d(columns, weight, conv.bias, stride=stride, groups=conv.groups)
        start = (columns.shape[-1] - new) * stride
        return out[..., start : start + new * stride]


class _HalfSnake:
    """NeMo's `HalfSnake`: x + sin(a x)^2 / a on half of the channels, a leaky ReLU on the others; what never changes is kept.

    Args:
        activation: its weights are taken as they are now.
    """

    def __init__(self, activation: nn.Module) -> None:
        self._channels, self._slope = activation.snake_channels, activation.lrelu.negative_slope
        self._alpha = activation.snake_act.alpha.detach().clone()
        self._height = (self._alpha + 1e-9).reciprocal()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, T) -> (B, C, T)."""
        first, second = x[:, : self._channels], x[:, self._channels :]
        waves = torch.addcmul(first, (first * self._alpha).sin_().square_(), self._height)
        return torch.cat([waves, nn.functional.leaky_relu(second, self._slope)], dim=1)


def _is_transposed(layer: nn.Module) -> bool:
    return hasattr(layer, "trim_right_ratio")


def _memory(layer: nn.Module) -> int:
    """Input columns that `layer` needs from before the ones given."""
    kernel_size, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
    return -(-(kernel_size - stride) // stride) if _is_transposed(layer) else (kernel_size - 1) * layer.conv.dilation[0]


def _require_causal(layer: nn.Module) -> None:
    if _is_transposed(layer):
        ahead = layer.padding_left != 0
    else:
        ahead = layer.conv.stride[0] != 1 or layer.extra_pad_mode != "constant"
    if ahead:
        raise InputError(f"This codec cannot be streamed: a {type(layer).__name__} of its decoder looks ahead.")
