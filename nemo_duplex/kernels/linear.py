"""Linear layers that a CPU computes faster than torch's own, for inference: in float32, in bfloat16, or in 8 bits.

A step of a conversation multiplies few rows by large matrices, so what counts is how fast weights are read. In float32, oneDNN
reads them up to twice as fast as torch's default for two rows or more, and as fast for one. In 8 bits a quarter is to be read.
With many rows arithmetic counts: some CPUs multiply bfloat16 twice as fast as float32.

In 8 bits, weights have a scale for each output, activations a scale for each row of the batch. Rows do not influence each
other, and integers add up exactly: for the same input row, such a layer gives the same output to the bit in any batch.

The result is close to float32, not equal. On the agent of `make demo`, over 3.2 minutes of its dev and impatient conversations,
0.1% of the text tokens and 1.4% of the frames' codes differ, and one text of 12 (bfloat16: 0.04%, 1.4%, none). The float32
layers between them are not as exact: the batch size changes their last digits, and rounding to 8 bits may turn that into a
whole step. So a session may get another token in a batch of another size.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from nemo_duplex.inputs import InputError

Part = TypeVar("Part", bound=nn.Module)

# For smaller layers, converting the activations costs more than the multiplication saves, and in 8 bits it changes more of what
# a small model says: of one caller's layers in 8 bits, and of many callers' in bfloat16.
_SMALLEST, _SMALLEST_OF_MANY = 1 << 19, 1 << 15
# A model with so many weights in linear layers does not stay in the processor's caches: there, smaller layers gain, too.
_LARGE_MODEL, _SMALLEST_OF_LARGE = 1 << 25, 1 << 18
# Smaller ones stay in the processor's caches, where torch's default is as fast: of one row, and of several.
_SMALLEST_FLOAT, _SMALLEST_FLOAT_OF_SEVERAL = 1 << 21, 1 << 18
_LARGEST = 127  # of a weight
# Processors multiply unsigned activations by signed weights. Those without VNNI add two products in 16 bits, which overflow (as
# torch's `reduce_range` says) unless activations have 7 bits: the zero of activations, and how far they go from there.
_ZERO, _STEPS = (128, 127) if torch.cpu._is_vnni_supported() else (64, 63)
_TINY = torch.finfo(torch.float32).tiny
# It rounds its input to 8 bits itself. For a row or two it reads weights twice as fast as oneDNN's product in 8 bits.
_ENGINE = "fbgemm"
_int8_linear: Any = getattr(torch.ops.quantized, "linear_with_input_q_dq_qweight_dq_output_fp32", None)
_float_linear: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def in_int8(module: Part, joined: Iterable[Sequence[nn.Module]] = (), smallest: int | None = None) -> Part:
    """A copy of `module` whose large Linear layers compute in 8 bits; it shares all other weights with `module`.

    `module` itself stays unchanged, so memory grows by a byte for each weight of a converted layer.

    Args:
        joined: groups of layers of `module` that take the same input. The first one computes all of a group's outputs, for
            `outputs`; the others become `Joined`.
        smallest: weights of the smallest layer, or group, to convert; None: 2^19, and 2^18 in a model whose linear layers have
            2^25 or more.

    Raises:
        InputError: on a GPU, or with a torch without oneDNN or FBGEMM.
    """
    _check(module)
    if smallest is None:
        weights = sum(each.weight.numel() for each in module.modules() if isinstance(each, nn.Linear))
        smallest = _SMALLEST if weights < _LARGE_MODEL else _SMALLEST_OF_LARGE
    return _with(module, smallest, Int8Linear, joined)


def in_bfloat16(module: Part, joined: Iterable[Sequence[nn.Module]] = (), smallest: int | None = None) -> Part:
    """As `in_int8`, in bfloat16, and for layers from 2^15 weights on: for many rows as fast, and nearer to float32."""
    _check(module)
    return _with(module, _SMALLEST_OF_MANY if smallest is None else smallest, Bfloat16Linear, joined)


def on_onednn(module: Part, rows: int = 1) -> Part:
    """A copy of `module` whose large Linear layers are computed by oneDNN, with the same float32 weights.

    `module` itself where nothing is to be gained: on a GPU, in other precisions, with a torch without oneDNN.

    Args:
        rows: that are multiplied at a time, at most. With two or more, layers of 2^18 weights gain, for one those of 2^21.
    """
    weight = next(module.parameters())
    if _float_linear is None or not torch.backends.mkldnn.is_available():
        return module
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return module
    return _with(module, _SMALLEST_FLOAT if rows == 1 else _SMALLEST_FLOAT_OF_SEVERAL, FloatLinear)


class FloatLinear(nn.Module):
    """A Linear layer of float32 that oneDNN computes. Its last digits may differ from torch's default.

    Args:
        linear: the layer, or the convolution of kernel size 1, whose weights it shares.
    """

    def __init__(self, linear: nn.Linear | nn.Conv1d) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight.view(len(linear.weight), -1), linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Features (..., in) -> (..., out)."""
        with torch.no_grad():
            return _float_linear(x, self.weight, self.bias, "none", [], "")


