"""Pauses and hesitations: where they are, what is heard, what the text says, and where the words are then."""

from __future__ import annotations

import numpy as np
import pytest

from nemo_duplex.conversation import Word
from nemo_duplex.synthesis.delivery import Delivery, deliver, places_within_sentences
from nemo_duplex.synthesis.dialogue_spec import DialogueSpec, Events
from nemo_duplex.synthesis.tts.utterance import Utterance
from nemo_duplex.synthesis.tts.voices import AGENT_VOICE
from tests.synthesis.tones import ToneEngine

RATE = 22050
TEXT = "What is the capital of France?"


def said(text: str) -> Utterance:
    return ToneEngine().speak(text, AGENT_VOICE)


def um() -> Utterance:
    return Utterance("um", np.tile([0.25, -0.25], round(0.1 * RATE)), RATE, (Word("um", 0, 0.0, 0.2),))


def sound_of(delivery: Delivery, start: float, end: float) -> np.ndarray:
    return delivery.utterance.audio[round((start + 0.006) * RATE) : round((end - 0.006) * RATE)]


def starts(delivery: Delivery) -> list[tuple[str, float]]:
    return [(w.text, round(w.start, 3)) for w in delivery.utterance.words]


def test_a_sound_is_heard_between_silences_and_is_not_in_the_text():
    made = Delivery(said(TEXT)).hesitant(TEXT.index("the"), um(), (0.1, 0.3))
    assert made.utterance.text == TEXT
    assert made.hesitations == ((pytest.approx(0.7, abs=1e-4), pytest.approx(0.9, abs=1e-4), "um"),)
    assert starts(made) == [("What", 0.0), ("is", 0.3), ("the", 1.2), ("capital", 1.5), ("of", 1.8), ("France", 2.1)]
    assert [TEXT[w.offset :].startswith(w.text) for w in made.utterance.words] == [True] * 6
    assert np.allclose(np.abs(sound_of(made, 0.7, 0.9)), 0.25)
    assert not sound_of(made, 0.6, 0.7).any() and not sound_of(made, 0.9, 1.2).any()
    assert np.array_equal(sound_of(made, 1.2, 2.4), sound_of(Delivery(said(TEXT)), 0.6, 1.8)), "Nothing else is changed."


def test_a_sound_at_the_start_comes_without_a_silence_before_it():
    made = Delivery(said(TEXT)).hesitant(0, um(), (0.1, 0.3))
    assert made.hesitations == ((0.0, pytest.approx(0.2, abs=1e-4), "um"),)
    assert starts(made)[0] == ("What", 0.5) and made.utterance.duration == pytest.approx(1.8 + 0.5, abs=1e-3)


def test_words_are_in_the_text_too_each_at_its_place():
    made = Delivery(said(TEXT)).hesitant(TEXT.index("the"), said("let me see"), (0.1, 0.1), "- let me see - ")
    text = made.utterance.text
    assert text == "What is - let me see - the capital of France?"
    assert [text[w.offset : w.offset + len(w.text)] for w in made.utterance.words] == [w.text for w in made.utterance.words]
    assert starts(made)[2:6] == [("let", 0.7), ("me", 1.0), ("see", 1.3), ("the", 1.7)]


def test_events_before_a_hesitation_stay_and_those_after_it_move():
    made = Delivery(said(TEXT)).paused(TEXT.index("is"), 0.5).paused(TEXT.index("of"), 0.25)
    assert [(round(a, 3), round(b, 3)) for a, b in made.pauses] == [(0.3, 0.8), (1.7, 1.95)]
    later = made.hesitant(TEXT.index("the"), um(), (0.1, 0.1))
    assert [(round(a, 3), round(b, 3)) for a, b in later.pauses] == [(0.3, 0.8), (2.1, 2.35)]
    twice = later.hesitant(0, um(), (0.0, 0.2))
    assert [round(start, 3) for start, _, _ in twice.hesitations] == [1.6, 0.0]


