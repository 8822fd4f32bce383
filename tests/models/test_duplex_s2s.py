"""The NeMo shell: trains a step, saves into one file, restores anywhere; a wrong file is one line."""

import subprocess
import sys
import tarfile

import pytest
import torch
from nemo.core.classes import ModelPT

from nemo_duplex.data.batch import DuplexBatch
from nemo_duplex.inputs import InputError
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from tests.dummies import speech_like, tiny_config, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def nemo(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "agent.nemo"
    model.save_to(str(path))
    return path


def batch(model, lengths=(20, 15), codes=True):
    torch.manual_seed(1)
    frames = max(lengths)
    tokens = torch.full((len(lengths), frames), model.layout.text_pad)
    tokens[:, 4], tokens[:, 5:8], tokens[:, 12] = model.layout.text_bos, 7, model.layout.text_eos
    return DuplexBatch(
        ids=[f"c{i}" for i in range(len(lengths))],
        user_audio=torch.stack([speech_like(frames * 0.08, seed) for seed in range(len(lengths))]),
        user_audio_lens=torch.tensor(lengths) * 1280,
        agent_tokens=tokens,
        num_frames=torch.tensor(lengths),
        agent_codes=torch.randint(0, model.layout.codebook_size, (len(lengths), model.layout.num_codebooks, frames))
        if codes
        else None,
        agent_audio=None if codes else torch.stack([speech_like(frames * 0.08, s, 22050) for s in range(len(lengths))]),
        agent_audio_lens=None if codes else torch.tensor(lengths) * 1764,
    )


@pytest.mark.parametrize("codes", [True, False], ids=["codes made before", "codes made now"])
def test_the_loss_falls(tmp_path, codes):
    model = DuplexS2SModel(tiny_config(tmp_path))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        loss = model.training_step(batch(model, codes=codes), 0)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is None for p in model.audio_codec.parameters()), "The codec is frozen while the agent trains."


def test_padding_changes_no_loss(model):
    padded = batch(model, lengths=(20, 15))
    with torch.no_grad():
        before = model.training_step(padded, 0)
        padded.user_audio[1, 15 * 1280 :] = 0.9
        padded.agent_tokens[1, 15:] = 9
        padded.agent_codes[1, :, 15:] = 3
        after = model.training_step(padded, 0)
    for loss in ("loss", "text_loss", "audio_loss"):
        assert before[loss].item() == pytest.approx(after[loss].item(), rel=1e-6), loss


def test_validation_is_a_mean_over_frames_not_over_batches(model):
    """NeMo's in-tree metrics average the averages of batches of different size (nemo.md, 1.13)."""
    logged = {}
    model.log_dict, model._trainer = logged.update, object()
    try:
        model.on_validation_epoch_start()
        with torch.no_grad():
            for lengths in ((20, 15), (13,)):
                model.validation_step(batch(model, lengths), 0)
            model.on_validation_epoch_end()
            together = model._losses(batch(model, (20, 15)))[2] + model._losses(batch(model, (13,)))[2]
    finally:
        del model.log_dict
        model._trainer = None
    expected = 3 * together.mean("text_loss") + together.mean("speech_loss")
    assert logged["val_loss"] == pytest.approx(expected.item())
    assert {"val_text_accuracy", "val_bos_accuracy", "val_eos_accuracy", "val_codebook_1_accuracy"} <= logged.keys()


@pytest.mark.parametrize("patterns", [["^perception\\.encoder\\."], ["^llm\\..+$"], ["^lm\\.backbone\\.llm\\."]])
def test_patterns_freeze_by_our_names_and_by_those_of_nemo(tmp_path, patterns):
    model = DuplexS2SModel(tiny_config(tmp_path, freeze_params=patterns)).train()
    part = model.perception.encoder if "perception" in patterns[0] else model.lm.backbone.llm
    assert not any(p.requires_grad for p in part.parameters()) and not part.training
    assert model.lm.speech_head.projection.weight.requires_grad and model.training
    with pytest.raises(InputError, match="'nothing' matches no parameter"):
        DuplexS2SModel(tiny_config(tmp_path, freeze_params=["nothing"]))


def test_adapters_train_alone_and_are_merged_on_request(tmp_path):
    model = DuplexS2SModel(tiny_config(tmp_path, lora={"task_type": "CAUSAL_LM", "r": 2, "target_modules": ["q_proj"]}))
    trained = {name for name, p in model.lm.backbone.llm.named_parameters() if p.requires_grad}
    assert trained and all(".lora_" in name for name in trained)
    for name, p in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(p)
    model.save_to(str(tmp_path / "adapted.nemo"))
    model.save_to(str(tmp_path / "merged.nemo"), merge_lora=True)
    hidden = {}
    for name in ("adapted", "merged"):
        again = DuplexS2SModel.restore_from(str(tmp_path / f"{name}.nemo"), map_location="cpu").eval()
        assert bool(again.cfg.lora) == any(".lora_" in key for key in again.state_dict()) == (name == "adapted")
        with torch.no_grad():
            hidden[name], _ = again(batch(again))
    assert torch.allclose(hidden["adapted"], hidden["merged"], atol=1e-5)


