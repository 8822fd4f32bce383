"""Conversations in which everything happens: complete, repeatable, and with room for every reaction."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from nemo_duplex.evaluation.controls.built_in_conversations import built_in_conversations, built_in_outcomes
from nemo_duplex.evaluation.labels import labelled_events, user_pauses


def test_the_seed_makes_them():
    assert built_in_conversations() == built_in_conversations()
    assert len(built_in_conversations()) == 32 and built_in_conversations(3) == built_in_conversations()[:3]
    assert not any(a.turns == b.turns for a, b in zip(built_in_conversations(8), built_in_conversations(8, seed=1)))


def test_each_has_a_pause_and_every_kind_of_event():
    kinds = Counter()
    for one in built_in_conversations():
        events = Counter(event.kind for event in labelled_events(one))
        assert all(events[kind] == 1 for kind in ("backchannel", "cough", "side_talk", "background_voice"))
        assert len(user_pauses(one)) == 1
        kinds.update(events)
    assert 70 > kinds["leak"] > 60 and 32 > kinds["noise"] > 8


def test_barge_ins_leave_much_or_little_unsaid_and_are_answered():
    left, cut = [], 0
    for one in built_in_conversations():
        interrupted = 0
        for answer, following in zip(one.agent, one.user[1:]):
            end = answer.start + answer.custom["whole_duration"]
            if following.start >= end:
                assert following.start - end > 3
                continue
            interrupted += 1
            left.append(end - following.start)
            cut += answer.was_cut
            assert answer.end == pytest.approx(min(end, following.start + 0.64), abs=1e-9) and following.end > end + 0.3
        assert 1 <= interrupted <= 2 and len(one.user) == len(one.agent)
    assert min(left) < 0.64 < 1.5 < 2.5 < max(left) and cut == sum(one > 0.64 for one in left)


def test_turns_take_turns_on_whole_milliseconds_and_no_two_answers_are_alike():
    texts = [turn.full_text or turn.text for one in built_in_conversations() for turn in one.agent]
    assert len(set(texts)) == len(texts)
    for one in built_in_conversations():
        times = [time for turn in one.turns for time in (turn.start, turn.end)]
        assert all(abs(1000 * time - round(1000 * time)) < 1e-6 for time in times)
        for speaker in (one.user, one.agent):
            assert all(a.end < b.start for a, b in pairwise(speaker))
        assert all(0.3 <= answer.start - question.end <= 1.0 for question, answer in zip(one.user, one.agent))
        assert one.duration - one.agent[-1].end > 3


def test_with_sound_they_are_heard_where_they_speak_and_not_in_their_pauses():
    for outcome in built_in_outcomes(2, sounds=True):
        for sound, turns in (
            (outcome.user_sound, outcome.conversation.user),
            (outcome.reference_sound, outcome.conversation.agent),
        ):
            samples, rate = sound.samples(), sound.sample_rate
            assert len(samples) == round(outcome.duration * rate)
            heard = np.zeros(len(samples), bool)
            for turn in turns:
                heard[round(turn.start * rate) : round(turn.end * rate)] = True
                for a, b in turn.custom.get("pauses", ()):
                    heard[round(a * rate) : round(b * rate)] = False
            assert not samples[~heard].any() and np.abs(samples[heard]).mean() > 0.05
