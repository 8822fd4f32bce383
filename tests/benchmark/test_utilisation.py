"""MFU: operations per frame are those of PaLM's formula, and are held against the right rate."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from nemo_duplex.benchmark import utilisation as module
from nemo_duplex.benchmark.utilisation import (
    count_training,
    product_parameters,
    published_peak,
    training_operations,
    utilisation,
)


def test_the_operations_of_a_language_model_are_those_of_the_formula():
    """6 N + 12 L H Q T for each token, in PaLM's appendix B; with fewer heads of keys too."""
    layers, heads, features, tokens = 3, 4, 8, 50
    config = LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=heads * features,
        num_attention_heads=heads,
        num_key_value_heads=2,
        intermediate_size=96,
        vocab_size=128,
    )
    model = LlamaForCausalLM(config)
    products = product_parameters(model)
    assert products == sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embed_tokens" not in name)
    counted = training_operations(lambda: model(torch.zeros(2, tokens, dtype=torch.long), use_cache=False))
    expected = 6 * products + 12 * layers * heads * features * tokens
    assert counted / (2 * tokens) == pytest.approx(expected, rel=0.01)


def test_a_step_is_counted_by_the_frame(quick_machine):
    """Each of 10 frames meets each weight of two layers once; a frozen layer and a table are no parameters."""
    model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 16, bias=False), nn.LayerNorm(16), nn.Linear(16, 4))
    frames = torch.zeros(2, 5, dtype=torch.long)
    counted = count_training(model, lambda: model(frames), frames.numel(), "cpu", "32")
    products = 8 * 16 + 16 * 4
    assert counted["product_parameters"] == products and counted["operations_per_frame"] == 6 * products
    assert counted["matmul_rate"] > 0
    model[1].requires_grad_(False)
    assert product_parameters(model) == 16 * 4


def test_a_step_that_cannot_be_counted_says_why(monkeypatch):
    monkeypatch.setattr(module, "matmul_rate", lambda device, dtype: {torch.bfloat16: 2.0}[dtype])

    def forward():
        raise RuntimeError("no counter\n for this device")

    counted = count_training(nn.Linear(2, 3), forward, 10, "cpu", "bf16")
    assert counted == {"product_parameters": 6, "matmul_rate": 2.0, "operations_error": "no counter for this device"}


def test_no_gradient_is_kept_by_counting():
    layer = nn.Linear(3, 3)
    seen = []
    training_operations(lambda: seen.append(layer(torch.ones(1, 3))))
    assert not seen[0].requires_grad


def test_utilisation_is_the_rate_of_the_model_over_that_of_the_device():
    """PaLM 540B: 238.3e3 tokens a second of 6 N + attention, on 6144 chips of 275e12; the paper says 46.2 %."""
    parameters, layers, width, tokens = 540.35e9, 118, 48 * 256, 2048
    per_token = 6 * parameters + 12 * layers * width * tokens
    assert utilisation(238.3e3, per_token, 6144 * 275e12) == pytest.approx(0.462, abs=0.002)


@pytest.mark.parametrize(
    "name, precision, peak",
    [
        ("NVIDIA H200", "bf16", 989e12),
        ("NVIDIA GH200 480GB", "bf16", 989e12),
        ("NVIDIA H100 80GB HBM3", "bf16", 989e12),
        ("NVIDIA H100 PCIe", "bf16", 756e12),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312e12),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16", None),
        ("NVIDIA H200", "32", None),
        ("cpu", "bf16", None),
    ],
)
def test_published_peaks(name, precision, peak):
    assert published_peak(name, precision) == peak
