"""Which sounds are judged, and what a scorer is given of them."""

import numpy as np
import pytest

from nemo_duplex.evaluation.speech.sound_scorer import RATE, QualityScorer
from tests.evaluation.speech.sounds import Seconds, tone


@pytest.mark.parametrize(
    ("sound", "why"),
    [
        (tone(0.9), "less than 1 s of speech"),
        (
            np.concatenate([np.zeros(5 * RATE, np.float32), tone(0.8), np.zeros(5 * RATE, np.float32)]),
            "less than 1 s of speech",
        ),
        (np.zeros(3 * RATE, np.float32), "silence"),
        (tone(3.0, level=5e-4), "silence"),
        (np.zeros(0, np.float32), "no samples"),
        (np.where(np.arange(2 * RATE) == 77, np.nan, tone(2.0)), "samples that are not finite"),
        (np.where(np.arange(2 * RATE) == 77, np.inf, tone(2.0)), "samples that are not finite"),
        (32767 * tone(2.0), "samples far beyond full scale"),
    ],
)
def test_what_cannot_be_judged_gets_a_reason_and_no_number(sound, why):
    scorer = Seconds()
    assert scorer.answer(sound, RATE) == {"refused": why} and scorer.score(sound, RATE) is None
    assert scorer.judged == []


def test_speech_is_judged_however_quiet_it_is_and_at_any_rate():
    assert Seconds().score(tone(1.5, level=0.002), RATE) == 1.5
    assert Seconds().score(tone(2.0, rate=22050), 22050) == pytest.approx(2.0, abs=1e-4)
    assert Seconds().score(tone(2.0, rate=8000), 8000) == pytest.approx(2.0, abs=1e-4)


class Peak(QualityScorer):
    scorer = Seconds.scorer

    def _judge(self, sound):
        assert sound.dtype == np.float32 and sound.flags.c_contiguous
        return {"score": float(np.abs(sound).max())}


def test_sixteen_bits_are_brought_to_full_scale_and_what_is_a_little_louder_is_clipped():
    assert Peak().score((32767 * tone(2.0)).astype(np.int16), RATE) == pytest.approx(0.3, abs=1e-3)
    assert Peak().score(4 * tone(2.0), RATE) == 1.0


def test_an_answer_that_is_no_number_is_refused():
    class Nan(Peak):
        def _judge(self, sound):
            return {"score": 4.0, "sig": float("nan")}

    assert Nan().answer(tone(2.0), RATE) == {"refused": "the scorer's answer is not a number"}
