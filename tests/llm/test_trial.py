"""Which language models are refused, and that the trial finds what the weights hide: for nothing, at any size."""

import copy
import re

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, HunYuanDenseV1ForCausalLM, LlamaConfig, LlamaForCausalLM

from nemo_duplex.inputs import InputError
from nemo_duplex.llm import trial
from nemo_duplex.llm.backbone import Backbone
from nemo_duplex.llm.cache import RowCache
from nemo_duplex.llm.pretrained import random_llm
from nemo_duplex.llm.trial import check_streaming
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from tests.dummies import tiny_config
from tests.hf_families import SIZES, random_family, save_tokenizer, sentencepiece_like
from tests.llm.test_cache import stepped

ENDS_AT_A_WINDOW = "With model.attention_window a session has no end; set it to null, which this model can do."


def tried(model, window=None):
    """What is done with a language model before an agent is built on it."""
    backbone = Backbone({}, window, weights=model)
    check_streaming(model, backbone)
    return backbone


# ---------------------------------------------------------------------- what weights hide

GROWING = {"model_type": "ministral3", "head_dim": 8}
SCALED = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 10000.0, "llama_4_scaling_beta": 0.1}
HIDING = {
    "norms behind the rotation": {"model_type": "hunyuan_v1_dense", "head_dim": 8},
    "and experts": {"model_type": "hunyuan_v1_moe", "head_dim": 8, "num_experts": 4, "moe_topk": [2, 2]},
    "queries that grow": {**GROWING, "rope_parameters": {**SCALED, "original_max_position_embeddings": 32}},
    "queries that grow late": {**GROWING, "rope_parameters": {**SCALED, "original_max_position_embeddings": 9000}},
    "layers without rotation that grow": {"model_type": "beam", "head_dim": 8, "layer_types": ["full_attention"] * 2},
}


def refused_in_one_line(call, pattern):
    with pytest.raises(InputError, match=pattern) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("config", HIDING.values(), ids=HIDING)
@pytest.mark.parametrize("weights", ["fresh", "zero"])
def test_a_family_that_knows_how_old_a_session_is_needs_one_that_ends(config, weights):
    model = random_llm({**SIZES, **config})
    if weights == "zero":
        for weight in model.parameters():
            nn.init.zeros_(weight)
    again = copy.deepcopy(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    refused_in_one_line(lambda: tried(model, 8), f"computes something else after a while .*{re.escape(ENDS_AT_A_WINDOW)}$")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not tried(again).ends


HUNYUAN = {**SIZES, **HIDING["norms behind the rotation"]}


def test_it_is_refused_in_every_way_in(tmp_path, monkeypatch):
    def agent(folder, window, **changes):
        (tmp_path / folder).mkdir()
        config = tiny_config(tmp_path / folder, attention_window=window, **changes)
        config.perception.output_dim = None  # as wide as the language model
        return DuplexS2SModel(config)

    reason = "hunyuan_v1_dense .*computes something else after a while"
    refused_in_one_line(lambda: agent("described", 8, llm=HUNYUAN), reason)
    published = tmp_path / "published"
    random_llm(HUNYUAN).save_pretrained(published)
    save_tokenizer(published, sentencepiece_like(), eos_token="</s>", bos_token="<s>", unk_token="<unk>", pad_token="</s>")
    pretrained = {"pretrained_llm": str(published), "llm": {}, "tokenizer": {}}
    refused_in_one_line(lambda: agent("pretrained", 8, **pretrained), reason)
    refused_in_one_line(lambda: agent("architecture", 8, **pretrained, pretrained_weights=False), reason)
    with monkeypatch.context() as before_there_was_this_check:
        before_there_was_this_check.setattr("nemo_duplex.models.parts.check_streaming", lambda llm, backbone: None)
        agent("trained", 8, llm=HUNYUAN).save_to(str(tmp_path / "agent.nemo"))
    refused_in_one_line(lambda: DuplexS2SModel.restore_from(str(tmp_path / "agent.nemo"), map_location="cpu"), reason)
    agent("without", None, llm=HUNYUAN).save_to(str(tmp_path / "without.nemo"))
    DuplexS2SModel.restore_from(str(tmp_path / "without.nemo"), map_location="cpu")


def test_a_window_that_is_longer_than_the_trial_is_tried_too():
    """Moshi states one and attends to all frames, in transformers; Mistral has it."""
    sizes = SIZES | {"max_position_embeddings": 8000, "sliding_window": 5000}
    tried(random_llm({**sizes, "model_type": "mistral"}))
    moshi = {**sizes, "model_type": "moshi", "num_key_value_heads": 4, "ffn_dim": 48}
    refused_in_one_line(lambda: tried(random_llm(moshi)), "computes something else whole here than in transformers")
    assert tried(random_llm({**moshi, "sliding_window": 8000})).positions == 8000


class OneSize(HunYuanDenseV1ForCausalLM):
    """A family whose sizes depend on each other in a way of its own."""

    def __init__(self, config):
        assert config.hidden_size == 32 and config.vocab_size == 320
        super().__init__(config)


def test_a_model_that_cannot_be_narrow_is_tried_as_it_is():
    model = OneSize(AutoConfig.for_model(**HUNYUAN))
    before = {key: (value.data_ptr(), value.clone()) for key, value in model.state_dict().items()}
    backbone = Backbone({}, 8, weights=model, sinks=0)
    refused_in_one_line(lambda: check_streaming(model, backbone), "computes something else after a while")
    assert (backbone.attention_window, backbone.sinks) == (8, 0)
    for key, value in model.state_dict().items():
        if "embed" not in key:  # which the backbone took out of the layers
            assert (value.data_ptr(), True) == (before[key][0], torch.equal(value, before[key][1]))
    assert isinstance(backbone.llm.get_input_embeddings(), nn.Identity)
    assert not tried(OneSize(AutoConfig.for_model(**HUNYUAN))).ends


# ---------------------------------------------------------------------- for nothing


def test_a_trial_takes_no_memory_for_positions_or_weights(monkeypatch):
    """Of a model of the width of Llama 70B on the meta device, which has no memory and cannot be run."""
    slots, empty = [], RowCache.empty

    def seen(rings, *args, **kwargs):
        slots.extend(ring.span.slots for ring in rings)
        return empty(rings, *args, **kwargs)

    monkeypatch.setattr(RowCache, "empty", seen)
    large = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 6, "num_attention_heads": 64}
    config = {**SIZES, **large, "num_key_value_heads": 8, "max_position_embeddings": 131072, "vocab_size": 128256}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**config))
        backbones = [Backbone({}, window, weights=copy.deepcopy(model)) for window in (None, 750)]
    random = torch.get_rng_state()
    for backbone in backbones:
        check_streaming(model, backbone)
    assert torch.equal(torch.get_rng_state(), random), "Later weights are drawn from it."
    assert 0 < max(slots) <= 8
    narrow = trial._narrow(model)
    assert narrow.config.num_hidden_layers == 6 and sum(weight.numel() for weight in narrow.parameters()) < 2e6


