"""An agent with another codec inside: what changes, what stays bit for bit, and which codecs are refused."""

from __future__ import annotations

import copy
import io
import tarfile

import pytest
import torch
import yaml

from nemo_duplex import swap_codec
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.inputs import InputError
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.models.nemo import restore_connector
from tests.codec.codecs import hifigan_config, lively
from tests.dummies import CODEC, speech_like, tiny_model

SPEECH = speech_like(0.6)[None]
OTHER_CODES = r"codec: .* encodes otherwise \(encoder and quantizer \w{12}\) than the codec inside of .*agent.nemo \(\w{12}\)"


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agent")
    model = tiny_model(folder)
    model.audio_codec.load_state_dict(lively(CODEC).state_dict())
    model.save_to(str(folder / "agent.nemo"))
    return folder / "agent.nemo"


def personalised(agent, path, config=None):
    """Another decoder behind the same encoder."""
    codec = FSQCodec.restore_from(agent)
    if config is not None:
        encoders = {k: v for k, v in codec.model.state_dict().items() if not k.startswith("audio_decoder.")}
        codec = FSQCodec(config)
        codec.load_weights(encoders, "agent", strict=False)
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in codec.model.audio_decoder.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    codec.save_to(path, half=True, keep_codes=True)
    return path


def members(path):
    with tarfile.open(path) as archive:
        return {m.name.removeprefix("./"): archive.extractfile(m).read() for m in archive if m.isfile()}


def weights(path):
    return torch.load(io.BytesIO(members(path)["model_weights.ckpt"]), weights_only=True)


def test_the_decoder_is_the_codecs_and_everything_else_is_the_agents(agent, tmp_path, monkeypatch):
    codec = FSQCodec.restore_from(personalised(agent, tmp_path / "codec.nemo"))
    with monkeypatch.context() as patch:
        patch.setattr(DuplexS2SModel, "__init__", lambda *_: pytest.fail("An 11B model must not be built."))
        done = swap_codec(agent, tmp_path / "codec.nemo", tmp_path / "deep" / "new.nemo")
    assert done.same_codes and done.path == tmp_path / "deep" / "new.nemo"
    before, after = members(agent), members(done.path)
    assert before.keys() == after.keys() and len(before) == 3
    assert all(after[name] == before[name] for name in before if name != "model_weights.ckpt")
    old, new = weights(agent), weights(done.path)
    assert list(old) == list(new)
    changed = {name for name in old if not old[name].equal(new[name])}
    assert changed and all(name.startswith("audio_codec.model.audio_decoder.") for name in changed)
    for name, weight in codec.model.audio_decoder.state_dict().items():
        assert new[f"audio_codec.model.audio_decoder.{name}"].equal(weight)
    assert "audio_codec.silence_codes" in new
    assert done.before.fingerprint == done.after.fingerprint == codec.fingerprint
    assert done.after.model.state_dict().keys() == codec.model.state_dict().keys()
    assert all(v.equal(codec.model.state_dict()[k]) for k, v in done.after.model.state_dict().items())


def test_the_agent_says_the_same_with_another_voice(agent, tmp_path):
    personalised(agent, tmp_path / "codec.nemo")
    swap_codec(agent, tmp_path / "codec.nemo", tmp_path / "new.nemo")
    models = [DuplexS2SModel.restore_from(path, map_location="cpu").eval() for path in (agent, tmp_path / "new.nemo")]
    old, new = (model.offline_inference(SPEECH, torch.tensor([SPEECH.shape[1]])) for model in models)
    assert old["tokens_audio"].equal(new["tokens_audio"]) and old["text"] == new["text"]
    assert (old["audio"] - new["audio"]).abs().max() > 1e-3
    codes = new["tokens_audio"].transpose(1, 2)
    codes = torch.where(codes < 36, codes, models[1].audio_codec.silence_codes[:, None])
    sounds = FSQCodec.restore_from(tmp_path / "codec.nemo").decode(codes, new["tokens_len"])[0]
    frames = ((new["tokens_audio"] < 36).all(dim=2)[0]).nonzero()[:, 0]
    first = slice(0, 1764 * int(frames[0]) + 1764)
    assert len(frames) and torch.allclose(new["audio"][0, first], sounds[0, first], atol=1e-4)


