from __future__ import annotations

import numpy as np
import pytest

from nemo_duplex.conversation import Word
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.tts.utterance import PAUSE_FADE, Utterance, Voice
from tests.synthesis.tones import SECONDS_PER_WORD, ToneEngine

UTTERANCE = ToneEngine().speak("What is it, then?", Voice("v", "v"))


def test_a_pause_is_silence_before_its_word_and_shifts_the_words_after_it():
    paused = UTTERANCE.with_pause(8, 0.5)
    start, end = round(2 * SECONDS_PER_WORD * 22050), round(2 * SECONDS_PER_WORD * 22050) + round(0.5 * 22050)
    assert not paused.audio[start:end].any()
    assert paused.duration == pytest.approx(UTTERANCE.duration + 0.5, abs=1e-4)
    assert [w.start for w in paused.words] == pytest.approx([0.0, 0.3, 1.1, 1.4], abs=1e-4)
    assert paused.words[1].end == pytest.approx(0.6)  # the word before the pause does not last through it
    faded = round(PAUSE_FADE * 22050)
    assert np.array_equal(paused.audio[: start - faded], UTTERANCE.audio[: start - faded])
    assert np.array_equal(paused.audio[end + faded :], UTTERANCE.audio[start + faded :])
    assert abs(paused.audio[start - 1]) < 1e-3 and abs(paused.audio[end]) < 1e-3


@pytest.mark.parametrize("offset", [0, 9, 100])
def test_a_pause_goes_only_before_a_word_after_the_first(offset):
    with pytest.raises(ValueError, match=f"character {offset} of 'What is it, then"):
        UTTERANCE.with_pause(offset, 0.5)


# --- silence around the speech ---------------------------------------------------------------------------------------------

RATE = 16000
SPEECH = 0.5 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE + 1).astype(np.float32)  # 1 s, loud from its first sample on


def silence(seconds: float, level: float = 0.0) -> np.ndarray:
    return level * np.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(np.float32)


def around(before: np.ndarray, after: np.ndarray, speech: np.ndarray = SPEECH) -> Utterance:
    """One second of speech between two silences, as an engine gives it: two words, with times from its first sample on."""
    start = len(before) / RATE
    words = (Word("Good", 0, 0.0, start + 0.4), Word("day", 5, start + 0.4, start + 1.0 + len(after) / RATE))
    return Utterance("Good day", np.concatenate([before, speech, after]), RATE, words)


@pytest.mark.parametrize("level", [0.0, 3e-4])
@pytest.mark.parametrize(("before", "after"), [(0.128, 0.308), (0.5, 0.0), (0.0, 0.5), (0.07, 0.07), (3.0, 3.0)])
def test_silence_around_the_speech_is_cut_off_to_10_ms_and_the_words_move_with_it(before, after, level):
    spoken = around(silence(before, level), silence(after, level))
    lead, tail = min(before, 0.01), min(after, 0.01)
    assert spoken.duration == pytest.approx(1.0 + lead + tail, abs=1e-3)
    assert np.array_equal(spoken.audio[round(lead * RATE) :][: RATE - 40], SPEECH[: RATE - 40])
    first, second = spoken.words
    assert (first.start, second.start) == pytest.approx((0.0, lead + 0.4), abs=1e-3)
    assert first.end == second.start and second.end == spoken.duration


def test_a_closure_of_a_stop_stays_and_so_do_all_samples_of_a_plain_text():
    spoken = around(silence(0.060), silence(0.014))
    assert np.array_equal(spoken.audio, np.concatenate([silence(0.060), SPEECH, silence(0.014)]))
    assert [(w.start, w.end) for w in spoken.words] == [(0.0, 0.46), (0.46, pytest.approx(1.074))]


def test_a_click_an_offset_and_hum_are_no_speech():
    silent = np.zeros(8000, np.float32)
    whole = np.concatenate([silent, SPEECH, silent])
    click, time = np.zeros_like(whole), np.arange(len(whole)) / RATE
    click[[1000, -1000]] = 0.1
    hum = (0.002 * np.sin(2 * np.pi * 50 * time)).astype(np.float32)
    for disturbed in (whole + click, whole + np.float32(0.01), whole - np.float32(0.01), whole + hum):
        assert Utterance("Good day", disturbed, RATE).duration == pytest.approx(1.02, abs=2e-3)


def test_speech_shorter_than_two_windows_stays():
    assert Utterance("a", np.full(100, 0.25), RATE).duration == 100 / RATE
    burst = np.concatenate([np.zeros(4000), np.full(40, 0.25), np.zeros(4000)])
    assert Utterance("a", burst, RATE).duration == pytest.approx(40 / RATE + 0.02, abs=0.006)


def test_soft_fricatives_at_the_edges_stay():
    """40 dB below the vowels, which is the softest that eSpeak makes; and the fade of its last 10 ms."""
    fricative = silence(0.1, 0.3 * 10 ** (-40 / 20))
    fricative[-160:] *= np.linspace(1, 0, 160, dtype=np.float32)
    speech = np.concatenate([fricative[::-1], SPEECH, fricative])
    spoken = around(silence(0.2), silence(0.2), speech)
    assert 1.2 < spoken.duration < 1.22
    assert np.array_equal(np.trim_zeros(spoken.audio), np.trim_zeros(speech)), "Not one sample of it is lost."


def test_pauses_inside_stay():
    speech = np.concatenate([SPEECH, silence(0.8), SPEECH])
    assert around(silence(0.2), silence(0.2), speech).duration == pytest.approx(2.8 + 0.02, abs=1e-3)
    spoken = around(silence(0.3), silence(0.3))
    paused = spoken.with_pause(5, 0.5)
    assert paused.duration == pytest.approx(spoken.duration + 0.5, abs=1e-9)
    assert paused.words[1].start == pytest.approx(spoken.words[1].start + 0.5, abs=1e-9)


def test_speech_without_words_and_words_in_the_silence():
    assert Utterance("a", np.concatenate([silence(0.5), SPEECH]), RATE).words == ()
    lost = Utterance("a b", np.concatenate([silence(0.5), SPEECH]), RATE, (Word("a", 0, 0.1, 0.2), Word("b", 2, 1.6, 1.9)))
    assert [(w.start, w.end) for w in lost.words] == [(0.0, 0.0), (lost.duration, lost.duration)], "None negative, none late."


@pytest.mark.parametrize("scale", [1e-3, 1.0])
def test_it_is_the_same_at_any_level(scale):
    assert around(silence(0.2), silence(0.2), np.float32(scale) * SPEECH).duration == pytest.approx(1.02, abs=2e-3)


@pytest.mark.parametrize("audio", [silence(1.0), silence(1.0, 5e-5), np.zeros(0, np.float32), np.full(3, 1e-5)])
def test_silence_alone_is_an_error(audio):
    with pytest.raises(InputError, match="makes no sound of the text 'Good day'"):
        Utterance("Good day", audio, RATE)


@pytest.mark.parametrize("audio", [np.ones((1, 9), np.float32), np.ones(9, np.int16), np.array([0.1, np.nan])])
def test_what_is_no_waveform_is_an_error(audio):
    with pytest.raises(InputError, match=r"The speech of 'Good day' has the shape \(.*finite floats"):
        Utterance("Good day", audio, RATE)


def test_doubles_are_taken():
    assert Utterance("a", SPEECH.astype(np.float64), RATE).audio.dtype == np.float32
