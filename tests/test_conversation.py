"""Turns, how they are cut, and their way through a Lhotse cut."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from lhotse import MonoCut, Recording, SupervisionSegment

from nemo_duplex.conversation import Conversation, Turn, Word
from nemo_duplex.inputs import InputError
from tests.dummies import wav_bytes

TEXT = "No, Paris. It is big!"
WORDS = (
    Word("No,", 0, 2.0, 2.4),
    Word("Paris.", 4, 2.4, 3.0),
    Word("It", 11, 3.2, 3.4),
    Word("is", 14, 3.4, 3.6),
    Word("big!", 17, 3.6, 4.0),
)


def answer(**changes) -> Turn:
    return Turn(**{**dict(speaker="agent", start=2.0, end=4.0, text=TEXT, words=WORDS, custom={"answer": "Paris"}), **changes})


def cut_of(conversation: Conversation, custom: dict | None = None) -> MonoCut:
    """A cut as it is after a trip through JSON."""
    data = wav_bytes(np.zeros(round(16000 * conversation.duration)), 16000)
    recording = Recording.from_bytes(data, recording_id=conversation.id)
    supervisions = [SupervisionSegment.from_dict(json.loads(json.dumps(s.to_dict()))) for s in conversation.to_supervisions()]
    return MonoCut(conversation.id, 0, conversation.duration, 0, supervisions=supervisions, recording=recording, custom=custom)


@pytest.mark.parametrize(
    "time, kept",
    [(2.1, "No,"), (2.9, "No, Paris."), (3.1, "No, Paris."), (3.2, "No, Paris."), (3.3, "No, Paris. It"), (3.9, TEXT)],
)
def test_a_cut_keeps_the_words_begun_with_their_punctuation(time, kept):
    cut = answer().cut_at(time)
    assert cut.text == kept
    assert cut.full_text == TEXT and cut.was_cut
    assert cut.end == time and cut.start == 2.0
    assert all(word.end <= time for word in cut.words)
    assert cut.custom == {"answer": "Paris"}


def test_a_cut_before_the_first_word_leaves_no_text():
    late = tuple(word.shifted(0.5) for word in WORDS)
    assert answer(words=late, end=4.5).cut_at(2.3).text == ""


def test_a_cut_without_word_times_falls_on_a_words_edge():
    turn = Turn("agent", 0.0, 2.0, "one two three four")
    assert turn.cut_at(1.0).text == "one two"
    assert turn.cut_at(0.01).text == ""


def test_a_cut_twice_remembers_the_whole():
    assert answer().cut_at(3.5).cut_at(2.5).full_text == TEXT


@pytest.mark.parametrize("time", [1.0, 2.0, 4.0, 5.0])
def test_a_cut_outside_the_turn_is_refused(time):
    with pytest.raises(ValueError, match="Cannot cut a turn of 2.000 to 4.000 s"):
        answer().cut_at(time)


def test_shifted_moves_the_words_too():
    moved = answer().shifted(1.5)
    assert (moved.start, moved.end) == (3.5, 5.5)
    assert moved.words[0].start == 3.5 and moved.words[0].offset == 0


@pytest.mark.parametrize(
    "wrong, message",
    [(dict(speaker="assistant"), "got 'assistant'"), (dict(start=-1.0), "forwards"), (dict(end=1.0), "forwards")],
)
def test_a_wrong_turn_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        answer(**wrong)


def test_turns_are_ordered_and_sorted_out_by_speaker():
    user = Turn("user", 0.0, 1.4, "Where?")
    conversation = Conversation("c", 5.0, (answer(), user))
    assert conversation.turns == (user, answer())
    assert conversation.user == (user,) and conversation.agent == (answer(),)


def test_turns_are_in_order_of_their_start():
    """A short turn inside of a long one comes after it; of two that start together the agent's comes first."""
    long, short = Turn("user", 0.0, 4.0, "long"), Turn("agent", 1.0, 1.5, "short")
    user, agent = Turn("user", 2.0, 2.1), Turn("agent", 2.0, 3.0)
    assert Conversation("c", 5.0, (user, short, agent, long)).turns == (long, short, agent, user)


def test_a_turn_beyond_the_end_is_refused():
    with pytest.raises(ValueError, match="Conversation c lasts 3.000 s, but a turn of it ends at 4.000 s"):
        Conversation("c", 3.0, (answer(),))
    assert Conversation("c", 3.9995, (answer(),)).turns, "less than a millisecond is rounding"