@pytest.mark.parametrize("shape", [(300,), (1000, 900), (64, 500, 400)])
def test_weights_of_the_trial_take_little_memory_and_keep_sizes(shape):
    noise = trial._noise(torch.Size(shape), torch.Generator().manual_seed(0))
    assert noise.shape == shape and noise.untyped_storage().nbytes() < 4 * 2 * (
        shape[-1] * shape[-2] if len(shape) > 2 else 2000
    )
    if len(shape) == 1:
        assert 0.9 < noise.mean() < 1.1 and noise.std() > 0.3
    else:
        out = noise @ torch.randn(shape[-1], 50)
        assert 1.2 < out.std() < 2.0
        assert (noise[..., 0, :] - noise[..., 1, :]).abs().mean() > 0.01, "Rows differ."


def test_a_trial_leaves_the_model_as_it_was():
    model = random_family("llama").train()
    backbone = Backbone({}, 8, weights=model, sinks=2)
    check_streaming(model, backbone)
    assert (backbone.attention_window, backbone.sinks, model.training) == (8, 2, True)
    assert isinstance(backbone.llm.get_input_embeddings(), nn.Identity)


# ---------------------------------------------------------------------- positions that end


@pytest.mark.parametrize("name", ["gpt2", "gptj", "codegen"])
def test_positions_of_a_table_end(name):
    """A session goes on: no frame of it gets such a position. A conversation of a training is longer, or not."""
    sizes = {"model_type": name, "vocab_size": 320, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 24, "rotary_dim": 8}
    refused_in_one_line(lambda: tried(random_llm(sizes), 8), re.escape(ENDS_AT_A_WINDOW))
    backbone = tried(random_llm(sizes)).eval()
    assert backbone.ends and backbone.positions == 24
    frames = torch.randn(1, 60, 32)
    assert stepped(backbone, frames).isfinite().all()
    assert backbone(frames[:, :24]).shape == (1, 24, 32)
    refused_in_one_line(lambda: backbone(frames[:, :25]), "has 25 frames, and the language model .* has 24 positions")


@pytest.mark.parametrize("positions", [1_010_000, 1_048_576, 4_194_304, 10_485_760])
def test_more_positions_than_a_day_has_frames_stream_with_a_window(positions):
    """Qwen2.5 1M, Llama 3 of Gradient: float32 angles are off by 0.03 to 0.3 there, and a session would depend on its age."""
    backbone = tried(random_llm({**SIZES, "model_type": "llama", "max_position_embeddings": positions}), 8)
    assert backbone.positions == positions
    frames = torch.randn(1, 8, 32)
    for start in (131_072, 1_000_000, positions - 4, positions):
        assert (trial._at(backbone, frames, start) - trial._at(backbone, frames, 0)).abs().max() < 1e-4


