"""hibari: the same samples every time, in any process and order; word times that fit the sound."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.tts.hibari import AGENT_VOICE, HibariEngine, hibari_voices

TEXT = "Good morning. It is late, my friend."


@pytest.fixture(scope="module")
def hibari():
    return HibariEngine()


def digest(audio: np.ndarray) -> str:
    return hashlib.sha256(audio.tobytes()).hexdigest()


def test_the_same_samples_in_any_order_and_process(hibari):
    first = hibari.speak(TEXT, AGENT_VOICE)
    hibari.speak("Something else.", AGENT_VOICE)
    assert digest(hibari.speak(TEXT, AGENT_VOICE).audio) == digest(first.audio)
    code = (
        "import hashlib; from nemo_duplex.synthesis.tts.hibari import *; "
        f"print(hashlib.sha256(HibariEngine().speak({TEXT!r}, AGENT_VOICE).audio.tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.split() == [digest(first.audio)]


def test_word_times_fit_the_sound(hibari):
    spoken = hibari.speak(TEXT, AGENT_VOICE)
    assert [word.text for word in spoken.words] == ["Good", "morning", "It", "is", "late", "my", "friend"]
    assert [TEXT[word.offset :].startswith(word.text) for word in spoken.words] == [True] * 7
    edges = [word.start for word in spoken.words] + [spoken.words[-1].end]
    assert edges == sorted(edges) and edges[-1] == pytest.approx(spoken.duration)
    power = np.square(spoken.audio[: len(spoken.audio) // 240 * 240]).reshape(-1, 240).mean(axis=1)  # of 10 ms
    silent = power < 1e-4 * power.max()
    last_silent = max(i for i in np.flatnonzero(silent) if 0.5 < i / 100 < spoken.words[4].start)
    assert spoken.words[2].start == pytest.approx((last_silent + 1) / 100, abs=0.06)  # "It", behind the pause of the sentence


def test_the_rate_is_that_of_the_voice(hibari):
    usual, slow = (hibari.speak(TEXT, replace(AGENT_VOICE, rate=rate)) for rate in (160, 80))
    assert slow.duration / usual.duration == pytest.approx(2, rel=0.1)
    assert slow.words[-1].start / usual.words[-1].start == pytest.approx(2, rel=0.1)


def test_what_it_cannot_say_is_named(hibari):
    with pytest.raises(InputError, match="hibari has no voice 'emma' .speaker agent.: expected 'heart'"):
        hibari.speak(TEXT, replace(AGENT_VOICE, name="emma"))
    with pytest.raises(InputError, match="hibari speaks English, and .* is in the language de"):
        hibari.speak(TEXT, replace(AGENT_VOICE, language="de"))


def test_it_is_an_agent_without_users(hibari):
    voices = hibari_voices()
    assert voices.agent == AGENT_VOICE and voices.num_users == {"train": 0, "dev": 0} and not voices.quick
    assert voices.id.startswith("hibari 0.2.1 onnxruntime ")
