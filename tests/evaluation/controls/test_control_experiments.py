"""What only an agent that listens passes, tried on agents of which it is known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.activity import energy_vad
from nemo_duplex.evaluation.controls.baseline import lengths_of_answers
from nemo_duplex.evaluation.controls.control import counts
from nemo_duplex.evaluation.controls.control_experiments import (
    control_experiments,
    muted_from,
    muted_interrupter,
    noise_only,
    silence,
)
from nemo_duplex.evaluation.controls.pace import Pace
from nemo_duplex.evaluation.generation import run_conversations
from nemo_duplex.evaluation.scores import score
from tests.evaluation.agents import FakeAgent, Oracle, Silent, Talker, cut_of, dialogue, voice


class Jumpy(FakeAgent):
    """Says something to anything that is loud enough."""

    def does(self, user):
        loud = np.abs(user).mean() > 0.01
        return np.zeros(0), [Turn("agent", 1.6, 2.4, "pardon")] if loud else []


def test_noise_and_silence_tell_a_silent_agent_from_a_talker():
    assert noise_only(Silent(), seconds=3).passed and silence(Silent(), seconds=3).passed
    assert noise_only(Talker(), seconds=3).passed is False and silence(Talker(), seconds=3).passed is False


class Spoken(FakeAgent):
    """Keeps what is played to it; makes a sound and writes nothing, or the other way round."""

    def __init__(self, sound, *turns):
        super().__init__()
        self.sound, self.turns, self.users = sound, list(turns), []

    def does(self, user):
        self.users.append(user)
        return self.sound, self.turns


def test_sound_alone_and_text_alone_are_speech():
    by_sound = silence(Spoken(voice([Turn("agent", 1.0, 2.0)], 3, 22050)), seconds=3)
    assert not by_sound.passed and by_sound.figures["spoken_seconds"] == pytest.approx(1.0, abs=0.03)
    by_text = silence(Spoken(np.zeros(0), Turn("agent", 0.8, 2.4, "pardon")), seconds=3)
    assert not by_text.passed and by_text.figures["spoken_seconds"] == pytest.approx(1.6)
    assert by_text.detail == "spoke for 1.6 s"


def test_noise_has_its_level_three_colours_and_a_seed():
    agent = Spoken(np.zeros(0))
    experiment = noise_only(agent, seconds=2, levels_db=(-40, -28))
    assert experiment.passed and experiment.detail == "silent through 6 x 2 s of noise"
    levels = [20 * np.log10(np.square(user).mean() ** 0.5) for user in agent.users]
    assert levels == pytest.approx([-40, -28] * 3, abs=0.1)
    assert {len(user) for user in agent.users} == {32000}
    other = Spoken(np.zeros(0))
    noise_only(other, seconds=2, levels_db=(-40, -28), seed=1)
    assert not any(np.array_equal(a, b) for a, b in zip(agent.users, other.users))


def test_noise_that_makes_it_write_is_enough_to_fail_and_is_named():
    control = noise_only(Jumpy(), seconds=3, levels_db=(-60, -20))
    assert control.passed is False and "white -20 dB" in control.detail and "-60" not in control.detail
    assert silence(Jumpy(), seconds=3).passed


def lengths_in(cuts):
    return lengths_of_answers(map(Conversation.from_cut, cuts))


def without_interrupter(agent, cuts, lengths=None):
    """The control experiment on the first conversation."""
    (outcome,) = run_conversations(agent, cuts[:1], energy_vad)
    return muted_interrupter(agent, score(outcome), lengths or lengths_in(cuts))


def test_an_agent_that_listens_finishes_when_nobody_interrupts(cuts):
    control = without_interrupter(Oracle(cuts), cuts)
    assert control.passed, control.detail
    assert control.figures["stop"] == pytest.approx(5.6, abs=0.03)
    assert control.figures["stops_muted"][0] == pytest.approx(7.2, abs=0.03)
    assert control.figures["text_muted"] == "the capital of France is Paris"


class Timed(Oracle):
    """Stops at the same time whether it is interrupted or not: it has learnt the rhythm of the corpus."""

    def turns(self, recorded, hears):
        return super().turns(recorded, lambda turn: True)


def test_an_agent_that_only_knows_the_rhythm_is_found_out(cuts):
    assert without_interrupter(Timed(cuts), cuts).passed is False


def test_without_a_telling_barge_in_nothing_is_played(cuts):
    control = without_interrupter(Silent(), cuts)
    assert control.passed is None and control.figures == {}
    assert control.detail == "d0: no barge-in that cuts an answer off"


@pytest.mark.parametrize(("length", "plays"), [(2.77, False), (2.83, True)])
def test_an_answer_is_cut_off_if_0_4_seconds_of_it_are_left(cuts, length, plays):
    """It lasts from 3.2 to 5.6 s."""
    lengths = dict.fromkeys(lengths_in(cuts), length)
    assert bool(without_interrupter(Oracle(cuts), cuts, lengths).figures) is plays


@pytest.mark.parametrize(("text", "plays"), [("the", False), ("the capital", True), ("", False)])
def test_a_voice_that_is_far_ahead_of_its_text_says_something_else(cuts, text, plays):
    """It stops after 6 tenths of the answer; 2 of its 6 words are more than half of that."""

    class Stalled(Oracle):
        def turns(self, recorded, hears):
            said = super().turns(recorded, hears)
            return [replace(t, text=text) if t.was_cut else t for t in said]

    assert bool(without_interrupter(Stalled(cuts), cuts).figures) is plays


class Alone(Oracle):
    """Stops for the interrupter at 5.6 s as in the corpus; without one, says what is given from 3.2 s on (all: to 7.2 s)."""

    def __init__(self, cuts, end, text="the capital of France is Paris"):
        super().__init__(cuts)
        self.alone = {"end": end, "text": text}

    def turns(self, recorded, hears):
        said = super().turns(recorded, hears)
        return said if hears(recorded.user[1]) else [replace(said[0], full_text=None, **self.alone)]


PREFIX, OTHER = "the capital of France", "the capital of France was Rome"


@pytest.mark.parametrize(
    ("end", "about", "passed", "reason"),
    [
        (7.2, {}, True, "it goes on to its own end"),
        (6.88, {}, True, "it goes on to its own end"),
        (6.16, {}, None, "that is 74.3% of the time that the whole answer takes in the corpus, so it may be broken off"),
        (
            6.72,
            {"text": OTHER},
            None,
            "that is 88.3% of the time that the whole answer takes in the corpus, so it may be broken off",
        ),
        (7.2, {"text": OTHER}, True, "it goes on to its own end"),
        (5.92, {}, None, "its answer may end there by itself, so nothing can be told"),
        (5.92, {"text": OTHER}, None, "it says something else, which may end there by itself, so nothing can be told"),
        (5.76, {"text": OTHER}, None, "it says something else, which may end there by itself, so nothing can be told"),
        (5.76, {}, False, "it breaks its answer off although nobody interrupts"),
        (5.92, {"text": PREFIX}, False, "it stops there too although nobody interrupts"),
        (
            6.4,
            {"text": PREFIX},
            None,
            "that is 80.3% of the time that the whole answer takes in the corpus, so it may be broken off",
        ),
        (7.2, {"text": PREFIX}, True, "it goes on to its own end"),  # its voice says all of it, its text not
        (5.36, {"text": PREFIX}, False, "it breaks its answer off although nobody interrupts"),
        (16.0, {}, False, "it does not stop at all"),
        (4.8, {}, None, "it is silent when the user would start, so the two runs differ before"),
    ],
)
def test_what_it_does_alone_passes_fails_or_tells_nothing(cuts, end, about, passed, reason):
    control = without_interrupter(Alone(cuts, end, **about), cuts)
    assert (control.passed, control.detail.split(": ", 2)[2]) == (passed, reason)
    assert control.figures["own_end"] == pytest.approx(7.2, abs=0.03)


def test_a_complete_answer_that_ends_0_15_seconds_later_tells_nothing(cuts):
    """The corpus' voice would take 3.5 s for it; the agent takes 2.55 s and is at its end when the user interrupts."""
    lengths = dict.fromkeys(lengths_in(cuts), 3.5)

    class Quick(Alone):
        def turns(self, recorded, hears):
            return super().turns(recorded, hears)[:1]

    control = without_interrupter(Quick(cuts, 5.75), cuts, lengths)
    assert control.passed is None and control.figures["stops_muted"][0] - control.figures["stop"] == pytest.approx(
        0.15, abs=0.03
    )


