from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemo_duplex.files.nemo_manifest import ManifestRow, NemoManifest, manifest_row, write_manifest
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.inputs import InputError

RATE = 8000


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder `data` with `a.wav`, 2 s that rise from 0 to 1, and the working folder, which has `wavs/b.wav`, 1 s."""
    (tmp_path / "data").mkdir()
    (tmp_path / "here" / "wavs").mkdir(parents=True)
    soundfile.write(tmp_path / "data" / "a.wav", np.arange(2 * RATE) / 2 / RATE, RATE, "FLOAT")
    soundfile.write(tmp_path / "here" / "wavs" / "b.wav", np.zeros((RATE, 2)), RATE)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "data"


def manifest(folder: Path, *rows: object, name: str = "all.jsonl") -> NemoManifest:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return NemoManifest(path)


def test_rows_with_all_that_they_hold(folder):
    kept = {"words": [["two", 0, 0.1, 0.4]], "voice": "ann", "pred_text": "too"}
    rows = manifest(
        folder, {"audio_filepath": "a.wav", "duration": 0.5, "text": "Two.", "offset": 0.75, **kept}, "",
        {"audio_filepath": str(folder / "a.wav"), "duration": 2, "text": ""},
        {"audio_filename": "wavs/b.wav", "duration": 1.0, "normalized_text": "b"},
    )  # fmt: skip
    assert list(rows) == [
        ManifestRow(folder / "a.wav", 0.75, 0.5, "Two.", kept, f"{folder}/all.jsonl:1"),
        ManifestRow(folder / "a.wav", 0.0, 2.0, "", {}, f"{folder}/all.jsonl:3"),
        ManifestRow(folder.parent / "here" / "wavs" / "b.wav", 0.0, 1.0, "b", {}, f"{folder}/all.jsonl:4"),
    ]
    assert (rows.num_usable, len(rows.odd), len(rows.corrected)) == (3, 0, 0)
    assert len(list(rows)) == rows.num_usable == 3  # a second pass counts anew


def test_a_file_beside_the_manifest_goes_before_one_of_the_working_folder(folder):
    (folder / "wavs").mkdir()
    soundfile.write(folder / "wavs" / "b.wav", np.zeros(RATE // 2), RATE)
    (row,) = manifest(folder, {"audio_filepath": "wavs/b.wav"})
    assert (row.path, row.duration) == (folder / "wavs" / "b.wav", 0.5)


def test_a_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    (row,) = manifest(folder.parent, {"audio_filepath": "~/a.wav", "duration": 2.0})
    assert row.path == folder / "a.wav"


@pytest.mark.parametrize("duration", [None, "2.0", 0, -1, float("nan"), True, 7.5, 2.2])
def test_a_missing_or_wrong_duration_is_taken_from_the_file(folder, duration):
    rows = manifest(folder, {"audio_filepath": "a.wav"} | ({} if duration is None else {"duration": duration}))
    assert [row.duration for row in rows] == [2.0]
    (reason,) = rows.corrected.describe()
    assert reason == "a duration that is not the file's, which is taken" and not rows.odd
    row = manifest_row({"audio_filepath": "a.wav", "duration": duration}, folder / "all.jsonl")
    assert row.duration == (duration if duration in (7.5, 2.2) else None), "without a look at the file"


def test_a_duration_that_was_rounded_up_ends_with_the_file(folder):
    rows = manifest(
        folder, {"audio_filepath": "a.wav", "duration": 2.09}, {"audio_filepath": "a.wav", "offset": 1.5, "duration": 0.6}
    )
    assert [row.duration for row in rows] == [2.0, 0.5] and not rows.corrected


def test_a_stretch_to_the_end(folder):
    (row,) = manifest(folder, {"audio_filepath": "a.wav", "offset": 1.5})
    assert (row.offset, row.duration) == (1.5, 0.5)


@pytest.mark.parametrize(
    "row, reason",
    [
        ("{", "not JSON"), ([1], "no path of an audio file"), ({"text": "a"}, "no path of an audio file"),
        ({"audio_filepath": ""}, "no path of an audio file"), ({"audio_filepath": ["a.wav"]}, "several audio files in one row"),
        ({"audio_filepath": "a.wav", "_skipme": 1}, "a row that is marked with _skipme"),
        ({"audio_filepath": "a.wav", "offset": "1"}, "a time that is no number of seconds"),
        ({"audio_filepath": "a.wav", "offset": -1}, "a time that is no number of seconds"),
        ({"audio_filepath": "a.wav", "text": ["a"]}, "a text that is no string"),
        ({"audio_filepath": "a.wav", "text_filepath": "no.txt"}, "a text whose file cannot be read"),
        ({"audio_filepath": "no.wav"}, "a recording whose file is missing"),
        ({"audio_filepath": "."}, "a recording whose file is missing"),
        ({"audio_filepath": "a\0.wav"}, "a recording whose file is missing"),
        ({"audio_filepath": "a" * 5000}, "a recording whose file is missing"),
        ({"audio_filepath": "s3://b/a.wav"}, "a recording on another machine"),
        ({"audio_filepath": "bad.jsonl"}, "a recording that cannot be read as audio"),
        ({"audio_filepath": "none.wav"}, "a recording without samples, or of unknown length"),
        ({"audio_filepath": "a.wav", "offset": 2.0}, "a recording that is shorter than its manifest says"),
        ({"audio_filepath": "a.wav", "offset": 1.5, "duration": 0.7}, "a recording that is shorter than its manifest says"),
    ],
    ids=str,
)  # fmt: skip
def test_a_row_that_cannot_be_used_is_counted_and_the_others_go_on(folder, row, reason):
    soundfile.write(folder / "none.wav", np.zeros(0), RATE)
    rows = manifest(
        folder,
        {"audio_filepath": "a.wav", "duration": 2.0},
        row,
        {"audio_filepath": "a.wav", "duration": 2.0},
        name="bad.jsonl",
    )
    assert [row.place[-2:] for row in rows] == [":1", ":3"]
    assert {why: found["count"] for why, found in rows.odd.describe().items()} == {reason: 1}
    assert rows.summary()[0] == f"{folder}/bad.jsonl: 2 recordings, 1 left out"
    assert rows.summary()[1].startswith(f"  1 x {reason}: {folder}/bad.jsonl:2")


def test_a_flac_of_unknown_length_is_odd(folder):
    soundfile.write(folder / "b.flac", np.zeros(RATE), RATE)
    whole = bytearray((folder / "b.flac").read_bytes())
    whole[21] &= 0xF0
    whole[22:26] = bytes(4)  # the number of samples, as a program leaves it that could not go back to the header
    (folder / "b.flac").write_bytes(whole)
    rows = manifest(folder, {"audio_filepath": "b.flac", "duration": 1.0})
    assert list(rows) == [] and list(rows.odd.describe()) == ["a recording without samples, or of unknown length"]


def test_a_text_in_a_file_of_its_own(folder):
    (folder / "a.txt").write_text("\ufeffas written\n", encoding="utf-8")
    assert [row.text for row in manifest(folder, {"audio_filepath": "a.wav", "text_filepath": "a.txt"})] == ["as written"]


@pytest.mark.parametrize("name", ["tarred_audio_manifest.json", "sharded_manifests/manifest_0.json"])
def test_a_tarred_manifest_is_read_once_its_tars_are_unpacked_as_the_message_says(folder, name):
    rows = manifest(folder, {"audio_filepath": "a.flac", "duration": 1.0, "shard_id": 0}, name=name)
    soundfile.write(folder / "a.flac", np.zeros(RATE), RATE)
    os.system(f"cd {folder} && tar -cf audio_0.tar a.flac && rm a.flac")
    assert list(rows) == []
    (reason,) = rows.odd.describe()
    assert reason == "a recording inside a tar of a tarred data set"
    command = rows.odd.most_frequent().partition("Unpack the tars into its folder: ")[2]
    assert os.system(f"cd {folder} && {command}") == 0
    assert [row.path for row in rows] == [(folder / name).parent / "a.flac"] and not rows.odd


def test_the_samples_of_a_stretch(folder):
    row = manifest_row({"audio_filepath": "a.wav", "offset": 0.5, "duration": 0.25}, folder / "all.jsonl")
    samples, rate = row.samples()
    assert rate == RATE and samples.dtype == np.float32
    np.testing.assert_array_equal(samples, (np.arange(RATE // 2, RATE // 4 * 3) / 2 / RATE).astype(np.float32)[None])
    whole, _ = manifest_row({"audio_filepath": "wavs/b.wav"}, folder / "all.jsonl").samples()
    assert whole.shape == (2, RATE)
    with pytest.raises(OddRow, match="file is missing"):
        manifest_row({"audio_filepath": "no.wav"}, folder / "all.jsonl").samples()


def test_a_file_that_was_written_again_is_read_again(folder):
    rows = manifest(folder, {"audio_filepath": "a.wav"})
    assert [row.duration for row in rows] == [2.0]
    soundfile.write(folder / "a.wav", np.zeros(RATE), RATE)
    assert [row.duration for row in rows] == [1.0]


def test_gzip_and_a_byte_order_mark(folder):
    rows = manifest(folder, {"audio_filepath": "a.wav", "duration": 2.0, "text": "é"})
    rows.path.write_bytes(gzip.compress("\ufeff".encode() + rows.path.read_bytes()))
    assert [row.text for row in rows] == ["é"]


@pytest.mark.parametrize(
    "name, message", [("no.jsonl", "there is no file"), ("empty.jsonl", "is empty"), ("a.wav", "not JSON")]
)
def test_a_manifest_that_is_none(folder, name, message):
    (folder / "empty.jsonl").touch()
    with pytest.raises(InputError, match=f"training data: .*{message}"):
        list(NemoManifest(folder / name, "training data"))


def test_a_manifest_is_written_whole_or_not_at_all(folder):
    out = folder / "manifests" / "train.jsonl"
    written = [{"audio_filepath": folder / "a.wav", "duration": 2.0, "text": "é"}, {"audio_filepath": "../a.wav", "text": ""}]
    write_manifest(out, written)
    assert out.read_text(encoding="utf-8").splitlines() == [
        '{"audio_filepath": "../a.wav", "duration": 2.0, "text": "é"}', '{"audio_filepath": "../a.wav", "text": ""}',
    ]  # fmt: skip
    assert [(row.path.resolve(), row.text) for row in NemoManifest(out)] == [(folder / "a.wav", "é"), (folder / "a.wav", "")]
    with pytest.raises(ValueError):
        write_manifest(out, [{"audio_filepath": "a.wav", "duration": float("nan")}])
    assert len(out.read_text().splitlines()) == 2 and len(list(out.parent.iterdir())) == 1
