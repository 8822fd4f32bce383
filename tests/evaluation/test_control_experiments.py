import numpy as np
import pytest

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.activity import energy_vad
from nemo_duplex.evaluation.baseline import lengths_of_answers
from nemo_duplex.evaluation.control_experiments import control_experiments, muted_from, muted_interrupter, noise_only, silence
from nemo_duplex.evaluation.generation import run_conversations
from nemo_duplex.evaluation.scores import score
from tests.evaluation.agents import FakeAgent, Oracle, Silent, Talker, cut_of, dialogue


class Jumpy(FakeAgent):
    """Says something to anything that is loud enough."""

    def does(self, user):
        loud = np.abs(user).mean() > 0.01
        return np.zeros(0), [Turn("agent", 1.6, 2.4, "pardon")] if loud else []


def test_noise_and_silence_tell_a_silent_agent_from_a_talker():
    assert noise_only(Silent(), seconds=3).passed and silence(Silent(), seconds=3).passed
    assert noise_only(Talker(), seconds=3).passed is False and silence(Talker(), seconds=3).passed is False


def test_noise_that_makes_it_write_is_enough_to_fail_and_is_named():
    control = noise_only(Jumpy(), seconds=3, levels_db=(-60, -20))
    assert control.passed is False and "white -20 dB" in control.detail and "-60" not in control.detail
    assert silence(Jumpy(), seconds=3).passed


def test_an_agent_that_listens_finishes_when_nobody_interrupts(cuts):
    control = muted_interrupter(Oracle(cuts), cuts[0], lengths_of_answers(cuts))
    assert control.passed, control.detail
    assert control.figures["stop"] == pytest.approx(5.6, abs=0.03)
    assert control.figures["stop_muted"] == pytest.approx(7.2, abs=0.03)
    assert control.figures["text_muted"] == "the capital of France is Paris"


class Timed(Oracle):
    """Stops at the same time whether it is interrupted or not: it has learnt the rhythm of the corpus."""

    def turns(self, recorded, hears):
        return super().turns(recorded, lambda turn: True)


def test_an_agent_that_only_knows_the_rhythm_is_found_out(cuts):
    assert muted_interrupter(Timed(cuts), cuts[0]).passed is False


def test_without_a_telling_barge_in_the_control_says_nothing(cuts):
    assert muted_interrupter(Silent(), cuts[0]).passed is None
    nearly_over = {words: 2.5 for words in lengths_of_answers(cuts)}  # the answer ends 0.1 s after it stops anyway
    assert muted_interrupter(Oracle(cuts), cuts[0], nearly_over).passed is None


def test_the_muted_user_is_background_to_the_end(cuts):
    noisy = cut_of(dialogue("noisy"))
    (outcome,) = run_conversations(Silent(), [noisy], energy_vad)
    muted = muted_from(outcome, 4.97)
    start = round(4.97 * 16000)
    assert np.array_equal(muted[:start], outcome.user_audio[:start])
    assert np.abs(muted[start:]).max() < 0.01 < np.abs(outcome.user_audio[start:]).max()


def test_all_controls_together(cuts):
    scored = [score(r) for r in run_conversations(Oracle(cuts), cuts, energy_vad)]
    held = control_experiments(Oracle(cuts), scored, lengths_of_answers(cuts), most=2)
    assert [c.name for c in held] == ["noise alone", "silence", "interrupter muted", "interrupter muted"]
    assert all(c.passed for c in held)
