"""The load-balancing loss of experts: the one that transformers adds, over the valid frames, and only where there is one."""

import pytest
import torch

from nemo_duplex.llm.backbone import Backbone
from nemo_duplex.llm.experts import ExpertsLoss, Routing, said_of_experts
from nemo_duplex.llm.pretrained import llm_config, random_llm
from tests.hf_families import SIZES, lively, random_family

EXPERTS = {**SIZES, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.03}
LOCAL = {**EXPERTS, "num_local_experts": 4}
FINE = {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 16}
FAMILIES = {
    "mixtral": LOCAL,
    "granitemoe": LOCAL,
    "phimoe": LOCAL,
    "gpt_oss": {**LOCAL, "head_dim": 8, "layer_types": ["full_attention", "sliding_attention"], "sliding_window": 5},
    "qwen2_moe": {**FINE, "shared_expert_intermediate_size": 16},
    "qwen3_moe": {**FINE, "head_dim": 8},
    "olmoe": {**EXPERTS, "num_experts": 4},
    "jetmoe": {**LOCAL, "kv_channels": 8, "aux_loss_coef": 0.03},
    "ernie4_5_moe": {**SIZES, "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 16, "router_aux_loss_coef": 0.03},
}
#: Balances its experts by a bias that its training code moves; transformers has no loss for it.
DOTS = {"model_type": "dots1", **FINE, "n_routed_experts": 4, "n_shared_experts": 1}
VALID = torch.arange(7) < torch.tensor([7, 4])[:, None]
FRAMES = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(3))


def family(name, **changes):
    torch.manual_seed(0)
    return lively(random_llm({"model_type": name, **FAMILIES[name], **changes})).eval()


def routed(backbone, frames=FRAMES):
    routing = Routing()
    backbone(frames, routing)
    return routing


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_that_of_transformers_over_the_valid_frames(name):
    model = family(name)
    with torch.no_grad():
        padded, whole = (
            model(inputs_embeds=FRAMES, attention_mask=mask.long(), output_router_logits=True, use_cache=False).aux_loss
            for mask in (VALID, torch.ones_like(VALID))
        )
    backbone = Backbone(llm_config(model), weights=model)
    routing = routed(backbone)
    assert backbone.experts_loss.weight == 0.03
    assert backbone.experts_loss(routing, VALID).item() == pytest.approx(padded.item(), rel=1e-6)
    assert backbone.experts_loss(routing, torch.ones_like(VALID)).item() == pytest.approx(whole.item(), rel=1e-6)
    assert abs(padded - whole) > 1e-3, "Else padding would prove nothing."


def test_it_is_what_is_written_in_the_switch_transformer():
    """Experts times the sum over them of the share of frames sent there and their mean probability (Fedus et al., 2021)."""
    backbone = Backbone({}, weights=family("mixtral"))
    routing = routed(backbone)
    rows = torch.cat([logits.view(2, 7, 4)[VALID] for logits in routing.logits])  # of both layers
    sent = torch.zeros_like(rows).scatter(1, rows.topk(2).indices, 1.0).mean(0)
    expected = 4 * (sent * rows.softmax(-1).mean(0)).sum()
    assert backbone.experts_loss(routing, VALID).item() == pytest.approx(expected.item(), rel=1e-5)


def test_padding_counts_nothing_and_a_batch_of_padding_is_0():
    backbone = Backbone({}, weights=family("mixtral"))
    loss, frames = backbone.experts_loss, FRAMES.clone()
    before = loss(routed(backbone), VALID)
    frames[~VALID] = 9.0
    assert torch.equal(loss(routed(backbone, frames), VALID), before)
    nothing = loss(routed(backbone), torch.zeros_like(VALID))
    nothing.backward()
    assert nothing == 0 and not any(p.grad.any() for p in backbone.parameters() if p.grad is not None)


def test_its_gradient_reaches_every_router():
    backbone = Backbone({}, weights=family("mixtral"))
    backbone.experts_loss(routed(backbone), VALID).backward()
    gates = {name: p.grad for name, p in backbone.named_parameters() if name.endswith("gate.weight")}
    assert len(gates) == 2 and all(grad.abs().sum() > 0 for grad in gates.values())


@pytest.mark.parametrize(
    "llm",
    [
        {"model_type": "llama", **SIZES},
        {"model_type": "qwen2_moe", **FAMILIES["qwen2_moe"], "mlp_only_layers": [0, 1]},
        {"model_type": "granitemoe", **LOCAL, "router_aux_loss_coef": None},
        DOTS,
    ],
    ids=["no experts", "no layer with experts", "no weight", "another way to balance"],
)
def test_a_family_without_it_has_none(llm):
    assert ExpertsLoss.of(random_llm(llm)) is None


def test_routers_are_asked_only_for_a_loss():
    """A config may say that they are always asked; that stays in the description, but inference does not do it."""
    model = family("mixtral", output_router_logits=True)
    described = llm_config(model)
    backbone = Backbone(described, weights=model)
    assert described["output_router_logits"] is True
    assert backbone.llm(inputs_embeds=FRAMES, use_cache=False).get("router_logits") is None
    assert torch.equal(backbone(FRAMES), backbone(FRAMES, Routing())), "Asking changes nothing."


def test_a_training_says_how_experts_are_balanced():
    mixtral, dots = family("mixtral"), random_llm(DOTS)
    loss = ExpertsLoss.of(mixtral)
    assert said_of_experts(mixtral.base_model, loss, 0.25).endswith("is added with weight 0.25 (model.loss.experts).")
    assert said_of_experts(mixtral.base_model, loss, 0.0).endswith("without their load-balancing loss: its weight is 0.")
    assert said_of_experts(dots.base_model, None, 0.0).startswith("dots1 has experts, but transformers defines no")
    assert said_of_experts(random_family("llama").base_model, None, 0.0) is None
