"""The hash of a model: of all that its answers depend on, and of nothing else."""

import pytest
import torch
from omegaconf import OmegaConf

from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.models.nemo import model_hash as module
from nemo_duplex.models.nemo.model_hash import model_hash
from tests.dummies import tiny_model


@pytest.fixture
def model(tmp_path):
    return tiny_model(tmp_path)


def test_a_restored_model_has_the_hash_of_the_saved_one(model, tmp_path):
    model.save_to(str(tmp_path / "agent.nemo"))
    restored = [DuplexS2SModel.restore_from(tmp_path / "agent.nemo", map_location="cpu") for _ in range(2)]
    assert {model_hash(m) for m in restored} == {model_hash(model)}
    assert len(model_hash(model)) == 64


def test_any_weight_any_dtype_and_what_shapes_answers_count(model):
    found = [model_hash(model)]
    with torch.no_grad():
        model.audio_codec.silence_codes[0] ^= 1  # a buffer
        found.append(model_hash(model))
        next(model.lm.parameters()).view(-1)[-1] += 1e-6
        found.append(model_hash(model))
    model.lm.to(torch.bfloat16)
    found.append(model_hash(model))
    model.perception.proj.weight = torch.nn.Parameter(model.perception.proj.weight.detach() * 2)
    found.append(model_hash(model))
    assert len(set(found)) == len(found)


class Described(torch.nn.Module):
    """Two weights, a buffer and a config."""

    def __init__(self, names=("a", "b"), **config):
        super().__init__()
        for name in names:
            self.register_parameter(name, torch.nn.Parameter(torch.ones(2, 2)))
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))
        self.cfg = OmegaConf.create({"speech_delay": 1, "optim": {"lr": 1.0}, **config})


ANSWERING = {
    "llm": {"a": 1},
    "attention_window": 3,
    "sinks": 3,
    "perception": {"a": 1},
    "codec": {"a": 1},
    "speech_delay": 0,
    "turn_marks": "in_place",
    "text_alignment": "word",
    "user_weight": 2.0,
}
TRAINING = {
    "optim": {"lr": 2.0},
    "loss": {"text": 1.0},
    "freeze_params": ["a"],
    "tokenizer": {"model_path": "x"},
    "target": "x",
}


@pytest.mark.parametrize("key", [*ANSWERING, *TRAINING])
def test_keys_count_that_change_answers_and_others_do_not(key):
    one, other = model_hash(Described()), model_hash(Described(**{key: (ANSWERING | TRAINING)[key]}))
    assert (one != other) == (key in ANSWERING)


def test_names_shapes_and_buffers_count():
    models = [Described(), Described(("a", "c")), Described(), Described(), Described(("b", "a"))]
    models[2].a = torch.nn.Parameter(torch.ones(4, 1))
    models[3].count += 1
    assert len({model_hash(model) for model in models[:4]}) == 4
    assert model_hash(models[4]) == model_hash(models[0]), "the order of the weights is no difference"


def test_it_is_computed_again_only_after_a_weight_has_changed(monkeypatch):
    model = Described()
    first = model_hash(model)
    monkeypatch.setattr(module, "_digest", lambda model: "new")
    assert model_hash(model) == first
    with torch.no_grad():
        model.b.mul_(1)  # in place
    assert model_hash(model) == "new"
    monkeypatch.setattr(module, "_digest", lambda model: "newer")
    assert model_hash(model) == "new"
    model.a = torch.nn.Parameter(torch.ones(2, 2))
    assert model_hash(model) == "newer"


def test_weights_made_in_inference_mode_have_a_hash():
    with torch.inference_mode():
        model = Described()
    assert model_hash(model) == model_hash(Described())