def test_round_trip_through_a_cut():
    turns = (
        Turn("user", 0.1, 1.4, "Where?", custom={"voice": "v1", "pauses": [[0.5, 0.9]]}),
        answer().cut_at(3.3),
        Turn("user", 2.6, 3.9, "Stop.", custom={"barge_in": True}),
    )
    about = {"family": "capitals", "seed": 3, "snr": 20.5, "room": True, "events": [1.5, 2.0], "voices": {"user": "v1"}}
    conversation = Conversation("dev-000001", 6.4, turns, about)
    back = Conversation.from_cut(cut_of(conversation, about))
    assert back == conversation
    assert (back.turns[1].full_text, back.turns[1].custom) == (TEXT, {"answer": "Paris"})


def test_only_what_json_knows_is_kept_of_a_cut():
    conversation = Conversation("c", 5.0, (answer(),))
    assert Conversation.from_cut(cut_of(conversation, {"a": 1, "recording": object()})).custom == {"a": 1}


def test_supervisions_say_who_speaks_when():
    user, agent = Conversation("c7", 5.0, (Turn("user", 0.1, 1.4, "Where?"), answer())).to_supervisions()
    assert (user.id, user.speaker, user.start, user.duration, user.text) == ("c7-00", "user", 0.1, 1.3, "Where?")
    assert (agent.id, agent.speaker, agent.recording_id, agent.custom) == ("c7-01", "agent", "c7", {"answer": "Paris"})
    assert [(w.symbol, w.start, w.duration) for w in agent.alignment["word"][:2]] == [("No,", 2.0, 0.4), ("Paris.", 2.4, 0.6)]
    assert user.custom is None and user.alignment is None


def test_a_turn_that_began_before_its_cut_starts_with_it():
    cut = cut_of(Conversation("c", 5.0, (answer(),)))
    cut.supervisions[0].start, cut.supervisions[0].duration = -0.5, 2.0
    (turn,) = Conversation.from_cut(cut).turns
    assert (turn.start, turn.end) == (0.0, 1.5)


def test_time_marks_in_the_text_are_left_out():
    """As in corpora of NeMo: `<|0|> Hey <|3|>`."""
    cut = cut_of(Conversation("c", 5.0, (replace(answer(), words=()),)))
    cut.supervisions[0].text = "<|0|> Hey,  you <|12|> there <|3|>"
    assert Conversation.from_cut(cut).turns[0].text == "Hey, you there"
    cut.supervisions[0].text = "two  spaces"
    assert Conversation.from_cut(cut).turns[0].text == "two  spaces"


def test_a_word_that_is_said_twice_is_found_twice():
    turn = answer(text="no no, no", words=tuple(Word("no", at, 2 + at / 10, 2.1 + at / 10) for at in (0, 3, 7)))
    words = Conversation.from_cut(cut_of(Conversation("c", 5.0, (turn,)))).turns[0].words
    assert [w.offset for w in words] == [0, 3, 7]


def test_speakers_of_other_corpora_have_roles():
    cut = cut_of(Conversation("c", 5.0, (Turn("user", 0.0, 1.0, "q"), answer())))
    cut.supervisions[0].speaker, cut.supervisions[1].speaker = "Bob", "assistant"
    back = Conversation.from_cut(cut, {"Bob": "user", "assistant": "agent"})
    assert [turn.speaker for turn in back.turns] == ["user", "agent"]
    with pytest.raises(InputError, match="speaker 'Bob', expected one of 'user', 'agent'"):
        Conversation.from_cut(cut)


def test_an_aligner_that_spells_otherwise_keeps_the_times():
    turn = answer(words=(Word("no", 0, 2.0, 2.4), Word("Paris", 4, 2.4, 3.0)))
    words = Conversation.from_cut(cut_of(Conversation("c", 5.0, (turn,)))).turns[0].words
    assert [(w.text, w.start, w.end) for w in words] == [("no", 2.0, 2.4), ("Paris", 2.4, 3.0)]
    assert words[1].offset == 4


def test_a_foreign_speaker_is_an_error_that_names_the_cut():
    cut = cut_of(Conversation("chat-7", 5.0, (answer(),)))
    cut.supervisions[0].speaker = "assistant"
    with pytest.raises(InputError, match="Cut chat-7: supervision chat-7-00 has speaker 'assistant'"):
        Conversation.from_cut(cut)