def test_a_voice_that_is_at_its_end_tells_nothing_whatever_is_written(cuts):
    """The corpus' voice would take to 6.05 s, and 2 words of the answer are never written."""
    control = without_interrupter(Alone(cuts, 5.92, PREFIX), cuts, dict.fromkeys(lengths_in(cuts), 2.85))
    assert control.passed is None and control.detail.endswith("its answer may end there by itself, so nothing can be told")


def test_its_text_is_that_of_the_turn_which_is_heard(cuts):
    """The text of the answer ends at 4.96 s, before the user interrupts; its sound lasts to 7.2 s."""

    class Ahead(Alone):
        def does(self, user):
            sound, turns = super().does(user)
            return sound, turns if len(turns) > 1 else [replace(turns[0], end=4.96)]

    control = without_interrupter(Ahead(cuts, 7.2), cuts)
    assert control.passed and control.figures["text_muted"] == "the capital of France is Paris"


def test_where_the_recording_ends_before_the_answer_it_is_played_for_longer():
    """The recording ends at 16 s, the whole answer would at 17.2 s."""
    recorded = dialogue("d")
    turns = [replace(t, custom=t.custom | {"whole_duration": 14.0}) if t.was_cut else t for t in recorded.turns]
    cut = cut_of(replace(recorded, turns=tuple(turns)))
    control = without_interrupter(Oracle([cut]), [cut])
    assert control.passed and control.figures["stops_muted"][0] == pytest.approx(17.2, abs=0.03), control.detail


