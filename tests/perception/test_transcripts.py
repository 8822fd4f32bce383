"""Whisper's transcripts as texts of recordings that nobody transcribed."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.inputs import InputError
from nemo_duplex.perception import transcripts as module
from nemo_duplex.perception.manifest_utterances import manifest_utterances
from nemo_duplex.perception.transcripts import Transcripts
from nemo_duplex.perception.whisper_model import OpenedWhisper, open_whisper


def segment(text, log_prob=-0.2, compression=1.0, silence=0.0):
    return SimpleNamespace(text=text, avg_logprob=log_prob, compression_ratio=compression, no_speech_prob=silence)


def tone(value):
    return np.full(16000, value, np.int16)


@pytest.fixture
def asked(monkeypatch):
    """What Whisper hears: by the value of the samples. The list holds the values that it was asked about."""
    heard = {
        100: [segment(" Good day,"), segment(" Ann.")],
        200: [segment(" Good day."), segment(" Mumble.", log_prob=-0.71)],
        300: [segment(" No no no no", compression=2.5)],
        400: [segment(" Thank you.", silence=0.7)],
        500: [],
        700: [segment(" In 1984.")],
        600: [segment(" Just sure.", log_prob=-0.7, compression=2.4, silence=0.6)],
    }
    values = []

    def segments(model, samples, language):
        assert samples.dtype == np.float32 and language == "en"
        values.append(round(float(samples[0]) * 32768))
        return iter(heard[values[-1]])

    monkeypatch.setattr(module, "segments", segments)
    return values


TINY = OpenedWhisper(SimpleNamespace(model=SimpleNamespace(is_multilingual=False)), "tiny", "00")


def test_rows_without_a_text_get_what_whisper_is_sure_of(asked, tmp_path):
    rows = [
        {"value": 100, "text": "", "engine": "person", "words": [["x", 0, 0.2, 0.4]]},
        {"value": 200},
        {"value": 300, "text": "..."},
        {"value": 400},
        {"value": 500},
        {"value": 600, "language": "en-US"},
        {"value": 100, "text": "Written down."},
        {"value": 200, "language": "de"},
        {"value": 700},
    ]
    lines = []
    for i, row in enumerate(rows):
        soundfile.write(tmp_path / f"{i}.wav", tone(row.pop("value")), 16000, subtype="PCM_16")
        lines.append(json.dumps({"audio_filepath": f"{i}.wav", **row}))
    (tmp_path / "people.jsonl").write_text("\n".join(lines))
    odd, taken = OddRows(), Transcripts(TINY, tmp_path / "kept")
    found = manifest_utterances([tmp_path / "people.jsonl"], odd, taken)
    assert [utterance.text for utterance in found] == ["good day ann", "just sure", "written down"]
    assert found[0].turns[0].words == () and found[0].duration == 1.0 and found[0].group == "person"
    assert taken.taken == 2 and sorted(asked) == [100, 200, 300, 400, 500, 600, 700]
    counts = {reason: one["count"] for reason, one in odd.describe().items()}
    assert counts == {
        "no words in its text, and Whisper hears none": 2,
        "no words in its text, and Whisper is not sure of them": 1,
        "no words in its text, and Whisper repeats itself": 1,
        "no words in its text, and Whisper writes numbers in figures": 1,
        "no words in its text, and a language that Whisper does not know": 1,
    }
    untaught = OddRows()
    assert len(manifest_utterances([tmp_path / "people.jsonl"], untaught)) == 1 and len(untaught) == 8


def test_a_recording_is_heard_once(asked, tmp_path):
    first = Transcripts(TINY, tmp_path)
    assert [first.text(tone(100)), first.text(tone(100))] == ["Good day, Ann."] * 2
    with pytest.raises(OddRow, match="not sure of them .Good day. Mumble"):
        first.text(tone(200))
    again = Transcripts(TINY, tmp_path)
    assert again.text(tone(100)) == "Good day, Ann." and asked == [100, 200]
    with pytest.raises(OddRow, match="not sure"):
        again.text(tone(200))
    assert asked == [100, 200] and again.taken == 1
    file = tmp_path / "transcripts.jsonl"
    file.write_bytes(file.read_bytes()[:-5])  # as after a power cut
    cut = Transcripts(TINY, tmp_path)
    cut.text(tone(600))
    assert [len(json.loads(line)) for line in file.read_text().splitlines()] == [5, 5] and asked == [100, 200, 600]
    file.write_text("no JSON\n")
    with pytest.raises(InputError, match="transcripts.jsonl cannot be read .*Remove it"):
        Transcripts(TINY, tmp_path)


def test_whisper_itself_gives_words_that_are_sure(tmp_path):
    import soxr

    from nemo_duplex.synthesis.tts.espeak import EspeakEngine
    from nemo_duplex.synthesis.tts.utterance import Voice

    spoken = EspeakEngine().speak("Thank you very much for your help.", Voice("agent", "en-us", rate=150))
    sound = (soxr.resample(spoken.audio, spoken.sample_rate, 16000) * 32767).astype(np.int16)
    taught = Transcripts(open_whisper(), tmp_path)
    assert taught.text(sound) == "Thank you very much for your help."
    noise = (10000 * np.random.default_rng(0).uniform(-1, 1, 24000)).astype(np.int16)
    with pytest.raises(OddRow, match="Whisper hears none"):
        taught.text(noise)
