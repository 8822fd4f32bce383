"""Kokoro: mixtures of its voices, all of them apart, the same samples every time, word times that fit the sound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.tts import kokoro
from nemo_duplex.synthesis.tts.kokoro import NUM_USERS, KokoroEngine, kokoro_voices, user_voice
from nemo_duplex.synthesis.tts.utterance import Voice

USERS = {split: [user_voice(split, number) for number in range(count)] for split, count in NUM_USERS.items()}


@pytest.fixture(scope="module")
def engine():
    return KokoroEngine()


def point(voice: Voice) -> np.ndarray:
    timbre, prosody = kokoro._mixtures(voice)
    styles = kokoro._styles()[:, 60]
    return np.concatenate([timbre @ styles[:, :128], prosody @ styles[:, 128:]])


def test_there_are_enough_users_and_no_two_are_alike():
    assert len(USERS["train"]) >= 60 and len(USERS["dev"]) >= 20
    users = USERS["train"] + USERS["dev"]
    assert len({voice.id for voice in users}) == len({voice.name for voice in users}) == len(users)
    points = np.array([point(voice) for voice in users])
    apart = np.linalg.norm(points[:, None] - points, axis=-1) + np.diag(np.full(len(points), np.inf))
    num_train = len(USERS["train"])
    assert apart.min() > 0.4  # of styles whose distances are 0.7 to 3.7
    assert apart[:num_train, num_train:].min() > 0.65  # of dev from train
    assert {110 <= voice.rate <= 160 for voice in users} == {True} and len({voice.rate for voice in users}) > 30


def test_users_stay_who_they_are():
    """What they are called is in the corpora that they speak, and in the banks."""
    assert user_voice("dev", 0) == Voice(
        "kokoro-dev00",
        "alpha 5 gongitsune -5 nezumi -5 tebukuro 35 kumo 70 / alpha 40 gongitsune 10 nezumi -5 tebukuro 15 kumo 35",
        rate=157,
        engine="kokoro",
    )
    assert user_voice("train", 59).name == "alpha 10 gongitsune 5 tebukuro 50 kumo 40 / alpha 5 nezumi -5 tebukuro 35 kumo 65"


def test_a_mixture_is_read_from_its_name():
    timbre, prosody = kokoro._mixtures(Voice("v", "kumo 50 alpha 150 / nezumi 1", engine="kokoro"))
    assert timbre.tolist() == [0.75, 0, 0, 0, 0.25] and prosody.tolist() == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("name", ["heart", "kumo 100", "kumo 100 / heart 100", "kumo / kumo", "kumo 1 / kumo 1 / kumo 1", ""])
def test_what_is_no_mixture_is_named(engine, name):
    with pytest.raises(InputError, match="Kokoro has no voice '.*' .speaker v.: expected per cents of alpha, gongitsune"):
        engine.speak("Hello.", Voice("v", name, engine="kokoro"))


def test_the_same_samples_and_word_times_that_fit(engine):
    text = "Good day. It is late, my friend."
    voice = USERS["dev"][3]
    spoken, again = (engine.speak(text, voice) for _ in range(2))
    assert np.array_equal(spoken.audio, again.audio) and spoken.words == again.words
    assert [text[word.offset :].startswith(word.text) for word in spoken.words] == [True] * 7
    edges = [word.start for word in spoken.words] + [spoken.words[-1].end]
    assert edges == sorted(edges) and edges[-1] == pytest.approx(spoken.duration)
    power = np.square(spoken.audio[: len(spoken.audio) // 240 * 240]).reshape(-1, 240).mean(axis=1)  # of 10 ms
    silent = np.flatnonzero(power < 1e-4 * power.max())
    last_silent = max(i for i in silent if abs(i / 100 - spoken.words[2].start) < 0.3 and i - 5 in silent)
    assert spoken.words[2].start == pytest.approx((last_silent + 1) / 100, abs=0.08)  # "It"
    other = engine.speak(text, replace(voice, name=USERS["dev"][4].name))
    assert not np.array_equal(spoken.audio[:1000], other.audio[:1000])


def test_it_has_users_and_no_agent():
    voices = kokoro_voices()
    assert voices.agent is None and voices.num_users == NUM_USERS and not voices.quick
    assert voices.user("dev", 7) == USERS["dev"][7]


def test_the_style_is_that_of_the_number_of_phonemes_and_nothing_is_louder_than_full_scale(engine, monkeypatch):
    given = []

    class Loud:
        def run(self, _, inputs):
            given.append(inputs)
            return np.array([0.5, -2.0], np.float32), np.ones((1, inputs["tokens"].shape[1]))

    monkeypatch.setattr(engine, "_session", Loud())
    voice = Voice("v", "kumo 100 / alpha 100", rate=115, engine="kokoro")
    spoken = engine.speak("Good day.", voice)
    assert spoken.audio.tolist() == [0.25, -1.0]
    (inputs,) = given
    of_length = kokoro._styles()[:, inputs["tokens"].shape[1] - 2 - 1]  # without the silence around them; from one phoneme on
    alpha, kumo = (kokoro._BASES.index(name) for name in ("alpha", "kumo"))
    assert np.array_equal(inputs["style"], np.concatenate([of_length[kumo, :128], of_length[alpha, 128:]])[None])
    assert inputs["speed"] == pytest.approx(115 / kokoro.OWN_RATE)