class Random(Oracle):
    """Breaks every answer off before nine tenths of it, whatever it hears; has written what it has said, or everything."""

    def __init__(self, cuts, seed, writes_ahead):
        super().__init__(cuts)
        self.draw, self.writes_ahead = np.random.default_rng(seed), writes_ahead

    def turns(self, recorded, hears):
        whole = super().turns(recorded, lambda turn: turn.start != recorded.user[1].start)[0]
        end = whole.start + self.draw.uniform(0.3, 0.88) * whole.duration
        spoken = whole.text.split()[: int(6 * (end - whole.start) / whole.duration)]
        return [replace(whole, end=end, text=whole.text if self.writes_ahead else " ".join(spoken))]


@pytest.mark.parametrize("writes_ahead", [False, True])
def test_an_agent_that_stops_at_random_never_passes(cuts, writes_ahead):
    results = [without_interrupter(Random(cuts, seed, writes_ahead), cuts).passed for seed in range(40)]
    assert results.count(True) == 0 and results.count(False) > 7


class Wavering(Oracle):
    """Deaf, and says the first answer in 0.76 to 1.23 of the time of the corpus' voice, now faster, now slower."""

    def __init__(self, cuts, seed):
        super().__init__(cuts, stops=False)
        self.draw = np.random.default_rng(seed)

    def turns(self, recorded, hears):
        [whole, *_] = super().turns(recorded, hears)
        return [replace(whole, end=whole.start + self.draw.uniform(0.76, 1.23) * whole.duration)]


