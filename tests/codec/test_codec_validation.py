"""What a validation writes, what it compares, and what it remembers."""

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from nemo_duplex.codec import codec_validation
from nemo_duplex.codec.codec_validation import CodecValidation
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.codec.quality import mean_mel_distance, reconstruct
from tests.dummies import CODEC, speech_like

RATE = 22050


def test_sounds_and_spectrograms_of_the_first_utterances(tmp_path):
    torch.manual_seed(0)
    codec = FSQCodec(CODEC)
    utterances = [speech_like(0.3 + 0.1 * seed, seed, RATE) for seed in range(4)]
    validation = CodecValidation(tmp_path, utterances, patience=None)
    validation.run(codec, 7)
    folder = tmp_path / "validation" / "step-7"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [f"{number}-{name}.wav" for number in range(3) for name in ("recorded", "decoded")] + ["spectrograms.png"]
    )
    for number in range(3):
        for name, expected in (("recorded", utterances[number]), ("decoded", reconstruct(codec, utterances[number])[0])):
            written, rate = soundfile.read(folder / f"{number}-{name}.wav", dtype="float32")
            assert rate == RATE and np.abs(written - expected.clamp(-1, 1).numpy()).max() < 1e-4
    with Image.open(folder / "spectrograms.png") as picture:
        assert picture.size == (960, 600)
    assert validation.distances == [{"step": 7, "mel_distance": mean_mel_distance(codec, utterances)}]
    assert validation.best is None and validation.best_step == 7 and not validation.is_over


@pytest.fixture
def measured(monkeypatch):
    """A validation of nothing but given distances."""

    def of(patience, *distances):
        given = iter(distances)
        monkeypatch.setattr(codec_validation, "mean_mel_distance", lambda *_: next(given))
        validation = CodecValidation(None, [], patience)
        monkeypatch.setattr(validation, "_write", lambda *_: None)
        return validation

    return of


def test_patience_is_spent_by_validations_in_a_row_without_a_smaller_distance(measured):
    codec = FSQCodec(CODEC)
    validation = measured(2, 3.0, 3.0, 2.0, 2.0, 2.5)
    over = []
    for step in range(5):
        validation.run(codec, step)
        over.append(validation.is_over)
    assert over == [False, False, False, False, True] and validation.best_step == 2


def test_what_does_not_count_is_measured_and_not_compared(measured):
    codec = FSQCodec(CODEC)
    validation = measured(1, 1.0, 1.0, 5.0)
    validation.run(codec, 1, counts=False)
    validation.run(codec, 2, counts=False)
    assert validation.best is None and validation.best_step is None and not validation.is_over
    validation.run(codec, 3)
    assert validation.best_step == 3 and [v["mel_distance"] for v in validation.distances] == [1.0, 1.0, 5.0]


def test_the_best_weights_are_those_of_their_step_and_survive_in_the_state(measured):
    codec = FSQCodec(CODEC)
    validation = measured(5, 1.0, 2.0, 0.5)
    validation.run(codec, 1)
    head = codec.model.audio_decoder.head.weight
    before = head.detach().clone()
    with torch.no_grad():
        head += 1
    validation.run(codec, 2)
    resumed = CodecValidation(None, [], 5)
    resumed.load_state_dict(validation.state_dict())
    for either in (validation, resumed):
        assert either.best["audio_decoder.head.weight"].equal(before) and either.best_step == 1
        assert [v["step"] for v in either.distances] == [1, 2]
        assert either._without_gain == 1 and either._least == 1.0
