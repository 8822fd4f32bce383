"""eSpeak NG itself: words where they are said, and the same samples every time."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
import zlib
from dataclasses import replace

import numpy as np
import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.tts import espeak
from nemo_duplex.synthesis.tts.espeak import EspeakEngine, _unmap, espeak_paths, word_times
from nemo_duplex.synthesis.tts.utterance import Utterance, Voice
from nemo_duplex.synthesis.tts.voices import AGENT_VOICE, user_voice, voice_data

TEXT = "The capital of France is Paris."


@pytest.fixture(scope="module")
def engine() -> EspeakEngine:
    return EspeakEngine(voice_data())


def test_speech_has_the_codecs_rate_and_no_silence_around_it(engine):
    spoken = engine.speak(TEXT, AGENT_VOICE)
    assert (engine.sample_rate, engine.version) == (22050, "1.52.0")
    assert spoken.audio.dtype == np.float32 and 0.1 < np.abs(spoken.audio).max() <= 1.0
    assert 1.2 < spoken.duration < 3.0
    loud = np.flatnonzero(np.abs(spoken.audio) > 0.01)
    assert loud[0] < 0.08 * 22050 and len(spoken.audio) - loud[-1] < 0.08 * 22050


@pytest.mark.parametrize(
    "text",
    [
        'He said "yes."', '"Yes," he said, "no."', "(Yes.)", "“Tell me.”", "— yes —", "[yes]", "«Yes.»", "'Hi.'", '"Is it?"',
        "...yes...", "… yes …", "¿Qué tal?", "> yes", '"One. Two." (Three.)', "One.\n\nTwo.\n", "„Ja.“", "(yes) .",
    ],
)  # fmt: skip
def test_quotation_marks_and_brackets_add_no_silence(engine, text):
    """eSpeak adds 128 ms before an opening one, 308 ms where one follows the full stop: four frames of "speech"."""
    spoken = engine.speak(text, AGENT_VOICE)
    sound = np.flatnonzero(np.abs(spoken.audio) > 1e-3 * np.abs(spoken.audio).max())
    assert sound[0] <= 0.062 * 22050, "At most the closure of a stop."
    assert len(spoken.audio) - sound[-1] <= 0.016 * 22050
    assert spoken.words[0].start <= 0.0101 and spoken.words[-1].end == pytest.approx(spoken.duration)
    assert all(0 <= w.start < w.end <= spoken.duration for w in spoken.words)


def test_a_plain_text_loses_no_sample(engine, monkeypatch):
    """So corpora made before keep their bytes. "Tell" begins with the closure of its stop, 60 ms in the slowest voices."""
    given = []
    monkeypatch.setattr(espeak, "Utterance", lambda text, audio, *more: given.append(audio) or Utterance(text, audio, *more))
    slowest = min((user_voice("train", number) for number in range(480)), key=lambda voice: voice.rate)
    for text in (
        "Tell me where the fish sleeps.",
        "Please count from two up until eight.",
        "Tell me what the cat does.",
        "Half.",
    ):
        for voice in (AGENT_VOICE, slowest):
            assert np.array_equal(engine.speak(text, voice).audio, given[-1]), text


def test_every_word_has_its_place_and_time(engine):
    text = "Tell me the day before Monday, it's the twenty-first."  # eSpeak runs "the day" together
    spoken = engine.speak(text, AGENT_VOICE)
    assert [w.text for w in spoken.words] == ["Tell", "me", "the", "day", "before", "Monday", "it's", "the", "twenty-first"]
    assert all(text[w.offset :].startswith(w.text) for w in spoken.words)
    assert all(w.end - w.start > 0.03 for w in spoken.words)
    assert all(a.end == b.start for a, b in zip(spoken.words, spoken.words[1:]))
    assert spoken.words[0].start == 0.0 and spoken.words[-1].end == pytest.approx(spoken.duration)
    guessed = word_times(text, {}, len(spoken.audio), 22050)
    shifts = [abs(said.start - letters.start) for said, letters in zip(spoken.words, guessed)]
    assert sum(shift > 0.02 for shift in shifts) >= 5, "Times are eSpeak's, not shares by letters."


def test_words_that_are_not_reported_share_the_time_by_their_letters():
    words = word_times("a bcd ef", {0: 0, 6: 800}, 1000, 1000)
    assert [(w.text, w.start, w.end) for w in words] == [("a", 0.0, 0.2), ("bcd", 0.2, 0.8), ("ef", 0.8, 1.0)]
    assert word_times("?!", {}, 1000, 1000) == ()


def test_the_same_text_is_the_same_samples_whatever_was_said_before(engine):
    """eSpeak's state leaks between utterances: unless it is opened anew, four times the same text are four waveforms."""
    breathy = next(voice for voice in (user_voice("train", i) for i in range(99)) if "breath" in _variant(voice))
    for voice in (AGENT_VOICE, breathy):
        first = engine.speak(TEXT, voice).audio
        engine.speak("Something else, at length.", user_voice("dev", 1))
        assert np.array_equal(engine.speak(TEXT, voice).audio, first)
        assert not np.array_equal(engine.speak(TEXT, user_voice("train", 3)).audio[:1000], first[:1000])


