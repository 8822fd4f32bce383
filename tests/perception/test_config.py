"""The configuration of a perception: completed, and refused where no stream would give what the recording gives."""

import copy

import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.perception.config import perception_config, whole_perception_config
from tests.dummies import PERCEPTION
from tests.perception.tiny import perception_settings

CONFORMER = {"adapter": {"kind": "conformer"}}


def test_it_is_completed():
    config = copy.deepcopy(PERCEPTION)
    del config["encoder"]["feat_in"], config["adapter"]
    config["preprocessor"]["dither"] = 1e-5
    complete = perception_config(config)
    assert complete["encoder"]["feat_in"] == 20
    assert complete["adapter"] == {"kind": "mlp", "hidden": 32}
    assert complete["preprocessor"]["dither"] == 0.0 and complete["preprocessor"]["pad_to"] == 0
    assert complete["preprocessor"]["exact_pad"] is False and complete["preprocessor"]["normalize"] == "NA"
    assert perception_config(complete) == complete
    assert perception_config(perception_settings(adapter="conformer"))["adapter"] == {"kind": "conformer", "n_layers": 2}
    config["adapter"] = {"kind": "conformer", "n_layers": 3}
    assert perception_config(config)["adapter"] == {"kind": "conformer", "n_layers": 3}
    del config["adapter"]
    whole = whole_perception_config(config)
    assert whole["whole_recordings"] is True and whole["preprocessor"]["dither"] == 0.0 and whole["adapter"]["hidden"] == 32


@pytest.mark.parametrize(
    "section, changes, message",
    [
        ("encoder", {"att_context_style": "regular"}, "att_context_style is 'regular', expected 'chunked_limited'"),
        ("encoder", {"causal_downsampling": False}, "causal_downsampling is False"),
        ("encoder", {"conv_context_size": None}, "conv_context_size is None, expected 'causal'"),
        ("encoder", {"self_attention_model": "abs_pos"}, "self_attention_model is 'abs_pos'"),
        ("encoder", {"subsampling": "stacking"}, "subsampling is 'stacking', expected 'dw_striding' or 'striding'"),
        ("encoder", {"reduction": "pooling"}, "reduction is 'pooling'"),
        ("encoder", {"att_context_size": [-1, 1]}, r"att_context_size is \[-1, 1\]"),
        ("encoder", {"att_context_size": [70, 2]}, r"left a multiple of right \+ 1"),
        ("encoder", {"subsampling_factor": 4}, "frames are 40 ms long .* expected 80 ms: take an encoder with .* 8"),
        ("preprocessor", {"normalize": "per_feature"}, "normalize is 'per_feature', but a stream needs 'NA'"),
        ("preprocessor", {"frame_splicing": 2}, "frame_splicing is 2, but a stream needs 1"),
        ("preprocessor", {"exact_pad": True}, "exact_pad is True"),
        ("preprocessor", {"log": False}, "log is False"),
        ("adapter", {"kind": "linear"}, "expected 'mlp' or 'conformer' or 'identity'"),
        ("adapter", {"width": 4}, "of kind mlp: unknown key 'width'. Expected kind, hidden"),
        ("adapter", {"kind": "identity", "hidden": 4}, "of kind identity: unknown key 'hidden'"),
        ("adapter", {"kind": "conformer", "feat_in": 20}, "adapter.feat_in is 20, but the encoder gives 16 features"),
        ("adapter", {"kind": "conformer", "subsampling_factor": 2}, "subsampling_factor is 2, expected 1"),
        ("adapter", {"kind": "conformer", "att_context_size": [70, 0]}, r"is \[70, 0\]: its right context must be .*, 1,"),
        ("adapter", {"kind": "conformer", "att_context_size": [72, 2]}, r"is \[72, 2\]: its right context must be .*, 1,"),
        ("adapter", {"kind": "conformer", "conv_context_size": None}, "adapter.conv_context_size is None"),
    ],
)
def test_what_cannot_be_streamed_is_refused(section, changes, message):
    config = copy.deepcopy(PERCEPTION)
    config[section] |= changes
    with pytest.raises(InputError, match=message) as error:
        perception_config(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["att_context_style", "causal_downsampling", "conv_context_size"])
def test_an_argument_that_is_left_out_has_nemos_own_value(key):
    config = copy.deepcopy(PERCEPTION)
    del config["encoder"][key]
    with pytest.raises(InputError, match=f"encoder.{key} is"):
        perception_config(config)


def test_an_unknown_key_is_refused_with_the_nearest_and_a_missing_one_by_name():
    with pytest.raises(InputError, match="unknown key 'adaptor'. Did you mean 'adapter'"):
        perception_config({**PERCEPTION, "adaptor": {}})
    with pytest.raises(InputError, match="there is no key 'output_dim'"):
        perception_config({key: value for key, value in PERCEPTION.items() if key != "output_dim"})


def encoder_of(hop, factor):
    config = copy.deepcopy(PERCEPTION)
    config["preprocessor"]["window_stride"], config["encoder"]["subsampling_factor"] = hop, factor
    return perception_config(config)


@pytest.mark.parametrize(
    "hop, factor, cure, taken",
    [
        (0.01, 4, "take an encoder with subsampling_factor 8.", (0.01, 8)),
        (0.02, 8, "take an encoder with subsampling_factor 4.", (0.02, 4)),
        (0.0125, 8, "take one with window_stride 0.01 in its preprocessor and subsampling_factor 8.", (0.01, 8)),
        (0.008, 8, "take one with window_stride 0.01 in its preprocessor and subsampling_factor 8.", (0.01, 8)),
    ],
)
def test_frames_of_another_length_are_refused_with_numbers_that_exist(hop, factor, cure, taken):
    with pytest.raises(InputError) as error:
        encoder_of(hop, factor)
    assert str(error.value).endswith(f"expected 80 ms: {cure}")
    assert encoder_of(*taken)["encoder"]["subsampling_factor"] == taken[1]


@pytest.mark.parametrize("key, value", [("conv_context_size", None), ("feat_in", 20)])
def test_an_adapters_own_key_is_left_out(key, value):
    config = copy.deepcopy(PERCEPTION)
    config["adapter"] = {"kind": "conformer", key: value}
    with pytest.raises(InputError, match=f"^perception.adapter.{key} is {value}, .* Leave it out[^.]*.$"):
        perception_config(config)
    del config["adapter"][key]
    assert perception_config(config)["adapter"] == {"kind": "conformer", "n_layers": 2}
