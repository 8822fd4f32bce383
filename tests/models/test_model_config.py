"""The `model:` section: its defaults, what is refused, and that reading and writing it loses nothing."""

import math

import pytest
from omegaconf import OmegaConf

from nemo_duplex.inputs import InputError
from nemo_duplex.models.losses import LossWeights
from nemo_duplex.models.model_config import ModelConfig, TokenizerConfig
from nemo_duplex.scripts.config import load

# What a model without any key is: the paper's settings. A change of these changes files that do not name them.
DEFAULTS = {
    "format_version": 2,
    "pretrained_llm": None,
    "pretrained_asr": None,
    "pretrained_audio_codec": None,
    "pretrained_weights": True,
    "llm": {},
    "tokenizer": {"model_path": None, "pad": None, "bos": None, "eos": None},
    "attention_window": None,
    "sinks": None,
    "perception": {},
    "codec": {},
    "speech_delay": 1,
    "turn_marks": "beside",
    "text_alignment": "turn",
    "user_weight": 1.0,
    "loss": {"text": 3.0, "speech": 1.0, "text_pad": 1.0, "turn": 0.0, "silence": 1.0, "experts": None, "chunk": 1024},
    "freeze_params": [],
    "prevent_freeze_params": [],
    "text_rows": "all",
    "lora": None,
    "activation_checkpointing": False,
    "compile": None,
    "fused_training": True,
    "optim": None,
    "optim_param_groups": {},
    "train_ds": None,
    "validation_ds": None,
    "test_ds": None,
}


def test_defaults():
    assert ModelConfig.of({}).as_dict() == DEFAULTS
    assert list(ModelConfig().as_dict()) == list(DEFAULTS)  # the order in which a `.nemo` has them


def test_what_is_given_is_read_and_written_again():
    given = DEFAULTS | {
        "llm": {"model_type": "llama", "id2label": {0: "A"}},
        "tokenizer": {"model_path": "a.json", "pad": "<p>", "bos": "<b>", "eos": "<e>", "size": 512},
        "attention_window": 12,
        "sinks": 0,
        "speech_delay": 2,
        "turn_marks": "in_place",
        "text_alignment": "word",
        "user_weight": 0.5,
        "loss": {"text": 1.0, "speech": 4.0, "text_pad": 0.3, "turn": 2.0, "silence": 0.1, "experts": 0.5, "chunk": 7},
        "freeze_params": ["^llm"],
        "prevent_freeze_params": ["a"],
        "lora": {"r": 2},
        "optim": {"name": "adamw", "betas": [0.9, 0.98]},
        "train_ds": {"batch_size": 3},
        "target": "nemo_duplex.models.duplex_s2s.DuplexS2SModel",
        "nemo_version": "3.0.0",
    }
    config = ModelConfig.of(OmegaConf.create(given))
    assert config.as_dict() == given
    assert config.loss == LossWeights(1.0, 4.0, 0.3, 2.0, 0.1, 0.5, 7)
    assert config.tokenizer == TokenizerConfig("a.json", "<p>", "<b>", "<e>", 512)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"loss": {"silence": 0}}, "model.loss.silence is 0, expected a share above 0, up to 1"),
        ({"loss": {"silence": 1e-38}}, "model.loss.silence is 1e-38, expected a share above 0, up to 1 \\(1e-09 or more\\)"),
        ({"loss": {"experts": 1e38}}, r"model.loss.experts is 1e\+38, expected a weight of 0 or more, or null"),
        ({"loss": {"silence": 1.5}}, "model.loss.silence is 1.5, expected a share above 0, up to 1"),
        ({"loss": {"silence": math.nan}}, "model.loss.silence is nan, expected a share"),
        ({"loss": {"experts": -0.1}}, "model.loss.experts is -0.1, expected a weight of 0 or more, or null"),
        ({"loss": {"experts": float("nan")}}, "model.loss.experts is nan, expected a weight of 0 or more, or null"),
        ({"loss": {"chunk": -1}}, "model.loss.chunk is -1, expected a number of frames, or 0"),
        ({"loss": {"text": 0, "speech": 0}}, "model.loss.text and model.loss.speech are both 0: nothing is trained"),
        *[
            ({"loss": {name: value}}, f"model.loss.{name} is {value}, expected a weight of 0 or more")
            for name in ("text", "speech", "text_pad", "turn")
            for value in (-1, -1e-9, math.nan, math.inf)
        ],
        *[
            ({"loss": {name: value}}, rf"model.loss.{name} is .*, expected a weight of 0 or more \(0, or 1e-09 to 1e\+09\)\.$")
            for name in ("text", "speech", "text_pad", "turn")
            for value in (1e38, 1.1e9, 1e-45)
        ],
        *[
            ({"user_weight": v}, f"model.user_weight is {v}, expected a factor of 0 or more")
            for v in (-1.0, math.nan, -math.inf)
        ],
    ],
)
def test_weights_that_train_nothing_or_are_no_weights_are_refused(section, message):
    with pytest.raises(InputError, match=f"^{message}"):
        ModelConfig.of(section)


