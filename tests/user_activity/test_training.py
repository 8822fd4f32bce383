"""A training learns, writes what the detector reads, and is the same every time."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from nemo_duplex.inputs import InputError
from nemo_duplex.user_activity import training
from nemo_duplex.user_activity.detector import ActivityNetwork
from nemo_duplex.user_activity.features import FEATURES
from nemo_duplex.user_activity.training import ActivityTraining, _loss, hop_windows, train_user_activity
from tests.dummies import voice_like

SMALL = ActivityTraining(speakers=13, scenes=40, seconds=3.0, steps=40, batch=8, width=8, rate=0.05)


@pytest.fixture(autouse=True)
def voices(monkeypatch):
    made = {f"voice {i}": [voice_like(0.7, 10 * i + k).numpy() for k in range(3)] for i in range(13)}
    monkeypatch.setattr(training, "espeak_voices", lambda split, speakers, rng: dict(list(made.items())[:speakers]))


def test_it_learns_and_the_detector_reads_it(tmp_path):
    right = train_user_activity(SMALL, tmp_path / "a")
    untrained = train_user_activity(ActivityTraining(**(vars(SMALL) | {"steps": 0})), tmp_path / "b")
    assert right > untrained + 0.02
    network = ActivityNetwork(load_file(tmp_path / "a" / "user_activity.safetensors"))
    hidden = np.zeros((2, 8), np.float32)
    assert network.step(np.zeros((2, FEATURES), np.float32), hidden).shape == (2,) and hidden.any()
    assert json.loads((tmp_path / "a" / "user_activity.json").read_text()) == {
        "right": round(right, 4),
        "training": vars(SMALL),
    }


def test_the_same_twice_and_another_with_another_seed(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_user_activity(ActivityTraining(**(vars(SMALL) | {"steps": 2, "seed": seed})), tmp_path / name)
    a, b, c = ((tmp_path / name / "user_activity.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_the_beginning_of_speech_counts_three_times_and_silence_one_and_a_half():
    truth = torch.zeros(1, 30)
    truth[0, 10:25] = 1
    odds = torch.zeros(1, 30, requires_grad=True)
    (gradient,) = torch.autograd.grad(_loss(odds, truth), odds)
    weights = (gradient * 30 / (0.5 - truth)).squeeze().tolist()
    assert weights == pytest.approx([1.5] * 10 + [3.0] * 8 + [1.0] * 7 + [1.5] * 5)


def test_windows_are_those_of_a_stream():
    audio = np.arange(1, 1025, dtype=np.float32)
    windows = hop_windows(audio)
    assert windows.shape == (4, 512) and not windows[0, :256].any()
    assert np.array_equal(windows[0, 256:], audio[:256]) and np.array_equal(windows[3], audio[512:])


def test_too_few_scenes(tmp_path):
    with pytest.raises(InputError, match="scenes=19: expected 20 or more"):
        train_user_activity(ActivityTraining(scenes=19), tmp_path / "a")
