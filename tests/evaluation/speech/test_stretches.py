"""Which stretches of sound are transcribed, with their margins."""

import numpy as np
import pytest

from nemo_duplex.evaluation.speech.stretches import Stretch, stretches_of
from tests.evaluation.speech.spoken import Reader, agent, outcome, user


def of(said, written=(), **given):
    found = stretches_of(outcome(Reader(), [user(0, 1)], said, written, **given))
    return [(round(s.start, 3), round(s.end, 3), s.heard, s.written and s.written.text) for s in found]


def test_sound_without_text_is_parted_by_its_pauses():
    said = [(2, 3, "a"), (3.5, 4, "b"), (4.501, 5, "c")]
    assert of(said) == [(1.8, 4.2, (2, 4), None), (4.301, 5.2, (4.501, 5), None)]


def test_a_written_turn_and_its_sound_are_one_stretch():
    """A pause within the turn does not part it, and what the voice adds is in it; the margin ends where another turn begins."""
    said = [(2.1, 3, "a"), (4, 6.5, "b"), (8.05, 9, "c")]
    written = [agent(2, 5, "a b"), agent(8.1, 9.4, "c")]
    assert of(said, written) == [(1.8, 6.7, (2.1, 6.5), "a b"), (7.85, 9.6, (8.05, 9), "c")]


def test_a_written_turn_that_is_not_heard_has_a_stretch_and_is_no_turn_of_the_sound():
    assert of([(6, 7, "b")], [agent(2, 3, "a")]) == [(1.8, 3.2, None, "a"), (5.8, 7.2, (6, 7), None)]


def test_written_turns_that_share_their_sound_have_a_stretch_each_beside_it():
    said = [(2, 5, "a b")]
    assert of(said, [agent(2, 3, "a"), agent(3.3, 5, "b")]) == [
        (1.8, 3.2, None, "a"),
        (1.8, 5.2, (2, 5), None),
        (3.1, 5.2, None, "b"),
    ]


def test_the_recording_bounds_stretches():
    assert of([(0.1, 1, "a"), (19.5, 20, "b")], [agent(19.4, 23, "b c")]) == [
        (0, 1.2, (0.1, 1), None),
        (19.2, 20, (19.5, 20), "b c"),
    ]


def test_of_the_corpus_agent_whole_turns_are_taken():
    reader = Reader()
    turns = [
        user(0, 1),
        agent(2, 3, "whole"),
        agent(3.1, 4, "cut", "cut off"),
        agent(4.1, 4.9, "next"),
        agent(5, 6, "late", begun_before=True),
        agent(7, 8, "end", unfinished=True),
        agent(9, 10, ""),
        agent(11, 12, "too"),
    ]
    found = stretches_of(outcome(reader, turns, [], reference=[(2, 3, "whole")]))
    assert [(s.voice, s.start, s.end, s.written.text) for s in found] == [
        ("reference", 1.8, pytest.approx(3.1), "whole"),
        ("reference", 4.0, 5.0, "next"),
        ("reference", 10.8, 12.2, "too"),
    ]
    assert stretches_of(outcome(reader, turns, [])) == [], "there is no sound of it"


def test_a_stretch_is_cut_out_to_the_sample():
    samples = np.arange(100)
    assert Stretch("agent", 1.0, 2.5).of(samples, 10).tolist() == list(range(10, 25))
    assert Stretch("agent", 9.6, 12).of(samples, 10).tolist() == [96, 97, 98, 99]