def test_a_deaf_agent_of_uneven_pace_is_told_by_its_pace(cuts):
    """Fast when the user interrupts and slower when nobody does, it would seem to listen."""
    controls = []
    for seed in range(40):
        (outcome,) = run_conversations(Wavering(cuts, seed), cuts[:1], energy_vad)
        controls.append(
            muted_interrupter(Wavering(cuts, seed + 1000), score(outcome), lengths_in(cuts), pace=Pace(1.0, 0.785, 40))
        )
    assert counts(controls) == {"passed": 0, "failed": 0, "inconclusive": 40}


class Different(Oracle):
    """Without an interrupter it ends at each of these times in turn (Seconds)."""

    def __init__(self, cuts, *ends):
        super().__init__(cuts)
        self.ends = list(ends)

    def turns(self, recorded, hears):
        said = super().turns(recorded, hears)
        return (
            said
            if hears(recorded.user[1])
            else [replace(said[0], full_text=None, text=PREFIX + " is Paris", end=self.ends.pop(0))]
        )


@pytest.mark.parametrize(
    ("ends", "passed", "reason"),
    [
        ((7.2, 7.2), True, "it goes on to its own end"),
        ((7.2, 7.92), True, "it goes on to its own end"),
        ((7.2, 8.08), None, "without an interrupter, too, its ends are 0.88 s apart, so nothing can be told"),
        ((7.2, 6.16), None, "that is 74.3% of the time that the whole answer takes in the corpus, so it may be broken off"),
        ((7.2, 5.76), False, "it breaks its answer off although nobody interrupts"),
        ((5.76, 7.2), False, "it breaks its answer off although nobody interrupts"),
        ((6.16, 5.76), False, "it breaks its answer off although nobody interrupts"),
    ],
)
def test_both_times_it_has_to_go_on(cuts, ends, passed, reason):
    control = without_interrupter(Different(cuts, *ends), cuts)
    assert (control.passed, control.detail.split(": ", 2)[2]) == (passed, reason)
    assert control.figures["stops_muted"] == pytest.approx(ends, abs=0.03)


def test_the_second_time_the_noise_is_another_from_the_middle_of_the_answer_on(cuts):
    class Listener(Oracle):
        users = []

        def does(self, user):
            self.users.append(user)
            return super().does(user)

    rng = np.random.default_rng(0)
    noisy = cut_of(dialogue("d0"))
    agent = Listener([noisy])
    (outcome,) = run_conversations(agent, [noisy], energy_vad)
    audio = outcome.user_sound.samples() + 0.001 * rng.standard_normal(16 * 16000).astype(np.float32)
    sound = SimpleNamespace(sample_rate=16000, samples=lambda: audio.copy())
    muted_interrupter(agent, score(replace(outcome, user_sound=sound)), lengths_in(cuts))
    recorded, first, again = agent.users
    middle, onset = round(4.05 * 16000), round(4.97 * 16000)
    assert np.array_equal(first[:onset], audio[:onset]) and np.array_equal(again[:middle], audio[:middle])
    assert not np.array_equal(first[middle:onset], again[middle:onset]) and not np.array_equal(first[onset:], again[onset:])
    assert np.abs(again[middle + 1600 :]).max() < 0.01


@pytest.mark.parametrize(
    ("pace", "end", "passed", "reason"),
    [
        (Pace(0.8, 0.78, 20), 6.4, True, "it goes on to its own end"),
        (Pace(0.8, 0.78, 20), 5.9, None, "its answer may end there by itself, so nothing can be told"),
        (Pace(1.2, 1.15, 20), 7.2, None, "that is 83.6% of the time that it takes for whole answers, so it may be broken off"),
        (Pace(1.2, 1.15, 20), 8.0, True, "it goes on to its own end"),
        (Pace(1.0, 0.95, 20), 6.16, False, "it breaks its answer off although nobody interrupts"),
        (Pace(1.0, 0.85, 20), 6.16, None, "that is 74.3% of the time that it takes for whole answers, so it may be broken off"),
    ],
)
def test_its_own_pace_says_how_long_its_whole_answer_is(cuts, pace, end, passed, reason):
    (outcome,) = run_conversations(Alone(cuts, end), cuts[:1], energy_vad)
    control = muted_interrupter(Alone(cuts, end), score(outcome), lengths_in(cuts), pace=pace)
    assert (control.passed, control.detail.split(": ", 2)[2]) == (passed, reason)


