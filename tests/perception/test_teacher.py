"""Whisper's features as targets of an ear's frames: at the right times, computed once, in the loss, not in what is written."""

import json
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from nemo_duplex.files.nemo_file import read_nemo_file
from nemo_duplex.files.odd_rows import OddRows
from nemo_duplex.inputs import InputError
from nemo_duplex.perception import ctc_training, teacher
from nemo_duplex.perception.acoustics import Augmentation, Augmented
from nemo_duplex.perception.ctc_data import UNKNOWN, UtteranceBatches
from nemo_duplex.perception.ctc_training import feature_loss
from nemo_duplex.perception.manifest_utterances import made_conversations, manifest_utterances
from nemo_duplex.perception.teacher import Teacher, kept_features
from nemo_duplex.perception.whisper_model import OpenedWhisper
from nemo_duplex.training import small_part
from tests.perception.test_ctc_training import RATE, TEXTS, TINY, StepBudget, sung

FRAME = 1280


class TellsTheTime:
    """A teacher whose feature j is the sample at its centre, 320 j, beside noise. `heard` counts what it is given."""

    def __init__(self, fails_at=None):
        self.heard, self.fails_at = 0, fails_at

    def feature_extractor(self, heard, padding):
        return heard

    def encode(self, heard):
        if self.heard == self.fails_at:
            raise RuntimeError("power cut")
        self.heard += 1
        return np.stack([heard[::320], np.sin(np.arange(len(heard[::320])) ** 2)], axis=1)[None]


def opened(model=None, sha256="0" * 64):
    return OpenedWhisper(model or TellsTheTime(), "teller", sha256)


