"""Another speaker of one: pitch, formants and speed each do what they say, and nothing else changes."""

from __future__ import annotations

import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nemo_duplex.conversation import Word
from nemo_duplex.inputs import InputError, NotInstalled
from nemo_duplex.synthesis.tts import perturbation as module
from nemo_duplex.synthesis.tts.bank import Bank
from nemo_duplex.synthesis.tts.cast import Cast
from nemo_duplex.synthesis.tts.engines import CastSpec, open_cast
from nemo_duplex.synthesis.tts.perturbation import FASTEST, perturbation, perturbed
from nemo_duplex.synthesis.tts.utterance import Perturbation, Utterance, Voice
from nemo_duplex.synthesis.tts.voices import espeak_voices
from tests.synthesis.tones import ToneEngine, cast_of

RATE, PITCH = 16000, 125.0


def vowel(formants=(500.0, 1500.0, 2500.0), seconds=2.0) -> Utterance:
    """Pulses at 125 Hz through resonances, so that pitch and formants are known."""
    pulses = np.zeros(round(seconds * RATE))
    pulses[:: round(RATE / PITCH)] = 1.0
    spectrum, frequency = np.fft.rfft(pulses), np.fft.rfftfreq(len(pulses), 1 / RATE)
    envelope = sum(1 / (1 + ((frequency - formant) / 80) ** 2) for formant in formants)
    audio = np.fft.irfft(spectrum * envelope)
    words = (Word("one", 0, 0.0, 0.75), Word("two", 4, 0.75, seconds))
    return Utterance("one two", 0.3 * audio / np.abs(audio).max(), RATE, words, "en")


