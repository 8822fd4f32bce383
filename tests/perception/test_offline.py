"""Encoders that NeMo's in-tree configurations describe: streamed where that is possible, else heard whole, and said so."""

import copy

import pytest
import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.models.in_tree.perception import our_perception, their_perception
from nemo_duplex.models.parts import perception_from
from nemo_duplex.perception.offline import WholePerception
from nemo_duplex.perception.perception import Perception
from tests.dummies import PERCEPTION, speech_like
from tests.in_tree import CONNECTORS, MODULES, NOT_STREAMABLE
from tests.in_tree import in_tree_perception as in_tree


def whole_perception(adapter="IdentityConnector"):
    torch.manual_seed(0)
    return perception_from(in_tree(adapter, {"normalize": "per_feature", "dither": 1e-5}, NOT_STREAMABLE)).eval()


@pytest.mark.parametrize("adapter", ["IdentityConnector", "ConformerEncoder"])
def test_what_can_be_streamed_is(adapter):
    perception = perception_from(in_tree(adapter))
    assert isinstance(perception, Perception)
    assert perception.config["adapter"]["kind"] == {"IdentityConnector": "identity", "ConformerEncoder": "conformer"}[adapter]
    assert perception_from(perception.config).config == perception.config


@pytest.mark.parametrize("adapter", ["IdentityConnector", "ConformerEncoder"])
@pytest.mark.parametrize("samples", [1, 160, 1280, 1281, 16000, 32000])
def test_as_many_frames_as_the_recording_has(adapter, samples):
    perception = whole_perception(adapter)
    with torch.no_grad():
        embeddings, lens = perception(speech_like(2.0)[None, :samples], torch.tensor([samples]))
    assert embeddings.shape == (1, -(-samples // 1280), 24) and lens.tolist() == [embeddings.shape[1]]
    assert embeddings.isfinite().all()


def test_nothing_said_gives_no_frames():
    embeddings, lens = whole_perception()(torch.zeros(2, 0), torch.zeros(2, dtype=torch.long))
    assert embeddings.shape == (2, 0, 24) and lens.tolist() == [0, 0]


@pytest.mark.parametrize("adapter", ["IdentityConnector", "ConformerEncoder"])
def test_each_row_of_a_batch_equals_the_row_alone(adapter):
    perception = whole_perception(adapter)
    audio = [speech_like(seconds, seed) for seed, seconds in enumerate((3.01, 0.3, 1.77))]
    padded = torch.full((3, 60000), float("nan"))
    for row, samples in zip(padded, audio):
        row[: len(samples)] = samples
    with torch.no_grad():
        embeddings, lens = perception(padded, torch.tensor([len(a) for a in audio]))
        for row, count, samples in zip(embeddings, lens, audio):
            alone, _ = perception(samples[None], torch.tensor([len(samples)]))
            torch.testing.assert_close(row[:count], alone[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("adapter", ["IdentityConnector", "ConformerEncoder"])
def test_embeddings_are_those_of_nemos_encoder(adapter):
    """What the in-tree perception computes: preprocessor, encoder, adapter and projection, one after the other."""
    from nemo.core import typecheck

    perception = whole_perception(adapter)
    audio, lens = torch.stack([speech_like(2.0), speech_like(2.0, seed=1)]), torch.tensor([32000, 32000])
    with torch.no_grad(), typecheck.disable_checks():
        x, x_lens = perception.preprocessor(input_signal=audio, length=lens)
        x, x_lens = perception.encoder(audio_signal=x, length=x_lens)
        if adapter == "ConformerEncoder":
            x, _ = perception.modality_adapter(audio_signal=x, length=x_lens)
        expected = perception.proj(x.transpose(1, 2))
        embeddings, _ = perception(audio, lens)
    torch.testing.assert_close(embeddings, expected[:, :25], atol=1e-5, rtol=0)


def test_it_learns_and_hears_the_same_twice():
    """In training, too: without dropout nothing is random, for dither is off."""
    config = in_tree("IdentityConnector", {"normalize": "per_feature", "dither": 1.0}, NOT_STREAMABLE)
    config["encoder"] |= {name: 0.0 for name in ("dropout", "dropout_pre_encoder", "dropout_emb", "dropout_att")}
    perception = perception_from(config).train()
    audio, lens = torch.stack([speech_like(2.0)] * 2), torch.tensor([32000, 20000])
    embeddings, _ = perception(audio, lens)
    assert torch.equal(embeddings, perception(audio, lens)[0])
    embeddings.square().mean().backward()
    assert not [name for name, p in perception.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


def test_its_config_describes_it_and_says_that_it_is_whole():
    perception = whole_perception("ConformerEncoder")
    assert perception.config["whole_recordings"] is True
    again = perception_from(perception.config)
    assert isinstance(again, WholePerception)
    again.load_state_dict(perception.state_dict())


@pytest.mark.parametrize("adapter", ["IdentityConnector", "ConformerEncoder"])
def test_to_in_tree_and_back(adapter):
    perception = perception_from(in_tree(adapter))
    assert perception_from(their_perception(perception.config)).config["encoder"] == perception.config["encoder"]
    again = perception_from(their_perception(perception.config))
    again.load_state_dict(perception.state_dict())
    assert again.output_dim == 24


def test_no_session_is_opened_with_it():
    with pytest.raises(InputError, match="needs whole recordings .*a session needs a cache-aware one"):
        whole_perception().chunk_frames  # noqa: B018 what an engine asks for first


def test_in_our_words_an_encoder_is_never_whole_by_mistake():
    config = copy.deepcopy(PERCEPTION)
    config["encoder"] |= NOT_STREAMABLE
    with pytest.raises(InputError, match="att_context_style is 'regular'"):
        perception_from(config)
    assert isinstance(perception_from({**config, "whole_recordings": True}), WholePerception)


def test_a_streamable_encoder_with_another_adapter_is_heard_whole():
    config = in_tree("ConformerEncoder")
    config["modality_adapter"] |= {"att_context_style": "regular", "att_context_size": [-1, -1]}
    assert isinstance(perception_from(config), WholePerception)


def test_an_adapter_is_what_nemo_makes_of_its_keys_not_what_the_encoder_has():
    """In-tree, a key that is left out has the class's own value; in our words, the encoder's."""
    config = in_tree("ConformerEncoder")
    del config["modality_adapter"]["conv_kernel_size"]
    assert perception_from(config).modality_adapter.layers[0].conv.depthwise_conv.kernel_size == (31,)


def test_of_several_contexts_the_first_is_taken():
    config = in_tree(encoder={"att_context_size": [[70, 13], [70, 1]], "att_context_probs": [0.5, 0.5]})
    assert perception_from(config).chunk_frames == 14


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"modality_adapter": {"_target_": f"{CONNECTORS}.QformerConnector"}}, "is a QformerConnector, expected"),
        ({"modality_adapter": {"_target_": f"{CONNECTORS}.MultiLayerProjectionConnector"}}, "several encoder layers"),
        ({"modality_adapter": {"_target_": f"{CONNECTORS}.IdentityConnector"}}, "without d_model"),
        ({"modality_adapter": {}}, "part without _target_"),
        (
            {"target": f"{CONNECTORS}.AudioTranscriptionPerceptionModule"},
            "AudioTranscriptionPerceptionModule, expected AudioPerceptionModule",
        ),
        ({"encoder": {"_target_": f"{MODULES}.ConvASREncoder"}}, "perception.encoder is a ConvASREncoder"),
        ({"spec_augment": {"freq_masks": 2}}, "spec_augment is not supported"),
        ({"rnn": {}}, "perception.rnn: not a key"),
    ],
)
def test_what_we_do_not_have_is_refused_by_name(changes, message):
    with pytest.raises(InputError, match=message):
        perception_from({**in_tree(), **changes})


def test_what_is_wrong_whole_or_streamed_is_refused():
    with pytest.raises(InputError, match="frames are 40 ms long .* expected 80 ms"):
        perception_from(in_tree(encoder={"subsampling_factor": 4}))
    config = in_tree("ConformerEncoder")
    config["modality_adapter"]["feat_in"] = 20
    with pytest.raises(InputError, match="adapter.feat_in is 20, but the encoder gives 16"):
        perception_from(config)
    config["modality_adapter"] |= {"feat_in": 16, "subsampling_factor": 2}
    with pytest.raises(InputError, match="frames must stay 80 ms long"):
        perception_from(config)
    with pytest.raises(InputError, match="in-tree models do not have"):
        their_perception(Perception(PERCEPTION).config)
    assert "output_dim" not in our_perception({**in_tree(), "output_dim": None})
