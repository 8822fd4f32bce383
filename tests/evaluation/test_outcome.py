"""What is known of a conversation before and after it was played: questions, references, both channels."""

from dataclasses import replace

import numpy as np
import pytest
from lhotse import CutSet

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.generation import check, run_conversations
from nemo_duplex.evaluation.outcome import Outcome, Reference, questions
from nemo_duplex.evaluation.sound import CutSound, Samples
from nemo_duplex.inputs import InputError
from tests.evaluation.agents import Silent, cut_of, dialogue


def test_a_question_ends_where_the_next_begins_and_is_answered_in_between():
    asked = questions(dialogue("d"))
    assert [q.turn.text for q in asked] == ["What is the capital of France?", "No, of Spain?", "Say a word."]
    assert [q.next_start for q in asked] == [5.0003, 9.5, 16.0]
    capital = {"family": "capital", "seen": True}
    assert [q.reference for q in asked] == [
        Reference(("the capital of France is Paris",), answer="France", **capital),  # whole, though it was cut off
        Reference(("it is Madrid",), answer="Madrid", **capital),
        Reference(("a word",), answer="word", family="echo", seen=False),
    ]


def conversation(*turns, **custom):
    return Conversation("c", 10.0, tuple(Turn(*turn) for turn in turns), custom)


def test_an_answer_may_begin_before_the_question_ends_but_not_before_it_begins():
    early = conversation(("user", 1, 3, "q"), ("agent", 2.5, 4, "early"))
    assert questions(early)[0].reference == Reference(("early",))
    greeting = conversation(("agent", 0.2, 1.5, "hello"), ("user", 1, 3, "q"), ("user", 5, 6, "r"), ("agent", 7, 8, "late"))
    assert [q.reference and q.reference.texts for q in questions(greeting)] == [None, ("late",)]


def test_listed_references_go_with_their_questions():
    asked = questions(conversation(("user", 1, 3, "q"), ("user", 5, 6, "r"), references=[["one", "uno"], "two"]))
    assert [q.reference.texts for q in asked] == [("one", "uno"), ("two",)]
    assert [q.reference.seen for q in asked] == [None, None], "the corpus does not say"
    with pytest.raises(InputError, match="Conversation c has 1 user turns and 2 references"):
        questions(conversation(("user", 1, 3, "q"), references=["one", "two"]))


def test_a_question_that_the_recording_breaks_off_has_no_reference():
    turns = (Turn("user", 1, 3, "q", custom={"unfinished": True}), Turn("agent", 4, 5, "a"))
    assert questions(Conversation("c", 10.0, turns))[0].reference is None


def test_a_question_of_which_the_recording_has_a_part_has_no_reference():
    made = cut_of(Conversation("c", 10.0, (Turn("user", 0, 3, "q r s"), Turn("agent", 4, 5, "a"), Turn("user", 6, 8, "t u v"))))
    made.supervisions[0].start, made.supervisions[2].duration = -1.0, 9.0
    first, last = questions(Conversation.from_cut(made))
    assert (first.turn.start, first.turn.end, first.reference) == (0.0, 2.0, None)
    assert (last.turn.start, last.turn.end, last.reference) == (6.0, 10.0, None)
    made.supervisions[0].start, made.supervisions[0].duration = -0.005, 3.0
    assert questions(Conversation.from_cut(made))[0].reference == Reference(("a",))


def test_a_user_channel_whose_shards_are_missing_is_refused_and_an_agent_one_is_not_needed(tmp_path):
    made = cut_of(dialogue("d"))
    CutSet.from_cuts([made]).to_shar(tmp_path, fields={"recording": "wav", "target_audio": "wav"}, shard_size=1)
    (tmp_path / "target_audio.000000.tar").unlink()
    (cut,) = CutSet.from_shar(in_dir=tmp_path)
    check(cut, 16000)
    (outcome,) = run_conversations(Silent(), [cut], lambda audio, rate: [])
    assert outcome.reference_sound is None and outcome.user_sound.samples().shape == (256000,)
    (tmp_path / "recording.000000.tar").unlink()
    (cut,) = CutSet.from_shar(in_dir=tmp_path)
    with pytest.raises(InputError, match="^Cut d has no user channel: its recording is missing"):
        check(cut, 16000)


def test_a_user_of_whom_nothing_is_heard_is_refused():
    made = cut_of(Conversation("c", 10.0, (Turn("user", 0, 3, "q"), Turn("agent", 4, 5, "a"))))
    check(made, made.sampling_rate)
    made.supervisions[0].start = 20.0
    with pytest.raises(InputError, match="Cut c has no supervisions of the user within its audio"):
        check(made, made.sampling_rate)


def outcome_of(cut, agent):
    """The agent's samples, int16 at 22050 Hz, beside the user of a cut."""
    said = Conversation.from_cut(cut)
    return Outcome(said, questions(said), (), agent_sound=Samples(agent, 22050), user_sound=CutSound(cut, "recording"))


def test_the_user_is_left_and_the_agent_right_at_any_rate():
    cut = cut_of(Conversation("c", 2.0, (Turn("user", 0.5, 1.0, "q"),)))
    agent = np.zeros(2 * 22050, np.int16)
    agent[round(1.5 * 22050) :] = 16384
    outcome = outcome_of(cut, agent)
    for rate in (8000, 16000, 22050):
        sound = outcome.stereo(rate)
        assert sound.shape == (2 * rate, 2) and sound.dtype == np.float32
        user, agent = np.abs(sound[round(0.55 * rate) : round(0.95 * rate)]).mean(axis=0)
        assert user > 0.1 and agent < 1e-3
        user, agent = np.abs(sound[round(1.6 * rate) : round(1.9 * rate)]).mean(axis=0)
        assert user < 1e-3 and agent == pytest.approx(0.5, abs=1e-3)
    assert outcome.user == [(0.5, 1.0)] and outcome.user_sound.samples().shape == (32000,)


def test_an_agent_that_is_shorter_than_the_user_is_filled_with_silence():
    cut = cut_of(Conversation("c", 2.0, (Turn("user", 0.5, 1.0, "q"),)))
    sound = outcome_of(cut, np.full(22050, 16384, np.int16)).stereo(22050)
    assert sound.shape == (44100, 2) and not sound[23000:, 1].any()


def test_a_cut_that_can_be_evaluated_passes():
    check(cut_of(dialogue("d")), 16000)
    check(cut_of(dialogue("d"), agent=False), 16000)
    check(cut_of(dialogue("d"), agent_seconds=16.079), 16000)


def test_a_cut_that_cannot_is_named():
    def refused(message, cut):
        with pytest.raises(InputError, match=message):
            check(cut, 16000)

    refused("Cut slow: the user channel has 8000 Hz, the model hears 16000 Hz", cut_of(dialogue("slow"), user_rate=8000))
    refused("Cut uneven.*16.00 s.*16.09 s, expected the same", cut_of(dialogue("uneven"), agent_seconds=16.09))
    refused("Cut mute has no supervisions of the user", cut_of(replace(dialogue("mute"), turns=())))
    refused("Cut agent has no supervisions of the user", cut_of(replace(dialogue("agent"), turns=dialogue("agent").agent)))