def pitch(spoken: Utterance) -> float:
    audio = spoken.audio[4000:-4000]
    lags = np.fft.irfft(np.abs(np.fft.rfft(audio, 2 * len(audio))) ** 2)
    low = RATE // 250
    return RATE / (low + int(np.argmax(lags[low : RATE // 100])))


def formants(spoken: Utterance) -> list[float]:
    """Hz of the strongest harmonic within 400 Hz of each formant's place: as good as the distance of the harmonics."""
    audio = spoken.audio[4000:-4000] * np.hanning(len(spoken.audio) - 8000)
    power, frequency = np.abs(np.fft.rfft(audio)), np.fft.rfftfreq(len(audio), 1 / RATE)
    bands = [(200, 1000), (1000, 2000), (2000, 3300)]
    return [float(frequency[(power * ((frequency > low) & (frequency < high))).argmax()]) for low, high in bands]


def test_pitch_alone():
    spoken = perturbed(vowel(), Perturbation("v", semitones=4.0))
    assert pitch(spoken) == pytest.approx(PITCH * 2 ** (4 / 12), rel=0.02)
    assert formants(spoken) == pytest.approx([500, 1500, 2500], abs=100)
    assert spoken.duration == pytest.approx(vowel().duration, abs=0.02)


@pytest.mark.parametrize("factor", [0.88, 1.14])
def test_formants_alone(factor):
    spoken = perturbed(vowel(), Perturbation("v", formants=factor))
    assert pitch(spoken) == pytest.approx(PITCH, rel=0.01)
    assert formants(spoken) == pytest.approx([500 * factor, 1500 * factor, 2500 * factor], abs=100)
    assert spoken.words == vowel().words and spoken.duration == vowel().duration


def test_speed_alone():
    spoken = perturbed(vowel(), Perturbation("v", speed=1.25))
    assert spoken.duration == pytest.approx(vowel().duration / 1.25, abs=0.02)
    assert pitch(spoken) == pytest.approx(PITCH, rel=0.01) and formants(spoken) == pytest.approx([500, 1500, 2500], abs=100)
    assert [(w.text, w.offset) for w in spoken.words] == [("one", 0), ("two", 4)]
    assert spoken.words[0].end == spoken.words[1].start == pytest.approx(0.6, abs=0.01)
    assert (spoken.text, spoken.language, spoken.sample_rate) == ("one two", "en", RATE)


def test_sounds_stay_where_they_are():
    """A tone at 1.2 s of 2 s is at 1.2 s over the speed, within 5 ms."""
    audio = np.random.default_rng(0).normal(0, 0.001, 2 * RATE)
    audio[:200], audio[-200:] = 0.3, 0.3
    audio[19200:20800] += 0.5 * np.sin(np.arange(1600) * 0.3)
    for by in (Perturbation("v", 3.0, 0.95, 1.1), Perturbation("v", -3.0, 1.05, 0.9), Perturbation("v", formants=1.1)):
        spoken = perturbed(Utterance("tone", audio, RATE), by)
        inner = np.abs(spoken.audio[2000:-2000])
        loudness = np.convolve(inner, np.ones(1600), "same")
        assert (2000 + loudness.argmax()) / RATE == pytest.approx(1.25 / by.speed, abs=0.008)


def test_loudness_stays_and_nothing_clips():
    quiet, loud = vowel(), replace(vowel(), audio=np.clip(6 * vowel().audio, -1, 1))
    by = Perturbation("v", 3.0, 1.1, 1.05)
    assert _level(perturbed(quiet, by)) == pytest.approx(_level(quiet), rel=0.02)
    assert 0.9 < np.abs(perturbed(loud, by).audio).max() <= 0.99 + 1e-6
    assert perturbed(quiet, by).audio.dtype == np.float32


def test_nothing_to_change_changes_nothing():
    assert np.array_equal(perturbed(vowel(), Perturbation("v")).audio, vowel().audio)


def test_the_same_samples_every_time_and_in_another_process():
    by = Perturbation("v", 2.0, 1.08, 0.95)
    first = perturbed(vowel(), by).audio
    perturbed(vowel((600.0, 900.0)), Perturbation("v", -2.0, 0.9, 1.1))
    assert np.array_equal(perturbed(vowel(), by).audio, first)
    code = (
        "import zlib; from tests.synthesis.tts.test_perturbation import *;"
        "print(zlib.crc32(perturbed(vowel(), Perturbation('v', 2.0, 1.08, 0.95)).audio))"
    )
    root = Path(__file__).parents[3]
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert other.stdout.split() == [str(zlib.crc32(first))]


def test_short_utterances_and_all_rates():
    for rate in (8000, 16000, 24000, 44100):
        for seconds in (0.05, 0.3):
            audio = 0.5 * np.sin(2 * np.pi * 200 * np.arange(round(seconds * rate)) / rate)
            spoken = perturbed(Utterance("a", audio, rate), Perturbation("v", 3.0, 1.1, 1.1))
            assert spoken.duration == pytest.approx(seconds / 1.1, abs=0.02) and np.isfinite(spoken.audio).all()


def test_a_perturbation_is_drawn_from_the_voice_and_its_number():
    voice = Voice("pico-train007", "en-GB", engine="pico")
    assert perturbation(voice, 0) is None
    drawn = [perturbation(voice, number) for number in range(1, 400)]
    assert perturbation(voice, 5) == drawn[4] and len(set(drawn)) == 399
    assert perturbation(replace(voice, id="pico-train008"), 5) != drawn[4]
    assert {by.of for by in drawn} == {"pico-train007"}
    assert all(-4 <= by.semitones <= 4 and 0.86 < by.formants < 1.16 and 0.9 <= by.speed <= FASTEST for by in drawn)
    assert max(by.semitones for by in drawn) > 3 and min(by.semitones for by in drawn) < -3
    size = np.corrcoef([by.semitones for by in drawn], [by.formants for by in drawn])
    assert 0.8 < size[0, 1] < 0.98, "Tall people have low voices."


def test_a_cast_perturbs_after_the_bank(tmp_path):
    """One utterance is kept for all the speakers that are made of one."""
    engine = _Counting()
    voices = replace(next(iter(cast_of(engine)._users["dev"])), quick=False).multiplied(3)
    cast = Cast(replace(voices, agent=voices.user("dev", 0)), {"train": {voices: 1.0}, "dev": {voices: 1.0}}, Bank(tmp_path))
    users = [voices.user("dev", number) for number in range(3, 6)]
    assert [user.id for user in users] == ["dev001", "dev001~1", "dev001~2"]
    assert [user.perturbation and user.perturbation.of for user in users] == [None, "dev001", "dev001"]
    said = [cast.speak("one two three", user) for user in users]
    assert engine.spoken == ["dev001"] and len(list(tmp_path.rglob("*.flac"))) == 1
    assert len({spoken.audio.tobytes() for spoken in said}) == 3
    by = users[1].perturbation
    assert said[1].duration == pytest.approx(0.9 / by.speed, abs=0.03)
    assert said[1].words[1].start == pytest.approx(0.3 / by.speed, abs=0.02)
    assert np.array_equal(said[1].audio * 32768, np.round(said[1].audio * 32768)), "16 bits, as all utterances of a cast."
    assert cast.engine_of(users[2]) == "tones 1"


def test_users_are_multiplied_by_a_key():
    cast, missing = open_cast(CastSpec(train=(("pico", 1.0),), dev=(("pico", 1.0),), perturb=(("pico", 5),)))
    assert missing == [] and cast.num_users == {"train": 240, "dev": 60}
    users = {split: {cast.user(split, np.random.default_rng(n)).id for n in range(500)} for split in ("train", "dev")}
    assert len(users["train"]) > 200 and len(users["dev"]) == 60
    assert not {name.split("~")[0] for name in users["train"]} & {name.split("~")[0] for name in users["dev"]}
    assert list(cast.describe()["users"]["train"].values()) == [[240, 1.0, "1 python-stretch 0.3.1"]]
    plain, _ = open_cast(CastSpec(train=(("pico", 1.0),), dev=(("pico", 1.0),), perturb=(("pico", 1),)))
    assert list(plain.describe()["users"]["train"].values()) == [[48, 1.0]]


def test_the_fastest_user_is_as_fast_as_a_perturbation_may_be():
    fastest = espeak_voices().multiplied(2).fastest
    assert fastest.perturbation == Perturbation("fastest", speed=FASTEST) and espeak_voices().fastest.perturbation is None


@pytest.mark.parametrize(
    ("perturb", "message"),
    [
        ((("flute", 2),), "perturb: flute is no engine of user_voices .espeak."),
        ((("espeak", 0),), "perturb.espeak=0: expected a whole number of voices, from 1 to 1000"),
        ((("espeak", 2.5),), "perturb.espeak=2.5: expected a whole number"),
    ],
)
def test_a_wrong_key_is_refused(perturb, message):
    with pytest.raises(InputError, match=message):
        CastSpec(perturb=perturb)


def test_without_the_package_the_voices_stay_as_they_are(monkeypatch):
    monkeypatch.setitem(sys.modules, "python_stretch", None)
    cast, missing = open_cast(CastSpec("espeak", (("espeak", 1.0),), (("espeak", 1.0),), perturb=(("espeak", 7),)))
    assert missing == ["Voices cannot be perturbed: pip install python-stretch==0.3.1"]
    assert cast.num_users == {"train": 480, "dev": 80}
    with pytest.raises(NotInstalled):
        module.perturbation_version()


class _Counting(ToneEngine):
    def __init__(self):
        self.spoken: list[str] = []

    def speak(self, text: str, voice: Voice) -> Utterance:
        self.spoken.append(voice.id)
        return super().speak(text, voice)


def _level(spoken: Utterance) -> float:
    return float(np.sqrt(np.mean(np.square(spoken.audio))))
