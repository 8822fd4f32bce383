"""A bank: what was spoken once is read, whatever happened to its files in between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import soundfile

from nemo_duplex.synthesis.tts.bank import Bank, in_16_bits
from nemo_duplex.synthesis.tts.utterance import Voice
from tests.synthesis.tones import ToneEngine

VOICE, TEXT = Voice("v", "hum", engine="tones"), "one two three"


class Counting(ToneEngine):
    """Counts how often it speaks."""

    def __init__(self, version: str = "1") -> None:
        self.version, self.said = version, []

    def speak(self, text, voice):
        self.said.append(text)
        return ToneEngine().speak(text, voice)


@pytest.fixture
def bank(tmp_path):
    return Bank(tmp_path / "bank")


def same(one, other) -> bool:
    return np.array_equal(one.audio, other.audio) and (one.words, one.text) == (other.words, other.text)


def test_what_was_spoken_is_read_and_the_same(bank):
    engine = Counting()
    first, again = (bank.utterance(TEXT, VOICE, engine) for _ in range(2))
    assert engine.said == [TEXT]
    assert same(first, again) and same(first, in_16_bits(ToneEngine().speak(TEXT, VOICE)))


def test_text_voice_and_version_are_told_apart(bank):
    engine = Counting()
    others = (replace(VOICE, **{name: value}) for name, value in (("id", "w"), ("name", "sing"), ("rate", 90), ("pitch", 7)))
    for text, voice in ((TEXT, VOICE), ("one", VOICE), ("One", VOICE), *((TEXT, other) for other in others)):
        bank.utterance(text, voice, engine)
    assert len(engine.said) == 7
    assert bank.path("One", VOICE, engine) != bank.path("one", VOICE, engine), "Each would replace the other."
    newer = Counting(version="2")
    bank.utterance(TEXT, VOICE, newer)
    assert newer.said == [TEXT]


def other_samples(path):
    with soundfile.SoundFile(path) as file:
        comment, samples = file.comment, file.read(dtype="int16")
    with soundfile.SoundFile(path, "w", 22050, 1, subtype="PCM_16", format="FLAC") as file:
        file.comment = comment
        file.write(samples[::-1].copy())


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "foreign": lambda path: path.write_text("something else"),
    "no comment": lambda path: soundfile.write(path, np.ones(100), 22050, format="FLAC"),
    "other samples": other_samples,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_made_again(bank, damage):
    engine = Counting()
    first = bank.utterance(TEXT, VOICE, engine)
    path = bank.path(TEXT, VOICE, engine)
    whole = path.read_bytes()
    DAMAGE[damage](path)
    assert same(bank.utterance(TEXT, VOICE, engine), first)
    assert engine.said == [TEXT, TEXT] and path.read_bytes() == whole


def test_nothing_but_utterances_is_in_the_folder(bank, tmp_path):
    bank.utterance(TEXT, VOICE, Counting())
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file == bank.path(TEXT, VOICE, Counting())


def test_a_folder_that_cannot_be_written_ends_the_run(tmp_path):
    (tmp_path / "bank").write_text("a file")
    with pytest.raises(OSError, match="bank"):  # not an InputError, for which a dialogue would be left out
        Bank(tmp_path / "bank").utterance(TEXT, VOICE, Counting())
