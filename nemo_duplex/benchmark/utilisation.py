"""Model FLOPs utilisation (MFU): the share of a device's arithmetic that a training step makes use of.

    MFU = frames per second x operations per frame / operations per second of the device
    operations per frame = 3 x those of the forward pass, about 6 N + 12 L H Q T

N parameters take part in products, each once a frame; L layers have H heads of Q features, over T frames of a conversation. A
backward pass costs two forward passes, for the gradients of inputs and of weights. Attention counts in full, though half of it
is masked. Layers that run again to save memory, and a codec that encodes again, count as nothing: they are not the model's.

Source: Chowdhery et al., "PaLM: Scaling Language Modeling with Pathways", arXiv:2204.02311, appendix B. It takes the formula,
of a language model; here the counter of torch counts the forward pass of the whole model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from nemo_duplex.benchmark.machine import matmul_rate
from nemo_duplex.benchmark.roofline import counting
from nemo_duplex.inputs import one_line

#: Operations per second in bfloat16, dense, by a part of the device's name; the first that fits counts. NVIDIA's data sheets.
_PUBLISHED = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,  # GH200 too
    "A100": 312e12,
}
#: Forward pass, gradients of inputs, gradients of weights.
_PASSES = 3


def published_peak(device_name: str, precision: str) -> float | None:
    """Operations per second that the maker of a GPU states; None where it is not known here, or of a part of a GPU (MIG).

    Args:
        device_name: as `torch.cuda.get_device_name` gives it.
        precision: only `bf16` is known.
    """
    if precision != "bf16" or "MIG" in device_name:
        return None
    return next((peak for name, peak in _PUBLISHED.items() if name in device_name), None)


def utilisation(frames_per_second: float, operations_per_frame: float, peak: float) -> float:
    """MFU, 0 to 1, on a device of `peak` operations per second."""
    return frames_per_second * operations_per_frame / peak


def training_operations(forward: Callable[[], Any]) -> int:
    """Multiplications and additions of a training step whose forward pass is `forward()`; it is run once."""
    with torch.no_grad(), counting() as counter:
        forward()
    return _PASSES * counter.get_total_flops()


def product_parameters(model: nn.Module) -> int:
    """N: trained parameters of products and convolutions; no biases, no norms, no tables of embeddings."""
    layers = [layer for layer in model.modules() if not isinstance(layer, nn.Embedding)]
    found = {weight for layer in layers for weight in layer.parameters(recurse=False) if weight.requires_grad}
    return sum(weight.numel() for weight in found if weight.dim() > 1)


def count_training(
    model: nn.Module, forward: Callable[[], Any], frames: int, device: str, precision: str
) -> dict[str, int | float | str]:
    """What the MFU of a step needs beside its time.

    Args:
        model: in training.
        forward: of one step.
        frames: of all conversations of that step.
        device, precision: of the step; `cpu` or `cuda`, `32` or `bf16`.

    Returns:
        `product_parameters`: N; `matmul_rate`: operations per second of a large matrix product; `operations_per_frame`, or
        `operations_error`, why they could not be counted.
    """
    counted: dict[str, int | float | str] = {
        "product_parameters": product_parameters(model),
        "matmul_rate": matmul_rate(device, torch.bfloat16 if precision == "bf16" else torch.float32),
    }
    try:
        counted["operations_per_frame"] = training_operations(forward) / frames
    except Exception as error:  # whatever a counter makes of a device that it has not met; the step is measured all the same
        counted["operations_error"] = one_line(error)
    return counted