def test_a_decoder_of_another_size_brings_its_config(agent, tmp_path):
    config = copy.deepcopy(CODEC)
    config["audio_decoder"] |= {"blocks": 2, "channels": 12}
    personalised(agent, tmp_path / "codec.nemo", config)
    assert swap_codec(agent, tmp_path / "codec.nemo", tmp_path / "new.nemo").same_codes
    model = DuplexS2SModel.restore_from(tmp_path / "new.nemo", map_location="cpu")
    assert model.audio_codec.config == config and len(model.audio_codec.model.audio_decoder.blocks) == 2
    before, after = (yaml.safe_load(members(path)["model_config.yaml"]) for path in (agent, tmp_path / "new.nemo"))
    assert after.pop("codec") == config and before.pop("codec") == CODEC and before == after
    old, new = weights(agent), weights(tmp_path / "new.nemo")
    assert {k for k in old if not k.startswith("audio_codec.")} == {k for k in new if not k.startswith("audio_codec.")}


def test_a_codec_with_other_codes_is_refused_unless_it_is_asked_for(agent, tmp_path):
    other = lively(CODEC, seed=7)
    other.save_to(tmp_path / "other.nemo")
    with pytest.raises(InputError, match=OTHER_CODES + ".*init=.*agent.nemo freeze_encoder=true; or.*train the agent further"):
        swap_codec(agent, tmp_path / "other.nemo", tmp_path / "new.nemo")
    assert not (tmp_path / "new.nemo").exists()
    done = swap_codec(agent, tmp_path / "other.nemo", tmp_path / "new.nemo", allow_other_codes=True)
    model = DuplexS2SModel.restore_from(tmp_path / "new.nemo", map_location="cpu")
    assert not done.same_codes and model.audio_codec.fingerprint == other.fingerprint == done.after.fingerprint
    stored = weights(tmp_path / "new.nemo")["audio_codec.silence_codes"]
    assert stored.equal(other.silence_codes) and not stored.equal(weights(agent)["audio_codec.silence_codes"])


def test_quantizers_whose_codes_are_named_otherwise_are_others(agent, tmp_path):
    """As many codes of as many levels, in another order."""
    config = copy.deepcopy(CODEC)
    config["vector_quantizer"]["num_levels_per_group"] = [2, 2, 3, 3]
    personalised(agent, tmp_path / "codec.nemo", config)
    with pytest.raises(InputError, match=OTHER_CODES):
        swap_codec(agent, tmp_path / "codec.nemo", tmp_path / "new.nemo")


def small(**changes):
    config = copy.deepcopy(CODEC)
    for part, keys in changes.items():
        config[part] |= keys
    return config


