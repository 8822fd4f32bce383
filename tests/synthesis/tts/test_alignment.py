"""Word times that are found: where engines that know theirs have them, inside the audio and in order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nemo_duplex.conversation import Word
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.tts.alignment import AlignedEngine, aligned_words
from nemo_duplex.synthesis.tts.engines import engine_voices
from nemo_duplex.synthesis.tts.espeak import EspeakEngine
from nemo_duplex.synthesis.tts.utterance import Utterance, Voice
from nemo_duplex.synthesis.tts.voices import AGENT_VOICE, user_voice, voice_data

TEXTS = [
    "Could you tell me which bus goes to the airport early in the morning?",
    "The garden looks beautiful after the heavy rain we had last night.",
    "She bought three large apples and a loaf of bread at the market.",
]


@pytest.fixture(scope="module")
def espeak() -> EspeakEngine:
    return EspeakEngine(voice_data())


def errors(words, truth) -> np.ndarray:
    """Distances of starts in ms; the first word starts where the speech does."""
    assert [(w.text, w.offset) for w in words] == [(w.text, w.offset) for w in truth]
    return np.array([1000 * (word.start - true.start) for word, true in zip(words, truth)])[1:]


def test_the_times_of_other_voices_are_found(espeak):
    found = np.concatenate(
        [
            errors(
                aligned_words(hidden := espeak.speak(text, user_voice("train", 40 * n)), espeak.speak(text, AGENT_VOICE)),
                hidden.words,
            )
            for n, text in enumerate(TEXTS)
        ]
    )
    assert np.median(np.abs(found)) < 8 and np.percentile(np.abs(found), 95) < 40 and abs(np.median(found)) < 6


def test_the_times_of_a_human_sounding_voice_are_found(espeak):
    hibari = engine_voices("hibari")
    found = np.concatenate(
        [
            errors(
                aligned_words(spoken := hibari.engine.speak(text, hibari.agent), espeak.speak(text, AGENT_VOICE)), spoken.words
            )
            for text in TEXTS
        ]
    )
    assert np.median(np.abs(found)) < 30 and np.percentile(np.abs(found), 95) < 110


def test_a_pause_that_the_reference_does_not_make_moves_the_words_behind_it(espeak):
    reference = espeak.speak(TEXTS[0], AGENT_VOICE)
    fifth = reference.words[5]
    spoken = reference.with_pause(fifth.offset, 0.5)
    found = errors(aligned_words(spoken, reference), spoken.words)
    assert np.abs(np.delete(found, 4)).max() < 30 and -520 < found[4] < 30, "The word before the pause may last through it."


def test_words_stay_inside_and_in_order(espeak):
    """Also where the audio says something else, or next to nothing."""
    reference = espeak.speak(TEXTS[1], AGENT_VOICE)
    rng = np.random.default_rng(0)
    others = [rng.uniform(-0.5, 0.5, size) for size in (900, 1600, 16000, 300_000)]
    for audio in [*others, espeak.speak("No.", AGENT_VOICE).audio]:
        spoken = Utterance(TEXTS[1], audio, 16000)
        words = aligned_words(spoken, reference)
        assert [w.text for w in words] == [w.text for w in reference.words]
        assert all(0 <= w.start < w.end <= spoken.duration + 1e-9 for w in words)
        assert all(before.end <= after.start + 1e-9 for before, after in zip(words, words[1:]))


def test_words_last_from_the_first_sample_to_the_last_as_those_of_the_reference(espeak):
    spoken = espeak.speak(TEXTS[2], user_voice("train", 3))
    words = aligned_words(replace(spoken, words=()), espeak.speak(TEXTS[2], AGENT_VOICE))
    assert words[0].start == 0 and words[-1].end == pytest.approx(spoken.duration)
    assert all(before.end == after.start for before, after in zip(words, words[1:]))


class _Silent:
    """An engine without word times."""

    name, version, sample_rate = "silent", "7", 22050

    def __init__(self, engine, words: tuple[Word, ...] = ()):
        self._engine, self._words = engine, words

    def speak(self, text, voice):
        return replace(
            self._engine.speak(text, replace(AGENT_VOICE, rate=voice.rate)), words=self._words, language=voice.language
        )

    def cannot_say(self, text, voice):
        return "never" if text == "never" else None


class _Picky:
    name, version, sample_rate = "picky", "3", 16000

    def speak(self, text, voice):
        raise InputError("I do not say that.")


def test_an_engine_gets_times_from_the_first_reference_that_can_say_the_text(espeak):
    voice = Voice("a", "any", rate=180, engine="silent")
    engine = AlignedEngine(_Silent(espeak), [(_Picky(), voice), (espeak, AGENT_VOICE)])
    assert (engine.name, engine.sample_rate) == ("silent", 22050)
    assert engine.version == "7 aligned 1 by picky 3 espeak-ng 1.52.0"
    spoken = engine.speak(TEXTS[0], voice)
    truth = espeak.speak(TEXTS[0], replace(AGENT_VOICE, rate=180))
    assert np.array_equal(spoken.audio, truth.audio)
    assert np.abs(errors(spoken.words, truth.words)).max() < 10, "The reference speaks at the voice's rate."
    assert engine.cannot_say("never", voice) == "never" and engine.cannot_say("ever", voice) is None
    assert AlignedEngine(_Silent(espeak), [(_Picky(), voice)]).speak(TEXTS[0], voice).words == ()


def test_the_reference_speaks_the_language_of_the_text(espeak):
    voice = Voice("a", "any", language="de", engine="silent")
    asked = []

    class Listening(_Picky):
        def speak(self, text, voice):
            asked.append(voice.language)
            return espeak.speak(text, voice)

    AlignedEngine(_Silent(espeak), [(Listening(), AGENT_VOICE)]).speak("Guten Tag", voice)
    assert asked == ["de"]


def test_times_that_an_engine_gives_are_kept(espeak):
    own = (Word("Good", 0, 0.1, 0.2),)
    engine = AlignedEngine(_Silent(espeak, own), [(espeak, AGENT_VOICE)])
    assert engine.speak("Good day", Voice("a", "any", engine="silent")).words == own


def test_minutes_are_not_aligned(espeak):
    long = Utterance("one", np.random.default_rng(0).uniform(-0.5, 0.5, 61 * 8000), 8000)
    assert aligned_words(long, espeak.speak("one", AGENT_VOICE)) == ()


def test_pico_has_word_times_in_a_cast():
    pico = engine_voices("pico")
    spoken = pico.engine.speak(TEXTS[0], pico.user("train", 0))
    assert len(spoken.words) == 14 and all(a.start < a.end <= b.start for a, b in zip(spoken.words, spoken.words[1:]))
    assert pico.engine.version.startswith("0.1.1 aligned 1 by hibari ")
    german = pico.engine.speak("Guten Tag, mein Freund.", replace(pico.user("train", 0), language="de"))
    assert [w.text for w in german.words] == ["Guten", "Tag", "mein", "Freund"], "hibari says no German, eSpeak does."
