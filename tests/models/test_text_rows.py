"""Training of the special tokens' rows alone: they learn as they would with all others, which stay to the bit."""

import pytest
import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.models import losses
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.models.head_loss import head_loss
from tests.dummies import LLM, tiny_config
from tests.models.test_duplex_s2s import batch
from tests.models.test_training_speed import gradients

OPTIM = {"name": "adamw", "lr": 0.1, "weight_decay": 0.5}
EMBEDDING, HEAD = "lm.backbone.embed_tokens.weight", "lm.backbone.lm_head.weight"


def rows_of(model):
    layout = model.layout
    return sorted([layout.text_pad, layout.text_bos, layout.text_eos])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_their_gradients_are_those_of_a_training_of_all_rows(tmp_path, fused, tied):
    keys = {"llm": {**LLM, "tie_word_embeddings": tied}, "fused_training": fused}
    whole, some = (gradients(tmp_path, **keys, text_rows=rows)[1] for rows in ("all", "specials"))
    assert list(whole) == list(some) and len({EMBEDDING, HEAD} & set(whole)) == (1 if tied else 2)
    specials = rows_of(DuplexS2SModel(tiny_config(tmp_path, **keys)))
    for name in whole:
        if name in (EMBEDDING, HEAD):
            others = torch.ones(len(whole[name]), dtype=torch.bool).index_fill(0, torch.tensor(specials), False)
            assert torch.allclose(some[name][specials], whole[name][specials], atol=1e-6)
            assert not some[name][others].any() and whole[name][others].any()
        else:
            assert torch.allclose(some[name], whole[name], atol=1e-6), name


def test_the_head_makes_no_gradient_of_the_others(tmp_path, monkeypatch):
    """Which would be as large as the vocabulary, and set to zero afterwards."""
    asked = []
    monkeypatch.setattr(losses, "head_loss", lambda *given: asked.append(given[5]) or head_loss(*given))
    gradients(tmp_path, text_rows="specials")
    specials = rows_of(DuplexS2SModel(tiny_config(tmp_path)))
    assert [None if rows is None else rows.tolist() for rows in asked] == [specials, None]
    head, hidden = torch.nn.Linear(4, 9), torch.randn(6, 4)
    whole, some = (_gradient(head, hidden, rows) for rows in (None, torch.tensor([2, 7])))
    assert torch.allclose(some[[2, 7]], whole[[2, 7]]) and not some[[0, 1, 3, 4, 5, 6, 8]].any()


def _gradient(head, hidden, rows):
    head.zero_grad()
    head_loss(head, hidden, torch.arange(6), torch.ones(6), 4, rows)[0].backward()
    return head.weight.grad.clone()


@pytest.mark.parametrize("tied", [True, False])
def test_a_step_with_weight_decay_changes_no_other_row(tmp_path, tied):
    model = DuplexS2SModel(
        tiny_config(tmp_path, llm={**LLM, "tie_word_embeddings": tied}, text_rows="specials", optim=OPTIM)
    ).train()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = model.setup_optimization(OPTIM)[0]
    assert sorted(id(p) for group in optimizer.param_groups for p in group["params"]) == sorted(map(id, model.parameters()))
    model.training_step(batch(model), 0)["loss"].backward()
    optimizer.step()
    specials = rows_of(model)
    for name, weight in model.named_parameters():
        changed = (weight != before[name]).flatten(1).any(1) if weight.ndim > 1 else weight != before[name]
        if name in (EMBEDDING, HEAD):
            assert changed.nonzero().flatten().tolist() == specials
    decayed = model.lm.backbone.llm.layers[0].mlp.up_proj.weight
    assert {g["weight_decay"] for g in optimizer.param_groups if any(p is decayed for p in g["params"])} == {0.5}


def test_frozen_weights_stay_frozen_and_weights_in_pieces_are_refused(tmp_path):
    model = DuplexS2SModel(tiny_config(tmp_path, text_rows="specials", freeze_params=[r"lm\.backbone\.embed_tokens"]))
    assert not model.lm.backbone.embed_tokens.weight.requires_grad
    model._device_mesh = object()
    with pytest.raises(InputError, match="^model.text_rows is specials, which a strategy that spreads weights"):
        model.configure_model()
