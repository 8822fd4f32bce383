from __future__ import annotations

import errno
import gzip
import json
import multiprocessing
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from lhotse import CutSet

from nemo_duplex.files.atomic import part_folder
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis import shards
from nemo_duplex.synthesis.cuts import DialogueCuts
from nemo_duplex.synthesis.dialogue_spec import DialogueSpec
from nemo_duplex.synthesis.shards import Shard, are_marked, begin, clear, markers_of, shards_of
from nemo_duplex.synthesis.text.grammar import Grammar
from tests.synthesis.tones import cast_of

CUTS = DialogueCuts(DialogueSpec(duration=4.0), Grammar(), cast_of())
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
    monkeypatch.setattr(gzip, "time", SimpleNamespace(time=lambda: 1234567890.0))
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
    part = part_folder(tmp_path / "train" / "000003")
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


@pytest.mark.parametrize("harm", ["missing", "shorter", "changed", "marker", "empty marker", "another marker", "binary marker"])
def test_a_damaged_shard_is_not_done(tmp_path, harm):
    whole = write(tmp_path)
    path, marker = tmp_path / "train" / "shar" / "recording.000003.tar", SHARD.marker(tmp_path)
    if harm == "missing":
        path.unlink()
    elif harm == "shorter":
        path.write_bytes(path.read_bytes()[:-1])
    elif harm == "changed":
        path.write_bytes(b"?" + path.read_bytes()[1:])
    else:
        content = {"marker": b'{"shard":', "empty marker": b"", "another marker": b"[1]", "binary marker": b"\xff\xfe\x00"}
        marker.write_bytes(content[harm])
    assert SHARD.done(tmp_path) is None
    assert SHARD.done(tmp_path, check_content=False) == (whole if harm == "changed" else None), "A size tells the rest."
    write(tmp_path)
    assert SHARD.done(tmp_path) == whole


def test_files_are_on_the_disk_before_the_marker_is(tmp_path, monkeypatch):
    """What fsync is called for, in order, and whether the marker was there."""
    order = []

    def flush(path):
        order.append((Path(path).name, SHARD.marker(tmp_path).exists()))

    monkeypatch.setattr(shards, "flush_to_disk", flush)
    write(tmp_path)
    names = ["cuts.000003.jsonl.gz", "recording.000003.tar", "target_audio.000003.tar", "shar"]
    assert order == [(name, False) for name in names] and SHARD.done(tmp_path) is not None


def test_two_processes_that_write_one_shard_do_not_meet(tmp_path):
    """The second begins and ends while the first writes; both give the same bytes."""

    def cuts():
        yield CUTS.cut("train", 6)
        other = multiprocessing.get_context("fork").Process(target=write, args=(tmp_path,))
        other.start()
        other.join()
        assert other.exitcode == 0
        made.update(files(tmp_path))
        yield CUTS.cut("train", 7)

    made: dict[str, bytes] = {}
    SHARD.write(tmp_path, cuts(), FIELDS, {"n": 1})
    unfinished = {name for name in made if ".part-" in name}
    assert unfinished and {name: data for name, data in made.items() if name not in unfinished} == files(tmp_path)


def test_a_full_disk_names_the_folder_and_leaves_nothing(tmp_path, monkeypatch):
    def full(self, cut):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as tarfile raises it, without a name

    monkeypatch.setattr(shards.SharWriter, "write", full)
    with pytest.raises(OSError) as error:
        write(tmp_path)
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(tmp_path / "train"))
    assert files(tmp_path) == {} and os.listdir(tmp_path / "train") == ["shar"]


def planned(count: int, fingerprint: str = "abc") -> list[Shard]:
    return shards_of("train", 2 * count, 2, fingerprint)


def test_the_markers_of_a_set_come_in_order_and_only_when_all_are_there(tmp_path):
    first, second = planned(2)
    write(tmp_path, second)
    assert markers_of(tmp_path, [first, second]) is None and not are_marked(tmp_path, [first, second])
    write(tmp_path, first)
    assert are_marked(tmp_path, [first, second])
    assert [marker["shard"]["first"] for marker in markers_of(tmp_path, [first, second])] == [0, 2]
    (tmp_path / "train" / "shar" / "recording.000001.tar").unlink()
    assert markers_of(tmp_path, [first, second]) is None
    assert markers_of(tmp_path, []) is None and are_marked(tmp_path, [])


def test_files_of_a_killed_run_with_other_settings_are_not_read(tmp_path):
    """They were moved, and the marker that would have told their settings was not written any more."""
    for shard in planned(3, "other"):
        write(tmp_path, shard)
        shard.marker(tmp_path).unlink()
    begin(tmp_path, "train", "abc")
    for shard in planned(2):
        write(tmp_path, shard)
    assert list(markers_of(tmp_path, planned(2))) == [shard.done(tmp_path) for shard in planned(2)]
    assert [cut.id for cut in CutSet.from_shar(in_dir=tmp_path / "train" / "shar")] == [f"train-0-000000{i}" for i in range(4)]


@pytest.mark.parametrize("numbers", [(0,), (7,), (0, 7)])
def test_a_set_of_other_settings_is_refused_before_anything_is_planned(tmp_path, numbers):
    for number in numbers:
        write(tmp_path, Shard("train", number, 2 * number, 1, "other"))
    begin(tmp_path, "train", "other")
    with pytest.raises(InputError, match="train was made with other settings.*overwrite=true"):
        begin(tmp_path, "train", "abc")
    begin(tmp_path, "dev", "abc")


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
