"""Whole or not there: what stays on disk when writing ends well, fails, is interrupted, or finds the disk full."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import re
import shutil
import time
from collections import namedtuple

import pytest

from nemo_duplex.files import atomic
from nemo_duplex.files.atomic import (
    require_new_folder,
    require_space,
    require_writable,
    sha256,
    whole_file,
    whole_folder,
)
from nemo_duplex.inputs import InputError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def full_disk(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100, 100, 0))


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_file_appears_whole(tmp_path):
    with whole_file(tmp_path / "new" / "a.wav") as part:
        assert part.suffix == ".wav", "writers choose their format by the suffix"
        assert part.parent == tmp_path / "new", "on the same disk a rename is enough"
        assert part.name.startswith(".") and str(os.getpid()) in part.name, "two processes do not share it"
        part.write_text("whole")
        assert not (tmp_path / "new" / "a.wav").exists()
    assert names(tmp_path / "new") == ["a.wav"]
    assert (tmp_path / "new" / "a.wav").read_text() == "whole"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failed_write_leaves_the_older_file(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(error), whole_file(tmp_path / "a.txt") as part:
        part.write_text("ha")
        raise error
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match="is a folder, expected the name of a file"), whole_file(tmp_path):
        pass


def test_a_folder_appears_whole(tmp_path):
    with whole_folder(tmp_path / "run") as part:
        (part / "x").write_text("x")
        assert not (tmp_path / "run").exists()
    assert names(tmp_path) == ["run"] and names(tmp_path / "run") == ["x"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_folder_leaves_the_older_one(tmp_path, error):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").touch()
    with pytest.raises(error), whole_folder(tmp_path / "run", replace=True) as part:
        (part / "new").touch()
        raise error
    assert names(tmp_path) == ["run"] and names(tmp_path / "run") == ["old"]


def test_replacing_a_folder_leaves_nothing_of_the_older_one(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").touch()
    with whole_folder(tmp_path / "run", replace=True) as part:
        (part / "new").touch()
    assert names(tmp_path) == ["run"] and names(tmp_path / "run") == ["new"]


def test_nobodys_data_is_thrown_away_unasked(tmp_path):
    """`out=~` must not replace a home."""
    (tmp_path / "thesis").touch()
    with pytest.raises(InputError, match="holds something already"), whole_folder(tmp_path):
        pass
    assert names(tmp_path) == ["thesis"]


def test_an_empty_folder_may_be_filled_and_a_file_may_not(tmp_path):
    (tmp_path / "empty").mkdir()
    with whole_folder(tmp_path / "empty") as part:
        (part / "x").touch()
    assert names(tmp_path / "empty") == ["x"]
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file, expected the name of a folder"), whole_folder(tmp_path / "file"):
        pass


def test_what_can_be_written_is_known_before_the_work(tmp_path):
    """And nothing is left of the check."""
    for folder in (tmp_path, tmp_path / "new", tmp_path / "deep" / "er"):
        require_writable(folder, "out", ["report.json"], ["pictures"])
        require_new_folder(folder, "out")
    assert names(tmp_path) == []
    (tmp_path / "file").touch()
    (tmp_path / "report.json").mkdir()
    (tmp_path / "pictures").touch()
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    before = names(tmp_path)
    for folder, given, said in (
        ("file", {}, "file is a file, expected a folder to write. Choose another name."),
        ("file/below", {}, "file is a file, expected a folder to write. Choose another name."),
        ("lost", {}, "lost is no folder, expected a folder to write. Choose another name."),
        ("", {"files": ["report.json"]}, "report.json is a folder, expected the name of a file to write. Choose another out."),
        ("", {"folders": ["pictures"]}, "pictures is a file, expected the name of a folder to write. Choose another out."),
        ("x" * 300, {}, "cannot be written (File name too long). Choose another folder."),
        ("/proc/x", {}, "out: /proc/x cannot be written (No such file or directory). Choose another folder."),
    ):
        with pytest.raises(InputError) as caught:
            require_writable(tmp_path / folder, "out", **given)
        assert str(caught.value).startswith("out: /") and str(caught.value).endswith(said)
    with pytest.raises(InputError, match="^out: the folder .* holds something already. Choose another one.$"):
        require_new_folder(tmp_path, "out")
    require_new_folder(tmp_path, "out", replace=True)
    with pytest.raises(InputError, match="is a file, expected a folder to write"):
        require_new_folder(tmp_path / "file", "out", replace=True)
    assert names(tmp_path) == before


def test_a_folder_without_the_right_to_write(tmp_path, monkeypatch):
    """Root may write everywhere, so the refusal of the system is made up."""

    def refuse(dir):
        raise PermissionError(errno.EACCES, "Permission denied", str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(InputError, match=r"^out: .*/x cannot be written \(Permission denied\). Choose another folder.$"):
        require_writable(tmp_path / "x", "out")


def test_a_full_disk_is_called_so_whatever_the_library_says(tmp_path, full_disk):
    """torch.save reports a full disk as RuntimeError('unexpected pos 64 vs 0')."""
    with pytest.raises(OSError) as caught, whole_file(tmp_path / "model.nemo") as part:
        part.write_text("some")
        raise RuntimeError("unexpected pos 64 vs 0")
    assert caught.value.errno == errno.ENOSPC
    assert names(tmp_path) == []


def test_a_disk_that_only_this_file_filled_is_called_full(tmp_path, monkeypatch):
    """It is looked at before the file is removed."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100, 100, 0 if names(tmp_path) else 10**9))
    with pytest.raises(OSError) as caught, whole_file(tmp_path / "model.nemo") as part:
        part.write_text("some")
        raise RuntimeError("unexpected pos 64 vs 0")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path))


