"""An untrusted `.nemo`: a good one restores anywhere, any other is one line, runs nothing and leaves nothing behind."""

from __future__ import annotations

import errno
import io
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import yaml
from nemo.core.classes import ModelPT
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector
from omegaconf import OmegaConf

from nemo_duplex.inputs import InputError
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.models.nemo.artifacts import kept_copy
from nemo_duplex.models.nemo.restore_connector import RestoreConnector, check_restored_config
from nemo_duplex.streaming.recording.reader import SessionRecording
from tests.dummies import speech_like, tiny_config, tiny_model

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    return tiny_model(folder)


@pytest.fixture(scope="module")
def nemo(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "agent.nemo"
    model.save_to(str(path))
    return path


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """Temporary files and the current folder are watched: a restore that fails leaves both empty, and NeMo ready."""
    watched = [tmp_path / "temporary", tmp_path / "here"]
    for folder in watched:
        folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(watched[0]))
    monkeypatch.chdir(watched[1])
    yield tmp_path
    assert [list(folder.iterdir()) for folder in watched] == [[], []], "something was left behind"
    assert os.getcwd() == str(watched[1])
    assert not ModelPT._is_model_being_restored(), "later models would get no data loaders"


def tampered(nemo, path, config: Callable | None = None, weights: Callable | None = None, extra: dict | None = None):
    """A copy of `nemo` with its config (a dict) and weights changed in place, or replaced by what the function returns."""
    with tarfile.open(nemo) as archive:
        members = {m.name.removeprefix("./"): archive.extractfile(m).read() for m in archive if m.isfile()}
    if config is not None:
        content = yaml.safe_load(members[CONFIG])
        members[CONFIG] = yaml.safe_dump(config(content) or content).encode()
    if weights is not None:
        content = torch.load(io.BytesIO(members[WEIGHTS]))
        buffer = io.BytesIO()
        torch.save(weights(content) or content, buffer)
        members[WEIGHTS] = buffer.getvalue()
    with tarfile.open(path, "w") as archive:
        for name, content in (members | (extra or {})).items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def put(place: str, value: object) -> Callable[[dict], None]:
    """Sets a dotted key of a config, making what is missing above it."""

    def change(config: dict) -> None:
        *above, last = place.split(".")
        for key in above:
            config = config.setdefault(key, {})
        config[last] = value

    return change