class Bfloat16Linear(nn.Module):
    """Linear layers of one input, as one, that multiply in bfloat16 and sum in float32; outputs differ by 0.3 % of the spread.

    Args:
        linear, others: the layers to convert, whose outputs follow each other; their weights are taken as they are now.
    """

    def __init__(self, linear: nn.Linear | nn.Conv1d, *others: nn.Linear) -> None:
        super().__init__()
        weight, bias = _stacked(linear, *others)
        self.out_features, self.in_features = weight.shape
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16())
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """Features (..., in) -> (..., out), in the dtype of `x`."""
        out = _float_linear(x.bfloat16(), self.packed, None, "none", [], "").to(x.dtype)
        return out if self.bias is None else out.add_(self.bias)


class Bfloat16FeedForward:
    """Two Linear layers with a GELU between them, multiplied in bfloat16 and summed in float32; float32 goes in and comes out.

    Args:
        expand, contract: the layers; their weights are taken as they are now.
    """

    def __init__(self, expand: nn.Linear, contract: nn.Linear) -> None:
        self._layers = [
            (torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().bfloat16()), layer.bias.detach().bfloat16())
            for layer in (expand, contract)
        ]

    def __call__(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        (expand, expand_bias), (contract, contract_bias) = self._layers
        hidden = _float_linear(x.bfloat16(), expand, expand_bias, "gelu", [], "none")
        return _float_linear(hidden, contract, contract_bias, "none", [], "").float()


class Int8Linear(nn.Module):
    """Linear layers in 8 bits that take the same input, as one; its outputs differ by about a hundredth of their spread.

    Args:
        linear, others: the layers to convert, whose outputs follow each other; their weights are taken as they are now.
    """

    def __init__(self, linear: nn.Linear | nn.Conv1d, *others: nn.Linear) -> None:
        super().__init__()
        weight, self.bias = _stacked(linear, *others)
        self.out_features, self.in_features = weight.shape
        self.packed = _packed(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Features (..., in) -> (..., out), in the dtype of `x`."""
        rows = x.reshape(-1, self.in_features).float()
        largest = _largest(rows)
        return self._product(rows, largest, largest).to(x.dtype).view(*x.shape[:-1], self.out_features)

    def of_normed(self, rows: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """Rows (N, in) float32 -> (N, out): the outputs of their RMS norm.

        Only how a row's features relate counts when they are rounded, so what the norm divides a row by goes to its output.

        Args:
            weight: (in,) of the norm.
            epsilon: that the norm adds to the mean square.
        """
        weighted = rows * weight
        largest = _largest(weighted)
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        rms = (length * length).div_(self.in_features).add_(epsilon).sqrt_()
        return self._product(weighted, largest, largest / rms)

    def _product(self, rows: Tensor, largest: Tensor, scale: Tensor) -> Tensor:
        """(N, in) -> (N, out): rows over their `largest` (N, 1) times the weights, times `scale` (N, 1), plus the bias."""
        out = _int8_linear(rows / largest, 1 / _STEPS, _ZERO, self.packed)
        return out.mul_(scale) if self.bias is None else torch.addcmul(self.bias, out, scale)


class Joined(nn.Module):
    """In place of a layer that the one before it, of the same input, computes too."""


def outputs(x: Tensor, first: nn.Module, *others: nn.Module) -> Tensor:
    """The outputs (..., sum of out) of layers that take the same `x` (..., in), one after the other."""
    if not others or isinstance(others[0], Joined):
        return first(x)
    return torch.cat([layer(x) for layer in (first, *others)], dim=-1)


def _check(module: nn.Module) -> None:
    device = next(module.parameters()).device.type
    if device != "cpu" or not torch.backends.mkldnn.is_available() or not _has_products():
        raise InputError(
            f"int8=True computes on CPUs of the x86 kind, with a torch that has oneDNN and FBGEMM; the model is on {device}. "
            "Leave int8 out; on a GPU, model.bfloat16() halves the memory."
        )


def _has_products() -> bool:
    return None not in (_int8_linear, _float_linear) and _ENGINE in torch.backends.quantized.supported_engines


def _largest(rows: Tensor) -> Tensor:
    """The largest absolute value (N, 1) of each row (N, in), above 0 also for a row of zeros."""
    return rows.abs().amax(1, keepdim=True).add_(_TINY)


def _packed(weight: Tensor) -> Any:
    """Weights (out, in) in 8 bits, in the order in which FBGEMM reads them, with a scale for each output."""
    scale = weight.abs().amax(1).clamp(min=_TINY) / _LARGEST
    before, torch.backends.quantized.engine = torch.backends.quantized.engine, _ENGINE
    try:
        with warnings.catch_warnings():  # of another way to quantize models, which does not have this product
            warnings.simplefilter("ignore")
            octets = torch.quantize_per_channel(weight, scale, torch.zeros(len(weight), dtype=torch.int64), 0, torch.qint8)
        return torch.ops.quantized.linear_prepack(octets, None)
    finally:
        torch.backends.quantized.engine = before


def _stacked(*layers: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weights (sum of out, in) and biases (sum of out,) of layers, one below the other, in float32."""
    weight = torch.cat([layer.weight.detach().float().flatten(1) for layer in layers])
    if all(layer.bias is None for layer in layers):
        return weight, None
    biases = [torch.zeros(len(each.weight)) if each.bias is None else each.bias.detach().float() for each in layers]
    return weight, torch.cat(biases)


def _with(
    module: Part, smallest: int, replacement: Callable[..., nn.Module], joined: Iterable[Sequence[nn.Module]] = ()
) -> Part:
    """A copy of `module` with its large layers replaced, and one replacement for each group of layers that are joined."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    replaced: dict[int, nn.Module] = {}
    for group in joined:
        large = sum(layer.weight.numel() for layer in group if type(layer) is nn.Linear) >= smallest
        if large and all(type(layer) is nn.Linear for layer in group):
            replaced |= {id(layer): Joined() for layer in group} | {id(group[0]): replacement(*group)}
    for layer in _linears(module, smallest):
        if id(layer) not in replaced:
            replaced[id(layer)] = replacement(layer)
    return copy.deepcopy(module, shared | replaced)


def _linears(module: nn.Module, smallest: int) -> Iterator[nn.Linear | nn.Conv1d]:
    """The layers to convert, convolutions of kernel size 1 too. peft needs the layers that its adapters wrap unchanged."""
    for child in module.children():
        linear = isinstance(child, nn.Linear) or isinstance(child, nn.Conv1d) and child.kernel_size == (1,) == (child.groups,)
        if linear and type(child.weight) is nn.Parameter and child.weight.numel() >= smallest:  # no part of one, on some rank
            yield child
        elif not hasattr(child, "lora_A"):
            yield from _linears(child, smallest)
