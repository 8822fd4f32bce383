"""The bank of a source: all that its dialogues need in their takes, spoken once, and nothing else."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import runpy
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
from omegaconf import OmegaConf

from nemo_duplex.inputs import InputError
from nemo_duplex.scripts.config import load
from nemo_duplex.synthesis import bank_filling
from nemo_duplex.synthesis.bank_filling import Chunk, Filling, fill_bank, make_bank, utterances_of
from nemo_duplex.synthesis.corpus_spec import CorpusSpec
from nemo_duplex.synthesis.cuts import DialogueCuts
from nemo_duplex.synthesis.dialogue_spec import DialogueSpec
from nemo_duplex.synthesis.opened_corpus import OpenedCorpus
from nemo_duplex.synthesis.pipeline import synthesize
from nemo_duplex.synthesis.text.sources import Dialogue, Exchange, UserRecording
from nemo_duplex.synthesis.tts import bank as bank_module
from nemo_duplex.synthesis.tts.bank import Bank
from nemo_duplex.synthesis.tts.cast import Cast
from nemo_duplex.synthesis.tts.engines import CastSpec
from tests.synthesis.tones import cast_of

SCRIPT = Path(__file__).parents[2] / "examples" / "make_bank.py"
NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()


@pytest.fixture
def spec(tmp_path) -> CorpusSpec:
    rows = [{"id": n, "data": [f"What comes after {n}?", "The next one.", f"And before {n}?", f"Not {n}."]} for n in NUMBERS]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cast = CastSpec(agent="espeak", bank=str(tmp_path / "bank"), takes=2)
    return CorpusSpec(source=(str(tmp_path / "d.jsonl"),), text_store=str(tmp_path / "store"), cast=cast)


@pytest.fixture
def opened(spec, monkeypatch):
    """A corpus whose speakers hum, and are slow enough for a bank."""
    corpus = OpenedCorpus(spec)
    cast = cast_of()
    (voices,) = cast._users["train"]
    slow = replace(voices, quick=False)
    corpus.cast = Cast(slow, {"train": {slow: 1.0}, "dev": {slow: 1.0}}, Bank(Path(spec.cast.bank)), spec.cast.takes)
    corpus.dialogues = DialogueCuts(spec.dialogues, corpus.source, corpus.cast)
    monkeypatch.setattr(bank_filling, "_opened", lambda spec: corpus)
    return corpus


def test_the_list_is_each_turn_in_each_take_and_each_answer(opened):
    every = list(utterances_of(opened, Chunk("dev", 0, 1)))
    dialogue = opened.source.dialogue("dev", 0, None)
    takes = sorted({opened.cast.take("dev", dialogue.id, number).id for number in (0, 1)})
    assert [(text, voice.id) for _, text, voice in every] == [
        said
        for exchange in dialogue.exchanges
        for said in [(exchange.agent, "agent"), *((exchange.user, take) for take in takes)]
    ]


def test_of_a_recorded_question_only_what_a_voice_says_is_in_the_list(opened):
    recording = UserRecording("r", "r.wav", 0.0, 1.0, text="It rained.")
    exchange = Exchange("It rained. Did it rain?", "Yes.", "", "asr_qa", recording=recording)
    source = SimpleNamespace(dialogue=lambda split, index, rng: Dialogue("d", (exchange,)))
    listed = utterances_of(SimpleNamespace(cast=opened.cast, source=source), Chunk("train", 0, 1))
    assert {text for _, text, _ in listed} == {"Yes.", "Did it rain?"}


def test_a_bank_is_filled_once(opened, spec):
    first = fill_bank(spec, workers=1)
    ((engine, counted),) = first.items()
    assert engine == "tones 1" and counted["refused"] == 0
    assert counted["spoken"] == 12 * 2 * 2 + 1 + 12  # turns in takes, one answer of all, and one of each
    assert counted["kept"] == 11  # the answer of all, again
    again = fill_bank(spec, workers=1)[engine]
    assert again["spoken"] == 0 and again["kept"] == counted["spoken"] + counted["kept"]


@pytest.mark.parametrize("error", [InputError("no"), KeyError("a symbol")])
def test_what_an_engine_cannot_say_is_counted_and_the_rest_is_spoken(opened, spec, monkeypatch, error):
    keep = opened.cast.keep

    def cannot_say_seven(text, voice):
        if "after seven" in text:
            raise error
        return keep(text, voice)

    monkeypatch.setattr(opened.cast, "keep", cannot_say_seven)
    counted = fill_bank(spec, workers=1)["tones 1"]
    assert (counted["refused"], counted["spoken"]) == (2, 12 * 2 * 2 + 1 + 12 - 2)
    monkeypatch.setattr(opened.cast, "keep", lambda text, voice: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        fill_bank(spec, workers=1)


@pytest.mark.parametrize("duration", [None, 12.8])
def test_a_corpus_needs_nothing_more(opened, spec, duration):
    fill_bank(spec, workers=1)
    opened.cast._voices["tones"].engine.speak = None  # what is not in the bank fails
    dialogues = replace(spec.dialogues, duration=duration, quiet=0.0, seed=5)
    cuts = DialogueCuts(dialogues, opened.source, opened.cast)
    for split in ("train", "dev", "impatient"):
        for index in range(5):
            cut = cuts.cut(split, index)
            assert cut.supervisions and "left_out" not in cut.custom


def test_slices_speak_what_is_of_their_chunks(opened, spec, monkeypatch):
    monkeypatch.setattr(bank_filling, "_CHUNK", 2)
    parts = [fill_bank(spec, 1, (number, 3))["tones 1"] for number in range(3)]
    assert all(part["spoken"] for part in parts)
    assert sum(part["spoken"] for part in parts) == 12 * 2 * 2 + 1 + 12


def test_what_has_no_list_is_refused(spec):
    with pytest.raises(InputError, match="takes=null: any user may say any dialogue"):
        fill_bank(replace(spec, cast=replace(spec.cast, takes=None)))
    with pytest.raises(InputError, match="source=..: the built-in dialogues are no list"):
        fill_bank(replace(spec, source=()))


def test_users_of_a_dialogue_are_those_of_its_takes(opened):
    cuts = DialogueCuts(DialogueSpec(seed=3, quiet=0.0, duration=25.6), opened.source, opened.cast)
    for index in range(10):
        cut = cuts.cut("train", index)
        for source in cut.custom["source"].split():
            takes = {opened.cast.take("train", source, number).id for number in (0, 1)}
            assert cut.custom["voice"] in takes


def content(folder: Path) -> dict[str, bytes]:
    """Of every file, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_other_processes(*works) -> list[int | None]:
    """Exit codes of processes that are as this one is, and work at once."""
    processes = [multiprocessing.get_context("fork").Process(target=work) for work in works]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def test_a_killed_run_goes_on_to_the_same_bytes(opened, spec, tmp_path):
    bank = Path(spec.cast.bank)
    fill_bank(spec, workers=1)
    whole = content(bank)
    shutil.rmtree(bank)

    def die_in_the_fifth_utterance():
        write, written = soundfile.SoundFile.write, []

        def count_and_die(self, samples):
            written.append(len(samples))
            write(self, samples[: len(samples) // 2] if len(written) == 5 else samples)
            if len(written) == 5:
                self.flush()
                os._exit(9)  # as SIGKILL: no handler, no cleaning up

        soundfile.SoundFile.write = count_and_die
        fill_bank(spec, workers=1)

    assert in_other_processes(die_in_the_fifth_utterance) == [9]
    left = content(bank)
    assert len(left) == 5
    assert {name: data for name, data in left.items() if ".part-" not in name}.items() <= whole.items()
    assert fill_bank(spec, workers=1)["tones 1"]["spoken"] == len(whole) - 4
    assert content(bank) == whole


def test_processes_that_fill_a_bank_at_once_agree(opened, spec, monkeypatch):
    bank = Path(spec.cast.bank)
    fill_bank(spec, workers=1)
    whole = content(bank)
    monkeypatch.setattr(bank_module, "_samples", lambda path, text: None)  # each speaks and writes everything
    assert in_other_processes(*[lambda: fill_bank(spec, workers=1)] * 3) == [0, 0, 0]
    assert content(bank) == whole


Disk = namedtuple("Disk", "total used free")
FULL = {
    "by the system": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "by libsndfile": soundfile.SoundFileRuntimeError("Error : flush: system error"),
}


@pytest.mark.parametrize("told", FULL)
def test_a_full_disk_is_one_line(opened, spec, monkeypatch, capsys, told, tmp_path):
    write, written = soundfile.SoundFile.write, []

    def fail_in_the_fifth(self, samples):
        written.append(1)
        if len(written) == 5:
            monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(1 << 30, 1 << 30, 0))
            raise FULL[told]
        write(self, samples)

    monkeypatch.setattr(soundfile.SoundFile, "write", fail_in_the_fifth)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT))["main"]([f"out={spec.cast.bank}", f"source=[{spec.source[0]}]", "workers=1"])
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.count("\n") == 1, said
    assert said.startswith("error: ") and "no space left on the disk of" in said and str(tmp_path / "bank") in said
    assert len(content(Path(spec.cast.bank))) == 4  # the fifth is not there, nor a part of it


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ray.batch=0"], "ray.batch=0"),
        (["executor=moon"], "executor=moon: expected local or ray."),
        (["executor=ray", "ray.gpus=-1"], "ray.gpus=-1"),
    ],
)
def test_what_is_wrong_is_one_line(spec, capsys, arguments, message, tmp_path):
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT))["main"]([f"out={tmp_path / 'b'}", f"source=[{spec.source[0]}]", "workers=1", *arguments])
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.count("\n") == 1 and said.startswith("error: ") and message in said, said