NO_ROTATION = {"stablelm": "partial_rotary_factor", "phi": "partial_rotary_factor", "gpt_neox": "rotary_pct"}


@pytest.mark.parametrize("name", NO_ROTATION)
def test_a_share_that_leaves_no_feature_to_rotate_streams_as_transformers_computes_it(name):
    config = {**SIZES, "model_type": name, NO_ROTATION[name]: 0.1, "num_key_value_heads": 4}
    for window in (None, 8):
        backbone, frames = tried(random_llm(config), window).eval(), torch.randn(1, 40, 32)
        assert backbone._rotaries[0].frequencies(None).numel() == 0
        assert (stepped(backbone, frames) - backbone(frames)).abs().max() < 1e-4


def test_a_config_that_asks_for_tuples_streams():
    frames = torch.randn(1, 10, 32)
    backbone = tried(random_llm({**SIZES, "model_type": "llama", "return_dict": False})).eval()
    assert (stepped(backbone, frames) - backbone(frames)).abs().max() < 1e-5


# ---------------------------------------------------------------------- what cannot work


class WithoutEmbeddings(LlamaForCausalLM):
    """A family whose layers take ids alone."""

    def __init__(self, config):
        super().__init__(config)
        forward = self.model.forward
        self.model.forward = lambda input_ids, past_key_values=None: forward(input_ids, past_key_values=past_key_values)


class WithItsOwnMask(LlamaForCausalLM):
    """A family that ignores the mask which it is given."""

    def __init__(self, config):
        super().__init__(config)
        forward = self.model.forward
        self.model.forward = lambda inputs_embeds=None, past_key_values=None, attention_mask=None, position_ids=None, **more: (
            forward(
                inputs_embeds=inputs_embeds,
                past_key_values=past_key_values,
                attention_mask=None,
                position_ids=position_ids,
                **more,
            )
        )


class WithOnePosition(LlamaForCausalLM):
    """A family that takes all rows of a batch for as old as the first."""

    def __init__(self, config):
        super().__init__(config)
        forward = self.model.forward
        self.model.forward = lambda inputs_embeds=None, past_key_values=None, position_ids=None, **more: forward(
            inputs_embeds=inputs_embeds,
            past_key_values=past_key_values,
            position_ids=None if position_ids is None else position_ids[:1],
            **more,
        )


@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize("model", [WithoutEmbeddings, WithItsOwnMask, WithOnePosition])
def test_a_model_that_computes_something_else_frame_by_frame_is_refused(model, window):
    reason = "takes no inputs_embeds" if model is WithoutEmbeddings else "cannot stream|computes something else"
    refused_in_one_line(
        lambda: tried(model(LlamaConfig(**SIZES)), window),
        rf"^The language model llama ({reason})[^\n]* Take a decoder-only one",
    )


WRONG = [
    ({"model_type": "t5"}, "is an encoder-decoder"),
    ({"model_type": "bart"}, "is an encoder-decoder"),
    ({"model_type": "mamba"}, r"recurrent state .*\(linear_attention\)"),
    ({"model_type": "mamba2", "num_heads": 8, "head_dim": 8, "n_groups": 1}, "recurrent state"),
    ({"model_type": "recurrent_gemma"}, "recurrent state"),
    ({"model_type": "rwkv", "attention_hidden_size": 32}, "recurrent state"),
    ({"model_type": "granitemoehybrid", "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1}, "recurrent state"),
    ({"model_type": "lfm2", "layer_types": ["conv", "full_attention"]}, r"layers that cannot stream here \(conv\)"),
    ({"model_type": "llama4_text"}, "chunked_attention"),
    ({"model_type": "bloom"}, "takes no position_ids.* ALiBi"),
    ({"model_type": "mpt"}, "takes no position_ids.* ALiBi"),
    ({"model_type": "bert"}, "computes something else whole here than in transformers"),
    ({"model_type": "no_such_thing"}, "cannot build a causal language model from model_type 'no_such_thing'"),
    ({"model_type": "llama", "hidden_size": "large"}, "cannot build a causal language model from model_type 'llama'"),
    (
        {"model_type": "llama", "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        r"\(llama\) has a quantization_config, expected full weights. Remove model.llm.quantization_config.",
    ),
    ({}, "names no model_type"),
]


@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize(
    ("config", "reason"), WRONG, ids=lambda value: value.get("model_type", "nothing") if isinstance(value, dict) else ""
)
def test_what_cannot_work_is_refused_in_one_line(config, reason, window):
    refused_in_one_line(lambda: tried(random_llm({**SIZES, **config}), window), reason)