def test_weights_may_be_0_where_something_is_left():
    loss = {"text": 0, "speech": 1, "text_pad": 0, "turn": 0.0, "silence": 1e-9, "experts": 1e9, "chunk": 0}
    read = ModelConfig.of({"loss": loss, "user_weight": 0})
    assert read.loss == LossWeights(**loss) and read.user_weight == 0
    assert ModelConfig.of({"loss": {"speech": 0}}).loss.text == 3


def test_null_stands_for_the_default_where_it_means_nothing_else():
    config = ModelConfig.of({"codec": None, "loss": None, "tokenizer": None, "user_weight": None, "sinks": None})
    assert config == ModelConfig()


def test_interpolations_are_resolved():
    whole = OmegaConf.create({"frames": 7, "model": {"attention_window": "${frames}", "sinks": "${.attention_window}"}})
    config = ModelConfig.of(whole.model)
    assert (config.attention_window, config.sinks) == (7, 7)


@pytest.mark.parametrize(
    "section, message",
    [
        ({"speech_delai": 1}, "model: unknown key 'speech_delai'. Did you mean 'speech_delay'?"),
        ({"loss": {"txt": 3}}, "model.loss: unknown key 'txt'. Did you mean 'text'?"),
        ({"tokenizer": {"padd": "<p>"}}, "model.tokenizer: unknown key 'padd'. Did you mean 'pad'?"),
        ({"format_version": 3}, "This model has format 3, expected 2 or less. Install a newer nemo_duplex."),
        ({"speech_delay": "1"}, "model.speech_delay is '1', expected a whole number."),
        ({"speech_delay": 1.5}, "model.speech_delay is 1.5, expected a whole number."),
        ({"speech_delay": True}, "model.speech_delay is True, expected a whole number."),
        ({"pretrained_weights": 0}, "model.pretrained_weights is 0, expected true or false."),
        ({"attention_window": "all"}, "model.attention_window is 'all', expected a whole number or null."),
        ({"loss": {"text": "much"}}, "model.loss.text is 'much', expected a number."),
        ({"freeze_params": "^llm"}, "model.freeze_params is '^llm', expected a list."),
        ({"turn_marks": "between"}, "model.turn_marks is 'between', expected beside or in_place."),
        ({"text_alignment": "letter"}, "model.text_alignment is 'letter', expected turn or word."),
        ({"llm": "llama"}, "model.llm is 'llama', expected keys and values."),
        ({"lora": 8}, "model.lora is 8, expected keys and values or null."),
        ({"tokenizer": "a.json"}, "model.tokenizer is 'a.json', expected keys and values."),
    ],
)
def test_what_is_wrong_is_named(section, message):
    with pytest.raises(InputError) as error:
        ModelConfig.of(section)
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["duplex_tiny", "duplex_paper"])
def test_the_yaml_files_have_these_keys(name):
    section = load(name, ["data.root=x" if name == "duplex_paper" else "data.train=x", "out=run", *GIVEN[name]]).model
    assert set(DEFAULTS) - set(section) <= {"format_version", "train_ds", "validation_ds", "test_ds"}
    ModelConfig.of(section)


GIVEN = {"duplex_paper": [], "duplex_tiny": ["model.pretrained_asr=a", "model.pretrained_audio_codec=b"]}


@pytest.mark.parametrize(
    "section, message, cures",
    [
        ({"attention_window": 0}, "model.attention_window is 0, expected 1 frame or more, or null for all.", [1, None]),
        ({"attention_window": -3}, "model.attention_window is -3, expected 1 frame or more, or null for all.", [1, None]),
        ({"sinks": -1}, "model.sinks is -1, expected 0 frames or more, or null.", [0, None]),
        ({"format_version": "2"}, "This model has format '2', expected 2 or less. Install a newer nemo_duplex.", [2]),
    ],
)
def test_a_number_out_of_range_is_refused_and_the_expected_one_is_taken(section, message, cures):
    with pytest.raises(InputError) as error:
        ModelConfig.of(section)
    assert str(error.value) == message
    for cure in cures:
        ((name, _),) = section.items()
        assert getattr(ModelConfig.of({name: cure}), name) == cure