def test_an_error_on_a_disk_with_room_stays_what_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="unexpected pos"), whole_file(tmp_path / "model.nemo"):
        raise RuntimeError("unexpected pos 64 vs 0")


def test_an_older_folder_is_there_until_the_new_one_is(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").touch()
    replace = os.replace

    def fail(source, target):
        if target == tmp_path / "run":
            raise OSError("pulled the plug")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="pulled the plug"), whole_folder(tmp_path / "run", replace=True) as part:
        (part / "new").touch()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["old"]


def test_ctrl_c_on_a_full_disk_is_ctrl_c(tmp_path, full_disk):
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "model.nemo"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("needed, said", [(999, "999 B"), (1000, "1 kB"), (2_500_000, "2 MB"), (3_100_000_000, "3.1 GB")])
def test_require_space(tmp_path, monkeypatch, needed, said):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, free) if folder == tmp_path else None)
    free = needed
    require_space(tmp_path / "not" / "yet", needed)
    free = needed - 1
    with pytest.raises(InputError, match=f"not/yet: this needs about {said}, and the disk has .* free"):
        require_space(tmp_path / "not" / "yet", needed)


def test_sha256(tmp_path):
    data = bytes(range(256)) * 10000
    (tmp_path / "f").write_bytes(data)
    assert sha256(tmp_path / "f") == hashlib.sha256(data).hexdigest()


def abandoned(folder, here: str, pid: int, age: float = 0.0, name: str = "a.txt"):
    """A file and a folder as a process leaves them that is killed."""
    made = [folder / f".part-{here}-{pid}-{name}", folder / f".old-{here}-{pid}-{name}"]
    made[0].write_text("half")
    made[1].mkdir()
    (made[1] / "x").write_text("half")
    for path in (made[0], made[1] / "x", made[1]):
        os.utime(path, (time.time() - age, time.time() - age))
    return made


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    with multiprocessing.get_context("fork").Pool(1) as pool:
        (dead,) = pool.map(_pid, [0])
    gone = abandoned(tmp_path, atomic._here(), dead) + abandoned(tmp_path, "other.1", 1, age=3700)
    kept = abandoned(tmp_path, atomic._here(), os.getpid(), age=9999) + abandoned(
        tmp_path, atomic._here(), os.getppid(), age=9999
    )
    kept += abandoned(tmp_path, "other.1", os.getpid(), age=3500)
    for name in (".part-1234abcd-recording", ".part-x", "a-b-c-d", ".parts-a-1-b"):
        kept.append(tmp_path / name)
        kept[-1].write_text("of others")
        os.utime(kept[-1], (0, 0))
    atomic.remove_abandoned(tmp_path)
    assert not any(path.exists() for path in gone) and all(path.exists() for path in kept)
    atomic.remove_abandoned(tmp_path / "none")


def _pid(_: int) -> int:
    return os.getpid()


def test_machines_and_containers_have_parts_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic.socket, "gethostname", lambda: "node-12.cluster")
    atomic._here.cache_clear()
    with whole_file(tmp_path / "a.txt") as part:
        part.write_text("whole")
        assert re.fullmatch(rf"\.part-node_12_cluster\.[0-9a-f]+-{os.getpid()}-a\.txt", part.name)
    atomic._here.cache_clear()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_or_a_quota_that_is_full_names_the_folder(tmp_path, number):
    with pytest.raises(OSError) as error, whole_file(tmp_path / "a.txt"):
        raise OSError(number, os.strerror(number))
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(tmp_path)) and not os.listdir(tmp_path)
