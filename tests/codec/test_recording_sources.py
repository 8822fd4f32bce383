"""The same recordings from every form that they may have, and what is left out of each."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment
from lhotse.cut import MonoCut

from nemo_duplex.codec import recording_sources
from nemo_duplex.codec.recordings import Recordings
from nemo_duplex.inputs import InputError

RATE = 22050


@pytest.fixture
def wavs(tmp_path):
    """Four recordings of 0.2 to 0.5 s, each of another level."""
    folder = tmp_path / "wavs"
    folder.mkdir()
    for i in range(4):
        soundfile.write(folder / f"{i}.wav", np.full(int((0.2 + 0.1 * i) * RATE), 0.1 + 0.1 * i), RATE)
    return folder


def levels(data, **keys) -> list[tuple[int, float]]:
    read = Recordings(data, RATE, **keys)
    return [(len(samples), round(float(read.audio(i).max()), 3)) for i, samples in enumerate(read.samples)]


ALL = [(4410, 0.1), (6615, 0.2), (8820, 0.3), (11025, 0.4)]


def cuts_of(wavs) -> CutSet:
    recordings = [Recording.from_file(wavs / f"{i}.wav", recording_id=f"r{i}") for i in range(4)]
    return CutSet.from_cuts(MonoCut(f"c{i}", 0, r.duration, 0, recording=r) for i, r in enumerate(recordings))


@pytest.mark.parametrize("name", ["cuts.jsonl.gz", "cuts.jsonl"])
def test_a_file_of_cuts(wavs, tmp_path, name):
    cuts_of(wavs).to_file(tmp_path / name)
    assert levels(tmp_path / name) == ALL == levels(wavs)
    assert Recordings(tmp_path / name, RATE).ids == ["cut c0", "cut c1", "cut c2", "cut c3"]


def test_cuts_are_stretches_mixed_or_whole_recordings(wavs, tmp_path):
    cuts = list(cuts_of(wavs))
    CutSet.from_cuts([cuts[3].truncate(offset=0.1, duration=0.2), cuts[0].append(cuts[1])]).to_file(tmp_path / "cuts.jsonl")
    assert levels(tmp_path / "cuts.jsonl") == [(4410, 0.4), (11025, 0.2)]
    RecordingSet.from_recordings(cut.recording for cut in cuts).to_file(tmp_path / "recordings.jsonl.gz")
    assert levels(tmp_path / "recordings.jsonl.gz") == ALL


def test_cuts_with_paths_beside_them(wavs, tmp_path, monkeypatch):
    monkeypatch.chdir(wavs)
    CutSet.from_cuts(
        MonoCut(f"c{i}", 0, 0.2 + 0.1 * i, 0, recording=Recording.from_file(f"{i}.wav", recording_id=f"r{i}")) for i in range(4)
    ).to_file(wavs / "cuts.jsonl")
    monkeypatch.chdir(tmp_path)
    assert levels("wavs/cuts.jsonl") == ALL


def test_cuts_that_cannot_be_used_are_left_out(wavs, tmp_path):
    rows = [cut.to_dict() for cut in cuts_of(wavs)]
    rows[0]["recording"]["sources"][0] |= {"type": "command", "source": f"touch {tmp_path / 'ran'}"}
    rows[1]["recording"]["sources"][0]["source"] = str(tmp_path / "gone.wav")
    rows.append({"id": "s", "recording_id": "r", "start": 0, "duration": 1})
    rows.append({"type": "MonoCut", "id": "x"})
    (tmp_path / "cuts.jsonl").write_text("\n".join([*map(json.dumps, rows), "no json"]) + "\n")
    with pytest.raises(InputError, match="training data: 5 of 7 cuts cannot be used, more than max_odd_rows=0.5"):
        Recordings(tmp_path / "cuts.jsonl", RATE)
    read = Recordings(tmp_path / "cuts.jsonl", RATE, max_odd_rows=0.8)
    assert read.ids == ["cut c2", "cut c3"]
    found = {reason: (of["count"], of["first"][0]) for reason, of in read.left_out.describe().items()}
    file = tmp_path / "cuts.jsonl"
    assert found["a recording that is no file"] == (1, f"{file}:1: its type is 'command'")
    assert found["not readable as audio"][1].startswith("cut c1: ")
    assert found["no Lhotse cut"][0] == 2 and found["no Lhotse cut"][1] == f"{file}:5: it is a SupervisionSegment"
    assert any(reason.startswith("not JSON") for reason in found)
    assert not (tmp_path / "ran").exists()


def manifest(path, rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", ["all.json", "all.jsonl"])
def test_a_nemo_manifest(wavs, tmp_path, name):
    rows = [{"audio_filepath": f"wavs/{i}.wav", "duration": 0.2 + 0.1 * i, "text": "yes"} for i in range(4)]
    manifest(tmp_path / name, rows)
    assert levels(tmp_path / name) == ALL
    read = Recordings(tmp_path / name, RATE)
    assert read.ids[1] == f"{tmp_path / name}:2 ({wavs / '1.wav'})"
    rows[1] |= {"offset": 0.1, "duration": 0.15}
    manifest(tmp_path / name, [rows[1]])
    assert levels(tmp_path / name) == [(3308, 0.2)] or levels(tmp_path / name) == [(3307, 0.2)]


def test_rows_that_name_no_recording_are_left_out_and_counted(wavs, tmp_path):
    rows = [{"audio_filepath": f"wavs/{i}.wav", "duration": 0.2} for i in range(4)]
    rows[0]["audio_filepath"] = "wavs/gone.wav"
    (wavs / "1.wav").write_bytes(b"")
    soundfile.write(wavs / "2.wav", np.zeros(400), RATE)
    manifest(tmp_path / "all.jsonl", rows)
    with pytest.raises(InputError) as error:
        Recordings(tmp_path / "all.jsonl", RATE)
    assert str(error.value).startswith("training data: 3 of 4 rows cannot be used, more than max_odd_rows=0.5 allows")
    read = Recordings(tmp_path / "all.jsonl", RATE, max_odd_rows=0.75, what="held-out data")
    assert read.ids == [f"{tmp_path / 'all.jsonl'}:4 ({wavs / '3.wav'})"] and len(read.left_out) == 3
    assert read.summary()[0] == "held-out data: 1 utterances, 0.0 minutes, 3 left out"
    shutil.rmtree(wavs)
    with pytest.raises(
        InputError, match="held-out data: none of 4 rows can be used. All of them: a recording whose file is miss"
    ):
        Recordings(tmp_path / "all.jsonl", RATE, what="held-out data")


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.wav", b"RIFF", "is a single recording, expected a folder of them. Give"),
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"no json\n", "a.jsonl:1: not JSON"),
        ("a.jsonl", b"{}\n", "none of 1 rows can be used"),
        ("a.yaml", b"- 1\n", "a.yaml:1: not JSON"),
    ],
)
def test_files_that_are_no_data(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        Recordings(tmp_path / name, RATE)
    assert "\n" not in str(error.value)


def test_what_is_said_is_kept_from_every_form(wavs, tmp_path):
    """Texts beside files, of rows, and of cuts whose one speaker says nothing that reaches out of them."""
    for number, text in ((0, "\ufeffone\n"), (2, "grüß Gott ")):
        (wavs / f"{number}.txt").write_text(text, encoding="utf-8")
    assert Recordings(wavs, RATE).texts == ["one", "", "grüß Gott", ""]

    rows = [{"audio_filepath": f"wavs/{i}.wav", "duration": 0.2, "text": text} for i, text in enumerate(("one ", "", "two"))]
    manifest(tmp_path / "all.jsonl", [*rows, {"audio_filepath": "wavs/gone.wav", "text": "gone"}, rows[1] | {"text": "end"}])
    assert Recordings(tmp_path / "all.jsonl", RATE).texts == ["one", "", "two", "end"]

    def said(number, start, duration, text, speaker="a"):
        return SupervisionSegment(f"{number} {start} {text}", f"r{number}", start, duration, text=text, speaker=speaker)

    cuts = list(cuts_of(wavs))
    cuts[0].supervisions = [said(0, 0.1, 0.1, "there "), said(0, 0.0, 0.1, "hello"), said(0, 0.1, 0.05, None, "b")]
    cuts[1].supervisions = [said(1, 0.0, 0.1, "yes"), said(1, 0.1, 0.1, "no", "b")]
    cuts[2].supervisions = [said(2, 0.0, 0.55, "a text that goes on")]
    cuts[3].supervisions = [said(3, 0.0, 0.45, "it is written as if it were longer")]
    begun = cuts[3].truncate(offset=0.25, duration=0.15)
    CutSet.from_cuts([*cuts, begun.with_id("begun")]).to_file(tmp_path / "cuts.jsonl")
    assert Recordings(tmp_path / "cuts.jsonl", RATE).texts == ["hello there", "", "", "it is written as if it were longer", ""]


def test_a_long_recording_is_read_in_blocks(wavs, tmp_path, monkeypatch):
    """Blocks of one second: the samples are those of the whole, each resampled alone, and a row ends where it ends."""
    audio = (0.4 * np.sin(np.arange(int(3.3 * 44100)) * 0.02)).astype(np.float32)
    (tmp_path / "long").mkdir()
    soundfile.write(tmp_path / "long" / "a.wav", audio, 44100, subtype="FLOAT")
    manifest(tmp_path / "all.jsonl", [{"audio_filepath": "long/a.wav", "offset": 1.0, "duration": 2.1}])
    whole, row = (Recordings(tmp_path / name, RATE).audio(0) for name in ("long", "all.jsonl"))
    monkeypatch.setattr(recording_sources, "_BLOCK_SECONDS", 1)
    seen = [block.shape for block, _ in recording_sources._read_file(tmp_path / "long" / "a.wav")]
    assert seen == [(1, 44100), (1, 44100), (1, 44100), (1, 13230)]
    blocks, row_blocks = (Recordings(tmp_path / name, RATE).audio(0) for name in ("long", "all.jsonl"))
    assert len(blocks) == len(whole) == 72765 and len(row_blocks) == len(row) == 46305
    away = torch.ones(len(whole), dtype=torch.bool)
    for joint in (1, 2, 3):
        away[joint * RATE - 200 : joint * RATE + 200] = False
    torch.testing.assert_close(blocks[away], whole[away], atol=1e-3, rtol=0)
    away = torch.ones(len(row), dtype=torch.bool)
    for joint in (1, 2):
        away[joint * RATE - 200 : joint * RATE + 200] = False
    torch.testing.assert_close(row_blocks[away], row[away], atol=1e-3, rtol=0)
    torch.testing.assert_close(row[300:-300], whole[RATE + 300 : RATE + 46005], atol=2e-3, rtol=0)


def test_clipped_recordings_are_taken_and_said(wavs):
    loud = np.clip(3 * np.sin(np.arange(4000) * 0.1), -1, 1)
    soundfile.write(wavs / "2.wav", loud, RATE)
    read = Recordings(wavs, RATE)
    assert len(read) == 4
    assert read.summary()[1:] == [f"  1 x clipped at full scale, and taken as they are: {wavs / '2.wav'}"]


def test_at_most_so_many_wait_to_be_taken(wavs, tmp_path, monkeypatch):
    """Reading does not run away from the one who takes: with 2 threads, at most 5 recordings are ahead."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    opened = []

    def endless():
        for number in range(100):
            opened.append(number)
            yield recording_sources.Recorded(str(number), "", lambda: iter([(np.full((1, 100), 0.5, np.float32), RATE)]))

    read = Recordings(wavs, RATE)
    taken = read._read(recording_sources.Source("files", endless()))
    assert next(taken)[0].name == "0" and len(opened) == 5
    assert [next(taken)[0].name for _ in range(3)] == ["1", "2", "3"] and len(opened) == 8
    taken.close()
