"""Recomputed activations and compiled layers change how fast a step is and what it holds, and nothing else."""

import pytest
import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.models.training_speed import compile_layers
from tests.dummies import PERCEPTION, tiny_config
from tests.models.test_duplex_s2s import batch

CONFORMER = {**PERCEPTION, "adapter": {"kind": "conformer", "n_layers": 1}}


def gradients(folder, saved=None, backend=None, **keys):
    torch.manual_seed(0)
    model = DuplexS2SModel(tiny_config(folder, perception=CONFORMER, **keys)).train()
    torch.nn.init.normal_(model.lm.speech_head.projection.weight, std=0.1)  # zero hides what lies below
    if backend:
        compile_layers(model.lm.backbone.llm, backend)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        loss = model.training_step(batch(model), 0)["loss"]
    if saved is not None:
        saved.append(sum(kept))
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(one, other):
    assert torch.allclose(one[0], other[0], rtol=1e-6)
    names = [name.replace("_checkpoint_wrapped_module.", "") for name in other[1]]
    assert list(one[1]) == names
    for (name, a), b in zip(one[1].items(), other[1].values()):
        assert torch.allclose(a, b, atol=1e-6), name


def test_recomputed_activations_give_the_same_gradients_and_hold_less(tmp_path):
    held = []
    whole = gradients(tmp_path, held)
    recomputed = gradients(tmp_path, held, activation_checkpointing=True)
    assert_same(whole, recomputed)
    assert held[1] < 0.7 * held[0]


def test_a_model_that_recomputes_is_saved_under_the_same_names(tmp_path):
    names = DuplexS2SModel(tiny_config(tmp_path)).state_dict().keys()
    model = DuplexS2SModel(tiny_config(tmp_path, activation_checkpointing=True))
    assert model.state_dict().keys() == names
    model.save_to(str(tmp_path / "agent.nemo"))
    DuplexS2SModel.restore_from(str(tmp_path / "agent.nemo"), map_location="cpu")


def test_compiled_layers_give_the_same_gradients(tmp_path):
    """`aot_eager` traces forward and backward as `inductor` does, without a C compiler."""
    assert_same(gradients(tmp_path), gradients(tmp_path, backend="aot_eager"))


def test_an_unknown_backend_is_one_line(tmp_path):
    model = DuplexS2SModel(tiny_config(tmp_path, compile="inducktor"))
    with pytest.raises(InputError, match="compile is 'inducktor', expected a backend of torch.compile: .*inductor"):
        model.on_fit_start()
