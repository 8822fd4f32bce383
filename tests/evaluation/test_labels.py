"""Pauses and events as a corpus writes them, and as it must not."""

import re

import pytest

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.labels import LabelledEvent, labelled_events, user_pauses, user_speech
from nemo_duplex.inputs import InputError


def conversation(pauses=(), events=(), **custom):
    """A user turn from 1 to 4 s, with an answer."""
    turn = Turn("user", 1.0, 4.0, "What is the capital?", custom={"pauses": list(pauses), **custom})
    return Conversation("d7", 10.0, (turn, Turn("agent", 5.0, 8.0, "Paris.")), {"events": list(events)})


def test_events_come_in_order_and_pauses_too():
    mhm = {"kind": "backchannel", "speaker": "user", "start": 6.0, "end": 6.3, "level_db": -3.0, "text": "mhm"}
    leak = {"kind": "leak", "speaker": "agent", "start": 5.1, "end": 8, "level_db": -30.0}
    found = conversation([[3.0, 3.5], [1.5, 2.0]], [mhm, leak])
    assert labelled_events(found) == (LabelledEvent("leak", "agent", 5.1, 8), LabelledEvent("backchannel", "user", 6.0, 6.3))
    assert user_pauses(found) == ((1.5, 2.0), (3.0, 3.5))


def test_a_corpus_without_labels_has_none():
    plain = Conversation("d1", 5.0, (Turn("user", 1.0, 2.0),))
    assert (labelled_events(plain), user_pauses(plain), user_speech(plain)) == ((), (), ((1.0, 2.0),))
    assert labelled_events(Conversation("d2", 5.0, (), {"events": None})) == ()


def test_the_user_speaks_in_turns_without_pauses_and_beside_them():
    events = [
        {"kind": "backchannel", "speaker": "user", "start": 6.0, "end": 6.3},
        {"kind": "side_talk", "speaker": "user", "start": 9.0, "end": 11.0},  # the recording ends within it
        {"kind": "cough", "speaker": "user", "start": 7.0, "end": 7.3},
        {"kind": "background_voice", "speaker": "other", "start": 2.0, "end": 3.0},
        {"kind": "backchannel", "speaker": "agent", "start": 4.5, "end": 4.8},
    ]
    assert user_speech(conversation([[1.5, 2.0]], events)) == ((1.0, 1.5), (2.0, 4.0), (6.0, 6.3), (9.0, 10.0))


def test_a_turn_that_the_recording_cuts_has_what_is_left_of_its_pauses():
    assert user_pauses(conversation([[3.8, 4.3], [4.5, 4.8]], unfinished=True)) == ((3.8, 4.0),)
    assert user_pauses(conversation([[0.2, 1.2], [2.0, 2.2]], begun_before=True)) == ((1.0, 1.2), (2.0, 2.2))
    assert user_pauses(conversation([[3.5, 4.0004]])) == ((3.5, 4.0),), "rounding"


@pytest.mark.parametrize("pause", [[3.8, 4.3], [0.5, 0.8], [2.0, 1.5], [2.0], "2.0", [2.0, float("nan")], [None, 2.0], 7])
def test_a_pause_outside_of_its_turn_is_refused(pause):
    with pytest.raises(InputError, match=r"Conversation d7: the user's turn of 1.000 to 4.000 s has the pause "):
        user_pauses(conversation([pause]))


@pytest.mark.parametrize(
    "event",
    [
        {"kind": "cough", "start": 2.0},
        {"kind": "cough", "start": 2.0, "end": 1.0},
        {"kind": "cough", "start": float("nan"), "end": 1.0},
        {"kind": "cough", "start": "2.0", "end": 3.0},
        {"start": 2.0, "end": 3.0},
        "cough",
    ],
)
def test_an_event_without_kind_or_times_is_refused(event):
    with pytest.raises(InputError, match=re.escape("Conversation d7: event 1 is ")):
        labelled_events(conversation(events=[{"kind": "cough", "start": 1.0, "end": 1.0}, event]))
    with pytest.raises(InputError, match="its events are 'cough', expected a list"):
        labelled_events(Conversation("d7", 5.0, (), {"events": "cough"}))
