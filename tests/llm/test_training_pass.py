"""The layers of a training on a CPU: what transformers computes, in value and gradient, window and kept frames included."""

import pytest
import torch

from nemo_duplex.llm.adapted_linear import _only_adapter, adapted
from nemo_duplex.llm.backbone import Backbone
from nemo_duplex.llm.lora import add_lora
from nemo_duplex.llm.training_pass import can_train_here
from nemo_duplex.llm.window_attention import Reach, window_attention

FRAMES = 150


def backbone(family="llama", window=40, sinks=3, **keys):
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6}
    config = {"model_type": family, **sizes, "num_key_value_heads": 2, "vocab_size": 32, "max_position_embeddings": 512, **keys}
    made = Backbone(config, window, sinks=sinks)
    for weight in made.parameters():
        if weight.ndim == 1:  # norms and biases, which begin as 1 and 0
            torch.nn.init.normal_(weight, 0.8, 0.3)
    return made.train()


def gradients(made, fused, autocast=False):
    """Hidden states, and the gradients of embeddings and weights."""
    made.fused_training = fused
    torch.manual_seed(1)
    embeddings = torch.randn(2, FRAMES, made.hidden_size, requires_grad=True)
    made.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        hidden = made(embeddings)
    (hidden * torch.randn(hidden.shape)).sum().backward()
    weights = {name: w.grad for name, w in made.llm.named_parameters() if w.grad is not None}
    return {"hidden": hidden.detach(), "embeddings": embeddings.grad, **weights}


def farthest(found, expected):
    assert found.keys() == expected.keys()
    return max(((found[name] - expected[name]).norm() / expected[name].norm()).item() for name in expected)


@pytest.mark.parametrize(
    ("family", "window", "keys"),
    [
        ("llama", 40, {}),
        ("llama", None, {}),
        ("llama", 1, {"head_dim": 20}),
        ("qwen2", 200, {}),
        ("qwen3", 70, {}),
        ("mistral", 64, {"sliding_window": 30}),
    ],
)
def test_layers_are_those_of_transformers_in_value_and_gradient(family, window, keys):
    made = backbone(family, window, **keys)
    assert can_train_here(made.llm, torch.zeros(1, 1, 48))
    assert farthest(gradients(made, True), gradients(made, False)) < 2e-5


def test_in_bfloat16_they_are_as_near_to_float32_as_those_of_transformers():
    made = backbone()
    exact = gradients(made, False)
    ours, theirs = (farthest(gradients(made, fused, autocast=True), exact) for fused in (True, False))
    assert ours < 1.25 * theirs and ours < 0.03


def test_recomputed_layers_and_adapters_are_the_same():
    made = backbone()
    add_lora(made.llm, {"r": 4, "lora_alpha": 12, "target_modules": "all-linear"})
    for name, weight in made.llm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, 0, 0.2)
    made.train()
    expected = gradients(made, False)
    assert farthest(gradients(made, True), expected) < 2e-5
    made.llm.gradient_checkpointing_enable({"use_reentrant": False})
    assert farthest(gradients(made, True), expected) < 2e-5


def test_adapters_of_another_kind_are_called():
    made = backbone("qwen2")
    given = torch.randn(3, 48)
    for keys, alone in (({}, True), ({"use_dora": True}, False), ({"lora_dropout": 0.5}, False), ({"lora_bias": True}, False)):
        layer = backbone("qwen2")
        add_lora(layer.llm, {"r": 4, "target_modules": ["q_proj"], **keys})
        q_proj = layer.train().llm.layers[0].self_attn.q_proj
        assert (_only_adapter(q_proj) == "default") == alone, keys
        torch.nn.init.normal_(q_proj.lora_B["default"].weight)
        layer.eval()
        torch.testing.assert_close(adapted(q_proj, given), q_proj(given))
    assert _only_adapter(made.llm.layers[0].self_attn.q_proj) is None


def test_other_models_take_the_way_of_transformers():
    embeddings = torch.zeros(1, 4, 48)
    assert not can_train_here(backbone("gemma", head_dim=8).llm, embeddings), "another family"
    assert not can_train_here(backbone(attention_dropout=0.1).llm, embeddings), "attention with dropout"
    watched = backbone()
    watched.llm.layers[1].register_forward_hook(lambda *_: None)
    assert not can_train_here(watched.llm, embeddings), "somebody watches a layer"
    with torch.no_grad():
        assert not can_train_here(backbone().llm, embeddings), "there is no gradient"


@pytest.mark.parametrize("reach", [Reach(1, 0), Reach(5, 0), Reach(64, 2), Reach(70, 9), Reach(100, 200), Reach(1000, 0)])
@pytest.mark.parametrize("frames", [1, 64, 65, 200])
def test_attention_sees_the_window_and_the_kept_frames_and_nothing_else(reach, frames):
    torch.manual_seed(0)
    query = torch.randn(2, 6, frames, 8, dtype=torch.float64, requires_grad=True)
    key, value = (torch.randn(2, 3, frames, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    frame = torch.arange(frames)
    distance = frame[:, None] - frame
    seen = (distance >= 0) & ((distance < reach.window) | (frame < reach.kept))
    ours = window_attention(query, key, value, reach, 0.3)
    theirs = torch.nn.functional.scaled_dot_product_attention(query, key, value, seen, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(ours, theirs)
    along = torch.randn(ours.shape, dtype=torch.float64)
    for found, expected in zip(*(torch.autograd.grad((x * along).sum(), (query, key, value)) for x in (ours, theirs))):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