GEOMETRIES = {
    "codebooks": (
        small(vector_quantizer={"num_groups": 4, "num_levels_per_group": [6, 6]}),
        "4 codebooks of 36 codes at 12.5 Hz",
    ),
    "codes": (small(vector_quantizer={"num_levels_per_group": [3, 3, 3, 2]}), "2 codebooks of 54 codes at 12.5 Hz"),
    "frame rate": (
        small(audio_encoder={"samples_per_frame": 882}, audio_decoder={"samples_per_frame": 882}) | {"samples_per_frame": 882},
        "2 codebooks of 36 codes at 25 Hz",
    ),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_another_geometry_is_refused_whatever_is_asked_for(agent, tmp_path, name):
    config, words = GEOMETRIES[name]
    FSQCodec(config).save_to(tmp_path / "codec.nemo")
    for allowed in (False, True):
        with pytest.raises(InputError, match=f"codec.nemo has {words}, the agent .* speaks 2 codebooks of 36 codes at 12.5 Hz"):
            swap_codec(agent, tmp_path / "codec.nemo", tmp_path / "new.nemo", allowed)


def test_a_decoder_that_looks_ahead_is_refused(agent, tmp_path):
    config = hifigan_config(2, [3, 3, 2, 2], [7, 7, 6, 3, 2])
    config["audio_decoder"] |= {"_target_": config["audio_decoder"]["_target_"].replace("Causal", "")}
    FSQCodec(config).save_to(tmp_path / "codec.nemo")
    with pytest.raises(InputError, match="a decoder that looks ahead .HiFiGANDecoder.*Give a codec with a causal one"):
        swap_codec(agent, tmp_path / "codec.nemo", tmp_path / "new.nemo", allow_other_codes=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_precision_stays_and_a_rounded_encoder_is_still_the_same(agent, tmp_path, dtype):
    model = DuplexS2SModel.restore_from(agent, map_location="cpu").to(dtype)
    model.save_to(str(tmp_path / "half.nemo"))
    codec = FSQCodec.restore_from(personalised(agent, tmp_path / "codec.nemo"))
    with torch.no_grad():
        codec.model.audio_decoder.head.bias[0] = 1e5  # beyond the largest number of float16
    codec.save_to(tmp_path / "codec.nemo")
    assert FSQCodec.restore_from(tmp_path / "half.nemo").fingerprint != codec.fingerprint
    assert swap_codec(tmp_path / "half.nemo", tmp_path / "codec.nemo", tmp_path / "new.nemo").same_codes
    old, new = weights(tmp_path / "half.nemo"), weights(tmp_path / "new.nemo")
    large = "audio_codec.model.audio_decoder.head.bias"
    kinds = {name: weight.dtype for name, weight in old.items()}
    if dtype == torch.float16:
        kinds[large] = torch.float32
    assert {name: weight.dtype for name, weight in new.items()} == kinds
    assert new[large][0] == torch.tensor(1e5).to(kinds[large])
    assert all(old[name].equal(new[name]) for name in old if ".audio_decoder." not in name)
    head = "audio_decoder.head.weight"
    assert new[f"audio_codec.model.{head}"].equal(codec.model.state_dict()[head].to(dtype))


def test_a_failed_write_leaves_nothing_and_the_older_file(agent, tmp_path, monkeypatch):
    personalised(agent, tmp_path / "codec.nemo")
    (tmp_path / "new.nemo").write_text("older")

    def breaks(path, folder):
        open(path, "wb").write(b"half")
        raise OSError(5, "disk on fire")

    monkeypatch.setattr(restore_connector.SaveRestoreConnector, "_make_nemo_file_from_folder", breaks)
    with pytest.raises(OSError, match="disk on fire"):
        swap_codec(agent, tmp_path / "codec.nemo", tmp_path / "new.nemo")
    assert (tmp_path / "new.nemo").read_text() == "older"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["codec.nemo", "new.nemo"]


def test_files_that_are_not_what_they_should_be(agent, tmp_path, monkeypatch):
    codec = personalised(agent, tmp_path / "codec.nemo")
    before = agent.read_bytes()
    for given, words in {
        (agent, codec, agent): "is the agent itself, which would be lost. Choose another name",
        (agent, codec, codec): "is the codec itself, which would be lost",
        (agent, codec, tmp_path / "new.ckpt"): "is written to a .nemo file, got .*new.ckpt",
        (
            codec,
            codec,
            tmp_path / "new.nemo",
        ): "agent: .*codec.nemo is a model of class .*AudioCodecModel, expected DuplexS2S",
        (agent, tmp_path / "none.nemo", tmp_path / "new.nemo"): "codec .*: there is no file .*none.nemo",
        (agent, codec, tmp_path / "codec.nemo" / "new.nemo"): "out: .*codec.nemo is a file, expected a folder",
    }.items():
        with pytest.raises(InputError, match=words) as error:
            swap_codec(*given)
        assert "\n" not in str(error.value)
    assert agent.read_bytes() == before
    monkeypatch.chdir(tmp_path)
    assert swap_codec(str(agent), "codec.nemo", "new.nemo").path.is_file()
    newer = {name: data for name, data in members(agent).items()}
    newer["model_config.yaml"] = newer["model_config.yaml"].replace(b"format_version: 2", b"format_version: 99")
    with tarfile.open("newer.nemo", "w") as archive:
        for name, data in newer.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with pytest.raises(InputError, match="newer.nemo: This model has format 99"):
        swap_codec("newer.nemo", "codec.nemo", "again.nemo")


def test_lora_stays(tmp_path):
    pytest.importorskip("peft")
    model = tiny_model(tmp_path, lora={"r": 2, "target_modules": ["q_proj"]})
    model.save_to(str(tmp_path / "agent.nemo"))
    personalised(tmp_path / "agent.nemo", tmp_path / "codec.nemo")
    swap_codec(tmp_path / "agent.nemo", tmp_path / "codec.nemo", tmp_path / "new.nemo")
    again = DuplexS2SModel.restore_from(tmp_path / "new.nemo", map_location="cpu")
    adapters = [name for name, _ in again.named_parameters() if "lora_" in name]
    assert adapters and again.cfg.lora.r == 2
    assert all(again.state_dict()[name].equal(model.state_dict()[name]) for name in adapters)