def test_the_same_text_is_the_same_samples_in_another_process(engine):
    number = next(number for number in range(99) if "breath" in _variant(user_voice("train", number)))  # noise is seeded
    code = (
        "import zlib; from nemo_duplex.synthesis.tts.espeak import *; from nemo_duplex.synthesis.tts.voices import *;"
        f"engine, voices = EspeakEngine(voice_data()), (user_voice('train', {number}), AGENT_VOICE);"
        f"print(*(zlib.crc32(engine.speak({TEXT!r}, voice).audio) for voice in voices))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.split() == [str(zlib.crc32(engine.speak(TEXT, v).audio)) for v in (user_voice("train", number), AGENT_VOICE)]


def test_each_parameter_of_a_voice_is_heard(engine):
    plain = Voice("v", "en-us+klatt2", rate=160, pitch=50, pitch_range=50)
    said = {name: engine.speak(TEXT, replace(plain, **{name: 90})) for name in ("rate", "pitch", "pitch_range")}
    usual = engine.speak(TEXT, plain)
    assert said["rate"].duration > 1.4 * usual.duration
    for name in ("pitch", "pitch_range"):
        assert said[name].duration == pytest.approx(usual.duration, rel=0.1)
        assert not np.array_equal(said[name].audio[:8000], usual.audio[:8000]), name


def test_threads_wait_for_each_other(engine):
    """The library crashes the process when two threads use it at once."""
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(engine.speak(TEXT, AGENT_VOICE).audio)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(np.array_equal(audio, results[0]) for audio in results)


def test_ctrl_c_while_espeak_speaks_is_not_lost(engine, monkeypatch):
    """ctypes drops what a callback raises, and a signal that comes while eSpeak works is raised in the callback."""

    def interrupted(events):
        raise KeyboardInterrupt

    monkeypatch.setattr(espeak, "_until_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.speak(TEXT, AGENT_VOICE)
    monkeypatch.undo()
    assert engine.speak(TEXT, AGENT_VOICE).duration > 1


@pytest.mark.parametrize("name", ["xx-nowhere", "xx-nowhere+m1", "en-us+nosuchvariant"])
def test_an_unknown_voice_is_an_error_that_names_it(engine, name):
    """eSpeak takes an unknown variant for none, and all speakers would sound alike."""
    with pytest.raises(InputError, match="no voice.*nosuchvariant|no voice.*xx-nowhere"):
        engine.speak("hello", Voice("somebody", name))


@pytest.mark.parametrize("text", ["", "?!", " - "])
def test_a_text_without_words_is_an_error(engine, text):
    with pytest.raises(InputError, match="makes no sound of the text"):
        engine.speak(text, AGENT_VOICE)


def test_without_the_wheel_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(InputError, match="pip install espeakng-loader"):
        EspeakEngine()


def test_a_broken_data_folder_is_an_error_and_spoils_nothing(engine, tmp_path):
    """The library stayed mapped after the error, and from then on no utterance was like another."""
    (tmp_path / "lang").mkdir()
    with pytest.raises(InputError, match="cannot read its data folder"):
        EspeakEngine(tmp_path)
    assert np.array_equal(engine.speak(TEXT, AGENT_VOICE).audio, engine.speak(TEXT, AGENT_VOICE).audio)


def test_a_process_that_cannot_unload_the_library_is_told(engine, caplog):
    held = ctypes.CDLL(str(espeak_paths()[0]))  # as another package would
    try:
        EspeakEngine(voice_data())
    finally:
        _unmap(held)
    assert "cannot be unloaded" in caplog.text
    caplog.clear()
    EspeakEngine(voice_data())
    assert not caplog.text


def _variant(voice: Voice) -> str:
    return (voice_data() / "voices" / "!v" / voice.name.split("+")[1]).read_text()
