"""A speech model of a local folder judges, learns nothing itself, and is not in checkpoints."""

import pytest
import torch
from transformers import WavLMConfig, WavLMModel

from nemo_duplex.codec import codec_training
from nemo_duplex.codec.codec_training import train_codec
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.codec.wavlm_discriminator import FROZEN, WavLMDiscriminator
from nemo_duplex.inputs import InputError
from tests.codec.test_adversarial import DECODED, REAL, TINY, adversary
from tests.codec.test_codec_training import config, wavs  # noqa: F401

CONFIG = dict(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    conv_dim=(8, 8),
    conv_stride=(10, 32),
    conv_kernel=(10, 32),
    num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2,
    num_buckets=8,
    layerdrop=0.5,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("wavlm")
    WavLMModel(WavLMConfig(**CONFIG)).save_pretrained(path)
    return str(path)


def test_it_judges_what_the_model_hears_and_the_model_never_changes(folder):
    alone = adversary(windows=[], periods=[], wavlm=folder, generator_weight=1.0, feature_weight=0.0)
    before = {key: value.clone() for key, value in alone.state_dict().items()}
    optimizer = alone.optimizer()
    pull = alone.pull(REAL, DECODED, torch.tensor(2.0), optimizer)
    assert pull.norm().item() == pytest.approx(2.0, rel=1e-4)
    changed = {key for key, value in alone.state_dict().items() if not value.equal(before[key])} - {"steps", "loss"}
    assert changed and not any(FROZEN in key for key in changed)
    assert any(FROZEN in key for key in before)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(trained) == sum(FROZEN not in name for name, _ in alone.named_parameters())


def test_it_hears_at_16_khz_and_without_dropout(folder):
    discriminator = WavLMDiscriminator(folder, 22050).train()
    seen = []
    discriminator.judge.slm_model.register_forward_pre_hook(
        lambda module, args, given: seen.append(given["input_values"].shape), with_kwargs=True
    )
    audio = torch.randn(2, 22050)
    scores, features = discriminator(audio)
    assert seen == [(2, 16000)] and scores.shape == (2, 1, 50) and len(features) == 3
    assert scores.equal(discriminator(audio)[0])


def test_a_training_with_it_resumes_and_its_checkpoint_goes_without_the_model(folder, wavs, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr("nemo_duplex.training.small_part.STEPS_PER_EPOCH", 4)
    settings = dict(steps=6, adversarial=TINY | {"start": 0.0, "wavlm": folder})
    train_codec(config(wavs, tmp_path / "whole", **settings))
    with monkeypatch.context() as patch:  # it ends with the fourth step, unfinished
        ended = property(lambda training: 1.0 if training.step >= 4 else training.step / 6)
        patch.setattr(codec_training.CodecTraining, "share", ended)
        patch.setattr(codec_training, "finish", lambda *_: None)
        train_codec(config(wavs, tmp_path / "parts", **settings))
    checkpoint = torch.load(tmp_path / "parts" / "last.ckpt", weights_only=False)
    assert not any(FROZEN in key for key in checkpoint["state_dict"])
    assert any("by_speech_model" in key for key in checkpoint["state_dict"])
    assert train_codec(config(wavs, tmp_path / "parts", **settings))["steps"] == 6
    whole, parts = (FSQCodec.restore_from(tmp_path / name / "codec.nemo").state_dict() for name in ("whole", "parts"))
    assert all(value.equal(whole[key]) for key, value in parts.items())


def test_a_folder_that_holds_no_such_model(folder, tmp_path):
    with pytest.raises(InputError, match="adversarial.wavlm: there is no folder microsoft/wavlm-base-plus"):
        WavLMDiscriminator("microsoft/wavlm-base-plus", 22050)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="adversarial.wavlm: there is no file .*config.json"):
        WavLMDiscriminator(str(tmp_path), 22050)
    (tmp_path / "config.json").write_text('{"model_type": "wavlm"}')
    with pytest.raises(InputError, match="is no speech model .* Give WavLM's folder"):
        WavLMDiscriminator(str(tmp_path), 22050)