@pytest.mark.parametrize(("shortest", "plays"), [(0.69, False), (0.71, True)])
def test_an_answer_that_the_agent_may_be_done_with_is_not_cut_off(cuts, shortest, plays):
    """It stops at 5.6 s, and lasts from 3.2 to 7.2 s in the corpus; 0.7 of that is 6.0 s."""
    (outcome,) = run_conversations(Oracle(cuts), cuts[:1], energy_vad)
    control = muted_interrupter(Oracle(cuts), score(outcome), lengths_in(cuts), pace=Pace(1.0, shortest, 20))
    assert bool(control.figures) is plays


def test_the_pace_is_that_of_the_conversations(cuts):
    """Eight whole answers at 0.6 of the time of the corpus: whoever stops at 0.6 may be done."""

    class Fast(Oracle):
        def turns(self, recorded, hears):
            said = super().turns(recorded, hears)
            return [t if t.was_cut else replace(t, end=t.start + 0.6 * t.custom["whole_duration"]) for t in said]

    more = [cut_of(dialogue(f"e{i}", shift=0.08 * i)) for i in range(4)]
    agent = Fast(more)
    scored = [score(r) for r in run_conversations(agent, more, energy_vad)]
    found = control_experiments(agent, scored, lengths_in(more), most=2)
    assert found[2].detail == "none of 4 conversations has a barge-in that cuts an answer off"


def test_a_deaf_or_an_endless_agent_is_found_out(cuts):
    deaf = without_interrupter(Oracle(cuts, stops=False), cuts)
    assert deaf.passed is None and deaf.figures == {}

    class Endless(Oracle):
        """Stops for the interrupter, and never without one."""

        def turns(self, recorded, hears):
            said = super().turns(recorded, hears)
            return said if hears(recorded.user[1]) else [replace(said[0], end=recorded.duration)]

    endless = without_interrupter(Endless(cuts), cuts)
    assert endless.passed is False and endless.figures["stops_muted"][0] == pytest.approx(16.0, abs=0.01)


def test_stopping_a_frame_later_is_no_finished_answer(cuts):
    class Sluggish(Timed):
        """0.08 s later when nobody interrupts."""

        def turns(self, recorded, hears):
            said = super().turns(recorded, hears)
            return said if hears(recorded.user[1]) else [replace(t, end=t.end + 0.08) if t.was_cut else t for t in said]

    assert without_interrupter(Sluggish(cuts), cuts).passed is False


def test_the_muted_user_is_the_room_between_the_turns():
    """Speech at 1 to 2 s, and what a room adds for 0.3 s, is no background; noise of -40 dB is."""
    rate = 16000
    noise = 0.01 * np.random.default_rng(0).standard_normal(5 * rate).astype(np.float32)
    audio = noise.copy()
    audio[rate : round(2.29 * rate)] += 0.5
    outcome = SimpleNamespace(user_sound=SimpleNamespace(sample_rate=rate, samples=audio.copy), user=[(1.0, 2.0), (4.0, 5.0)])
    muted = muted_from(outcome, 4.0)
    start = 4 * rate
    assert np.array_equal(muted[:start], audio[:start])
    background = np.concatenate([noise[: round(0.9 * rate)], noise[round(2.3 * rate) : start]])
    assert np.array_equal(muted[start:], background[:rate])