def test_an_unknown_key_names_the_nearest(tmp_path):
    with pytest.raises(InputError, match="unknown key 'speech_delai'. Did you mean 'speech_delay'"):
        DuplexS2SModel(tiny_config(tmp_path, speech_delai=1))


def test_a_restored_model_is_saved_again_when_its_file_is_gone(nemo, tmp_path):
    """NeMo would unpack the tokenizer from the first file once more."""
    (tmp_path / "first.nemo").write_bytes(nemo.read_bytes())
    model = DuplexS2SModel.restore_from(str(tmp_path / "first.nemo"), map_location="cpu")
    (tmp_path / "first.nemo").unlink()
    model.save_to(str(tmp_path / "second.nemo"))
    again = DuplexS2SModel.restore_from(str(tmp_path / "second.nemo"), map_location="cpu")
    assert again.tokenizer.text_to_ids("It is one.") == model.tokenizer.text_to_ids("It is one.")


RESTORE = """
import sys, socket
def offline(*args, **kwargs): raise AssertionError("network")
socket.socket.connect = offline
import nemo_duplex, torch
from {home} import {cls}
model = {cls}.restore_from({path!r}, map_location="cpu").eval()
out = model.offline_inference(torch.load({signal!r}), torch.tensor([32000]))
torch.save(out, {out!r})
"""


@pytest.mark.parametrize("home, cls", [("nemo.core.classes", "ModelPT"), ("nemo_duplex", "DuplexS2SModel")])
def test_one_file_restores_in_a_fresh_process_without_network(model, nemo, tmp_path, home, cls):
    signal = speech_like(2)[None]
    torch.save(signal, tmp_path / "signal.pt")
    moved = tmp_path / "elsewhere.nemo"
    moved.write_bytes(nemo.read_bytes())
    code = RESTORE.format(home=home, cls=cls, path=str(moved), signal=str(tmp_path / "signal.pt"), out=str(tmp_path / "out.pt"))
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)
    there, here = torch.load(tmp_path / "out.pt"), model.offline_inference(signal, torch.tensor([32000]))
    assert there["text"] == here["text"]
    for key in ("tokens_text", "tokens_audio", "tokens_len", "audio_len"):
        assert torch.equal(there[key], here[key]), key
    assert (there["audio"] - here["audio"]).abs().max() < 1e-6


def test_the_saved_config_describes_every_part(nemo):
    config = ModelPT.restore_from(str(nemo), return_config=True)
    assert config.pretrained_asr is None and config.pretrained_audio_codec is None
    assert config.codec.sample_rate == 22050 and config.perception.encoder.d_model == 16 and config.format_version == 2
    assert config.tokenizer.model_path.startswith("nemo:")


def repacked(nemo, path, change):
    """A copy of `nemo` in which `change` has edited the extracted files."""
    folder = path.parent / "extracted"
    with tarfile.open(nemo) as archive:
        archive.extractall(folder, filter="data")
    change(folder)
    with tarfile.open(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, file.name)
    return path


def edit_config(old, new):
    def change(folder):
        file = folder / "model_config.yaml"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return change


def drop_a_weight(folder):
    weights = torch.load(folder / "model_weights.ckpt")
    del weights["lm.speech_head.projection.bias"]
    torch.save(weights, folder / "model_weights.ckpt")


WRONG = {
    "another model": (
        edit_config("nemo_duplex.models.duplex_s2s.DuplexS2SModel", "nemo.collections.asr.models.X"),
        "expected a DuplexS2SModel",
    ),
    "newer format": (edit_config("format_version: 2", "format_version: 99"), "format 99"),
    "a weight is missing": (drop_a_weight, "lm.speech_head.projection.bias"),
    "no weights": (lambda folder: (folder / "model_weights.ckpt").unlink(), "lacks model_weights.ckpt"),
}


@pytest.mark.parametrize("change, message", WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_one_line(nemo, tmp_path, change, message):
    path = repacked(nemo, tmp_path / "wrong.nemo", change)
    with pytest.raises(InputError, match=message):
        DuplexS2SModel.restore_from(str(path), map_location="cpu")
    assert not ModelPT._is_model_being_restored(), "A failed restore must not leave later models without data loaders."


@pytest.mark.parametrize("size", [0, 1000, 200_000])
def test_a_truncated_file_is_one_line(nemo, tmp_path, size):
    assert nemo.stat().st_size > size
    (tmp_path / "cut.nemo").write_bytes(nemo.read_bytes()[:size])
    with pytest.raises(InputError, match="cut.nemo is (empty|truncated)"):
        DuplexS2SModel.restore_from(str(tmp_path / "cut.nemo"), map_location="cpu")
