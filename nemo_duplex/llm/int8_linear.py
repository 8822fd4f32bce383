"""Linear layers in 8 bits, for CPUs: a quarter of the memory to read, which limits the speed of a language model's step.

Weights have a scale for each output, activations a scale for each row of the batch. Rows do not influence each other, and
integers add up exactly: for the same input row, such a layer gives the same output to the bit in any batch.

The result is close to float32, not equal. On the agent of `make demo`, over 4.3 minutes of its dev and impatient conversations,
0.1% of the text tokens and 1% of the frames' codes differ; all texts are the same, and turns begin and end within two frames
(with bfloat16 as much). The float32 layers between them are not as exact: the batch size changes their last digits, and
rounding to 8 bits may turn that into a whole step. So a session may get another token in a batch of another size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from nemo_duplex.inputs import InputError

Part = TypeVar("Part", bound=nn.Module)

# For smaller layers, converting the activations costs more than the multiplication saves.
_SMALLEST = 1 << 19
# oneDNN is fast for unsigned activations and signed weights.
_ZERO = 128
_LARGEST = 127


def in_int8(module: Part, smallest: int | None = None) -> Part:
    """A copy of `module` whose large Linear layers compute in 8 bits; it shares all other weights with `module`.

    `module` itself stays unchanged, so memory grows by a byte for each weight of a converted layer.

    Args:
        smallest: weights of the smallest layer to convert; None: 2^19, for few rows. With 32 rows, layers of 2^16 gain as well.

    Raises:
        InputError: on a GPU, or with a torch without oneDNN.
    """
    device = next(module.parameters()).device.type
    if device != "cpu" or not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        raise InputError(
            f"int8=True computes on CPUs of the x86 kind, with a torch that has oneDNN; the model is on {device}. "
            "Leave int8 out; on a GPU, model.bfloat16() halves the memory."
        )
    smallest = _SMALLEST if smallest is None else smallest
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    replaced = {id(linear): Int8Linear(linear) for linear in _linears(module, smallest)}
    return copy.deepcopy(module, shared | replaced)


class Int8Linear(nn.Module):
    """A Linear layer in 8 bits; its outputs differ by about a hundredth of their spread.

    Args:
        linear: the layer to convert; its weights are taken as they are now.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.scale = weight.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / _LARGEST  # (out,)
        self.packed = torch.ops.onednn.qlinear_prepack((weight / self.scale[:, None]).round().to(torch.int8), None)
        self.weight_zero = torch.zeros(self.out_features, dtype=torch.int32)
        self.bias = None if linear.bias is None else linear.bias.detach().float()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Features (..., in) -> (..., out), in the dtype of `x`."""
        rows = x.reshape(-1, self.in_features).float()
        scale = rows.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / _LARGEST
        octets = (rows / scale + (_ZERO + 0.5)).to(torch.uint8)  # truncates, so adding a half rounds
        out = torch.ops.onednn.qlinear_pointwise(
            octets, 1.0, _ZERO, self.packed, self.scale, self.weight_zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        out = out * scale if self.bias is None else torch.addcmul(self.bias, out, scale)
        return out.to(x.dtype).unflatten(0, x.shape[:-1])


def _linears(module: nn.Module, smallest: int) -> Iterator[nn.Linear]:
    """The Linear layers to convert. Adapters are small, and peft needs the layers that it wraps unchanged."""
    for child in module.children():
        if isinstance(child, nn.Linear) and child.weight.numel() >= smallest:
            yield child
        elif not hasattr(child, "lora_A"):
            yield from _linears(child, smallest)
