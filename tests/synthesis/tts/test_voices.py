from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.tts.espeak import EspeakEngine
from nemo_duplex.synthesis.tts.utterance import Voice
from nemo_duplex.synthesis.tts.voices import AGENT_VOICE, NUM_SPEAKERS, user_voice, voice_data


def voices(split: str) -> list:
    return [user_voice(split, i) for i in range(NUM_SPEAKERS[split])]


def test_hundreds_of_speakers_and_none_of_dev_in_train():
    train, dev = voices("train"), voices("dev")
    assert len({v.id for v in train}) >= 400 and len({(v.name, v.rate, v.pitch) for v in train}) > 400
    variants = [{v.name.split("+")[1] for v in split} for split in (train, dev)]
    assert len(variants[0]) == 160 and not variants[0] & variants[1]
    assert [v.rate for v in train[:80]] != [v.rate for v in dev] and len({v.rate for v in train}) > 40
    assert AGENT_VOICE.name not in {v.name for v in train + dev}


def test_a_speaker_is_the_one_of_corpora_made_before():
    assert user_voice("train", 5) == Voice("train005", "en-us+train005", rate=166, pitch=48, pitch_range=50)


def test_speakers_sound_different():
    engine = EspeakEngine(voice_data())
    spectra = []
    for number in range(12):
        audio = engine.speak("Hello there, how are you today?", user_voice("train", number)).audio
        frames = np.abs(np.fft.rfft(audio[: len(audio) // 512 * 512].reshape(-1, 512) * np.hanning(512)))
        spectra.append(np.log(frames.mean(axis=0) + 1e-6))
    distances = [np.abs(a - b).mean() for i, a in enumerate(spectra) for b in spectra[:i]]
    assert min(distances) > 0.1


def test_the_data_is_made_once_and_by_many_at_a_time(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: voice_data(tmp_path), range(4)))
    (folder,) = folders
    assert os.listdir(tmp_path) == [folder.name]
    assert (folder / "voices" / "!v" / "train159").is_file() and (folder / "voices" / "!v" / "dev039").is_file()
    variants = [(folder / "voices" / "!v" / f"train{number:03d}").read_text() for number in range(160)]
    assert len(set(text.split("pitch")[1] for text in variants)) == 160
    assert sum("gender female" in text for text in variants) == 80
    dev = [(folder / "voices" / "!v" / f"dev{number:03d}").read_text() for number in range(40)]
    assert not {text.split("pitch")[1] for text in dev} & {text.split("pitch")[1] for text in variants}
    assert all(text.startswith("language variant\n") for text in variants)
    made = folder.stat().st_mtime_ns
    assert voice_data(tmp_path) == folder and folder.stat().st_mtime_ns == made
    assert EspeakEngine(folder).speak("hello", user_voice("dev", 3)).duration > 0.2


def test_a_path_too_long_for_espeak_is_an_error(tmp_path):
    with pytest.raises(InputError, match="set XDG_CACHE_HOME"):
        voice_data(tmp_path / ("x" * 140))
