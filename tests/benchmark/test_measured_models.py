"""The models that are measured: the agent of the recipe, and sizes in the words of NeMo's in-tree model."""

import json

import pytest
import torch

from nemo_duplex.benchmark import measured_models
from nemo_duplex.benchmark.measured_models import MeasuredAgent, check_size, describe_parts, write_parts
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.inputs import InputError


def test_an_agent_without_a_file_is_the_one_of_the_recipe():
    agent = MeasuredAgent(None, None, "cpu", "bf16")
    model = agent.model
    assert model is agent.model and not model.training
    assert model.cfg.attention_window == 112 and model.layout.text_vocab_size == 1024
    assert model.lm.backbone.config.hidden_size == 256 and model.perception.chunk_frames == 2
    assert model.lm.backbone.lm_head.weight.dtype == torch.bfloat16
    assert agent.users.shape == (120 * 16000,)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert agent.about == [
        f"an agent of random weights in the geometry of conf/duplex_tiny.yaml, as no model= was given, "
        f"{millions:.1f} million parameters",
        "users: noise with pauses, as no data= was given",
    ]


def test_a_trained_agent_and_its_corpus_are_named(monkeypatch, tmp_path):
    restored = torch.nn.Linear(1000, 2000)
    monkeypatch.setattr(
        measured_models, "DuplexS2SModel", type("Stub", (), {"restore_from": lambda path, map_location: restored})
    )
    (tmp_path / "agent.nemo").write_text("a model")
    agent = MeasuredAgent(str(tmp_path / "agent.nemo"), "demo/corpus", "cpu", "32")
    assert agent.model is restored and not restored.training and restored.weight.dtype == torch.float32
    assert agent.about == [f"{tmp_path}/agent.nemo, 2.0 million parameters", "users: dev set of demo/corpus"]
    with pytest.raises(InputError, match="model: there is no file nowhere.nemo|nowhere.nemo"):
        _ = MeasuredAgent("nowhere.nemo", None, "cpu", "32").model


def test_parts_have_the_geometry_that_is_described(tmp_path):
    config = write_parts(tmp_path, "tiny")
    llm = json.loads((tmp_path / "llm" / "config.json").read_text())
    assert (llm["num_hidden_layers"], llm["hidden_size"], llm["vocab_size"]) == (2, 32, 64)
    assert describe_parts(config) == "llama 2 x 32, 64 tokens; FastConformer 2 x 16; NanoCodec 12.5 Hz x 4 x 4032"
    codec = FSQCodec.restore_from(config["pretrained_audio_codec"])
    assert (codec.num_codebooks, codec.codebook_size, float(codec.frame_rate.hz)) == (4, 4032, 12.5)


def test_an_unknown_size_is_refused():
    for size in (None, "tiny", "small", "paper"):
        check_size(size)
    with pytest.raises(InputError, match="size is 'big', expected one of tiny, small, paper"):
        check_size("big")
