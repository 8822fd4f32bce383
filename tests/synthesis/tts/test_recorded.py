"""Recordings as an engine: exactly the texts that a manifest has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.tts.engines import engine_voices
from nemo_duplex.synthesis.tts.recorded import RecordedEngine, recorded_voices
from nemo_duplex.synthesis.tts.utterance import Voice


def manifest(folder: Path, *rows) -> Path:
    path = folder / "speech.json"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n\n")
    return path


@pytest.fixture
def audio(tmp_path) -> Path:
    """Three seconds in two channels, louder every second."""
    (tmp_path / "wavs").mkdir()
    tone = np.sin(np.arange(24000) * 0.3) * np.repeat([0.2, 0.4, 0.8], 8000)
    soundfile.write(tmp_path / "wavs" / "a.flac", np.stack([tone, 0 * tone], axis=1), 8000)
    return tmp_path / "wavs" / "a.flac"


def row(text: str, **more) -> dict:
    return {"audio_filepath": "wavs/a.flac", "text": text} | more


def test_a_text_is_the_recording_of_its_speaker(tmp_path, audio):
    path = manifest(
        tmp_path, row("good day", speaker="ann", duration=1.0), row("good day", speaker="bob", offset=1.0, duration=1),
        row("the  rest", speaker="bob", offset=2, audio_filepath=str(audio)), row("good day", speaker="bob"),
        row("nobody says this"),
    )  # fmt: skip
    engine = RecordedEngine(path)
    assert engine.speakers == ["ann", "bob", "somebody"] and engine.name == "recorded-speech"
    for name, text, loud in (("ann", "good day", 0.1), ("bob", "good day", 0.2), ("bob", "the rest", 0.4)):
        spoken = engine.speak(text, Voice("v", name))
        assert (spoken.sample_rate, spoken.text, spoken.words) == (8000, text, ())
        assert spoken.duration == pytest.approx(1.0, abs=0.01) and np.abs(spoken.audio).max() == pytest.approx(loud, rel=0.01)
    assert engine.speak("nobody says this", Voice("v", "somebody")).duration == pytest.approx(3.0, abs=0.01)


def test_what_was_not_recorded_is_named(tmp_path, audio):
    engine = RecordedEngine(manifest(tmp_path, row("good day", speaker="ann"), row("good night", speaker="bob")))
    with pytest.raises(InputError, match="recorded-speech has no recording of 'good night' by ann."):
        engine.speak("good night", Voice("v", "ann"))
    with pytest.raises(InputError, match="has no speaker 'cy': expected one of ann, bob"):
        engine.speak("good day", Voice("v", "cy"))
    assert engine.cannot_say("Good day", Voice("v", "ann")) == "recorded-speech has no recording of 'Good day'."
    assert engine.cannot_say("good night", Voice("v", "ann")) is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":2: not JSON"), ("[1]", ":2: no path of an audio file .its keys are '.1.'.. Give a NeMo manifest"),
        (row(" "), ":2: the row has no text"), (row("a", offset=-1), ":2: a time that is no number of seconds .offset is -1"),
        (row(["a"]), ":2: a text that is no string"), (row("a", offset=True), ":2: a time that is no number of seconds"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_named(tmp_path, line, message):
    with pytest.raises(InputError, match=f"speech.json{message}"):
        RecordedEngine(manifest(tmp_path, row("good day"), line))


def test_texts_and_files_of_any_editor_are_read(tmp_path, audio):
    rows = [json.dumps(row(text), ensure_ascii=False) for text in ("good\u2028day", "good night")]
    path = tmp_path / "speech.json"
    path.write_text("\ufeff" + "\n".join(rows), encoding="utf-8")
    engine = RecordedEngine(path)
    for text in ("good day", "good night"):
        assert engine.cannot_say(text, Voice("v", "somebody")) is None


def test_audio_that_cannot_be_read_is_named_with_its_row(tmp_path, audio):
    engine = RecordedEngine(manifest(tmp_path, row("late", offset=9), row("gone", audio_filepath="none.wav")))
    with pytest.raises(InputError, match="speech.json:1: .*a.flac ends before the offset 9 s"):
        engine.speak("late", Voice("v", "somebody"))
    with pytest.raises(InputError, match="speech.json:2: a recording whose file is missing .*none.wav"):
        engine.speak("gone", Voice("v", "somebody"))


def test_every_fifth_speaker_is_of_dev(tmp_path, audio):
    path = manifest(tmp_path, *(row("good day", speaker=f"s{number}") for number in range(1, 8)))
    voices = engine_voices(f"recorded:{path}")
    assert voices.num_users == {"train": 6, "dev": 1} and voices.user("dev", 0).name == "s5"
    assert voices.user("train", 4).id == "recorded-speech-s6" and voices.agent.name == "s1"
    assert recorded_voices(str(manifest(tmp_path, row("good day")))).shared


def test_the_version_is_of_the_manifest(tmp_path, audio):
    first = RecordedEngine(manifest(tmp_path, row("good day"))).version
    assert RecordedEngine(manifest(tmp_path, row("good day"))).version == first
    assert RecordedEngine(manifest(tmp_path, row("good night"))).version != first


def test_no_manifest(tmp_path):
    with pytest.raises(InputError, match="recorded: expected a manifest"):
        recorded_voices(None)
    with pytest.raises(InputError, match="recorded: there is no file"):
        recorded_voices(str(tmp_path / "none.json"))
    with pytest.raises(InputError, match="has no rows"):
        recorded_voices(str(manifest(tmp_path, " ")))