def rising(seconds, first=0):
    """(S,) int16; every 16 samples one more than before, so a sample tells where in the recording it is."""
    return (first + np.arange(round(seconds * RATE)) // 16).astype(np.int16)


@pytest.fixture
def turns(tmp_path, monkeypatch):
    """Three utterances of 1, 2 and 1.5 s that rise; they make one conversation."""
    monkeypatch.setattr("nemo_duplex.perception.manifest_utterances.TURNS", (3, 3))
    lines = []
    for i, seconds in enumerate((1.0, 2.0, 1.5)):
        soundfile.write(tmp_path / f"{i}.wav", rising(seconds, i), RATE, subtype="PCM_16")
        lines.append(json.dumps({"audio_filepath": f"{i}.wav", "text": "do re"}))
    (tmp_path / "rising.jsonl").write_text("\n".join(lines))
    return manifest_utterances([tmp_path / "rising.jsonl"], OddRows())


def recordings_of(turns):
    return [samples for turn in turns for _, samples in turn.audio.parts]


def told_samples(features, recordings, targets):
    """Where in its recording each target says that it is, in samples; NaN where there is none."""
    values = np.concatenate([samples[::320] for samples in recordings]) / 32768
    return (targets[:, 0].numpy() * values.std() + values.mean()) * 32768 * 16


@pytest.mark.parametrize("start, speed", [(0, 1.0), (9600, 1.0), (9000, 1.1), (5003, 0.9)])
def test_each_frame_is_told_what_whisper_hears_in_just_its_samples(turns, tmp_path, start, speed):
    recordings = recordings_of(turns)
    features = kept_features(recordings, 1.0, opened(), tmp_path)
    (conversation,) = made_conversations(turns, seed=3)
    parts = conversation.audio.parts
    assert [len(samples) for _, samples in parts] != [len(samples) for samples in recordings], "in another order"
    audio = np.zeros(round((len(conversation.audio) - start) / speed), np.float32)
    targets = features.targets(conversation, start, Augmented(audio, speed))
    assert targets.shape == (math.ceil(len(audio) / FRAME), 2) and targets.dtype == torch.float32
    told = told_samples(features, recordings, targets)
    for frame, value in enumerate(told):
        begin, end = (start + speed * FRAME * number for number in (frame, frame + 1))
        within = [(first, samples) for first, samples in parts if first <= begin and end <= first + len(samples)]
        assert bool(within) == bool(targets[frame].isfinite().all()) == bool(targets[frame].isfinite().any())
        if within:
            ((first, samples),) = within
            assert value - 16 * int(samples[0]) == pytest.approx((begin + end) / 2 - first, abs=60), frame


def test_a_batch_tells_of_what_is_heard_at_the_time(turns, tmp_path):
    """Utterances that rise: the audio in the middle of a frame says where it is, and its target has to say the same."""
    recordings = recordings_of(turns)
    features = kept_features(recordings, 1.0, opened(), tmp_path)
    batches = UtteranceBatches(turns, Tokens(), 60.0, 5, Augmentation(speed=(0.9, 1.1)), features)
    batch = batches.batch(0)
    assert batch.targets.shape[:2] == batch.paths.shape and len(batch.targets) == 3
    checked = 0
    for audio, targets in zip(batch.audio, batch.targets):
        told = told_samples(features, recordings, targets)
        known = np.flatnonzero(np.isfinite(told))
        heard = audio.numpy()[known * FRAME + FRAME // 2] * 32768 * 16
        np.testing.assert_allclose(told[known], heard, atol=60)
        checked += len(known)
    assert checked >= 48
    plain = UtteranceBatches(turns, Tokens(), 60.0, 5, Augmentation(speed=(0.9, 1.1))).batch(0)
    assert plain.targets is None and torch.equal(plain.audio, batch.audio), "a teacher draws nothing"
    assert batch.targets[batch.paths.eq(UNKNOWN).all(1)][:, -1].isnan().any(), "NaN beyond the end"


class Tokens:
    vocab_size = 3

    def text_to_ids(self, text):
        return [0, 1]


def test_features_are_scaled_by_dimension(turns, tmp_path):
    features = kept_features(recordings_of(turns), 1.0, opened(), tmp_path)
    (conversation,) = made_conversations(turns, seed=3)
    targets = features.targets(conversation, 9600, Augmented(np.zeros(len(conversation.audio), np.float32), 1.0))
    known = targets[targets.isfinite().all(1)]
    assert known[:, 0].mean().abs() < 0.1 and known[:, 0].std() == pytest.approx(1.0, abs=0.1)


def test_what_was_computed_is_not_computed_again(turns, tmp_path, monkeypatch):
    recordings = recordings_of(turns)
    monkeypatch.setattr(teacher, "_RECORDINGS_PER_FILE", 2)
    cut = TellsTheTime(fails_at=2)
    with pytest.raises(RuntimeError, match="power cut"):
        kept_features(recordings, 1.0, opened(cut), tmp_path / "kept")
    again = TellsTheTime()
    features = kept_features([*recordings, recordings[0]], 1.0, opened(again), tmp_path / "kept")
    assert (cut.heard, again.heard, len(features)) == (2, 1, 3)
    files = sorted((tmp_path / "kept").iterdir())
    assert len(files) == 2 and all(file.suffix == ".safetensors" and not file.name.startswith(".") for file in files)
    broken = files[0]
    broken.write_bytes(broken.read_bytes()[:50])
    with pytest.raises(InputError, match=f"{broken} cannot be read .* Remove it"):
        kept_features(recordings, 1.0, opened(), tmp_path / "kept")
    broken.unlink()
    kept_features(recordings, 1.0, opened(), tmp_path / "kept")


def test_a_share_of_the_recordings_is_spread_over_them(tmp_path):
    recordings = [rising(0.1, first) for first in range(100)]
    some = kept_features(recordings, 0.3, opened(), tmp_path)
    assert len(some) == pytest.approx(30, abs=1)
    taught = [teacher.digest(samples) in some._known for samples in recordings]
    assert all(2 <= sum(taught[i : i + 10]) <= 4 for i in range(0, 100, 10))
    more = kept_features(recordings, 0.6, opened(), tmp_path)
    assert some._known < more._known and len(more) == pytest.approx(60, abs=1)


def test_settings_out_of_range_are_refused():
    for settings in ({"features": 1.1}, {"features": -0.1}, {"features": math.nan}, {"weight": 0.0}, {"weight": math.inf}):
        ((key, value),) = settings.items()
        with pytest.raises(InputError, match=f"teacher.{key}={value}: expected a "):
            Teacher(**settings)


def test_the_loss_is_of_the_frames_that_are_known():
    told = torch.tensor([[[1.0, 0.0], [5.0, 5.0], [9.0, 9.0]]], requires_grad=True)
    targets = torch.tensor([[[0.5, 2.0], [math.nan, math.nan]]])
    loss = feature_loss(told, targets)
    assert loss.item() == pytest.approx((0.5 * 0.25 + 1.5) / 2)
    loss.backward()
    assert torch.equal(told.grad[0, 1:], torch.zeros(2, 2)) and told.grad[0, 0].ne(0).all()
    nothing = feature_loss(told, torch.full((1, 2, 2), math.nan))
    nothing.backward()
    assert nothing.item() == 0 and told.grad.isfinite().all()


def test_an_ear_is_taught_and_keeps_no_teacher(tmp_path, monkeypatch):
    """6 steps with and without: other weights of the same names."""
    lines = []
    for i in range(6):
        soundfile.write(tmp_path / f"{i}.wav", sung(TEXTS[i]), RATE)
        lines.append(json.dumps({"audio_filepath": f"{i}.wav", "text": TEXTS[i]}))
    (tmp_path / "sung.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr(ctc_training, "TimeBudget", StepBudget)
    monkeypatch.setattr(small_part, "STEPS_PER_EPOCH", 3)
    teller = TellsTheTime()
    monkeypatch.setattr(teacher, "open_whisper", lambda folder, workers, what: opened(teller))
    main = runpy.run_path(str(Path(__file__).parents[2] / "examples/train_encoder.py"))["main"]

    def trained(name, *keys):
        main([f"manifests=[{tmp_path}/sung.jsonl]", f"out={tmp_path / name}", *TINY, "minutes=6", "batch_seconds=4", *keys])
        _, weights = read_nemo_file(tmp_path / name / "encoder.nemo", "encoder")
        return weights, json.loads((tmp_path / name / "quality.json").read_text())

    plain, quality = trained("plain")
    taught, taught_quality = trained("taught", "teacher.features=1", f"teacher.folder={tmp_path}/kept")
    assert teller.heard == 6 and taught_quality["taught"] == 6 and "taught" not in quality
    assert [folder.name for folder in (tmp_path / "kept").iterdir()] == ["teller-000000000000"]
    assert plain.keys() == taught.keys()
    changed = [name for name in plain if not torch.equal(plain[name], taught[name])]
    assert any(".layers." in name for name in changed)


def test_the_whole_has_a_weight_from_0_on():
    assert Teacher(whole=3).whole == 3
    with pytest.raises(InputError, match="teacher.whole=-1: expected a weight, such as 3, or 0 for none"):
        Teacher(whole=-1)