def test_a_turn_that_would_be_too_long_stays_as_it_is():
    short = Delivery(said(TEXT), longest=2.0)
    assert short.hesitant(0, um(), (0.1, 0.1)) == short and short.paused(TEXT.index("of"), 0.3) == short
    assert short.hesitant(0, um(), (0.0, 0.0)).hesitations, "0.2 s more are 2.0 s."


def test_a_place_within_a_sentence_begins_no_sentence():
    text = 'Hello there. "How are you?" Fine'
    assert [text[place:].split()[0] for place in places_within_sentences(said(text))] == ["there.", "are", 'you?"']


def drawn(seed: int, marked: tuple[int, ...] = (), text: str = TEXT, language: str | None = "en", **spec) -> Delivery:
    return deliver(Delivery(said(text)), marked, language, DialogueSpec(**spec), said, np.random.default_rng(seed))


def test_pauses_go_anywhere_and_are_as_many_as_asked_for():
    one = [drawn(seed, pause=1.0, pause_places="any") for seed in range(40)]
    assert {len(d.pauses) for d in one} == {1} and len({round(d.pauses[0][0], 2) for d in one}) == 5
    many = [drawn(seed, pause=1.0, pause_places="any", pauses=4) for seed in range(60)]
    assert {len(d.pauses) for d in many} == {1, 2, 3, 4}
    for d in many:
        assert all(not sound_of(d, start, end).any() for start, end in d.pauses)
        assert sum(end - start for start, end in d.pauses) == pytest.approx(d.utterance.duration - 1.8, abs=1e-3)
    assert not any(drawn(seed, pause=0.0, pause_places="any").pauses for seed in range(20))
    assert not any(drawn(seed, pause=1.0, marked=(8,)).pauses for seed in range(20)), "The first of the marked is drawn before."


def test_hesitations_are_of_all_kinds_and_as_often_as_asked_for():
    made = [drawn(seed, events=Events(hesitation=0.5)) for seed in range(1000, 1300)]
    hesitant = [d for d in made if d.hesitations]
    assert len(hesitant) / 300 == pytest.approx(0.5, abs=0.08)
    texts = [d.hesitations[0][2] for d in hesitant]
    again = [text for text in texts if text.endswith(" (again)")]
    assert set(again) == {"What (again)", "What is (again)", "What is the (again)"}
    assert {"um", "uh", "er"} <= set(texts) and "let me think" in texts
    assert len(again) / len(texts) == pytest.approx(0.25, abs=0.08)
    for d in hesitant:
        (start, end, text), utterance = d.hesitations[0], d.utterance
        if text in ("um", "uh", "er"):
            assert utterance.text == TEXT
        elif text.endswith("(again)"):
            assert utterance.text == f"{text.removesuffix(' (again)')}, {TEXT}" and start == 0.0
            assert np.allclose(sound_of(d, 0.0, end), sound_of(Delivery(said(TEXT)), 0.0, end), atol=1e-6)
        else:
            assert (
                utterance.text in (f"{text.capitalize()}. {TEXT}", TEXT) or f"- {text} - " in utterance.text or "do I" in text
            )
        assert [utterance.text[w.offset :].lower().startswith(w.text.lower()) for w in utterance.words] == [True] * len(
            utterance.words
        )
        assert utterance.words[-1].end == pytest.approx(utterance.duration, abs=2e-3)


def test_a_language_without_phrases_has_none_and_says_words_again():
    found = {
        d.hesitations[0][2]
        for seed in range(60)
        if (d := drawn(seed, language="fi", events=Events(hesitation=1.0))).hesitations
    }
    assert found and all(text.endswith("(again)") for text in found)


def test_without_word_times_a_hesitation_comes_first():
    def speak(text: str) -> Utterance:
        spoken = said(text)
        return Utterance(text, spoken.audio, RATE)

    for seed in range(30):
        spec = DialogueSpec(events=Events(hesitation=1.0), pause_places="any", pause=1.0)
        made = deliver(Delivery(speak(TEXT)), (), "en", spec, speak, np.random.default_rng(seed))
        assert not made.pauses and all(start == 0.0 for start, _, _ in made.hesitations)
