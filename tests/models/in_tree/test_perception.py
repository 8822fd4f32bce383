"""A `perception` section of in-tree models becomes ours and theirs again, key by key."""

import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.models.in_tree.perception import is_in_tree_perception, our_perception, their_perception
from nemo_duplex.perception.config import perception_config
from tests.dummies import PERCEPTION
from tests.in_tree import CONNECTORS, MODULES, in_tree_perception


def test_a_section_is_theirs_by_its_classes():
    assert is_in_tree_perception(in_tree_perception()) and is_in_tree_perception({"modality_adapter": {}})
    assert not is_in_tree_perception(PERCEPTION)


def test_an_identity_connector():
    ours = our_perception(in_tree_perception("IdentityConnector"))
    assert ours == {k: PERCEPTION[k] for k in ("preprocessor", "encoder", "output_dim")} | {"adapter": {"kind": "identity"}}
    assert their_perception(ours) == in_tree_perception("IdentityConnector")


def test_a_conformer_adapter_has_the_defaults_of_nemos_class_and_not_those_of_the_encoder():
    theirs = in_tree_perception("ConformerEncoder")
    adapter = our_perception(theirs)["adapter"]
    given = {key: value for key, value in theirs["modality_adapter"].items() if key != "_target_"}
    assert adapter | given | {"kind": "conformer"} == adapter
    assert adapter["self_attention_model"] == "rel_pos" and adapter["dropout"] == 0.1  # NeMo's class
    assert adapter["xscaling"] and not theirs["encoder"]["xscaling"]


def test_back_again_a_conformer_adapter_is_complete():
    ours = our_perception(in_tree_perception("ConformerEncoder"))
    theirs = their_perception(ours)
    assert theirs["target"] == f"{CONNECTORS}.AudioPerceptionModule" and theirs["output_dim"] == 24
    assert theirs["modality_adapter"]["_target_"] == f"{MODULES}.ConformerEncoder"
    again = our_perception(theirs)
    for part in ("encoder", "preprocessor", "output_dim"):
        assert again[part] == ours[part]
    assert again["adapter"]["n_layers"] == 1 and again["adapter"]["conv_kernel_size"] == 9


def test_an_encoder_of_several_contexts_runs_with_its_first():
    encoder = {"att_context_size": [[70, 13], [70, 1]], "att_context_probs": [0.5, 0.5]}
    ours = our_perception(in_tree_perception(encoder=encoder))
    assert ours["encoder"]["att_context_size"] == [70, 13] and ours["encoder"]["att_context_probs"] is None


def test_the_width_of_an_identity_is_that_of_the_encoders_output():
    ours = our_perception(in_tree_perception(encoder={"feat_out": 12}))
    assert their_perception(ours)["modality_adapter"]["d_model"] == 12
    ours["encoder"]["feat_out"] = -1
    assert their_perception(ours)["modality_adapter"]["d_model"] == 16


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rnn": {}}, "perception.rnn: not a key of NeMo's AudioPerceptionModule"),
        ({"target": "x.OtherModule"}, "perception is a OtherModule, expected AudioPerceptionModule"),
        ({"spec_augment": {"freq_masks": 2}}, "perception.spec_augment is not supported"),
        ({"encoder": {"_target_": "x.Squeezeformer"}}, "perception.encoder is a Squeezeformer, expected ConformerEncoder"),
        ({"preprocessor": {"_target_": "x.MFCC"}}, "perception.preprocessor is a MFCC, expected AudioToMel"),
        ({"modality_adapter": {"_target_": "x.IdentityConnector"}}, "give it d_model"),
        ({"modality_adapter": {"_target_": "x.IdentityConnector", "d_model": 16, "output_dim": 3}}, "with output_dim"),
        ({"modality_adapter": {"d_model": 3}}, "is a part without _target_, expected a ConformerEncoder or"),
    ],
)
def test_what_ours_does_not_have_is_refused_by_name(change, message):
    with pytest.raises(InputError, match=message):
        our_perception(in_tree_perception() | change)
    with pytest.raises(
        InputError, match="kind is 'mlp', which in-tree models do not have: .* model.perception.adapter.kind=conformer.$"
    ):
        their_perception(PERCEPTION)
    ours = perception_config({**PERCEPTION, "adapter": {"kind": "conformer"}})
    assert their_perception(ours)["modality_adapter"]["n_layers"] == 2
