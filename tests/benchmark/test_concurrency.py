"""The play of real time: everybody gets a frame per tick, at whatever time they came, and late is what is late."""

import numpy as np
import pytest

from nemo_duplex.benchmark.callers import Caller, speech_of
from nemo_duplex.benchmark.concurrency import Play, Ticks, climb, descend, play
from nemo_duplex.inputs import InputError
from tests.dummies import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def audio():
    return speech_of(None, 16000, 10.0)


def test_callers_who_came_at_different_times_have_their_bursts_in_different_ticks(model, audio):
    """Encoder chunks are of two frames: of three callers, somebody has one in every tick; together, in every other."""
    spread = play(model, audio, 3, Play(ticks=10))
    together = play(model, audio, 3, Play(ticks=10, spread=False))
    assert spread.frames_per_tick == together.frames_per_tick == 1
    assert (spread.stages["encoder"].count, together.stages["encoder"].count) == (10, 5)
    assert spread.stages["llm"].count == together.stages["llm"].count == 10
    assert 0 < spread.p50 <= spread.p95 <= spread.p99 and 0 < spread.mean <= spread.p99
    assert spread.stages["step"].p50 <= spread.p99, "A step is part of its tick."


def test_at_once_makes_both_frames_of_a_burst_in_one_tick(model, audio):
    assert play(model, audio, 1, Play(ticks=1, at_once=True)).frames_per_tick in (0, 2)
    assert play(model, audio, 1, Play(ticks=10, at_once=True)).frames_per_tick == 1


def test_it_gives_up_once_more_than_one_tick_in_a_hundred_is_late(model, audio, monkeypatch):
    monkeypatch.setattr("nemo_duplex.benchmark.concurrency.BUDGET", 0.0)
    assert play(model, audio, 1, Play(ticks=200)).count == 3
    assert play(model, audio, 1, Play(ticks=20, give_up=False)).count == 20


def test_numbers_are_tried_up_to_the_first_that_is_late_and_down_to_the_first_in_time(monkeypatch):
    tried = []

    def pretended(model, audio, sessions, setting):
        tried.append(sessions)
        return Ticks(sessions, 1, 0.0, 0.0, 0.0, 0.0049 * sessions, 1.0, {})

    monkeypatch.setattr("nemo_duplex.benchmark.concurrency.play", pretended)
    assert [ticks.in_time for ticks in climb(None, None, Play(), 64)] == [True] * 5 + [False]
    assert tried == [1, 2, 4, 8, 16, 24]
    tried.clear()
    assert len(list(climb(None, None, Play(), 8))) == 4 and tried[-1] == 8
    tried.clear()
    assert [ticks.in_time for ticks in descend(None, None, Play(), 32)] == [False, False, True]
    assert tried == [32, 24, 16]


def test_callers_speak_for_ever_each_from_another_place(audio):
    first, second = Caller(audio, 1280), Caller(audio, 1280, number=1)
    heard = np.concatenate([first.speak() for _ in range(130)])
    frames = len(audio) // 1280
    assert np.array_equal(heard[: frames * 1280], audio[: frames * 1280])
    assert np.array_equal(heard[frames * 1280 :], audio[: len(heard) - frames * 1280])
    assert np.array_equal(second.speak(), audio[97 * 1280 : 98 * 1280])


def test_a_corpus_that_is_not_there_is_one_line(tmp_path):
    (tmp_path / "something").touch()
    with pytest.raises(InputError, match="set 'dev': there is no folder"):
        speech_of(tmp_path, 16000)
