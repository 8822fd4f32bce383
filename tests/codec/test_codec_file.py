"""A codec answers to NeMo's names for reading and writing models, and is found inside of an agent."""

from __future__ import annotations

import io
import tarfile

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from nemo.collections.tts.models.audio_codec import AudioCodecModel
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector
from omegaconf import DictConfig, OmegaConf

from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.files.nemo_file import CONFIG
from nemo_duplex.inputs import InputError
from tests.codec.codecs import MODULES, lively, nanocodec_config
from tests.dummies import CODEC, tiny_model


@pytest.fixture(scope="module")
def codec() -> FSQCodec:
    return lively(CODEC)


@pytest.fixture
def file(codec, tmp_path):
    codec.save_to(tmp_path / "voice.nemo")
    return tmp_path / "voice.nemo"


def test_the_arguments_are_nemos_in_nemos_order(codec, file):
    config = OmegaConf.create(CODEC | {"discriminator": None, "use_scl_loss": False})
    again = FSQCodec.restore_from(str(file), config, torch.device("cpu"), True, False, SaveRestoreConnector(), None, True)
    assert again.fingerprint == codec.fingerprint and isinstance(again.cfg, DictConfig)
    assert OmegaConf.to_container(again.cfg) == CODEC
    assert FSQCodec.restore_from(restore_path=file, map_location="meta").device.type == "meta"
    assert FSQCodec.restore_from(file).device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_the_config_alone(file):
    found = FSQCodec.restore_from(file, return_config=True)
    assert isinstance(found, DictConfig) and found.target.endswith(".AudioCodecModel")
    assert found.samples_per_frame == 1764 and found.vector_quantizer.num_groups == 2
    other = FSQCodec.restore_from(file, OmegaConf.create({"model": {"sample_rate": 8000}}), return_config=True)
    assert OmegaConf.to_container(other) == {"sample_rate": 8000}


def test_another_config_must_fit_the_weights(file, tmp_path):
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({"model": nanocodec_config()}))
    with pytest.raises(InputError, match="voice.nemo: the checkpoint (lacks|has)"):
        FSQCodec.restore_from(file, override_config_path=tmp_path / "other.yaml")
    with pytest.raises(InputError, match="override_config_path: there is no file"):
        FSQCodec.restore_from(file, override_config_path=str(tmp_path / "none.yaml"))
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(InputError, match="list.yaml holds no keys"):
        FSQCodec.restore_from(file, override_config_path=str(tmp_path / "list.yaml"))


def test_strict_is_about_weights_that_are_missing_or_left_over(codec, file, tmp_path):
    def edited(name, change):
        weights = {key: value.clone() for key, value in codec.model.state_dict().items()}
        change(weights)
        return write_nemo(tmp_path / f"{name}.nemo", CODEC | {"target": "AudioCodecModel"}, weights)

    part = edited("part", lambda weights: weights.pop("audio_decoder.head.bias"))
    more = edited("more", lambda weights: weights.update({"audio_decoder.more": torch.zeros(3)}))
    wide = edited("wide", lambda weights: weights.update({"audio_decoder.head.bias": torch.zeros(7)}))
    for path, problem in ((part, "lacks 1 of"), (more, "has no place for 1 of"), (wide, "has another shape of 1 of")):
        with pytest.raises(InputError, match=problem):
            FSQCodec.restore_from(path)
    for path in (part, more):
        assert FSQCodec.restore_from(path, strict=False).fingerprint == codec.fingerprint
    with pytest.raises(InputError, match="has another shape of 1 of"):
        FSQCodec.restore_from(wide, strict=False)


class OwnConnector(SaveRestoreConnector):
    pass


def unpacked() -> SaveRestoreConnector:
    connector = SaveRestoreConnector()
    connector.model_extracted_dir = "folder"
    return connector


