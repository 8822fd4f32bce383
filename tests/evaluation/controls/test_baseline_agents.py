"""What the agents do of which every score is known, on a dialogue that can be read."""

import numpy as np
import pytest

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.activity import energy_vad
from nemo_duplex.evaluation.controls.baseline_agents import (
    always_talking,
    deaf_oracle,
    delayed_oracle,
    early_oracle,
    echo,
    every_other_answer,
    oracle,
    played,
    reacts_to_every_sound,
    silent,
    stops_at_backchannels,
)
from nemo_duplex.evaluation.outcome import Outcome, questions
from nemo_duplex.evaluation.sound import Samples
from tests.evaluation.agents import dialogue, voice

RATE = 16000


def outcome_of(conversation, sounds=False):
    user, reference = (
        Samples.of(voice(turns, conversation.duration, RATE), RATE) if sounds else None
        for turns in (conversation.user, conversation.agent)
    )
    return Outcome(conversation, questions(conversation), (), user_sound=user, reference_sound=reference)


def spans(agent, conversation):
    return [(round(a, 4), round(b, 4)) for a, b in played(agent, outcome_of(conversation)).speech]


def test_what_they_say_when():
    """User 1.0 - 2.5, 5.0003 - 6.4, 9.5 - 11; the first of three answers, 3.2 - 5.6, would last to 7.2."""
    talk = dialogue("d")
    assert spans(silent, talk) == []
    assert spans(always_talking, talk) == [(0.0, 16.0)]
    assert spans(echo, talk) == [(1.24, 2.74), (5.2403, 6.64), (9.74, 11.24)]
    assert spans(oracle, talk) == [(3.2, 5.6), (7.04, 8.64), (11.68, 13.6)]
    assert spans(delayed_oracle(0.08), talk) == [(3.28, 5.68), (7.12, 8.72), (11.76, 13.68)]
    assert spans(early_oracle, talk) == [(2.45, 5.6), (6.35, 8.64), (10.95, 13.6)]
    assert spans(every_other_answer, talk) == [(3.2, 5.6), (11.68, 13.6)]
    assert spans(deaf_oracle, talk) == [(3.2, 7.2), (7.04, 8.64), (11.68, 13.6)]
    assert spans(stops_at_backchannels, talk) == spans(reacts_to_every_sound, talk) == spans(oracle, talk)


def test_what_they_write():
    done = played(deaf_oracle, outcome_of(dialogue("d")))
    assert [turn.text for turn in done.agent] == ["the capital of France is Paris", "it is Madrid", "a word"]
    assert [turn.text for turn in played(oracle, outcome_of(dialogue("d"))).agent][0] == "the capital of France"
    entries = [e for e in played(oracle, outcome_of(dialogue("d"))).text_entries if e.time > 11]
    assert [(round(e.time, 2), e.kind) for e in entries] == [(11.68, "bos"), (12.32, "word"), (12.96, "word"), (13.6, "eos")]
    assert played(silent, done).agent == () and played(silent, done).text_entries == ()


def test_nothing_is_said_after_the_recording():
    done = played(delayed_oracle(3.0), outcome_of(dialogue("d")))
    assert done.speech[-1] == pytest.approx((14.68, 16.0)) and done.agent[-1].was_cut
    assert len(played(delayed_oracle(5.0), outcome_of(dialogue("d"))).speech) == 2


def heard(*events, **custom):
    """A question at 1 to 3 s and its answer at 4 to 12 s, with events."""
    listed = [{"kind": kind, "speaker": "user", "start": start, "end": start + 0.4} for kind, start in events]
    turns = (Turn("user", 1, 3, "q", custom=custom), Turn("agent", 4, 12, "one two three four"))
    return Conversation("c", 20.0, turns, {"events": listed})