class Code:
    """Touches a file when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


# --- a good file ------------------------------------------------------------------------------------------------------

FRESH = """
import os, socket, sys
def refuse(*args, **kwargs): raise AssertionError("network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
import nemo_duplex, torch
import nemo_duplex.models.throughput, nemo_duplex.evaluation.callback
assert "wandb" not in sys.modules, "our own files load it unasked; NeMo does when it restores a model"
from nemo.core.classes import ModelPT
import huggingface_hub
assert huggingface_hub.constants.HF_HUB_OFFLINE
signal = torch.load("signal.pt")
for cls in (ModelPT, nemo_duplex.DuplexS2SModel):
    model = cls.restore_from("agent.nemo", map_location="cpu").eval()
    assert type(model) is nemo_duplex.DuplexS2SModel
    torch.save(model.offline_inference(signal, torch.tensor([32000])), f"{cls.__name__}.pt")
model.save_to("again.nemo")
os.remove("agent.nemo")
model = nemo_duplex.DuplexS2SModel.restore_from("again.nemo", map_location="cpu")
model.open_session(record="talk").push(signal[0])
raise KeyboardInterrupt
"""


@pytest.mark.slow
def test_one_file_restores_without_network_and_with_everything_else_deleted(tmp_path):
    """By both classes, in a process that has nothing but the file; the folders that the model was made from are gone."""
    (tmp_path / "parts").mkdir()
    model = tiny_model(tmp_path / "parts")
    (tmp_path / "fresh").mkdir()
    model.save_to(str(tmp_path / "fresh" / "agent.nemo"))
    shutil.rmtree(tmp_path / "parts")
    signal = speech_like(2)[None]
    torch.save(signal, tmp_path / "fresh" / "signal.pt")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HOME": str(tmp_path / "nobody")}
    done = subprocess.run(
        [sys.executable, "-c", FRESH], cwd=tmp_path / "fresh", env=environment, capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1:] == ["KeyboardInterrupt"], done.stderr
    assert len(SessionRecording.read(tmp_path / "fresh" / "talk")) == 24, "a program that ends completes its recordings"
    here = model.offline_inference(signal, torch.tensor([32000]))
    for cls in ("ModelPT", "DuplexS2SModel"):
        there = torch.load(tmp_path / "fresh" / f"{cls}.pt")
        assert there["text"] == here["text"]
        for key in ("tokens_text", "tokens_audio", "tokens_len", "audio_len"):
            assert torch.equal(there[key], here[key]), (cls, key)
        assert (there["audio"] - here["audio"]).abs().max() < 1e-6, cls


def test_nemos_own_arguments(nemo, clean):
    config = DuplexS2SModel.restore_from(str(nemo), return_config=True)
    assert config.target.endswith(".DuplexS2SModel") and config.llm.hidden_size == 24
    (clean / "override.yaml").write_text(OmegaConf.to_yaml({"model": {**config, "attention_window": 8}}))
    model = DuplexS2SModel.restore_from(nemo, override_config_path=str(clean / "override.yaml"), map_location="cpu")
    assert model.cfg.attention_window == 8
    plain = DuplexS2SModel.restore_from(str(nemo), map_location="cpu", save_restore_connector=SaveRestoreConnector())
    assert torch.equal(plain.lm.speech_head.projection.weight, model.lm.speech_head.projection.weight)
    model.save_to(str(clean / "again.nemo"))
    assert DuplexS2SModel.restore_from(str(clean / "again.nemo"), return_config=True).attention_window == 8


class Heir(DuplexS2SModel):
    """What somebody derives from the model, and restores a file of ours into."""


def test_a_derived_class_takes_our_files(nemo, clean):
    assert type(Heir.restore_from(str(nemo), map_location="cpu")) is Heir


# --- what is refused, by our own class --------------------------------------------------------------------------------

WRITES = {  # NeMo's own list of targets lets this function through
    "_target_": "nemo.collections.asr.parts.utils.manifest_utils.write_manifest",
    "output_path": "pwned",
    "target_manifest": [{"a": 1}],
}
CONFIGS = {
    "another model": (put("target", "nemo.collections.asr.models.X"), r"nemo.collections.asr.models.X, expected a DuplexS2SM"),
    "our name elsewhere": (put("target", "nemo.collections.speechlm2.models.DuplexS2SModel"), "expected a DuplexS2SModel"),
    "foreign target": (put("target", "os.system"), "class os.system, expected a DuplexS2SModel"),
    "a config inside": (put("model", {"target": "os.system"}), "model is a config inside the config"),
    "hydra's key on top": (put("_target_", "os.system"), "_target_ names 'os.system'"),
    "old hydra's key": (put("perception.encoder.cls", "os.system"), "perception.encoder.cls is not a key"),
    "old hydra's arguments": (put("params", {"command": "id"}), "params is not a key"),
    "the encoder": (put("perception.encoder._target_", "subprocess.Popen"), "perception.encoder._target_ names 'subprocess"),
    "the preprocessor": (put("perception.preprocessor._target_", "os.system"), "perception.preprocessor._target_"),
    "the codec's encoder": (put("codec.audio_encoder._target_", "os.system"), "codec.audio_encoder._target_"),
    "inside of a part": (put("codec.audio_decoder.activation", {"x": [{"_target_": "os.system"}]}), "activation.x.0._target_"),
    "a function of NeMo": (put("codec.audio_encoder", WRITES), "write_manifest', which is not part"),
    "one that downloads": (
        put("codec.audio_encoder._target_", "nemo.collections.tts.modules.audio_codec_modules.SSLModel"),
        "SSLModel', which is not part",
    ),
    "remote code": (put("llm.auto_map", {"AutoModelForCausalLM": "evil/repo--m.M"}), "llm.auto_map is not a key"),
    "remote attention": (put("llm.attn_implementation", "evil/kernel"), "evil/kernel', code on the Hugging Face Hub"),
    "a download": (put("pretrained_audio_codec", "evil/codec"), "pretrained_audio_codec names 'evil/codec'"),
    "the environment": (put("optim.name", "${oc.env:HOME}"), "optim.name is '\\${oc.env:HOME}', expected a plain value"),
    "a file beside": (put("tokenizer.model_path", "/etc/passwd"), "tokenizer.model_path does not name a file of the archive"),
    "a file above": (put("tokenizer.model_path", "nemo:../../secret"), "tokenizer.model_path names a file that is not in"),
    "newer format": (put("format_version", 99), "has format 99, .*Install a newer"),
    "no format": (put("format_version", "x"), "has format 'x'"),
    "a size that is none": (put("llm.hidden_size", -3), "cannot be built"),
    "a part that is none": (put("perception.encoder", 5), "cannot be built"),
}


@pytest.mark.parametrize("change, message", CONFIGS.values(), ids=CONFIGS)
def test_a_config_that_we_did_not_write(nemo, clean, change, message, capsys):
    path = tampered(nemo, clean / "evil.nemo", config=change)
    with pytest.raises(InputError, match=message) as caught:
        DuplexS2SModel.restore_from(str(path), map_location="cpu")
    assert "\n" not in str(caught.value) and "evil.nemo" in str(caught.value)
    assert "Traceback" not in "".join(capsys.readouterr()), "one line, not NeMo's many"


def drop(weights: dict) -> None:
    del weights["lm.speech_head.projection.bias"], weights["lm.speech_head.projection.weight"]


def reshape(weights: dict) -> None:
    weights["lm.speech_head.projection.bias"] = torch.ones(3)


STATES = {
    "missing": (drop, r"2 are missing \(such as lm.speech_head.projection.bias\)"),
    "extra": (lambda w: w.update(extra=torch.ones(1)), r"1 are not in the model \(such as extra\)"),
    "another shape": (reshape, r"1 have another shape \(such as lm.speech_head.projection.bias\)"),
    "no tensors": (lambda w: {"a": 1}, "not a dict of tensors"),
    "code": (lambda w: {"a": Code("pwned")}, "would execute posix.system"),
}


@pytest.mark.parametrize("change, message", STATES.values(), ids=STATES)
def test_weights_that_are_not_the_models(nemo, clean, change, message):
    path = tampered(nemo, clean / "odd.nemo", weights=change)
    with pytest.raises(InputError, match=f"odd.nemo.*{message}") as caught:
        DuplexS2SModel.restore_from(str(path), map_location="cpu")
    assert "\n" not in str(caught.value)


def test_not_strict_takes_what_fits(nemo, clean):
    path = tampered(nemo, clean / "odd.nemo", weights=drop)
    model = DuplexS2SModel.restore_from(str(path), map_location="cpu", strict=False)
    assert model.lm.speech_head.projection.weight.abs().max() == 0, "as at the start of training"
    with pytest.raises(InputError, match="1 have another shape"):
        DuplexS2SModel.restore_from(str(tampered(nemo, clean / "odd.nemo", weights=reshape)), map_location="cpu", strict=False)


def test_a_member_outside_and_a_file_cut_short(nemo, clean):
    path = tampered(nemo, clean / "evil.nemo", extra={"../pwned": b"x"})
    with pytest.raises(InputError, match=r"evil.nemo is not safe to unpack: ../pwned would be written outside"):
        DuplexS2SModel.restore_from(str(path), map_location="cpu")
    for size in (0, 1000, nemo.stat().st_size // 2):
        (clean / "cut.nemo").write_bytes(nemo.read_bytes()[:size])
        with pytest.raises(InputError, match="cut.nemo is (empty|truncated)"):
            DuplexS2SModel.restore_from(str(clean / "cut.nemo"), map_location="cpu")
    with pytest.raises(InputError, match="there is no file .*nowhere.nemo"):
        DuplexS2SModel.restore_from("nowhere.nemo")


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE")
def test_code_is_not_run_even_where_torch_is_told_to(nemo, clean, monkeypatch):
    """TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is for one's own old files; NeMo honours it for everybody's."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    pwned = clean / "pwned"
    path = tampered(nemo, clean / "evil.nemo", weights=lambda w: {**w, "extra": Code(pwned)})
    with pytest.raises(InputError, match="would execute posix.system"):
        DuplexS2SModel.restore_from(str(path), map_location="cpu")
    with pytest.raises(Exception, match="."):  # NeMo's words
        ModelPT.restore_from(str(path), map_location="cpu")
    assert not pwned.exists()
    with tarfile.open(path) as archive:
        torch.load(io.BytesIO(archive.extractfile(WEIGHTS).read()))
    assert pwned.exists(), "the file does what it is said to do, or this test proves nothing"


# --- what is refused, by NeMo's own class -----------------------------------------------------------------------------

THROUGH_NEMO = {
    "foreign target": {"config": put("target", "os.system")},
    "the encoder": {"config": put("perception.encoder._target_", "subprocess.Popen")},
    "the codec's encoder": {"config": put("codec.audio_encoder._target_", "os.system")},
    "a function of NeMo": {"config": put("codec.audio_encoder", WRITES)},
    "a config inside": {"config": put("model", {"target": "os.system"})},
    "newer format": {"config": put("format_version", 99)},
    "a download": {"config": put("pretrained_audio_codec", "evil/codec")},
    "code": {"weights": lambda weights: {"a": Code("pwned")}},
    "a weight is missing": {"weights": drop},
    "another shape": {"weights": reshape},
}


@pytest.mark.parametrize("change", THROUGH_NEMO.values(), ids=THROUGH_NEMO)
def test_nemos_own_door_is_as_safe(nemo, clean, change):
    """Its words are NeMo's; but nothing is run, nothing is left, and `clean` sees NeMo ready for the next model."""
    path = tampered(nemo, clean / "evil.nemo", **change)
    with pytest.raises(Exception, match="."):
        ModelPT.restore_from(str(path), map_location="cpu")


def test_nemos_own_door_writes_nothing_outside(nemo, clean):
    path = tampered(nemo, clean / "evil.nemo", extra={"../../pwned": b"x", "/tmp/pwned-by-nemo": b"x"})
    ModelPT.restore_from(str(path), map_location="cpu")  # NeMo leaves such members out, and says so
    assert not (clean / "pwned").exists() and not os.path.exists("/tmp/pwned-by-nemo")


@pytest.mark.parametrize("cls", [ModelPT, DuplexS2SModel], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("change", [{"config": put("target", "os.system")}, {"weights": drop}], ids=["target", "weights"])
def test_after_a_failed_restore_the_next_model_gets_its_data_loaders(nemo, clean, monkeypatch, cls, change):
    """NeMo 3.0 keeps the flag that a model is being restored, and such models set up no data (facts/nemo.md, 1.20)."""
    with pytest.raises(Exception, match="."):
        cls.restore_from(str(tampered(nemo, clean / "evil.nemo", **change)), map_location="cpu")
    asked = []
    monkeypatch.setattr(DuplexS2SModel, "setup_training_data", lambda self, config: asked.append(config))
    folder = clean / "parts"
    folder.mkdir()
    DuplexS2SModel(tiny_config(folder, train_ds={"shar": "somewhere"}))
    assert len(asked) == 1


def test_the_config_that_we_write_names_nothing_else(nemo):
    """What is accepted is all that a model needs: if this fails, a part has learnt to name more."""
    with tarfile.open(nemo) as archive:
        config = yaml.safe_load(archive.extractfile("./" + CONFIG).read())
        files = [name.removeprefix("./") for name in archive.getnames()]
    check_restored_config(config, nemo, files, ["nemo_duplex.models.duplex_s2s.DuplexS2SModel"])


# --- saving -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_files():
    """No file may grow beyond 250 kB, as on a disk that fills up: the tokenizer is smaller, the weights are larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_save_that_fails_in_the_weights_leaves_the_older_file(model, clean, small_files):
    (clean / "agent.nemo").write_bytes(b"older")
    with pytest.raises(OSError, match="the weights could not be written"):
        model.save_to(clean / "agent.nemo")
    assert (clean / "agent.nemo").read_bytes() == b"older"
    assert sorted(p.name for p in clean.iterdir()) == ["agent.nemo", "here", "temporary"]


def test_a_save_that_fails_in_the_archive_leaves_the_older_file(model, clean, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    (clean / "agent.nemo").write_bytes(b"older")
    monkeypatch.setattr(tarfile.TarFile, "add", full)
    with pytest.raises(OSError, match="No space left"):
        model.save_to(clean / "agent.nemo")
    assert (clean / "agent.nemo").read_bytes() == b"older"
    assert sorted(p.name for p in clean.iterdir()) == ["agent.nemo", "here", "temporary"]


def test_a_disk_without_room_is_told_before_anything_is_written(model, clean, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="this needs about .* and the disk has 1.*free"):
        model.save_to(clean / "agent.nemo")
    assert not (clean / "agent.nemo").exists()


def test_a_model_packed_as_a_folder_is_saved_as_one(model, clean):
    connector = SaveRestoreConnector()
    assert RestoreConnector.instead_of(connector, DuplexS2SModel, 2).pack_nemo_file
    connector.pack_nemo_file = False
    assert not RestoreConnector.instead_of(connector, DuplexS2SModel, 2).pack_nemo_file
    assert RestoreConnector.instead_of(None, DuplexS2SModel, 2).pack_nemo_file
    connector.model_extracted_dir = "somewhere"
    assert RestoreConnector.instead_of(connector, DuplexS2SModel, 2) is connector


def test_a_model_goes_where_it_is_asked_to(nemo, clean):
    assert DuplexS2SModel.restore_from(str(nemo), map_location="meta").device.type == "meta"


def test_two_files_of_one_name_and_other_content_have_two_copies(tmp_path):
    copies = []
    for content in ("one", "two", "one"):
        (tmp_path / "tokenizer.model").write_text(content)
        copies.append(kept_copy(tmp_path / "tokenizer.model"))
    (tmp_path / "tokenizer.model").unlink()
    assert copies[0] == copies[2] != copies[1]
    assert [copy.read_text() for copy in copies] == ["one", "two", "one"] and {copy.name for copy in copies} == {
        "tokenizer.model"
    }


def test_a_config_that_does_not_fit_is_refused_and_the_file_alone_restored(nemo):
    config = DuplexS2SModel.restore_from(str(nemo), map_location="cpu", return_config=True)
    config.llm.num_hidden_layers += 1
    message = (
        r"9 are missing .*. Take the file as model.save_to wrote it, without another config, or the version of nemo_duplex"
    )
    with pytest.raises(InputError, match=message):
        DuplexS2SModel.restore_from(str(nemo), map_location="cpu", override_config_path=config)
    assert DuplexS2SModel.restore_from(str(nemo), map_location="cpu").cfg.llm.num_hidden_layers == 2