@pytest.mark.parametrize("read", [FSQCodec.restore_from, FSQCodec.from_pretrained])
def test_what_cannot_be_honoured_is_refused_in_one_line(read, file):
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(InputError, match="trainer= was given.* Leave it out"):
        read(file, trainer=trainer)
    for connector in (OwnConnector(), unpacked()):
        with pytest.raises(InputError, match="save_restore_connector= .* give the .nemo file"):
            read(file, save_restore_connector=connector)


def test_a_codec_of_the_hub(codec, file, monkeypatch):
    asked = []
    monkeypatch.setattr("nemo_duplex.codec.codec_file.nemo_file", lambda *given: asked.append(given) or file)
    found = FSQCodec.from_pretrained(model_name="someone/voice", map_location="cpu")
    assert found.fingerprint == codec.fingerprint
    assert FSQCodec.from_pretrained("someone/voice", True, return_model_file=True, revision="v1", token="t") == str(file)
    assert asked == [
        ("someone/voice", "codec", None, None, False),
        (file, "codec", None, None, False),
        ("someone/voice", "codec", "v1", "t", True),
    ]


def test_a_codec_of_ngc(codec, file, monkeypatch):
    asked = []

    def download(name, **given):
        asked.append((name, given))
        if given["refresh_cache"]:
            raise ConnectionError("no\nnetwork")
        return str(file)

    monkeypatch.setattr(AudioCodecModel, "from_pretrained", download)
    assert FSQCodec.from_pretrained("mel_codec_22khz_medium").fingerprint == codec.fingerprint
    assert asked == [("mel_codec_22khz_medium", {"refresh_cache": False, "return_model_file": True})]
    with pytest.raises(InputError, match="mel_codec_22khz_medium is on NGC, and NeMo could not download it .no network."):
        FSQCodec.from_pretrained("mel_codec_22khz_medium", refresh_cache=True)
    with pytest.raises(InputError, match="no revision"):
        FSQCodec.from_pretrained("mel_codec_22khz_medium", revision="v1")
    with pytest.raises(InputError, match="there is no file mel_codec_22khz"):
        FSQCodec.from_pretrained("mel_codec_22khz")


def test_published_codecs_are_listed():
    listed = {model.pretrained_model_name: model for model in FSQCodec.list_available_models()}
    paper = listed["nvidia/nemo-nano-codec-22khz-0.6kbps-12.5fps"]
    assert paper.location == "https://huggingface.co/nvidia/nemo-nano-codec-22khz-0.6kbps-12.5fps"
    assert "4032" in paper.description and "mel_codec_44khz_medium" in listed
    assert "audio_codec_16khz_small" not in listed, "Its codebooks are residual."


# --- files that NeMo wrote --------------------------------------------------------------------------------------------


