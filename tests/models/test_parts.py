"""Parts from a config: each from where its key says, described afterwards, refused in one line where they do not fit."""

import copy
from dataclasses import replace

import pytest
import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.models.model_config import ModelConfig, TokenizerConfig
from nemo_duplex.models.parts import build_parts
from nemo_duplex.perception.perception import Perception
from nemo_duplex.scripts.demo import BUNDLED_ENCODER
from tests.dummies import tiny_config, tiny_model
from tests.hf_families import random_family


@pytest.fixture
def config(tmp_path):
    return ModelConfig.of(tiny_config(tmp_path))


def test_nothing_that_is_given_changes(config):
    section = config.as_dict()
    del section["perception"]["output_dim"]
    given = ModelConfig.of(section)
    before = copy.deepcopy(given)
    _, described = build_parts(given)
    assert given == before
    assert described.perception["output_dim"] == 24  # that of the language model


def test_the_described_config_builds_the_same_parts(config):
    torch.manual_seed(0)
    parts, described = build_parts(config)
    torch.manual_seed(0)
    again, twice = build_parts(described)
    assert twice == described
    for name in ("perception", "codec", "backbone"):
        one, other = getattr(parts, name).state_dict(), getattr(again, name).state_dict()
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one), name
    assert (parts.layout, parts.tokenizer.text_to_ids("It is one.")) == (
        again.layout,
        again.tokenizer.text_to_ids("It is one."),
    )


def test_the_layout_is_of_tokenizer_codec_and_config(config):
    layout = build_parts(replace(config, speech_delay=2, turn_marks="in_place"))[0].layout
    assert (layout.text_vocab_size, layout.num_codebooks, layout.codebook_size) == (60, 2, 36)
    assert (layout.speech_delay, layout.turn_marks) == (2, "in_place")
    assert len({layout.text_pad, layout.text_bos, layout.text_eos}) == 3


def test_the_language_model_has_a_row_for_each_token_and_keeps_those_that_it_had(config):
    for rows, expected in ((None, 60), (50, 60), (77, 77)):
        parts, described = build_parts(replace(config, llm={**config.llm, "vocab_size": rows}))
        assert parts.backbone.embed_tokens.num_embeddings == described.llm["vocab_size"] == expected
    assert (parts.backbone.attention_window, parts.backbone.sinks) == (16, 0)
    assert build_parts(replace(config, sinks=3))[0].backbone.sinks == 3


@pytest.mark.parametrize("pretrained", [True, False])
def test_weights_are_taken_only_if_asked_for(config, tmp_path, pretrained):
    llm = random_family("llama")
    llm.save_pretrained(tmp_path / "llm")
    sources = {"pretrained_llm": str(tmp_path / "llm"), "pretrained_asr": str(BUNDLED_ENCODER), "perception": {}, "llm": {}}
    parts, described = build_parts(replace(config, **sources, pretrained_weights=pretrained))
    encoder = Perception.from_asr(str(BUNDLED_ENCODER), {"output_dim": 64}).encoder.state_dict()["layers.0.norm_out.weight"]
    assert torch.equal(parts.backbone.lm_head.weight, llm.lm_head.weight) is pretrained
    assert torch.equal(parts.perception.encoder.state_dict()["layers.0.norm_out.weight"], encoder) is pretrained
    assert (described.pretrained_llm, described.pretrained_asr) == (None, None), "the parts are described instead"


def test_a_language_model_is_tried_when_it_is_built_and_when_it_is_restored(tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr("nemo_duplex.models.parts.check_streaming", lambda llm, backbone: tried.append(backbone))
    model = tiny_model(tmp_path)
    assert tried == [model.lm.backbone]
    model.save_to(str(tmp_path / "agent.nemo"))
    again = DuplexS2SModel.restore_from(tmp_path / "agent.nemo", map_location="cpu")
    assert tried == [model.lm.backbone, again.lm.backbone]


def test_the_codec_is_frozen_and_in_inference_mode(config):
    codec = build_parts(config)[0].codec
    assert not codec.training and not any(p.requires_grad for p in codec.parameters())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"codec": {}}, "The model has no codec: set model.pretrained_audio_codec"),
        ({"llm": {}}, "The model has no language model: set model.pretrained_llm"),
        ({"tokenizer": TokenizerConfig()}, "The model has no tokenizer: set model.tokenizer.model_path"),
        ({"tokenizer": TokenizerConfig("nowhere.model")}, "model.tokenizer.model_path: there is no file nowhere.model"),
    ],
)
def test_a_part_that_is_missing_is_named(config, change, message):
    with pytest.raises(InputError, match=f"^{message}"):
        build_parts(replace(config, **change))


def test_parts_that_do_not_fit_are_refused(config):
    with pytest.raises(
        InputError, match="16 features, the language model takes 24: set model.perception.output_dim to .* null.$"
    ):
        build_parts(replace(config, perception={**config.perception, "output_dim": 16}))
    for cure in (24, None):
        assert build_parts(replace(config, perception={**config.perception, "output_dim": cure}))[0].perception.output_dim == 24
    slow = copy.deepcopy(config.codec)
    for part in (slow, slow["audio_encoder"], slow["audio_decoder"]):
        part["samples_per_frame"] = 1764 * 2
    with pytest.raises(
        InputError, match="12.5 frames per second and the codec 6.25: they must be the same. Choose a codec of 12.5.$"
    ):
        build_parts(replace(config, codec=slow))


def test_a_tokenizer_of_hugging_face_needs_its_special_tokens(config, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="model.tokenizer: tokenizer.json .* as model.tokenizer.pad, "):
        build_parts(replace(config, tokenizer=TokenizerConfig(str(tmp_path / "tokenizer.json"), pad="<p>", bos="<b>")))
