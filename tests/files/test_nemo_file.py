"""What is read of a `.nemo` from an untrusted source: all of a good one, and one line about any other."""

from __future__ import annotations

import errno
import gzip
import io
import os
import pickle
import tarfile
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from nemo_duplex.files import nemo_file
from nemo_duplex.files.nemo_file import (
    config_values,
    is_part,
    missing_artifacts,
    read_nemo_config,
    read_nemo_file,
    unpacked_nemo,
)
from nemo_duplex.inputs import InputError

CONFIG = {"target": "some.module.Model", "layers": [{"size": 2}], "sizes": list(range(600))}
WEIGHTS = {"a": torch.arange(4.0), "b": torch.ones(2, 2)}


def saved(value: object, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def file(name: str, content: bytes = b"", **fields) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def write(path: Path, *extra, config: bytes | None = None, weights: bytes | None = None, mode: str = "w:", prefix="./") -> Path:
    config = yaml.safe_dump(CONFIG).encode() if config is None else config
    members = [
        file(f"{prefix}model_config.yaml", config),
        file(f"{prefix}model_weights.ckpt", weights or saved(WEIGHTS)),
        *extra,
    ]
    with tarfile.open(path, mode) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder of temporary files, which every test must leave as empty as it was."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == [], "something was left behind"


@pytest.mark.parametrize("mode", ["w:", "w:gz"])
@pytest.mark.parametrize("prefix", ["./", ""])
def test_a_good_file(tmp_path, temporary, mode, prefix):
    """NeMo writes `./model_config.yaml`; other tools leave out the dot; older NeMo compresses."""
    folder = file(f"{prefix}sub", type=tarfile.DIRTYPE)
    extra = [folder, file(f"{prefix}sub/x", b"x"), file(f"{prefix}vocab.txt", b"words" * 10**5)]
    path = write(tmp_path / "good.nemo", *extra, mode=mode, prefix=prefix)
    assert read_nemo_config(path, "model", "Model") == CONFIG
    config, weights = read_nemo_file(path, "model")
    assert config == CONFIG and weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(weights[name], WEIGHTS[name]) for name in WEIGHTS)
    with unpacked_nemo(path, "model", artifacts=True) as (_, folder):
        assert sorted(os.listdir(folder)) == ["model_config.yaml", "model_weights.ckpt", "vocab.txt"]
        assert (folder / "vocab.txt").read_bytes() == b"words" * 10**5
    with unpacked_nemo(path, "model") as (_, folder):
        assert os.listdir(folder) == ["model_weights.ckpt"]


def test_the_folder_is_gone_after_a_failure_too(tmp_path, temporary):
    with pytest.raises(RuntimeError), unpacked_nemo(write(tmp_path / "good.nemo"), "model") as (_, folder):
        raise RuntimeError
    assert not folder.exists()


def test_weights_of_before_torch_1_6_are_read(tmp_path, temporary):
    path = write(tmp_path / "old.nemo", weights=saved(WEIGHTS, _use_new_zipfile_serialization=False))
    assert torch.equal(read_nemo_file(path, "model")[1]["b"], WEIGHTS["b"])


LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
MEMBERS = {
    "parent": (file("../outside", b"x"), "outside of its folder"),
    "parent inside": (file("a/../../outside", b"x"), "outside of its folder"),
    "absolute": (file("/tmp/outside", b"x"), "outside of its folder"),
    "windows": (file("..\\outside", b"x"), "outside of its folder"),
    "symbolic link": (file("link", **LINK), "is a link"),
    "hard link": (file("link", type=tarfile.LNKTYPE, linkname="model_config.yaml"), "is a link"),
    "pipe": (file("pipe", type=tarfile.FIFOTYPE), "is a link, a device"),
    "device": (file("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), "is a link, a device"),
    "holes": (file("x", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "9999999999999"}), "x is .*or sparse"),
    "twice": (file("model_config.yaml", b"target: other.Model"), "model_config.yaml occurs twice"),
    "twice, written otherwise": (file("././/model_config.yaml", b"target: other.Model"), "occurs twice"),
}


@pytest.mark.parametrize("member, message", MEMBERS.values(), ids=MEMBERS)
def test_a_member_that_no_writer_makes(tmp_path, temporary, member, message):
    path = write(tmp_path / "evil.nemo", member)
    for read in (read_nemo_config, read_nemo_file):
        with pytest.raises(InputError, match=f"evil.nemo is not safe to unpack.*{message}") as caught:
            read(path, "model")
        assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.nemo", "temporary"]


def test_a_compressed_giant_is_seen_in_its_header(tmp_path, temporary):
    """80 GB declared; what stands behind the header is never inflated, so here it may as well be missing."""
    giant = file("giant")[0]
    giant.size = 80 * 10**9
    path = tmp_path / "bomb.nemo"
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:") as archive:
        for info, content in (file("model_config.yaml", b"target: a.B"), file("model_weights.ckpt", saved(WEIGHTS))):
            archive.addfile(info, io.BytesIO(content))
        head = whole.getvalue()[: archive.offset]
    path.write_bytes(gzip.compress(head + giant.tobuf()))
    with pytest.raises(InputError, match=r"bomb.nemo is not safe to unpack: giant unpacks to 80.0 GB in an archive of 0.0 MB"):
        read_nemo_file(path, "model")


def test_many_files_that_are_too_much_together(tmp_path, temporary, monkeypatch):
    monkeypatch.setattr(nemo_file, "_ALWAYS_FITS", 3000)
    monkeypatch.setattr(nemo_file, "_MAX_INFLATION", 1)
    path = write(tmp_path / "bomb.nemo", *(file(f"x{i}", b"\0" * 10**6) for i in range(4)), mode="w:gz")
    with pytest.raises(InputError, match="bomb.nemo is not safe to unpack: x0 unpacks to 0.0 GB in"):
        read_nemo_config(path, "model")
    size = path.stat().st_size
    monkeypatch.setattr(nemo_file, "_ALWAYS_FITS", 3 * 10**6 + 10**5 - size)
    with pytest.raises(InputError, match="bomb.nemo is not safe to unpack: x3 unpacks"):
        read_nemo_config(path, "model")


def test_inflated_records_in_the_weights(tmp_path, temporary):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", b"\0" * 10**7)
    path = write(tmp_path / "bomb.nemo", weights=buffer.getvalue())
    with pytest.raises(InputError, match="bomb.nemo is not safe to unpack: model_weights.ckpt has 0.0 MB"):
        read_nemo_file(path, "model")


LAUGHS = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
CONFIGS = {
    "unfolds to 2^40": (LAUGHS, "expands without end"),
    "holds itself": ("target: a.Model\nloop: &loop [*loop]\n", "expands without end"),
    "5 MB": ("target: " + "x" * (5 << 20), "over 4 MB"),
    "too deep": ("target: a.Model\ndeep: " + "[" * 5000 + "]" * 5000, "truncated or not a .nemo"),
    "python": ("target: !!python/object/apply:os.system ['touch pwned']", "truncated or not a .nemo"),
    "no keys": ("just words", "holds no keys"),
    "no yaml": ("a: b: c", "truncated or not a .nemo"),
    "empty": ("", "holds no keys"),
    "another class that has the name in it": ("target: some.ModelOfAnotherKind", "expected Model\\."),
    "another class": ("target: some.Other", "a model of class some.Other, expected Model\\."),
    "no class": ("a: 1", "class unknown"),
}


@pytest.mark.parametrize("text, message", CONFIGS.values(), ids=CONFIGS)
def test_a_config_that_is_none(tmp_path, temporary, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "odd.nemo", config=text.encode())
    with pytest.raises(InputError, match=f"odd.nemo.*{message}") as caught:
        read_nemo_config(path, "model", "Model")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()


class Code:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE")
@pytest.mark.parametrize("forced", [False, True], ids=["", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
@pytest.mark.parametrize("kind", ["torch", "torch, old", "pickle"])
def test_code_in_the_weights_is_never_run(tmp_path, temporary, monkeypatch, kind, forced):
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    evil = {"a": torch.ones(1), "b": Code(tmp_path / "pwned")}
    old = {"_use_new_zipfile_serialization": False}
    content = pickle.dumps(evil) if kind == "pickle" else saved(evil, **(old if "old" in kind else {}))
    path = write(tmp_path / "evil.nemo", weights=content)
    with pytest.raises(InputError, match="evil.nemo (would execute posix.system while its|is truncated)") as caught:
        read_nemo_file(path, "model")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()
    if forced and kind == "torch":  # the file does what it is said to do
        torch.load(io.BytesIO(content))
        assert (tmp_path / "pwned").exists()


@pytest.mark.parametrize("value", [torch.ones(2), [1, 2], {"a": "b"}, {1: torch.ones(1)}], ids=repr)
def test_weights_are_tensors_with_names(tmp_path, temporary, value):
    with pytest.raises(InputError, match="are not a dict of tensors"):
        read_nemo_file(write(tmp_path / "odd.nemo", weights=saved(value)), "model")


@pytest.mark.parametrize("share", [0.0, 0.005, 0.4, 0.9])
def test_a_truncated_file(tmp_path, temporary, share):
    path = write(tmp_path / "cut.nemo", weights=saved({"a": torch.ones(100_000)}))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match="cut.nemo is (empty|truncated)"):
        read_nemo_config(path, "model")


def test_truncated_weights_in_a_whole_archive(tmp_path, temporary):
    path = write(tmp_path / "cut.nemo", weights=saved({"a": torch.ones(1000)})[:2000])
    with pytest.raises(InputError, match="cut.nemo is truncated"):
        read_nemo_file(path, "model")


def test_members_that_lack(tmp_path, temporary):
    with tarfile.open(tmp_path / "half.nemo", "w:") as archive:
        info, content = file("sub/model_config.yaml", b"target: a.Model")
        archive.addfile(info, io.BytesIO(content))
    with pytest.raises(InputError, match="lacks model_config.yaml and model_weights.ckpt"):
        read_nemo_config(tmp_path / "half.nemo", "model")


def test_room_to_unpack_is_for_what_is_unpacked(tmp_path, temporary, monkeypatch):
    weights = saved(WEIGHTS)
    path = write(tmp_path / "good.nemo", file("vocab.txt", b"x" * 10**4), weights=weights)
    usage = SimpleNamespace(free=len(weights))
    monkeypatch.setattr(nemo_file.shutil, "disk_usage", lambda folder: usage)
    read_nemo_file(path, "model")
    with pytest.raises(InputError, match=f"no space left in {temporary} to unpack .*set TMPDIR"):
        with unpacked_nemo(path, "model", artifacts=True):
            pass
    usage.free -= 1
    with pytest.raises(InputError, match=f"no space left in {temporary} to unpack"):
        read_nemo_file(path, "model")


def test_a_disk_that_fills_up_is_no_broken_file(tmp_path, temporary, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nemo_file.shutil, "copyfileobj", full)
    with pytest.raises(InputError, match=f"no space left in {temporary}"):
        read_nemo_file(write(tmp_path / "good.nemo"), "model")
    monkeypatch.setattr(nemo_file.shutil, "copyfileobj", lambda *_: (_ for _ in ()).throw(OSError("read error")))
    with pytest.raises(InputError, match="truncated or not a .nemo file .read error"):
        read_nemo_file(write(tmp_path / "good.nemo"), "model")


PARTS = [
    "nemo_duplex.codec.mel_encoder.MelEncoder",
    "nemo_duplex.codec.istft_decoder.IstftDecoder",
    "nemo_duplex.models.duplex_s2s.DuplexS2SModel",
    "nemo.collections.asr.modules.ConformerEncoder",
    "nemo.collections.tts.modules.audio_codec_modules.GroupFiniteScalarQuantizer",
    "nemo.collections.speechlm2.modules.perception.IdentityConnector",
    "nemo.core.optim.lr_scheduler.CosineAnnealing",
    "torch.optim.AdamW",
]
NOT_PARTS = [
    "nemo_duplex.files.atomic.Anything",
    "nemo_duplex.codec.mel_encoder.mel_encoder",
    "nemo_duplex.codec",
    "evil.nemo_duplex.codec.mel_encoder.MelEncoder",
    "nemo_duplex.codec.mel_encoder.MelEncoder.__init__.__globals__",
    "nemo_duplex.codec.MelEncoder; import os",
    "nemo.collections.asr.parts.utils.manifest_utils.Writer",
    "nemo.collections.asr.modulesX.Evil",
    "torch.nn.Linear",
    "torchXoptim.Adam",
    "os.system",
    "",
    None,
    ["torch.optim.AdamW"],
    *(
        f"nemo.collections.tts.modules.x.{name}"
        for name in ("SSLModel", "SLMDiscriminator", "SLMEncoder", "SLMPredictor", "ResNetSpeakerEncoder")
    ),
]


def test_what_a_config_may_build():
    assert [target for target in PARTS if not is_part(target)] == []
    assert [target for target in NOT_PARTS if is_part(target)] == []


def test_the_values_of_a_config():
    values = {place: value for place, _, value in config_values({"a": {"b": [1, {"c": 2}]}, "d": None})}
    assert list(values) == ["a", "d", "a.b", "a.b.0", "a.b.1", "a.b.1.c"]
    assert [key for _, key, _ in config_values({"a": {"b": [5]}})] == ["a", "b", "0"]
    assert values["a.b.0"] == 1 and values["a.b.1.c"] == 2 and values["d"] is None and values["a"] == {"b": [1, {"c": 2}]}


def test_artifacts_are_in_the_archive():
    config = {"tokenizer": {"model_path": "nemo:1_t.model"}, "other": ["nemo:../secret"], "plain": "text"}
    assert missing_artifacts(config, ["1_t.model"]) == ["other.0"]
    assert sorted(missing_artifacts(config, [])) == ["other.0", "tokenizer.model_path"]
