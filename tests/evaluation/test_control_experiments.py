"""What only an agent that listens passes, tried on agents of which it is known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.activity import energy_vad
from nemo_duplex.evaluation.baseline import lengths_of_answers
from nemo_duplex.evaluation.control_experiments import control_experiments, muted_from, muted_interrupter, noise_only, silence
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


def without_interrupter(agent, cuts, lengths=None):
    """The control experiment on the first conversation."""
    (outcome,) = run_conversations(agent, cuts[:1], energy_vad)
    return muted_interrupter(agent, score(outcome), lengths or lengths_of_answers(cuts))


def test_an_agent_that_listens_finishes_when_nobody_interrupts(cuts):
    control = without_interrupter(Oracle(cuts), cuts)
    assert control.passed, control.detail
    assert control.figures["stop"] == pytest.approx(5.6, abs=0.03)
    assert control.figures["stop_muted"] == pytest.approx(7.2, abs=0.03)
    assert control.figures["text_muted"] == "the capital of France is Paris"


class Timed(Oracle):
    """Stops at the same time whether it is interrupted or not: it has learnt the rhythm of the corpus."""

    def turns(self, recorded, hears):
        return super().turns(recorded, lambda turn: True)


def test_an_agent_that_only_knows_the_rhythm_is_found_out(cuts):
    assert without_interrupter(Timed(cuts), cuts).passed is False


def test_without_a_telling_barge_in_the_control_says_nothing(cuts):
    assert without_interrupter(Silent(), cuts).passed is None
    nearly_over = {words: 2.5 for words in lengths_of_answers(cuts)}  # the answer ends 0.1 s after it stops anyway
    assert without_interrupter(Oracle(cuts), cuts, nearly_over).passed is None


def test_a_failure_or_an_agent_that_never_stops_says_nothing(cuts):
    assert without_interrupter(Oracle(cuts, stops=False), cuts).passed is None

    class Endless(Oracle):
        """Stops for the interrupter, and never without one."""

        def turns(self, recorded, hears):
            said = super().turns(recorded, hears)
            return said if hears(recorded.user[1]) else [replace(said[0], end=recorded.duration)]

    endless = without_interrupter(Endless(cuts), cuts)
    assert endless.passed is False and endless.figures["stop_muted"] == pytest.approx(16.0, abs=0.01)


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
    outcome = SimpleNamespace(user_audio=audio, cut=SimpleNamespace(sampling_rate=rate), user=[(1.0, 2.0), (4.0, 5.0)])
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
    assert np.array_equal(muted[:start], outcome.user_audio[:start])
    assert np.abs(muted[start:]).max() < 0.01 < np.abs(outcome.user_audio[start:]).max()


def test_all_controls_together(cuts):
    scored = [score(r) for r in run_conversations(Oracle(cuts), cuts, energy_vad)]
    quiet = score(run_conversations(Silent(), cuts[:1], energy_vad)[0])  # says nothing about an interrupter
    held = control_experiments(Oracle(cuts), [quiet, *scored], lengths_of_answers(cuts), most=2)
    assert [c.detail[:3] for c in held[2:]] == ["d0:", "d1:"]
    assert [c.name for c in held] == ["noise alone", "silence", "interrupter muted", "interrupter muted"]
    assert all(c.passed for c in held)
