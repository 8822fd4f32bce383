"""Young and old conversations: of the ages that are said, in turns, neither always the first."""

import pytest

from nemo_duplex.benchmark import age
from nemo_duplex.benchmark.callers import speech_of
from tests.dummies import tiny_model


def test_both_are_of_the_ages_that_are_said(tmp_path, monkeypatch):
    """Twenty frames of each are measured around frames 25 and 50, in blocks of ten."""
    streamed = []

    class Conversation(age._Conversation):
        def go_on(self, seconds):
            streamed.append((self, round(seconds / 0.08)))
            return super().go_on(seconds)

    monkeypatch.setattr(age, "_Conversation", Conversation)
    ages = age.compare_ages(tiny_model(tmp_path), speech_of(None, 16000, 5.0), young=2.0, old=4.0, span=1.6)
    old = streamed[0][0]
    before = streamed[:-4]
    assert sum(frames for who, frames in before if who is old) == 40
    assert sum(frames for who, frames in before if who is not old) == 15
    assert [(who is old, frames) for who, frames in streamed[-4:]] == [(False, 10), (True, 10), (True, 10), (False, 10)]
    assert ages.pairs == 2 and ages.ratio > 0 and (ages.young, ages.old) == (2.0, 4.0)
    assert ages.old_frame == pytest.approx(ages.young_frame, rel=5), "Frames of the same model, on whatever machine."