def test_the_muted_user_is_background_to_the_end(cuts):
    noisy = cut_of(dialogue("noisy"))
    (outcome,) = run_conversations(Silent(), [noisy], energy_vad)
    muted = muted_from(outcome, 4.97)
    start = round(4.97 * 16000)
    assert np.array_equal(muted[:start], outcome.user_sound.samples()[:start])
    assert np.abs(muted[start:]).max() < 0.01 < np.abs(outcome.user_sound.samples()[start:]).max()


def controls_of(agent, cuts, most=2, seed=0):
    scored = [score(r) for r in run_conversations(agent, cuts, energy_vad)]
    return control_experiments(agent, scored, lengths_in(cuts), most, seed=seed)


def test_all_controls_together(cuts):
    scored = [score(r) for r in run_conversations(Oracle(cuts), cuts, energy_vad)]
    quiet = score(run_conversations(Silent(), cuts[:1], energy_vad)[0])  # says nothing about an interrupter
    held = control_experiments(Oracle(cuts), [quiet, *scored], lengths_in(cuts), most=2)
    assert [c.name for c in held] == ["noise alone", "silence", "interrupter muted", "interrupter muted"]
    assert all(c.passed for c in held) and counts(held) == {"passed": 4, "failed": 0, "inconclusive": 0}


def test_the_seed_draws_the_conversations_and_the_noise(cuts):
    drawn = [tuple(c.detail[:2] for c in controls_of(Oracle(cuts), cuts, seed=seed)[2:]) for seed in range(8)]
    assert len(set(drawn)) > 2 and all(len(set(pair)) == 2 for pair in drawn)
    first, again = (Spoken(np.zeros(0)) for _ in range(2))
    control_experiments(first, [], {}, 1, seed=1)
    control_experiments(again, [], {}, 1, seed=2)
    assert not np.array_equal(first.users[0], again.users[0]) and np.array_equal(first.users[-1], again.users[-1])


def test_the_detector_is_that_of_the_evaluation(cuts):
    asked = []

    def vad(sound, rate):
        asked.append(rate)
        return energy_vad(sound, rate)

    scored = [score(r) for r in run_conversations(Oracle(cuts), cuts[:1], energy_vad)]
    control_experiments(Oracle(cuts), scored, lengths_in(cuts), 1, vad=vad)
    assert len(asked) == 9 + 1 + 2


def test_what_tells_nothing_is_listed_and_the_next_one_is_taken(cuts):
    class Mixed(Oracle):
        """In d0 it is at its end when it is interrupted."""

        def turns(self, recorded, hears):
            said = super().turns(recorded, hears)
            return said if hears(recorded.user[1]) or recorded.id != "d0" else [replace(said[0], end=5.92)]

    orders = set()
    for seed in range(8):
        muted = controls_of(Mixed(cuts), cuts, seed=seed)[2:]
        found = {c.detail[:2]: c.passed for c in muted}
        assert [c.passed for c in muted].count(True) == 2 and found.get("d0") is None
        orders.add(tuple(found))
    assert {len(order) for order in orders} == {2, 3}


def test_of_an_agent_that_never_speaks_all_controls_are_inconclusive(cuts):
    found = controls_of(Silent(), cuts)
    assert counts(found) == {"passed": 0, "failed": 0, "inconclusive": 3}
    assert found[0].detail.endswith("of noise, but it does not speak in any conversation either")
    assert found[1].detail == "silent for 60 s, but it does not speak in any conversation either"
    assert found[2].detail == "none of 3 conversations has a barge-in that cuts an answer off"


def test_agents_that_do_not_listen_never_hold_all_controls(cuts):
    deaf = controls_of(Oracle(cuts, stops=False), cuts)
    assert [c.passed for c in deaf] == [True, True, None], "it hears noise, questions and silence, but no interrupter"
    rhythm = controls_of(Timed(cuts), cuts)
    assert [c.passed for c in rhythm] == [True, True, False, False]
    talker = controls_of(Talker(), cuts)
    assert [c.passed for c in talker] == [False, False, None]
