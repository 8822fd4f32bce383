"""Scorers in processes: all answers come, whatever one of them does."""

import os

import pytest

from nemo_duplex.evaluation.speech.scoring_processes import Task, score_sounds
from nemo_duplex.evaluation.speech.sound_scorer import RATE
from nemo_duplex.inputs import InputError
from tests.evaluation.speech.sounds import Moody, Seconds, Unbuildable, tone


def tasks(*seconds):
    return [Task(s, "one", tone(s), RATE) for s in seconds]


def test_without_processes_sounds_are_judged_here_in_order():
    assert list(score_sounds(tasks(1.5, 0.5, 2.5), {"one": Seconds()}, workers=0)) == [
        (1.5, {"score": 1.5}),
        (0.5, {"refused": "less than 1 s of speech"}),
        (2.5, {"score": 2.5}),
    ]
    [(_, answer)] = score_sounds(tasks(4.0), {"one": Moody()}, workers=0)
    assert answer == {"failed": "RuntimeError: the network is broken"}


@pytest.mark.slow
def test_a_scorer_that_hangs_or_ends_costs_its_sound_alone():
    sounds = tasks(1.2, 2.0, 3.0, 4.0, 6.0, 0.5)
    found = dict(score_sounds(sounds, {"one": Moody()}, workers=1, time_limit=3.0))
    assert len(found) == 6
    assert found[2.0] == {"failed": "the scorer took too long"}
    assert found[3.0] == {"failed": "the process of the scorer ended"}
    assert found[4.0] == {"failed": "RuntimeError: the network is broken"}
    assert found[0.5] == {"refused": "less than 1 s of speech"}
    assert os.getpid() not in (found[1.2]["score"], found[6.0]["score"])
    assert found[1.2] != found[6.0], "Judged by another process after those that ended."


@pytest.mark.slow
def test_what_cannot_be_built_in_a_process_is_one_line_and_no_task_needs_none():
    assert list(score_sounds([], {"one": Unbuildable()}, workers=2)) == []
    with pytest.raises(InputError, match="A process cannot start the scorers of speech: weights.pt is gone"):
        list(score_sounds(tasks(1.5), {"one": Unbuildable()}))
