"""Recomputed activations, compiled layers and fused training change how fast a step is and what it holds, and nothing else."""

import importlib

import pytest
import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.models.training_speed import compile_layers, freeze, recompute_activations
from nemo_duplex.perception.front_end import subsample
from tests.dummies import EXPERTS, LLM, PERCEPTION, tiny_config
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


@pytest.mark.parametrize("llm", [LLM, EXPERTS], ids=["dense", "experts"])
def test_recomputed_activations_give_the_same_gradients_and_hold_less(tmp_path, llm):
    held = []
    whole = gradients(tmp_path, held, llm=llm)
    recomputed = gradients(tmp_path, held, activation_checkpointing=True, llm=llm)
    assert_same(whole, recomputed)
    assert held[1] < 0.7 * held[0]


def test_fused_training_gives_the_gradients_of_autograd_and_transformers(tmp_path, monkeypatch):
    plain = gradients(tmp_path, fused_training=False, attention_window=4)
    used = []
    for place in ("nemo_duplex.models.losses.head_loss", "nemo_duplex.llm.backbone.training_pass"):
        module, name = place.rsplit(".", 1)
        real = getattr(importlib.import_module(module), name)
        monkeypatch.setattr(place, lambda *given, real=real, name=name: used.append(name) or real(*given))
    fused = gradients(tmp_path, attention_window=4)
    assert used == ["training_pass", "head_loss", "head_loss"]
    assert_same(plain, fused)
    used.clear()
    gradients(tmp_path, fused_training=False)
    assert not used


def test_logits_that_a_family_scales_are_not_those_of_its_head_alone(tmp_path):
    llm = {**LLM, "model_type": "granite", "logits_scaling": 4.0}
    assert_same(*(gradients(tmp_path, llm=llm, fused_training=fused) for fused in (False, True)))


def test_convolutions_hear_one_recording_after_the_other_and_again_where_activations_are_recomputed(tmp_path, monkeypatch):
    rows = []
    noting = lambda layers, mel: rows.append(len(mel)) or subsample(layers, mel)  # noqa: E731
    monkeypatch.setattr("nemo_duplex.perception.perception.subsample", noting)
    gradients(tmp_path)
    (whole,) = rows
    assert whole > 1, "narrow convolutions hear all of them at once"
    rows.clear()
    gradients(tmp_path, activation_checkpointing=True)
    assert rows == [1] * 2 * whole


def test_a_model_that_recomputes_is_saved_under_the_same_names(tmp_path):
    names = DuplexS2SModel(tiny_config(tmp_path)).state_dict().keys()
    model = DuplexS2SModel(tiny_config(tmp_path, activation_checkpointing=True))
    assert model.state_dict().keys() == names
    model.save_to(str(tmp_path / "agent.nemo"))
    DuplexS2SModel.restore_from(str(tmp_path / "agent.nemo"), map_location="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("llm", [LLM, EXPERTS], ids=["dense", "experts"])
def test_compiled_layers_give_the_same_gradients(tmp_path, llm):
    """`aot_eager` traces forward and backward as `inductor` does, without a C compiler."""
    assert_same(gradients(tmp_path, llm=llm), gradients(tmp_path, backend="aot_eager", llm=llm))


def test_the_language_model_is_compiled_once_for_any_length_as_the_config_says(tmp_path, monkeypatch):
    calls = []
    for backend in ("inductor", "eager", None):
        model = DuplexS2SModel(tiny_config(tmp_path, compile=backend))
        monkeypatch.setattr(model.lm.backbone.llm, "compile", lambda **arguments: calls.append(arguments))
        model.on_fit_start()
    assert calls == [{"backend": "inductor", "dynamic": True}, {"backend": "eager", "dynamic": True}]
    with pytest.raises(
        InputError, match="model.compile is 'inducktor', expected a backend of torch.compile .*such as inductor, or null.$"
    ):
        compile_layers(model.lm.backbone.llm, "inducktor")


def test_a_language_model_that_cannot_recompute_is_refused():
    with pytest.raises(InputError, match="model.activation_checkpointing: transformers' Linear does not support it. Set it to"):
        recompute_activations(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))


# ---------------------------------------------------------------------- frozen parameters


class Named(torch.nn.Module):
    """Parameters by these names."""

    def __init__(self, *names):
        super().__init__()
        self.weights = {name: torch.nn.Parameter(torch.zeros(1)) for name in names}

    def named_parameters(self):
        return iter(self.weights.items())

    def trained(self):
        return [name for name, p in self.weights.items() if p.requires_grad]


NAMES = ("perception.proj.bias", "lm.backbone.llm.norm", "lm.backbone.llm.q.lora_A", "lm.speech_head.projection.bias")


@pytest.mark.parametrize(
    "patterns, exceptions, trained",
    [
        ([], [], NAMES),
        (["perception"], [], NAMES[1:]),
        (["p"], [], NAMES[1:]),  # though a "p" stands further on in the other names too
        (["llm"], [], (NAMES[0], NAMES[3])),  # the in-tree name
        (["lm"], [], NAMES[:1]),
        ([".+"], ["audio_head", "perception"], (NAMES[0], NAMES[3])),  # exceptions by either name
        (["llm"], [r".+\.lora_"], (NAMES[0], NAMES[2], NAMES[3])),
    ],
)
def test_parameters_are_frozen_by_either_name_from_its_start(patterns, exceptions, trained):
    model = Named(*NAMES)
    freeze(model, patterns, exceptions)
    assert model.trained() == list(trained)


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("proj", "'proj' matches no parameter. Names begin with audio_head, llm, lm, perception."),
        ("(", "'\\(' is not a regular expression"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused(pattern, message):
    for key, *patterns in ("freeze_params", [pattern], []), ("prevent_freeze_params", [], [pattern]):
        with pytest.raises(InputError, match=f"^model.{key}: {message}"):
            freeze(Named(*NAMES), *patterns)
