"""LoRA: adapters alone are trained, start as nothing, and merge into plain weights."""

import sys

import pytest
import torch
from omegaconf import OmegaConf

from nemo_duplex.inputs import InputError
from nemo_duplex.llm.backbone import Backbone
from nemo_duplex.llm.lora import add_lora, merged_state_dict
from nemo_duplex.llm.pretrained import llm_config
from tests.hf_families import family_config, random_family
from tests.llm.test_experts import VALID, family, routed

pytest.importorskip("peft", reason="the extra [lora] is not installed")
ARGUMENTS = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": "all-linear"}


def backbone_of(name, window=None):
    return Backbone(family_config(name), window, weights=random_family(name)).eval()


def train(backbone, frames, steps=3):
    optimizer = torch.optim.AdamW([p for p in backbone.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        (backbone(frames) - 1).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", ["gemma2", "gpt_neox", "smollm3"])
def test_adapters_start_as_nothing_train_alone_and_merge(name):
    backbone, frames = backbone_of(name), torch.randn(2, 12, 32)
    with torch.no_grad():
        before = backbone(frames)
    plain = {key: weight.clone() for key, weight in backbone.state_dict().items()}
    add_lora(backbone.llm, ARGUMENTS)
    with torch.no_grad():
        assert torch.allclose(backbone(frames), before, atol=1e-6)
    trained = {key for key, p in backbone.llm.named_parameters() if p.requires_grad}
    linear = sum(isinstance(module, torch.nn.Linear) for module in backbone_of(name).llm.modules())
    assert len(trained) == 2 * linear and all("lora_" in key for key in trained)
    assert not backbone.training and not any(module.training for module in backbone.llm.modules()), "Dropout stays off."
    assert backbone.embed_tokens.weight.requires_grad and backbone.lm_head.weight.requires_grad

    train(backbone, frames)
    now = {key.replace(".base_layer", ""): weight for key, weight in backbone.state_dict().items() if "lora_" not in key}
    assert now.keys() == plain.keys()
    changed = {key for key, weight in now.items() if not torch.equal(weight, plain[key])}
    assert changed <= {"embed_tokens.weight", "lm_head.weight"}, "Base weights stay."
    with torch.no_grad():
        after = backbone(frames)
    assert not torch.allclose(after, before, atol=1e-2), "Adapters that change nothing would prove nothing."

    merged = merged_state_dict(backbone)
    assert set(merged) == set(plain), "A saved model needs no peft."
    again = backbone_of(name)
    again.load_state_dict(merged)
    with torch.no_grad():
        assert torch.allclose(again(frames), after, atol=1e-5)
        assert torch.equal(backbone(frames), after), "Merging leaves the model as it is."


def test_a_session_runs_with_adapters_as_the_whole():
    backbone, frames = backbone_of("gemma2", window=8), torch.randn(1, 20, 32)
    add_lora(backbone.llm, OmegaConf.create({**ARGUMENTS, "target_modules": ["q_proj", "v_proj"]}))
    train(backbone, frames)
    with torch.no_grad():
        whole, cache, live = backbone(frames), backbone.empty_cache(1), torch.ones(1, dtype=torch.bool)
        stepped = torch.cat([backbone.step(frames[:, t : t + 1], cache, live) for t in range(20)], dim=1)
    assert (stepped - whole).abs().max() < 1e-5


def test_the_lora_section_of_nemos_own_configs_is_taken_as_it_is():
    backbone = backbone_of("llama")
    add_lora(backbone.llm, {"task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 32, "lora_dropout": 0.1})
    assert backbone.llm.layers[0].self_attn.q_proj.lora_A["default"].weight.shape == (8, 32)


def test_a_state_without_adapters_is_the_state():
    backbone = backbone_of("llama")
    merged = merged_state_dict(backbone)
    assert all(torch.equal(merged[key], weight) for key, weight in backbone.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 8}, "unexpected keyword argument 'rank'.*. Give what peft's LoraConfig takes, such as r: 8.$"),
        ({"r": 0}, "should be a positive integer.*. Give what peft's LoraConfig takes, such as r: 8.$"),
        ({"target_modules": ["c_attn"]}, "target_modules here are down_proj, gate_proj, k_proj.* or all-linear"),
        ({"modules_to_save": ["norm"]}, "model.lora.modules_to_save is not supported"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments, message):
    with pytest.raises(InputError, match=message) as error:
        add_lora(backbone_of("llama").llm, arguments)
    assert "\n" not in str(error.value)


def test_without_peft_it_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "peft"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "peft", None)
    layer = torch.nn.Linear(2, 2)
    assert set(merged_state_dict(layer)) == {"weight", "bias"}
    with pytest.raises(
        InputError, match=r"^model.lora needs peft, which is not installed: pip install 'nemo_duplex\[lora\]'.$"
    ):
        add_lora(layer, {})


@torch.no_grad()
@pytest.mark.parametrize("name", ["mixtral", "olmoe"])
def test_adapters_of_experts_are_merged_though_one_is_around_another(name):
    """peft adapts both weights of `experts`, (experts, out, in) each, by an adapter around the other one's."""
    model, frames = family(name), torch.randn(1, 5, 32)
    backbone, plain = (Backbone(llm_config(m), weights=m).eval() for m in (model, family(name)))
    before = plain(frames)
    add_lora(backbone.llm, {"r": 2, "lora_alpha": 4, "target_modules": "all-linear"})
    for key, weight in backbone.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(weight, std=0.2)
    assert any("experts.base_layer.lora_A" in key for key, _ in backbone.named_parameters()), "Else it would prove nothing."
    adapted = backbone(frames)
    plain.load_state_dict(merged_state_dict(backbone))
    assert (plain(frames) - adapted).abs().max() < 1e-4 < 0.1 < (before - adapted).abs().max()
    assert torch.equal(backbone(frames), adapted), "Merging leaves the model as it is."


def test_a_router_that_peft_cannot_adapt_is_refused_with_a_cure_that_works():
    message = r"^model.lora: PhimoeTopKRouter \(router\) cannot .* Add exclude_modules: \[router\] to model.lora.$"
    with pytest.raises(InputError, match=message):
        add_lora(family("phimoe").base_model, {"r": 2, "target_modules": "all-linear"})
    model = family("phimoe")
    backbone = Backbone(llm_config(model), weights=model)
    add_lora(backbone.llm, {"r": 2, "target_modules": "all-linear", "exclude_modules": ["router"]})
    backbone.experts_loss(routed(backbone), VALID).backward()
    assert any(p.grad.abs().sum() > 0 for name, p in backbone.named_parameters() if "lora_B" in name)
