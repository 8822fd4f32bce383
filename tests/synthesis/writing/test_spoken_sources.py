"""Chats and transcripts out of people's files."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_duplex.files.odd_rows import OddRows
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.writing.spoken_sources import chats, transcripts


def write_rows(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_chats_are_drawn_by_the_seed(tmp_path):
    rows = [
        {"id": str(n), "data": [f"Say {'one two three four five six seven eight'.split()[n]}.", "Here it is."]}
        for n in range(8)
    ]
    path = write_rows(tmp_path / "chats.jsonl", [*rows, {"id": "bad"}])
    all_of_them, odd = chats([path], seed=0, most=100)
    assert sorted(name for name, _ in all_of_them) == [str(n) for n in range(8)]
    assert ("3", ["Say four.", "Here it is."]) in all_of_them
    assert odd.describe()["no dialogue in the row"]["count"] == 1
    assert chats([path], seed=0, most=3)[0] == all_of_them[:3]
    assert chats([path], seed=1, most=8)[0] != all_of_them


def test_chats_are_read_as_synthesize_reads_them(tmp_path):
    """Folders, patterns and Parquet; files that count from 0 each."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        said = [f"Say {name} {number}." for number in ("one", "two")]
        write_rows(tmp_path / name / "chats.jsonl", [{"id": n, "data": [text, "Yes."]} for n, text in enumerate(said)])
    columns = {"id": [0], "data": [["Say three.", "Yes."]]}
    pq.write_table(pa.table(columns), tmp_path / "b" / "more.parquet")
    found, odd = chats([str(tmp_path / "a"), str(tmp_path / "b" / "*.*")], seed=0, most=9)
    assert sorted((name, turns[0]) for name, turns in found) == [
        ("a/chats.jsonl:0", "Say a one."),
        ("a/chats.jsonl:1", "Say a two."),
        ("b/chats.jsonl:0", "Say b one."),
        ("b/chats.jsonl:1", "Say b two."),
        ("more.parquet:0", "Say three."),
    ]
    assert not odd


def test_an_id_that_a_file_has_twice_is_used_once(tmp_path):
    path = write_rows(tmp_path / "chats.jsonl", [{"id": 1, "data": [text, "Yes."]} for text in ("Say two.", "Say one.")])
    found, odd = chats([path], seed=0, most=9)
    assert found == [("1", ["Say one.", "Yes."])]
    assert {reason: counted["count"] for reason, counted in odd.describe().items()} == {"an id that occurs twice": 1}


def test_a_file_without_a_chat(tmp_path):
    path = write_rows(tmp_path / "chats.jsonl", [{"id": "bad"}])
    with pytest.raises(
        InputError, match=r"source: no chat in .*chats.jsonl. All of them|source: no chat in .*chats.jsonl. 1 of"
    ):
        chats([path], seed=0, most=3)


LONG = "the train to the coast was late again"


def test_transcripts_of_manifests_and_cuts(tmp_path):
    manifest = write_rows(
        tmp_path / "manifest.json",
        [
            {"audio_filepath": "a/one.wav", "offset": 0, "duration": 3.0, "text": LONG},
            {"audio_filepath": "a/three.wav", "text": LONG},
            {"audio_filepath": "a/one.wav", "offset": 3.0, "duration": 3.0, "text": LONG},
            {"audio_filepath": "a/two.wav", "utt_id": "second", "text": LONG},
            {"audio_filepath": "a/two.wav", "text": "too short"},
            {"audio_filepath": "a/two.wav"},
            {"text": LONG},
        ],
    )
    (tmp_path / "shar").mkdir()
    cut = {"id": "cut-1", "supervisions": [{"text": "the train to the"}, {"text": "coast was late"}, {"text": None}]}
    write_rows(tmp_path / "shar" / "cuts.000000.jsonl", [cut])
    odd = OddRows()
    found = list(transcripts([manifest, str(tmp_path / "shar")], odd))
    assert found == [
        ("a/one.wav@0.0", LONG),
        ("a/three.wav", LONG),
        ("a/one.wav@3.0", LONG),
        ("second", LONG),
        ("cut-1", "the train to the coast was late"),
    ]
    assert {reason: counted["count"] for reason, counted in odd.describe().items()} == {
        "a transcript that is too short to ask about": 1,
        "a recording without a transcript": 1,
        "a row without an id or an audio file": 1,
    }
