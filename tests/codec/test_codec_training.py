"""A training, from the script to the file: it learns, survives a kill, keeps codes valid, and leaves nothing half-written."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import soundfile
import torch

from nemo_duplex.codec import codec_training
from nemo_duplex.codec.codec_training import CodecTraining, CodecTrainingConfig, train_codec
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.codec.quality import measure_quality
from nemo_duplex.files.atomic import sha256
from nemo_duplex.inputs import InputError
from nemo_duplex.training import small_part as part_training
from tests.dummies import CODEC, speech_like

RATE = 22050


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch):
    monkeypatch.setattr(part_training, "STEPS_PER_EPOCH", 4)


@pytest.fixture(scope="module")
def wavs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wavs")
    for i in range(12):
        soundfile.write(folder / f"{i:02d}.wav", speech_like(0.7, seed=i, sample_rate=RATE), RATE)
    return folder


def config(data: Path, out: Path, **changes) -> CodecTrainingConfig:
    settings = dict(
        data=str(data),
        out=str(out),
        codec=CODEC,
        minutes=1000.0,
        steps=10,
        init=None,
        freeze_encoder=False,
        seed=0,
        batch_size=2,
        crop_frames=4,
        matrix_rate=1e-2,
        rate=3e-3,
        warmup_steps=2,
        half=False,
        accelerator="cpu",
        precision="fp32",
    )
    return CodecTrainingConfig(**(settings | changes))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return FSQCodec.restore(folder / "codec.nemo").state_dict()


def test_it_learns_and_writes_what_it_made(wavs, tmp_path):
    quality = train_codec(config(wavs, tmp_path / "out", steps=40))
    torch.manual_seed(0)
    held_out = [speech_like(0.7, seed=0, sample_rate=RATE)]
    untrained = measure_quality(FSQCodec(CODEC), held_out)
    assert quality["mel_distance"] < 0.85 * untrained["mel_distance"]
    assert quality["steps"] == 40 and quality["held_out"] == 1 and quality["kbps"] == pytest.approx(0.129)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["codec.nemo", "quality.json", "training.json"]
    assert json.loads((tmp_path / "out" / "quality.json").read_text()) == quality
    assert quality["sha256"] == sha256(tmp_path / "out" / "codec.nemo")
    codec = FSQCodec.restore(tmp_path / "out" / "codec.nemo")
    assert measure_quality(codec, held_out)["mel_distance"] == pytest.approx(quality["mel_distance"], abs=2e-3)


def test_done_it_does_nothing_and_other_settings_are_refused(wavs, tmp_path, monkeypatch):
    train_codec(config(wavs, tmp_path, steps=2))
    monkeypatch.setattr(codec_training, "fit", None)
    assert train_codec(config(wavs, tmp_path, steps=2))["steps"] == 2
    with pytest.raises(InputError, match="another rate, seed"):
        train_codec(config(wavs, tmp_path, steps=2, seed=1, rate=1e-3))


def test_killed_and_started_again_it_ends_as_if_it_had_not_been(wavs, tmp_path, monkeypatch):
    train_codec(config(wavs, tmp_path / "whole"))
    step = CodecTraining.training_step

    def killed(self, audio, batch_index):
        if self.step == 6:
            raise RuntimeError("kill -9")
        return step(self, audio, batch_index)

    monkeypatch.setattr(CodecTraining, "training_step", killed)
    with pytest.raises(RuntimeError):
        train_codec(config(wavs, tmp_path / "parts"))
    assert not (tmp_path / "parts" / "codec.nemo").exists()
    steps = []
    monkeypatch.setattr(CodecTraining, "training_step", lambda self, *a: steps.append(self.step) or step(self, *a))
    train_codec(config(wavs, tmp_path / "parts"))
    assert steps == [4, 5, 6, 7, 8, 9]
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for key, value in whole.items():
        torch.testing.assert_close(parts[key].float(), value.float(), atol=1e-4, rtol=1e-3, msg=key)


def test_the_minutes_end_it(wavs, tmp_path):
    assert 1 <= train_codec(config(wavs, tmp_path, minutes=1 / 60, steps=None))["steps"] < 1000


def test_personalised_with_a_frozen_encoder_codes_stay_valid(wavs, tmp_path):
    train_codec(config(wavs, tmp_path / "general", steps=4, half=True))
    general = FSQCodec.restore(tmp_path / "general" / "codec.nemo")
    init = dict(init=str(tmp_path / "general" / "codec.nemo"), half=True)
    train_codec(config(wavs, tmp_path / "frozen", freeze_encoder=True, **init))
    train_codec(config(wavs, tmp_path / "whole", **init))
    frozen = FSQCodec.restore(tmp_path / "frozen" / "codec.nemo")
    assert frozen.fingerprint == general.fingerprint
    assert not torch.equal(frozen.model.audio_decoder.head.weight, general.model.audio_decoder.head.weight)
    assert FSQCodec.restore(tmp_path / "whole" / "codec.nemo").fingerprint != general.fingerprint


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(minutes=0.0), "minutes=0.0: expected more than zero"),
        (dict(freeze_encoder=True), "add init="),
        (dict(init="missing.nemo"), "no file missing.nemo"),
    ],
)
def test_settings_that_cannot_be(wavs, tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        train_codec(config(wavs, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_bad_data_leaves_nothing_and_can_be_put_right(wavs, tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="is empty"):
        train_codec(config(tmp_path / "data", tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    train_codec(config(wavs, tmp_path / "out", steps=1))


def test_a_training_that_diverges_says_so(wavs, tmp_path):
    with pytest.raises(InputError, match="diverged at step"):
        train_codec(config(wavs, tmp_path, steps=50, rate=float("inf"), warmup_steps=0))
    assert not (tmp_path / "codec.nemo").exists()


@pytest.mark.slow
def test_the_script(wavs, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("train_codec", Path(__file__).parents[2] / "examples" / "train_codec.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main([f"data={wavs}", f"out={tmp_path / 'out'}", "steps=2", "batch_size=2", "accelerator=cpu"])
    assert "codec.nemo: mel_distance" in capsys.readouterr().out
    codec = FSQCodec.restore(tmp_path / "out" / "codec.nemo")
    assert (codec.num_codebooks, codec.codebook_size, codec.samples_per_frame) == (4, 1000, 1764)
    for arguments, words in {
        (f"data={tmp_path / 'none'}", f"out={tmp_path / 'o'}"): "there is no folder",
        (f"data={wavs}", f"out={tmp_path / 'o'}", "minuets=3"): "Did you mean 'minutes'?",
        (f"data={wavs}",): "out=...",
    }.items():
        with pytest.raises(SystemExit) as end:
            script.main(list(arguments))
        assert end.value.code == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert words in error[-1]
