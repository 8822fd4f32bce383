"""Users of a benchmark: noise with pauses, or the users of a corpus, without end."""

from types import SimpleNamespace

import numpy as np
import pytest

from nemo_duplex.benchmark import callers
from nemo_duplex.benchmark.callers import Caller, user_speech
from nemo_duplex.inputs import InputError


def test_callers_speak_without_end_each_from_another_place():
    audio = np.arange(1000.0)
    first, second = Caller(audio, 8), Caller(audio, 8, number=1)
    played = np.concatenate([first.next_frame() for _ in range(130)])
    assert np.array_equal(played, np.concatenate([audio, audio[:40]]))
    assert np.array_equal(second.next_frame(), audio[97 * 8 : 98 * 8])


def test_without_a_corpus_it_is_noise_with_pauses():
    audio = user_speech(None, 16000, 10.0)
    assert audio.shape == (160000,) and audio.dtype == np.float32
    speech, pause = audio[8000:20000], audio[24000:44000]
    assert 0.05 < speech.std() < 0.2 and not pause.any()


def corpus(monkeypatch, *cuts):
    made = [SimpleNamespace(sampling_rate=rate, load_audio=lambda a=audio: a[None]) for audio, rate in cuts]
    monkeypatch.setattr(callers, "read_sets", lambda data, sets: {"dev": made} if sets == ["dev"] else {})


def test_users_of_a_corpus_follow_each_other_and_are_repeated(monkeypatch):
    corpus(monkeypatch, (np.full(30, 0.1), 100), (np.full(40, 0.2), 100), (np.full(50, 0.3), 100))
    assert user_speech("c", 100, 0.5).tolist() == pytest.approx([0.1] * 30 + [0.2] * 20)
    assert user_speech("c", 100, 1.5).tolist() == pytest.approx([0.1] * 30 + [0.2] * 40 + [0.3] * 50 + [0.1] * 30)
    with pytest.raises(
        InputError, match="data: c has users at 100 Hz, expected the model's 200 Hz. .* leave data out: then noise"
    ):
        user_speech("c", 200, 0.5)
    assert len(user_speech(None, 200, 0.5)) == 100


def test_a_corpus_that_is_not_there_is_one_line(tmp_path):
    (tmp_path / "something").touch()
    with pytest.raises(InputError, match="set 'dev': "):
        user_speech(tmp_path, 16000)
