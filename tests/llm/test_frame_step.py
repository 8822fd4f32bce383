"""The layers of models of Llama's kind in fewer calls: what transformers computes, with any linear layers inside."""

import pytest
import torch
from torch import nn

from nemo_duplex.kernels.linear import Int8Linear, Joined, in_int8
from nemo_duplex.llm import frame_step as module
from nemo_duplex.llm.backbone import Backbone
from nemo_duplex.llm.frame_step import same_inputs
from nemo_duplex.llm.pretrained import random_llm

FRAMES = 40

SIZES = dict(
    vocab_size=32,
    hidden_size=96,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=64,
)
KINDS = {
    "llama": {},
    "llama, one head of keys": {"num_key_value_heads": 1},
    "llama, a head of keys for each": {"num_key_value_heads": 6},
    "mistral": {"sliding_window": 7},
    "qwen2": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "qwen3": {},
}


def backbone_of(name, window=None):
    torch.manual_seed(0)
    config = {"model_type": name.split(",")[0], **SIZES, **KINDS[name]}
    if config["model_type"] == "qwen2":  # its heads have the width of its layers
        config |= {"head_dim": None}
    model = random_llm({key: value for key, value in config.items() if value is not None}).eval()
    with torch.no_grad():
        for weight in model.parameters():  # large and uneven, so that whatever is left out shows
            weight.normal_(std=1.4 / weight.shape[-1] ** 0.5) if weight.dim() > 1 else weight.normal_(1, 0.4)
    return Backbone({}, window, weights=model).eval()


@torch.no_grad()
def stepped(backbone, frames, starts, like=None):
    """(B, T, H) frame by frame; row b begins at frame `starts[b]`. The cache is that of `like`."""
    cache, outputs = (like or backbone).empty_cache(len(frames)), []
    for t in range(frames.shape[1]):
        outputs.append(backbone.step(frames[:, t : t + 1], cache, torch.tensor(starts) <= t))
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("starts", [(0,), (0, 3, 17)], ids=["alone", "of different age"])
def test_it_computes_what_transformers_computes(name, window, starts, monkeypatch):
    """Longer than the first of two memories, and than windows."""
    backbone = backbone_of(name, window)
    frames = torch.randn(len(starts), FRAMES, backbone.hidden_size)
    assert backbone._direct(frames) is not None
    found = stepped(backbone, frames, starts)
    backbone.forget_shapes()
    monkeypatch.setattr(module, "_LAYERS", set())
    assert backbone._direct(frames) is None
    expected = stepped(backbone, frames, starts)
    for row, start in enumerate(starts):
        difference = (found[row, start:] - expected[row, start:]).abs().max()
        assert difference < 1e-4 * expected.std(), f"row {row}"


def test_other_families_and_training_take_the_calls_of_transformers():
    llama = backbone_of("llama")
    assert llama.train()._direct(torch.zeros(1)) is None
    config = {"model_type": "gpt_neox", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 16}
    assert Backbone(config).eval()._direct(torch.zeros(1)) is None


def test_eight_bits_join_the_layers_of_one_input():
    backbone = backbone_of("llama")
    with torch.no_grad():
        fast = in_int8(backbone, same_inputs(backbone.llm))
    assert isinstance(fast.llm.layers[0].self_attn.q_proj, nn.Linear), "so small layers only get slower"
    quantized = in_int8_whatever_the_size(backbone)
    attention, feed = quantized.llm.layers[1].self_attn, quantized.llm.layers[1].mlp
    assert (
        isinstance(attention.q_proj, Int8Linear) and isinstance(attention.v_proj, Joined) and isinstance(feed.up_proj, Joined)
    )
    frames = torch.randn(2, FRAMES, backbone.hidden_size)
    exact, found = stepped(backbone, frames, (0, 5)), stepped(quantized, frames, (0, 5), like=backbone)
    assert 0 < (found[0] - exact[0]).std() < 0.15 * exact.std()