def test_a_codec_that_nemo_trained_and_saved_with_its_discriminators_is_read_offline(tmp_path, monkeypatch):
    """WavLM and a speaker encoder stand in such configs, and NeMo would download both when it builds the model."""
    losses = "nemo.collections.tts.losses.audio_codec_loss"
    period = {"_target_": f"{MODULES}.MultiPeriodDiscriminator"}
    training = {
        "discriminator": {"_target_": f"{MODULES}.Discriminator", "discriminators": [period]},
        "loss_resolutions": [[128, 32, 128]],
        "mel_loss_dims": [8],
        "commit_loss_scale": 0.0,
        "generator_loss": {"_target_": f"{losses}.GeneratorSquaredLoss"},
        "discriminator_loss": {"_target_": f"{losses}.DiscriminatorSquaredLoss"},
        "optim": {"_target_": "torch.optim.Adam", "lr": 1e-4},
    }
    torch.manual_seed(0)
    theirs = AudioCodecModel(OmegaConf.create(nanocodec_config() | training)).eval()
    theirs.save_to(str(tmp_path / "theirs.nemo"))
    wavlm = {"_target_": f"{MODULES}.SLMDiscriminator", "slm_model_name": "microsoft/wavlm-base-plus"}
    needs_network = {
        "discriminator": {**training["discriminator"], "discriminators": [period, wavlm]},
        "use_scl_loss": True,
        "use_slm_loss": True,
        "slm_encoder": {"_target_": f"{MODULES}.SLMEncoder", "slm_model_name": "microsoft/wavlm-base-plus"},
    }
    path = with_config(tmp_path / "theirs.nemo", tmp_path / "published.nemo", needs_network)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    codec = FSQCodec.restore_from(path, map_location="cpu")
    audio = 0.1 * torch.randn(1, 5 * 1764)
    lens = torch.tensor([5 * 1764])
    with torch.no_grad():
        tokens, tokens_len = theirs.encode(audio=audio, audio_len=lens)
        decoded, _ = theirs.decode(tokens=tokens, tokens_len=tokens_len)
    ours, ours_len = codec.encode(audio=audio, audio_len=lens)
    assert ours.equal(tokens.long()) and ours_len.tolist() == tokens_len.tolist()
    assert any(key.startswith("discriminator.") for key in theirs.state_dict())
    torch.testing.assert_close(codec.decode(tokens=ours, tokens_len=ours_len)[0], decoded, atol=1e-6, rtol=0)


def test_audio_of_another_rate_is_resampled_as_nemo_names_it(codec):
    """The lengths are those that NeMo's own resampling gives; the samples are soxr's."""
    import soxr

    audio = 0.1 * torch.randn(2, 16000)
    codes, frames = codec.encode(audio=audio, audio_len=torch.tensor([16000, 8001]), sample_rate=16000)
    assert frames.tolist() == [13, 7]  # 22050 and 11027 samples
    for row, samples in ((0, 16000), (1, 8001)):
        own = torch.from_numpy(soxr.resample(audio[row, :samples].numpy(), 16000, 22050))[None]
        whole, _ = codec.encode(own, torch.tensor([own.shape[1]]))
        assert codes[row, :, : frames[row]].equal(whole[0])
    same, _ = codec.encode(audio, torch.tensor([16000, 8001]), 22050)
    assert same.equal(codec.encode(audio, torch.tensor([16000, 8001]))[0]) and same.shape[2] == 10
    with pytest.raises(InputError, match="sample_rate=0: expected the samples per second"):
        codec.encode(audio, torch.tensor([16000, 8001]), sample_rate=0)


# --- inside of an agent -----------------------------------------------------------------------------------------------


def test_the_codec_inside_of_an_agent(tmp_path):
    agent = tiny_model(tmp_path, codec=CODEC)
    agent.save_to(str(tmp_path / "agent.nemo"))
    codec = FSQCodec.restore_from(tmp_path / "agent.nemo")
    assert codec.config == agent.audio_codec.config and codec.silence_codes.equal(agent.audio_codec.silence_codes)
    for name, weight in agent.audio_codec.state_dict().items():
        assert codec.state_dict()[name].equal(weight), name
    path = with_config(tmp_path / "agent.nemo", tmp_path / "mute.nemo", {"codec": {}})
    with pytest.raises(InputError, match="mute.nemo is an agent without a codec inside"):
        FSQCodec.restore_from(path)


def with_config(path, other, changes):
    """Writes the `.nemo` at `path` to `other` with changed keys."""
    with tarfile.open(path) as archive, tarfile.open(other, "w") as changed:
        for member in archive:
            data = archive.extractfile(member).read() if member.isfile() else b""
            if member.name.endswith(CONFIG):
                data = yaml.safe_dump(yaml.safe_load(data) | changes).encode()
            member.size = len(data)
            changed.addfile(member, io.BytesIO(data))
    return other


def write_nemo(path, config, weights):
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    with tarfile.open(path, "w") as archive:
        for name, data in {CONFIG: yaml.safe_dump(config).encode(), "model_weights.ckpt": buffer.getvalue()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path
