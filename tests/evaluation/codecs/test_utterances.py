"""Which utterances codecs are tried on, with which texts; what cannot be used is counted."""

import json

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

from nemo_duplex.evaluation.codecs.utterances import read_utterances
from nemo_duplex.inputs import InputError
from tests.evaluation.agents import cut_of, dialogue, write_set
from tests.evaluation.speech.sounds import tone


def test_recordings_of_a_folder_with_texts_beside_them(tmp_path):
    for name, rate in (("b", 22050), ("a", 8000), ("sub/c", 16000), (".hidden", 16000)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / f"{name}.wav", tone(1.0, rate), rate)
    (tmp_path / "a.txt").write_text("\ufeffHello there.\n")
    (tmp_path / "b.txt").write_text(" \n")
    found, odd = read_utterances(tmp_path)
    assert [(u.id, u.sample_rate, u.text) for u in found] == [
        ("a.wav", 8000, "Hello there."),
        ("b.wav", 22050, None),
        ("sub/c.wav", 16000, None),
    ]
    assert [len(u.samples) for u in found] == [8000, 22050, 16000] and not len(odd)


def test_files_that_cannot_be_used_are_counted(tmp_path):
    soundfile.write(tmp_path / "good.wav", tone(1.0), 16000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone(1.0), tone(1.0, pitch=300)], 1), 16000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000, np.float32), 16000)
    soundfile.write(tmp_path / "long.wav", tone(61.0, 8000), 8000)
    soundfile.write(tmp_path / "empty.wav", tone(0.0), 16000)
    soundfile.write(tmp_path / "nan.wav", np.full(99, np.nan, np.float32), 16000, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "latin.wav", tone(1.0), 16000)
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    found, odd = read_utterances(tmp_path)
    assert [u.id for u in found] == ["good.wav"]
    assert {reason: one["count"] for reason, one in odd.describe().items()} == {
        "no sound of full scale 1": 2,
        "several channels": 1,
        "silence alone": 1,
        "longer than 60 s": 1,
        "not readable as audio": 1,
        "a text that is not UTF-8": 1,
    }
    (tmp_path / "good.wav").unlink()
    with pytest.raises(InputError, match="holds no utterance that can be used. .* of them: "):
        read_utterances(tmp_path)


def test_one_voice_in_two_channels_is_one_voice(tmp_path):
    soundfile.write(tmp_path / "same.wav", np.stack([tone(1.0)] * 2, 1), 16000)
    soundfile.write(tmp_path / "left.wav", np.stack([tone(1.0), 0 * tone(1.0)], 1), 16000)
    soundfile.write(tmp_path / "right.wav", np.stack([0 * tone(1.0), tone(1.0)], 1), 16000)
    found, odd = read_utterances(tmp_path)
    assert [u.id for u in found] == ["left.wav", "right.wav", "same.wav"] and not len(odd)
    for u in found:
        assert u.samples.shape == (16000,) and np.abs(u.samples - tone(1.0)).max() < 1e-4


def test_rows_of_a_nemo_manifest(tmp_path):
    """Stretches, texts, voices and languages; a row that cannot be used does not end the run."""
    soundfile.write(tmp_path / "a.wav", np.concatenate([tone(1.0), tone(0.5, pitch=440, level=0.1)]), 16000)
    soundfile.write(tmp_path / "b.flac", tone(2.0, 24000), 24000)
    rows = [
        {"audio_filepath": "a.wav", "offset": 1.0, "duration": 0.5, "text": " Hallo. ", "voice": "ann", "language": "de"},
        {"audio_filepath": str(tmp_path / "b.flac"), "duration": 2.0, "text": "", "speaker": 7, "id": "u7"},
        {"audio_filepath": "gone.wav", "duration": 1.0, "text": "no"},
        {"duration": 1.0},
    ]
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, odd = read_utterances(path)
    assert [(u.id, u.text, u.language, u.voice, u.sample_rate, len(u.samples)) for u in found] == [
        ("a.wav, 1.00 s", "Hallo.", "de", "ann", 16000, 8000),
        ("u7", None, "en", "7", 24000, 48000),
    ]
    assert np.abs(found[0].samples - tone(0.5, pitch=440, level=0.1)).max() < 1e-3
    assert {reason: one["count"] for reason, one in odd.describe().items()} == {
        "a recording whose file is missing": 1,
        "no path of an audio file": 1,
    }
    assert [u.id for u in read_utterances(path, limit=1)[0]] == ["a.wav, 1.00 s"]


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz", "shar"])
def test_lhotse_cuts(tmp_path, name):
    soundfile.write(tmp_path / "a.wav", tone(3.0), 16000)
    recording = Recording.from_file(tmp_path / "a.wav")
    said = [SupervisionSegment("s", "a", 0.0, 1.0, text="Yes.", speaker="ann", language="English")]
    cuts = [MonoCut("c1", 1.0, 1.0, 0, supervisions=said, recording=recording), MonoCut("c2", 0.0, 0.5, 0, recording=recording)]
    if name == "shar":
        (tmp_path / name).mkdir()
        CutSet.from_cuts(cuts).to_shar(tmp_path / name, fields={"recording": "wav"})
    else:
        CutSet.from_cuts(cuts).to_file(tmp_path / name)
    found, odd = read_utterances(tmp_path / name)
    assert [(u.id, u.text, u.language, u.voice, len(u.samples)) for u in found] == [
        ("cut c1", "Yes.", "English", "ann", 16000),
        ("cut c2", None, "en", None, 8000),
    ]
    assert np.abs(found[0].samples - tone(3.0)[16000:32000]).max() < 1e-3 and not len(odd)


def test_a_few_of_many_are_evenly_spread(tmp_path):
    for i in range(10):
        soundfile.write(tmp_path / f"{i}.wav", tone(0.1), 16000)
    assert [u.id for u in read_utterances(tmp_path, limit=4)[0]] == ["0.wav", "2.wav", "5.wav", "7.wav"]
    assert len(read_utterances(tmp_path, limit=10)[0]) == 10
    with pytest.raises(InputError, match="limit=0: expected at least 1"):
        read_utterances(tmp_path, limit=0)


def test_whole_turns_of_the_agent_in_a_set_of_a_corpus(tmp_path):
    cuts = [cut_of(dialogue("d0"))]
    write_set(tmp_path / "dev" / "shar", cuts)
    found, odd = read_utterances(tmp_path)
    turns = [t for t in dialogue("d0").agent if t.full_text is None]
    assert [(u.text, round(len(u.samples) / u.sample_rate, 2)) for u in found] == [
        (t.text, round(t.end - t.start + 0.2, 2)) for t in turns
    ]
    assert found[0].id == f"dev, cut d0, {turns[0].start:.2f} s" and not len(odd)

    write_set(tmp_path / "impatient" / "shar", [cut_of(dialogue("d1"), agent=False)])
    again, odd = read_utterances(tmp_path, sets=["dev", "impatient", "test"])
    assert [u.id for u in again] == [u.id for u in found]
    assert odd.describe() == {
        "no such set in the corpus": {"count": 1, "first": ["test"]},
        "no agent channel": {"count": 1, "first": ["impatient, cut d1"]},
    }


def test_a_folder_without_audio_is_one_line(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(
        InputError, match=r"holds no audio files \(wav, flac, ogg, mp3\), no Shar, and no set of a corpus \(dev\)"
    ):
        read_utterances(tmp_path)
