from __future__ import annotations

import gzip
import json
import os
import signal

import pytest
from lhotse import CutSet

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.cuts import DialogueCuts, DialogueSpec
from nemo_duplex.synthesis.grammar import Grammar
from nemo_duplex.synthesis.shards import Shard, clear, shards_of
from tests.synthesis.tones import ToneEngine

CUTS = DialogueCuts(DialogueSpec(duration=4.0), Grammar(), ToneEngine())
FIELDS = ("recording", "target_audio")
SHARD = Shard("train", 3, 6, 2, "abc")


def write(out, shard=SHARD):
    return shard.write(out, (CUTS.cut("train", i) for i in range(shard.first, shard.first + shard.count)), FIELDS, {"n": 1})


def files(out) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def test_shards_cover_every_item_once():
    shards = shards_of("train", 11, 4, "abc")
    assert [(s.number, s.first, s.count) for s in shards] == [(0, 0, 4), (1, 4, 4), (2, 8, 3)]
    assert shards_of("train", 0, 4, "abc") == []


def test_a_shard_is_read_back_by_lhotse_from_a_folder_of_nothing_else(tmp_path):
    marker = write(tmp_path)
    assert sorted(os.listdir(tmp_path / "train")) == ["shar", "state"]
    assert sorted(os.listdir(tmp_path / "train" / "shar")) == [
        "cuts.000003.jsonl.gz", "recording.000003.tar", "target_audio.000003.tar",
    ]  # fmt: skip
    read = list(CutSet.from_shar(in_dir=tmp_path / "train" / "shar"))
    assert [c.id for c in read] == ["train-0-0000006", "train-0-0000007"]
    assert read[0].load_audio().shape == (1, 64000) and read[0].load_target_audio().shape == (1, 88200)
    assert SHARD.done(tmp_path) == marker and marker["n"] == 1


def test_the_same_shard_is_the_same_bytes_at_another_time(tmp_path, monkeypatch):
    """gzip writes the time into its header."""
    write(tmp_path / "a")
    monkeypatch.setattr(gzip.time, "time", lambda: 1234567890.0)
    write(tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_failure_leaves_nothing(tmp_path):
    def cuts():
        yield CUTS.cut("train", 6)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SHARD.write(tmp_path, cuts(), FIELDS, {})
    assert files(tmp_path) == {} and SHARD.done(tmp_path) is None


def test_what_a_killed_run_left_is_no_hindrance(tmp_path):
    part = tmp_path / "train" / "part.000003"
    part.mkdir(parents=True)
    (part / "target_codes.000003.tar").write_bytes(b"half")
    write(tmp_path)
    assert not part.exists() and SHARD.done(tmp_path) is not None
    assert len(os.listdir(tmp_path / "train" / "shar")) == 3


def test_ctrl_c_is_heard_between_two_cuts(tmp_path):
    made = []

    def cuts():
        for index in range(3):
            made.append(index)
            signal.raise_signal(signal.SIGINT)
            yield CUTS.cut("train", 6)

    with pytest.raises(KeyboardInterrupt):
        SHARD.write(tmp_path, cuts(), FIELDS, {})
    assert made == [0] and files(tmp_path) == {}


@pytest.mark.parametrize("harm", ["missing", "changed", "marker"])
def test_a_damaged_shard_is_not_done(tmp_path, harm):
    write(tmp_path)
    path = tmp_path / "train" / "shar" / "recording.000003.tar"
    if harm == "missing":
        path.unlink()
    elif harm == "changed":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        SHARD.marker(tmp_path).write_text('{"shard":')
    assert SHARD.done(tmp_path) is None


def test_a_shard_of_other_settings_is_an_error_that_says_what_to_do(tmp_path):
    write(tmp_path)
    other = Shard("train", 3, 6, 2, "other")
    for check_content in (True, False):
        with pytest.raises(InputError, match="train was made with other settings.*overwrite=true"):
            other.done(tmp_path, check_content)
    clear(tmp_path, "train")
    assert other.done(tmp_path) is None and files(tmp_path) == {}


def test_the_marker_tells_what_made_it(tmp_path):
    write(tmp_path)
    marker = json.loads((tmp_path / "train" / "state" / "000003.json").read_text())
    assert marker["shard"] == {"set_name": "train", "number": 3, "first": 6, "count": 2, "fingerprint": "abc"}
    assert set(marker["sha256"]) == set(os.listdir(tmp_path / "train" / "shar"))