def test_in_eight_bits_norms_are_part_of_the_joined_layers_behind_them(monkeypatch):
    """What they give is that of the norm and the layer, but for ties that are rounded the other way."""
    quantized = in_int8_whatever_the_size(backbone_of("llama"))
    frames, calls = torch.randn(2, FRAMES, 96), []
    fused = Int8Linear.of_normed
    monkeypatch.setattr(Int8Linear, "of_normed", lambda *given: calls.append(1) or fused(*given))
    found = stepped(quantized, frames, (0, 5), like=backbone_of("llama"))
    assert len(calls) == 2 * SIZES["num_hidden_layers"] * FRAMES
    monkeypatch.setattr(Int8Linear, "of_normed", lambda layer, x, w, eps: layer(nn.functional.rms_norm(x, w.shape, w, eps)))
    expected = stepped(quantized, frames, (0, 5), like=backbone_of("llama"))
    assert (found - expected)[0].std() < 0.02 * expected[0].std()


def test_layers_in_eight_bits_need_not_be_joined():
    backbone, frames = backbone_of("llama"), torch.randn(1, FRAMES, 96)
    joined = stepped(in_int8_whatever_the_size(backbone), frames, (0,), like=backbone)
    apart = stepped(in_int8(backbone, smallest=1), frames, (0,), like=backbone)
    assert (joined - apart).std() < 0.02 * apart.std()


@torch.no_grad()
def test_the_small_agent_keeps_its_layers_in_float():
    """Its geometry is that of `make demo`; in 8 bits, more layers would change what it says."""
    config = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 4, "vocab_size": 2048}
    backbone = Backbone({**config, "num_attention_heads": 4}, attention_window=100).eval()
    fast = in_int8(backbone, same_inputs(backbone.llm))
    assert not any(isinstance(layer, Int8Linear) for layer in fast.llm.layers.modules())


def in_int8_whatever_the_size(backbone):
    return in_int8(backbone, same_inputs(backbone.llm), smallest=1)


@torch.no_grad()
def test_layers_that_get_adapters_later_are_used_with_them():
    backbone, frames = backbone_of("llama"), torch.randn(1, 3, 96)
    before = stepped(backbone, frames, (0,))

    class Twice(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return 2 * self.layer(x)

    attention = backbone.llm.layers[0].self_attn
    attention.v_proj = Twice(attention.v_proj)
    assert (stepped(backbone, frames, (0,)) - before).abs().max() > 0.01


@torch.no_grad()
def test_a_single_row_leaves_its_second_memory_alone_until_it_begins():
    """Then both step, so that the second one knows all that came since."""
    backbone = backbone_of("llama")  # 64 positions, 4 sinks: the second memory begins with frame 34
    cache, seen = backbone.empty_cache(1), []
    inner = backbone._direct(torch.zeros(1))

    def spy(x, *args):
        seen.append(len(x))
        return inner(x, *args)

    backbone._frame_step = (spy,)
    for frame in torch.randn(FRAMES, 1, 1, 96):
        backbone.step(frame, cache, torch.ones(1, dtype=torch.bool))
    assert seen == [2] * 4 + [1] * 30 + [2] * 6


@torch.no_grad()
@pytest.mark.parametrize("age", [0, 3, 600])
def test_a_row_does_not_depend_on_how_old_others_are(age):
    """Not in the last digit: blocks of attention behind all that a row remembers change nothing."""
    config = {"model_type": "llama", **SIZES, "max_position_embeddings": 1500}
    torch.manual_seed(0)
    backbone = Backbone(config, attention_window=1400).eval()
    frames = torch.randn(2, 5, 1, 96)
    results = []
    for old in (False, True):
        cache = backbone.empty_cache(2)
        for layer in range(SIZES["num_hidden_layers"]):
            cache.keys[layer].normal_(generator=torch.Generator().manual_seed(layer))
            cache.values[layer].normal_(generator=torch.Generator().manual_seed(9 + layer))
        cache.age.copy_(torch.tensor([age, 1300 if old else age]))
        live = torch.ones(2, dtype=torch.bool)
        results.append(torch.cat([backbone.step(frame, cache, live)[0] for frame in frames.transpose(0, 1)]))
    assert torch.equal(*results)
