"""Word errors of encoders: which recordings, heard by whom and how, counted for each engine and condition."""

import json

import numpy as np
import pytest
import soundfile
import torch

from nemo_duplex.evaluation import encoder_table as module
from nemo_duplex.evaluation.encoder_table import Spoken, encoder_table, open_encoders, read_spoken, table_of_encoders
from nemo_duplex.evaluation.report.tables import as_markdown, as_text
from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.files.nemo_manifest import write_manifest
from nemo_duplex.inputs import InputError
from nemo_duplex.perception.listening import Listened


def noise(samples=8000, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


class ByLength:
    """Hears "red", and as many more "blue"s as the sound has seconds; streams lose the last word of sounds over 3 s."""

    def whole(self, sounds):
        return [self._heard(sound, 0.0, 0) for sound in sounds]

    def streamed(self, sounds):
        return [self._heard(sound, 0.25 if len(sound) > 48000 else 0.0, len(sound) > 48000) for sound in sounds]

    @staticmethod
    def _heard(sound, change, fewer):
        words = ["red"] + ["blue"] * (len(sound) // 16000 - fewer)
        return Listened(" ".join(words), torch.full((2, 3), float(len(sound))) + change)


class Ear:
    scorer = Scorer("ear", "1", about="a stub")

    def __init__(self):
        self.asked = []

    def understands(self, language):
        return True

    def transcribe(self, audio, sample_rate, language="en"):
        self.asked.append((len(audio), sample_rate, language))
        return "red blue"


def spoken(*lengths, engine="person", text="red blue", voice=None):
    """Recordings; 1.3 s of silence are added around each of them."""
    return [Spoken(f"m:{i}", noise(n, i), text, engine, voice or engine) for i, n in enumerate(lengths)]


def test_errors_are_counted_by_engine_and_condition():
    people, others = spoken(8000, 8000), spoken(24000, engine="flite", text="red blue green")
    found, heard = encoder_table({"small": ByLength()}, [*people, *others], ["clean", "room"], progress=False)
    for condition in ("clean", "room"):
        errors = found["word_errors"][condition]["small"]
        assert (errors["person"]["value"], errors["person"]["n"]) == (0.0, 4)
        assert (errors["flite"]["value"], errors["flite"]["n"]) == (pytest.approx(1 / 3), 3)
    assert list(found["word_errors"]) == ["clean", "room"] and found["recordings"] == 3
    assert len(heard) == 6
    assert heard[2] == {
        "id": "m:0", "engine": "flite", "voice": "flite", "condition": "clean", "system": "small", "text": "red blue green",
        "heard": "red blue blue", "errors": 1, "words": 3,
    }  # fmt: skip


def test_what_counts_is_the_stream_and_its_difference_is_told():
    found, _ = encoder_table({"small": ByLength()}, spoken(8000, 40000), ["clean"], progress=False)
    assert found["streaming"] == {"small": {"difference": 0.25, "texts": 1}}
    assert found["word_errors"]["clean"]["small"]["person"]["value"] == pytest.approx(1 / 4)  # the whole has another


def test_a_recogniser_hears_the_same_sounds():
    ear = Ear()
    found, heard = encoder_table({"small": ByLength()}, spoken(8000, 16000, text="red"), ["clean"], ear, progress=False)
    assert ear.asked == [(8000 + 20800, 16000, "en"), (16000 + 20800, 16000, "en")]
    assert (
        found["word_errors"]["clean"]["ear"]["person"]["value"] == 1.0
        and found["word_errors"]["clean"]["ear"]["person"]["n"] == 2
    )
    assert [row["system"] for row in heard] == ["small", "small", "ear", "ear"]


def test_words_are_compared_however_they_are_written():
    found, _ = encoder_table({"s": ByLength()}, spoken(8000, text="Red, BLUE!"), ["clean"], progress=False)
    assert found["word_errors"]["clean"]["s"]["person"]["value"] == 0.0


@pytest.mark.parametrize("condition", ["noise", "babble"])
def test_a_recording_sounds_the_same_whatever_else_is_measured(condition, monkeypatch):
    sounds = []
    monkeypatch.setattr(
        ByLength, "_heard", staticmethod(lambda sound, *_: sounds.append(sound) or Listened("", torch.zeros(1, 1)))
    )
    monkeypatch.setattr(module, "_AT_ONCE", 2)
    three = spoken(8000, 9000, 10000)
    encoder_table({"s": ByLength()}, three, [condition], progress=False)
    first = {len(sound): sound for sound in sounds}
    monkeypatch.setattr(module, "_AT_ONCE", 64)
    encoder_table({"s": ByLength()}, three, ["clean", condition], progress=False)
    assert all(np.array_equal(first[len(sound)], sound) for sound in sounds[-6:]) and len(first) == 3
    before = len(sounds)
    encoder_table({"s": ByLength()}, three, [condition], progress=False, seed=1)
    assert not any(np.array_equal(first[len(sound)], sound) for sound in sounds[before:])


def test_babble_is_of_other_voices_of_the_engine():
    def said_by(number, of):
        others = module._others(of, number)
        rng = np.random.default_rng(0)
        return {len(others(rng)) for _ in range(50)}

    ann, bob, robot = spoken(100, 101, voice="ann"), spoken(200, 201, voice="bob"), spoken(300, engine="robot")
    everybody = [*ann, *bob, *robot]
    assert said_by(0, everybody) == {200, 201} and said_by(3, everybody) == {100, 101}
    assert said_by(0, ann) == {101} and said_by(4, everybody) == {300}


def test_the_table_has_a_column_for_each_engine():
    people, others = spoken(8000, 8000), spoken(24000, engine="flite", text="red blue green")
    found, _ = encoder_table({"small": ByLength()}, [*people, *others], ["clean", "babble"], Ear(), progress=False)
    table = table_of_encoders(found)
    assert table.columns == ("flite", "person")
    assert [(row.set_name, row.system) for row in table.rows] == [(c, s) for c in ("clean", "babble") for s in ("small", "ear")]
    assert table.rows[0].cells[0].text == "33.3 %" and table.rows[0].cells[0].n == "n 3"
    assert "33.3 % (n 3)" in as_text(
        table
    ) and "| clean | small | 33.3 % (n 3) | 0.0 % (95 %: 0.0 % to 0.0 %, n 4) |" in as_markdown([table])
    assert "small: streamed features differ" in table.notes[0] and "0 of 6 texts" in table.notes[0]


# --- recordings -------------------------------------------------------------------------------------------------------


@pytest.fixture
def manifest(tmp_path):
    """Writes sounds and a manifest of them."""

    def write(sounds, name="people.jsonl", rate=16000, **keys):
        rows = []
        for i, sound in enumerate(sounds):
            soundfile.write(tmp_path / f"{name}-{i}.wav", sound, rate)
            own = {key: value[i] if isinstance(value, list) else value for key, value in keys.items()}
            rows.append({"audio_filepath": f"{name}-{i}.wav", "duration": len(sound) / rate, "text": "red blue", **own})
        write_manifest(tmp_path / name, rows)
        return tmp_path / name

    return write


def test_recordings_by_engine_or_manifest(manifest):
    first = manifest([noise(), noise()], engine=["kokoro", "pico"], voice=["k1", None], language="en-GB")
    second = manifest([noise(4000)], name="calls.jsonl", rate=8000)
    found, odd = read_spoken([first, second])
    assert [(s.engine, s.voice, s.language, len(s.audio)) for s in found] == [
        ("calls", "calls", "en", 8000), ("kokoro", "k1", "en-GB", 8000), ("pico", "pico", "en-GB", 8000)
    ]  # fmt: skip
    assert len(odd) == 0 and found[0].text == "red blue" and found[1].id == f"{first}:1"


def test_the_limit_is_of_each_engine_and_spreads(manifest):
    path = manifest([noise(100 + i) for i in range(12)], engine=["a"] * 10 + ["b"] * 2)
    found, _ = read_spoken([path], limit=3)
    assert [len(s.audio) for s in found] == [100, 103, 106, 110, 111]


def test_what_cannot_be_used_is_counted(manifest):
    sounds = [noise(), np.stack([noise(), noise()], 1), np.zeros(800), noise(), noise(), noise(), noise(), noise()]
    path = manifest(sounds, text=["one", "one", "one", " ", "one", "one", "one", "one"])
    path.write_text(path.read_text() + json.dumps({"audio_filepath": "nowhere.wav", "text": "one"}) + "\n")
    found, odd = read_spoken([path], max_odd_rows=0.5)
    assert len(found) == 5
    assert {reason: row["count"] for reason, row in odd.describe().items()} == {
        "no text to compare with": 1, "several channels": 1, "no sound of full scale 1": 1,
        "a recording whose file is missing": 1,
    }  # fmt: skip
    with pytest.raises(InputError, match="manifests: .*max_odd_rows"):
        read_spoken([path], max_odd_rows=0.1)


def test_nothing_to_hear_or_to_hear_with(tmp_path):
    with pytest.raises(InputError, match=r"manifests=\[\]: expected at least one NeMo manifest"):
        read_spoken([])
    with pytest.raises(InputError, match="manifests: there is no file"):
        read_spoken([tmp_path / "nothing.jsonl"])
    with pytest.raises(InputError, match="limit=0"):
        read_spoken(["m.jsonl"], limit=0)
    with pytest.raises(InputError, match=r"encoders=\[\]: expected at least one .nemo"):
        open_encoders([])
    with pytest.raises(InputError, match="encoders: there is no file"):
        open_encoders([tmp_path / "e.nemo"])


def test_two_encoders_of_one_name(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "Listener", lambda path, device: path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "encoder.nemo").write_text("model")
    with pytest.raises(InputError, match="encoders: 'encoder' names two rows"):
        open_encoders([tmp_path / "a" / "encoder.nemo", tmp_path / "b" / "encoder.nemo"])