def test_numbers_of_ray_data_are_dialogues_of_the_chunks(opened, spec):
    chunks = [Chunk("train", 16, 16), Chunk("train", 48, 3), Chunk("dev", 0, 2)]
    speaker = bank_filling._Speaker(spec, Filling(), chunks)
    given = [speaker._dialogue(number) for number in range(21)]
    assert given == [Chunk(c.split, c.first + i, 1) for c in chunks for i in range(c.count)]


def real(tmp_path: Path, **cast) -> CorpusSpec:
    """hibari answers, Kokoro asks."""
    rows = [{"id": n, "data": [f"Say {n}.", f"I say {n}."]} for n in NUMBERS[:5]]
    (tmp_path / "real.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    users = (("kokoro", 1.0),)
    dialogues = DialogueSpec(duration=6.4)
    return CorpusSpec(
        0.006, 1, 3, (str(tmp_path / "real.jsonl"),), dialogues, cast=CastSpec("hibari", users, users, takes=1, **cast)
    )


@pytest.mark.slow
def test_a_corpus_has_the_same_bytes_with_and_without_a_bank(tmp_path):
    plain, banked = real(tmp_path), real(tmp_path, bank=str(tmp_path / "bank"))
    synthesize(plain, tmp_path / "without")
    synthesize(banked, tmp_path / "spoken")  # into the bank, as it goes
    before = content(tmp_path / "bank")
    assert {name.split()[0] for name in before} == {"hibari", "kokoro"}
    fill_bank(banked, workers=1)
    synthesize(banked, tmp_path / "read")
    assert before.items() <= content(tmp_path / "bank").items()
    made = [content(tmp_path / name) for name in ("without", "spoken", "read")]
    for each in made:
        about = json.loads(each.pop("corpus.json"))
        assert about["sets"]["train"]["cuts"] == 4 and "left_out" not in about["sets"]["train"]
    assert made[0] == made[1] == made[2]


@pytest.mark.slow
def test_ray_data_makes_the_same_bank(tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (source,) = real(tmp_path).source
    given = f"source=[{source}] agent_voice=hibari takes=2 workers=2".split()
    given += ["user_voices.train={kokoro: 1}", "user_voices.dev={kokoro: 1}", "ray.batch=2"]
    for out, executor in (("local", "local"), ("ray", "ray")):
        make_bank(OmegaConf.to_container(load("make_bank", [f"out={tmp_path / out}", f"executor={executor}", *given])))
    local, by_ray = content(tmp_path / "local"), content(tmp_path / "ray")
    assert len(local) > 12 and local == by_ray
    said = capfd.readouterr()
    assert (
        "kokoro" in said.out.splitlines()[-1]
        and "Ray" not in said.err
        and "core_worker" not in said.err
        and "logging.cc" not in said.err
    )
