"""What is imported is kept, found again, and never half of it or something else."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nemo_duplex.files import atomic
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.text import dialogue_files, dialogue_import
from nemo_duplex.synthesis.text.dialogue_files import DialogueFiles
from nemo_duplex.synthesis.text.text_spec import TextSpec

RNG = np.random.default_rng(0)
HI = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello! How can I help you today?"}]
MORE = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "2."}]


def lines(path, *rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def numbered(count, **more):
    return [{"id": f"d{i}", "data": [f"Question {chr(97 + i % 26)}{chr(97 + i // 26)}?", "Yes."], **more} for i in range(count)]


@pytest.fixture
def imports(monkeypatch):
    """The stores that were written."""
    made = []
    write = dialogue_import.DialogueImport.write
    monkeypatch.setattr(
        dialogue_import.DialogueImport, "write", lambda self, folder: (made.append(folder), write(self, folder))[1]
    )
    return made


def left_out(source):
    return {reason: (found["count"], found["first"][0]) for reason, found in source.describe()["left_out"].items()}


def ids(source):
    counts = source.describe()["dialogues"]
    return {source.dialogue(split, i, RNG).id for split in ("dev", "train") for i in range(counts[split])}


def test_files_are_read_once_until_they_or_the_settings_change(tmp_path, imports):
    path, store = lines(tmp_path / "a.jsonl", *numbered(5)), tmp_path / "texts"
    first = DialogueFiles([path], store=store)
    assert DialogueFiles([path], store=store).folder == first.folder and len(imports) == 1
    assert DialogueFiles([path], TextSpec(max_odd_rows=0.1), store=store).folder == first.folder and len(imports) == 1
    others = [TextSpec(max_words=9), TextSpec(language="de"), TextSpec(normalize=False), TextSpec(keep_greetings=False)]
    assert len({DialogueFiles([path], spec, store=store).folder for spec in others} | {first.folder}) == 5 == len(imports)
    assert DialogueFiles([path], voices="others", store=store).folder != first.folder
    times = path.stat()
    path.write_text(path.read_text().replace("Yes.", "No! "))  # as long as before, and as old
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert DialogueFiles([path], store=store).dialogue("train", 0, RNG).exchanges[0].agent == "No!"


def test_a_damaged_store_is_written_again(tmp_path, imports):
    path, store = lines(tmp_path / "a.jsonl", *numbered(5)), tmp_path / "texts"
    first = DialogueFiles([path], store=store)
    first.dialogues.write_bytes(first.dialogues.read_bytes()[:-3])
    assert ids(DialogueFiles([path], store=store)) == {f"d{i}" for i in range(5)} and len(imports) == 2
    (first.folder / "store.json").write_text("{")
    assert ids(DialogueFiles([path], store=store)) == {f"d{i}" for i in range(5)} and len(imports) == 3


def test_an_import_that_fails_leaves_nothing(tmp_path):
    path, store = lines(tmp_path / "a.jsonl", *numbered(1)), tmp_path / "texts"
    with pytest.raises(InputError, match="1 dialogue in .*a.jsonl"):
        DialogueFiles([path], store=store)
    assert [file.name for file in store.iterdir()] == [".lock"]


def test_an_import_that_is_killed_leaves_nothing_that_is_used(tmp_path):
    path, store = lines(tmp_path / "a.jsonl", *numbered(600)), tmp_path / "texts"
    slow = (
        "import sys, time; from nemo_duplex.synthesis.text import dialogue_import as d, dialogue_files as f\n"
        "spoken = d.spoken_turns; d.spoken_turns = lambda *a: (time.sleep(0.01), spoken(*a))[1]\n"
        "f.DialogueFiles([sys.argv[1]], store=sys.argv[2])"
    )
    process = subprocess.Popen([sys.executable, "-c", slow, str(path), str(store)], cwd=Path(__file__).parents[3])
    while not list(store.glob(".part-*/dialogues.jsonl")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(store.glob("text-*"))
    source = DialogueFiles([path], store=store)
    assert len(ids(source)) == 600
    assert {file.name for file in store.iterdir()} == {".lock", source.folder.name}  # what was left is removed


def test_what_another_process_is_writing_stays(tmp_path):
    """On a file system without locks, two processes import at once."""
    path, store = lines(tmp_path / "a.jsonl", *numbered(5)), tmp_path / "texts"
    source = DialogueFiles([path], store=store)
    shutil.rmtree(source.folder)
    parts = [atomic._part_of(source.folder).name, ".part-another_machine.1-7-" + source.folder.name]
    parts[0] = parts[0].replace(f"-{os.getpid()}-", f"-{os.getppid()}-")
    for name in parts:
        (store / name).mkdir()
    DialogueFiles([path], store=store)
    assert all((store / name).is_dir() for name in parts)


def test_what_another_process_has_made_meanwhile_stays(tmp_path, monkeypatch):
    """It may be open there, and on another machine the files of an open store must not go."""
    path, store = lines(tmp_path / "a.jsonl", *numbered(5)), tmp_path / "texts"
    folder, written = DialogueFiles([path], store=store).folder, dialogue_import.DialogueImport.write
    shutil.move(folder, tmp_path / "theirs")
    theirs = (tmp_path / "theirs" / "store.json").stat().st_ino

    def write(self: dialogue_import.DialogueImport, unfinished: Path) -> None:
        written(self, unfinished)
        shutil.move(tmp_path / "theirs", folder)

    monkeypatch.setattr(dialogue_import.DialogueImport, "write", write)
    assert len(ids(DialogueFiles([path], store=store))) == 5
    assert (folder / "store.json").stat().st_ino == theirs and {file.name for file in store.iterdir()} == {".lock", folder.name}


def test_the_lock_is_on_a_file_that_is_open_for_writing(tmp_path, monkeypatch):
    """NFS refuses others."""
    modes = []
    monkeypatch.setattr(fcntl, "flock", lambda file, how: modes.append((fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE, how)))
    DialogueFiles([lines(tmp_path / "a.jsonl", *numbered(5))], store=tmp_path / "texts")
    assert modes == [(os.O_RDWR, fcntl.LOCK_EX)]


def test_the_store_is_the_same_bytes_wherever_it_is_made(tmp_path):
    path = lines(tmp_path / "a.jsonl", *numbered(30))
    stores = [DialogueFiles([path], store=tmp_path / name).folder for name in "xy"]
    for name in ("dialogues.jsonl", "dev.u64", "train.u64", "seen.u64", "store.json"):
        assert (stores[0] / name).read_bytes() == (stores[1] / name).read_bytes()
    assert sorted(file.name for file in stores[0].iterdir()) == [
        "dev.u64", "dialogues.jsonl", "seen.u64", "store.json", "train.u64",
    ]  # fmt: skip


def test_the_jsonl_form_is_a_source_too(tmp_path):
    rows = [{"id": "x", "source": "chat", "topic": "food", "messages": HI + MORE}, *numbered(2, language="de")]
    first = DialogueFiles([lines(tmp_path / "a.jsonl", *rows)])
    kept = [json.loads(line) for line in first.dialogues.read_text().splitlines()]
    assert kept[0] == {
        "id": "x", "source": "chat", "topic": "food", "at": f"{tmp_path / 'a.jsonl'}:1", "language": None,
        "turns": [
            {"role": "user", "text": "Hi"}, {"role": "agent", "text": "Hello! How can I help you today?"},
            {"role": "user", "text": "How many?"}, {"role": "agent", "text": "two."},
        ],
    }  # fmt: skip
    assert (kept[1]["source"], kept[1]["language"]) == ("a", "de")
    again = DialogueFiles([first.dialogues])
    assert again.describe()["sha256"] == first.describe()["sha256"] and ids(again) == ids(first)


def test_dialogues_with_the_same_words_are_dropped_and_counted(tmp_path):
    rows = [*numbered(3), numbered(1)[0] | {"id": "again"}, {"id": "other answer", "data": ["Question aa?", "No."]}]
    path = lines(tmp_path / "a.jsonl", *rows)
    source = DialogueFiles([path])
    assert left_out(source) == {"the words of an earlier dialogue": (1, f"{path}:4 (dialogue again)")}
    assert ids(source) == {"d0", "d1", "d2", "other answer"}
    assert "again" in ids(DialogueFiles([path], TextSpec(keep_duplicates=True)))


@pytest.mark.parametrize(("count", "num_dev"), [(2, 1), (19, 1), (20, 2), (29, 2)])
def test_a_tenth_is_for_dev(tmp_path, count, num_dev):
    source = DialogueFiles([lines(tmp_path / "a.jsonl", *numbered(count))])
    assert source.describe()["dialogues"] == {"dev": num_dev, "train": count - num_dev}


def test_an_id_that_another_file_has_too_is_made_another(tmp_path):
    """UltraChat counts from 0 in each of its files."""
    first = lines(tmp_path / "a.jsonl", *numbered(2))
    second = lines(tmp_path / "b.jsonl", *({"id": f"d{i}", "data": [f"Other {'ab'[i]}?", "Yes."]} for i in range(2)))
    assert ids(DialogueFiles([first, second])) == {"d0", "d1", "b.jsonl:d0", "b.jsonl:d1"}
    assert not left_out(DialogueFiles([first, second]))


@pytest.mark.parametrize(
    ("row", "keys", "reason"),
    [
        ({"data": ["a " * 30 + "b", "c"]}, {"max_words": 30}, "a turn of over 30 words"),
        ({"data": ["How?", "It is 1,234,567 of 1,234,567."]}, {"max_words": 20}, "a turn of over 20 words"),
        ({"data": ["a", "b"] * 3}, {"max_turns": 4}, "more than 4 turns"),
        ({"data": ["Why?", "b"]}, {"min_turns": 4}, "fewer than 4 turns"),
        ({"messages": HI}, {"keep_greetings": False}, "a greeting alone"),
        ({"data": ["a", "b " * 700]}, {"longest_turn": 10.0}, "a turn of over 10 s of speech"),
        ({"data": ["a", "Run f(1) now."]}, {}, "code"),
        ({"data": ["a", "See http://a.org now."]}, {}, "a URL inside a sentence"),
        ({"data": ["a", "| a | b |\n|--|--|\n"]}, {}, "a table"),
    ],
)  # fmt: skip
def test_each_filter_counts_what_it_leaves_out(tmp_path, row, keys, reason):
    good = [{"data": ["a " * 12 + f"number {name}", "b"] * (2 if "min_turns" in keys else 1)} for name in "xy"]
    path = lines(tmp_path / "a.jsonl", *good, row)
    source = DialogueFiles([path], TextSpec(**keys))
    assert [*left_out(source)] == [reason] and left_out(source)[reason][1].startswith(f"{path}:3")
    assert sum(source.describe()["dialogues"].values()) == 2


def test_limits_are_reached_exactly(tmp_path):
    rows = [{"data": ["a " * 30, "b", "c", f"d {name}"]} for name in "xy"]
    source = DialogueFiles([lines(tmp_path / "a.jsonl", *rows)], TextSpec(max_words=30, min_turns=4, max_turns=4))
    assert not left_out(source)


def test_greetings_are_dropped_where_asked(tmp_path):
    rows = [{"id": f"d{i}", "messages": HI + [MORE[0] | {"content": f"How {name}?"}, MORE[1]]} for i, name in enumerate("xy")]
    path = lines(tmp_path / "a.jsonl", *rows)
    for keep, count in ((True, 2), (False, 1)):
        source = DialogueFiles([path], TextSpec(keep_greetings=keep))
        assert [len(source.dialogue(split, 0, RNG).exchanges) for split in ("dev", "train")] == [count, count]


def test_without_the_normaliser_digits_stay_and_a_line_says_so(tmp_path, monkeypatch):
    path = lines(tmp_path / "a.jsonl", *({"data": [f"{name} 2?", "Yes."]} for name in "ab"))
    assert DialogueFiles([path]).dialogue("train", 0, RNG).exchanges[0].user.endswith(" two?")
    assert DialogueFiles([path], TextSpec(normalize=False)).dialogue("train", 0, RNG).exchanges[0].user.endswith(" 2?")
    german = DialogueFiles([path], TextSpec(language="de")).dialogue("train", 0, RNG)
    assert german.exchanges[0].user.endswith(" 2?")

    def missing():
        raise dialogue_files.NotInstalled("no wetext")

    monkeypatch.setattr(dialogue_files, "normalizer_version", missing)
    source = DialogueFiles([path])
    assert source.summary()[0] == "no wetext" and source.dialogue("train", 0, RNG).exchanges[0].user.endswith(" 2?")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"text.store: .*file cannot be written .*: text.store=PATH"):
        DialogueFiles([lines(tmp_path / "a.jsonl", *numbered(2))], store=tmp_path / "file")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"max_words": 0}, "text.max_words=0: expected 1 or more"), ({"min_turns": 0}, "text.min_turns=0"),
        ({"max_turns": 1}, r"text.max_turns=1: expected 2 or more"),
        ({"leave_out": ("x",)}, "text.leave_out: 'x' is none of code, tables, urls"),
        ({"form": "a/"}, "text.form=a/: expected a key"), ({"longest_turn": 0.0}, "text.longest_turn=0: expected seconds"),
        ({"recording_gap": -1.0}, "text.recording_gap=-1: expected seconds"), ({"max_odd_rows": 2.0}, "max_odd_rows=2.0"),
    ],
)  # fmt: skip
def test_settings_out_of_their_range(keys, message):
    with pytest.raises(InputError, match=message):
        TextSpec(**keys)
    with pytest.raises(InputError, match="text: unknown key 'max_word'. Did you mean 'max_words'"):
        TextSpec.of({"max_word": 3})
