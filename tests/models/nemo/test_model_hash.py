"""The hash of a model: of all that its answers depend on, and of nothing else."""

import time

import pytest
import torch

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


def test_training_keys_do_not_count(model, tmp_path):
    other = tiny_model(tmp_path, optim={"name": "fused_adam", "lr": 7.0})
    assert model_hash(model) == model_hash(other)
    assert model_hash(model) != model_hash(tiny_model(tmp_path, attention_window=15))


def test_it_is_computed_once(model, monkeypatch):
    first = model_hash(model)
    monkeypatch.setattr(module, "_digest", lambda model: 1 / 0)
    started = time.perf_counter()
    assert model_hash(model) == first
    assert time.perf_counter() - started < 0.1
    with torch.no_grad():
        model.perception.proj.weight.mul_(2)
    with pytest.raises(ZeroDivisionError):
        model_hash(model)