def test_one_stops_at_backchannels_and_at_nothing_else():
    assert spans(stops_at_backchannels, heard(("backchannel", 6.0), ("backchannel", 9.0))) == [(4, 6.64)]
    assert spans(stops_at_backchannels, heard(("cough", 6.0), ("leak", 7.0), ("backchannel", 13.0))) == [(4, 12)]
    assert spans(stops_at_backchannels, heard(("backchannel", 11.5))) == [(4, 12)], "it is at its end before it stops"


def test_one_reacts_to_every_sound():
    assert spans(reacts_to_every_sound, heard(("cough", 6.0))) == [(4, 6.64), (8.14, 12)]
    assert spans(reacts_to_every_sound, heard(("leak", 4.1))) == [(4, 6.14), (7.64, 12)]
    assert spans(reacts_to_every_sound, heard(("side_talk", 14.0))) == [(4, 12), (14.64, 15.84)]
    assert spans(reacts_to_every_sound, heard(("noise", 6.0))) == [(4, 12)]
    assert spans(reacts_to_every_sound, heard(pauses=[[1.5, 2.5]])) == [(1.7, 2.9), (4, 12)]
    interrupts = heard(("cough", 6.0))
    interrupts = Conversation("c", 20.0, (*interrupts.turns, Turn("user", 9, 11, "no")), interrupts.custom)
    assert spans(reacts_to_every_sound, interrupts) == [(4, 12)], "the user interrupts"
    assert spans(reacts_to_every_sound, heard(("cough", 9.9))) == [(4, 12)], "too late to go on"


def same(sound, other):
    """But for the rounding to 16 bits."""
    return np.allclose(sound, other, atol=1e-4)


def test_their_sound_is_cut_out_of_the_corpus():
    recorded = outcome_of(dialogue("d"), sounds=True)
    reference, user = recorded.reference_sound.samples(), recorded.user_sound.samples()
    assert same(played(oracle, recorded, energy_vad).agent_sound.samples(), reference)
    late = played(delayed_oracle(0.08), recorded, energy_vad).agent_sound.samples()
    assert same(late[1280:], reference[:-1280]) and not late[:1280].any()
    heard_back = played(echo, recorded, energy_vad).agent_sound.samples()
    assert same(heard_back[3840:], user[:-3840])
    assert not played(silent, recorded, energy_vad).agent_sound.samples().any()


def test_what_is_said_after_a_break_is_the_rest():
    talk = heard(("cough", 6.0))
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 20 * RATE).astype(np.float32)
    recorded = Outcome(talk, questions(talk), (), reference_sound=Samples.of(sound, RATE))
    said = played(reacts_to_every_sound, recorded, energy_vad).agent_sound.samples()
    stop, again, end = (round(time * RATE) for time in (6.64, 8.14, 12))
    assert same(said[4 * RATE : stop], sound[4 * RATE : stop]) and same(said[again:end], sound[again:end])
    assert not said[stop:again].any() and not said[end:].any()


def test_where_no_sound_is_recorded_it_is_repeated_or_made():
    recorded = outcome_of(dialogue("d"), sounds=True)
    deaf = played(deaf_oracle, recorded, energy_vad)
    reference = recorded.reference_sound.samples()
    first = reference[round(3.2 * RATE) : round(5.6 * RATE)]
    begun = deaf.agent_sound.samples()[round(3.2 * RATE) : round(7.04 * RATE)]
    assert same(begun[: len(first)], first) and same(begun[len(first) :], first[: len(begun) - len(first)])
    assert deaf.speech[0][1] > 8.5, "it speaks through"
    without = played(always_talking, outcome_of(dialogue("d")), energy_vad)
    assert without.speech == ((0.0, 16.0),) and without.agent_sound.sample_rate == 16000


def test_the_user_and_what_was_known_stay():
    recorded = outcome_of(dialogue("d"), sounds=True)
    done = played(oracle, recorded)
    assert done.conversation is recorded.conversation and done.questions is recorded.questions
    assert done.user_sound is recorded.user_sound and done.agent_sound is None and done.writes
