"""The default recogniser on real speech."""

import numpy as np
import pytest

from nemo_duplex.evaluation.speech.normalized_text import word_errors
from nemo_duplex.evaluation.speech.whisper import Whisper


@pytest.fixture(scope="module")
def whisper() -> Whisper:
    return Whisper()


def test_it_understands_plain_speech(whisper):
    from nemo_duplex.synthesis.tts.espeak import EspeakEngine
    from nemo_duplex.synthesis.tts.utterance import Voice

    engine = EspeakEngine()
    for text in ("What is the capital of France?", "Thank you very much for your help."):
        spoken = engine.speak(text, Voice("agent", "en-us", rate=150))
        heard = whisper.transcribe(spoken.audio, spoken.sample_rate)
        assert word_errors(text, heard)[0] <= 1, heard
        assert whisper.transcribe(spoken.audio, spoken.sample_rate) == heard, "no random numbers"


def test_silence_has_no_words(whisper):
    assert whisper.transcribe(np.zeros(16000, np.float32), 16000) == whisper.transcribe(np.zeros(0, np.float32), 16000) == ""


def test_sound_without_speech_is_not_even_given_to_the_model(whisper, monkeypatch):
    """Asked without its own rule for silence, the model writes "you" of this noise."""
    noise = 0.5 * np.random.default_rng(0).uniform(-1, 1, 24000).astype(np.float32)
    buzz = 0.3 * np.sign(np.sin(2 * np.pi * 120 * np.arange(24000) / 16000))
    monkeypatch.setattr(whisper._model, "transcribe", None)
    assert [whisper.transcribe(sound, 16000) for sound in (noise, buzz, 0.01 * noise)] == [""] * 3


@pytest.fixture(scope="module")
def poem():
    """40 s of speech, a sentence every 4 s."""
    from nemo_duplex.synthesis.tts.hibari import AGENT_VOICE, HibariEngine

    engine = HibariEngine()
    lines = [f"Number {n} of the children brought a {thing} to school." for n, thing in zip(NUMBERS, THINGS)]
    spoken = [engine.speak(line, AGENT_VOICE) for line in lines]
    rate = spoken[0].sample_rate
    return " ".join(lines), np.concatenate([np.pad(u.audio, (0, 4 * rate - len(u.audio))) for u in spoken]), rate


NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
THINGS = ("hammer", "pencil", "ladder", "basket", "bottle", "window", "carrot", "flower", "button", "jacket")


def test_long_and_faint_speech_loses_no_words(whisper, poem):
    """Over 30 s faster-whisper 1.2.1 itself leaves out a sentence here."""
    text, audio, rate = poem
    assert len(audio) / rate == 40
    for level in (1.0, 0.003):
        heard = whisper.transcribe(level * audio, rate)
        assert word_errors(text, heard)[0] <= 2, heard
    sentence = audio[: 4 * rate]
    assert whisper.transcribe(0.001 * sentence, rate), "the VAD hears it as loud as any"
    words = whisper.timed_words(audio, rate)
    starts = [start for word, start, _ in words if word == "Number"]
    assert starts == pytest.approx([4.0 * i for i in range(10)], abs=0.5)


def test_a_model_that_repeats_itself_is_stopped(whisper, monkeypatch):
    asked = {}
    monkeypatch.setattr(whisper._model, "transcribe", lambda sound, **options: (asked.update(options) or [], None))
    monkeypatch.setattr("nemo_duplex.perception.whisper_model._holds_speech", lambda sound: True)
    whisper.transcribe(np.ones(32000, np.float32), 16000)
    assert asked["max_new_tokens"] == 8 + 24 and asked["language"] == "en"


def test_it_says_who_it_is(whisper):
    scorer = whisper.scorer
    assert (scorer.name, scorer.comparable) == ("whisper-tiny.en", False)
    assert scorer.sha256 == "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
    assert scorer.version.startswith("faster-whisper 1.")
    assert [whisper.understands(language) for language in ("en", "en-US", "de", "hi")] == [True, True, False, False]


def test_words_have_their_times(whisper):
    from nemo_duplex.synthesis.tts.espeak import EspeakEngine
    from nemo_duplex.synthesis.tts.utterance import Voice

    spoken = EspeakEngine().speak("Thank you very much for your help.", Voice("agent", "en-us", rate=150))
    words = whisper.timed_words(spoken.audio, spoken.sample_rate)
    assert [text for text, _, _ in words] == whisper.transcribe(spoken.audio, spoken.sample_rate).split()
    starts = [start for _, start, _ in words]
    assert starts == sorted(starts) and 0 <= starts[0] < 0.4 < spoken.duration - 0.5 < starts[-1] < spoken.duration
    assert whisper.timed_words(np.zeros(16000, np.float32), 16000) == []
