"""The manifests of a bank: every file that a source needs, once, in the same bytes however and by whom it was spoken."""

from __future__ import annotations

import json
import random
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from nemo_duplex.files.nemo_manifest import NemoManifest
from nemo_duplex.synthesis import bank_filling
from nemo_duplex.synthesis.bank_filling import Filling, fill_bank
from nemo_duplex.synthesis.bank_manifests import BankManifests, row
from nemo_duplex.synthesis.corpus_spec import CorpusSpec
from nemo_duplex.synthesis.opened_corpus import OpenedCorpus
from nemo_duplex.synthesis.tts.bank import Bank, KeptUtterance
from nemo_duplex.synthesis.tts.cast import Cast
from nemo_duplex.synthesis.tts.engines import CastSpec
from nemo_duplex.synthesis.tts.utterance import Voice
from tests.synthesis.tones import ToneEngine, cast_of

SCRIPT = Path(__file__).parents[2] / "examples" / "make_bank.py"
NAMES = ["agent_dev", "agent_train", "user_dev", "user_train"]
NUMBERS = [f"{ten} {one}" for ten in ("twenty", "thirty") for one in "one two three four five six seven eight nine".split()]


@pytest.fixture
def spec(tmp_path) -> CorpusSpec:
    rows = [{"id": n, "data": [f"What comes after {n}?", "The next one.", f"And before {n}?", f"Not {n}."]} for n in NUMBERS]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cast = CastSpec(agent="espeak", bank=str(tmp_path / "bank"), takes=1)
    return CorpusSpec(source=(str(tmp_path / "d.jsonl"),), text_store=str(tmp_path / "store"), cast=cast)


class QuickTones(ToneEngine):
    name = "quick"


@pytest.fixture
def opened(spec, monkeypatch):
    """A corpus of two engines that hum: one is slow, and speaks as the agent too, one is quick."""
    corpus = OpenedCorpus(spec)
    (voices,) = cast_of()._users["train"]

    def user(split, number):
        return replace(voices.user(split, number), id=f"quick-{split}{number}", engine="quick")

    slow, quick = replace(voices, quick=False), replace(voices, engine=QuickTones(), quick=True, agent=None, user=user)
    shares = {split: {slow: 0.5, quick: 0.5} for split in ("train", "dev")}
    corpus.cast = Cast(slow, shares, Bank(Path(spec.cast.bank)), spec.cast.takes)
    monkeypatch.setattr(bank_filling, "_opened", lambda spec: corpus)
    return corpus


def fill(spec: CorpusSpec, **filling) -> dict:
    folder = Path(spec.cast.bank) / "manifests"
    manifests = BankManifests(folder, bank_filling._dialogues(bank_filling._chunks(spec)))
    return fill_bank(spec, workers=1, filling=Filling(all_voices=True, **filling), manifests=manifests)


def written(spec: CorpusSpec) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in sorted((Path(spec.cast.bank) / "manifests").iterdir())}


def rows_of(spec: CorpusSpec, name: str) -> list[dict]:
    return [json.loads(line) for line in written(spec)[name].splitlines()]


def test_every_voice_is_kept_and_listed_once(opened, spec):
    counts = fill(spec)
    assert {name.split()[0] for name in counts} == {"tones", "quick"}
    assert list(written(spec)) == NAMES
    expected = {}
    for split, size in opened.source.describe()["dialogues"].items():
        for index in range(size):
            dialogue = opened.source.dialogue(split, index, None)
            voice = opened.cast.take(split, dialogue.id, 0)
            for exchange in dialogue.exchanges:
                expected.setdefault(("agent", exchange.agent), (split, opened.cast.agent))
                expected.setdefault(("user", exchange.user), (split, voice))
    found = {}
    for name in NAMES:
        speaker, split = name.split("_")
        for place, said in enumerate(NemoManifest(Path(spec.cast.bank) / "manifests" / f"{name}.jsonl")):
            of, voice = expected[speaker, said.text]
            kept = opened.cast.kept(said.text, voice)
            assert said.path.resolve() == kept.path.resolve() and said.duration == round(kept.duration, 6)
            own = {"voice": voice.id, "engine": voice.engine, "language": kept.language, "split": split}
            assert said.other == {**own, "words": [[w, at, round(a, 4), round(b, 4)] for w, at, a, b in kept.words]}
            assert of == split and kept.words
            found[speaker, said.text] = place
    assert found.keys() == expected.keys()
    assert {row["engine"] for row in rows_of(spec, "user_train")} == {"tones", "quick"}
    files = [path for path in Path(spec.cast.bank).rglob("*.flac")]
    assert len(files) == len(found)


def test_rows_are_in_the_order_of_the_dialogues(opened, spec):
    fill(spec)
    order = [opened.source.dialogue("train", n, None) for n in range(opened.source.describe()["dialogues"]["train"])]
    assert [row["text"] for row in rows_of(spec, "user_train")] == [e.user for d in order for e in d.exchanges]


def test_an_answer_of_both_splits_is_in_dev_alone(opened, spec):
    fill(spec)
    texts = {name: [row["text"] for row in rows_of(spec, name)] for name in NAMES}
    assert texts["agent_dev"].count("The next one.") == 1 and "The next one." not in texts["agent_train"]


def test_a_second_run_writes_the_same_bytes_and_speaks_nothing(opened, spec):
    fill(spec)
    before = written(spec)
    for voices in opened.cast._voices.values():
        voices.engine.speak = None
    again = fill(spec)
    assert written(spec) == before and not any(counted["spoken"] for counted in again.values())


def test_what_slow_voices_have_not_said_is_left_out(opened, spec):
    fill(spec)
    whole = {name: rows_of(spec, name) for name in NAMES}
    slow = [row for row in whole["user_train"] if row["engine"] == "tones"]
    quick = [row for row in whole["user_train"] if row["engine"] == "quick"]
    gone, damaged, again = (Path(spec.cast.bank, "manifests", row["audio_filepath"]) for row in (slow[0], slow[2], quick[1]))
    gone.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-50])
    again.unlink()
    counts = fill(spec, only_kept=True)
    assert rows_of(spec, "user_train") == [row for row in whole["user_train"] if row not in (slow[0], slow[2])]
    assert [rows_of(spec, name) for name in NAMES[:3]] == [whole[name] for name in NAMES[:3]]
    assert not gone.exists() and again.exists()
    assert {engine: (n["missing"], n["spoken"]) for engine, n in counts.items()} == {"tones 1": (2, 0), "quick 1": (0, 1)}
    fill(spec)
    assert {name: rows_of(spec, name) for name in NAMES} == whole


def test_manifests_of_before_stay_until_the_new_ones_are_whole(opened, spec, monkeypatch):
    fill(spec)
    before = written(spec)
    monkeypatch.setattr(opened.cast, "kept", lambda text, voice: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(bank_filling, "_bytes_to_come", lambda *_: 0)
    with pytest.raises(KeyboardInterrupt):
        fill(spec)
    assert written(spec) == before


def test_dialogues_may_be_done_in_any_order(tmp_path):
    order = [("dev", 0), ("dev", 1), *(("train", n) for n in range(20))]
    said = {}
    for split, number in order:
        voice = Voice(f"{split}{number}", "hum", engine="tones")
        for speaker in ("user", "agent"):
            kept = KeptUtterance(tmp_path / "b" / f"{speaker}{number % 15}.flac", speaker, 1.0, [], None)
            said.setdefault((split, number), []).append((speaker, row(kept, voice, split)))
    texts = []
    for seed in range(3):
        shuffled = random.Random(seed).sample(order, len(order)) if seed else order
        with BankManifests(tmp_path / "m", iter(order)) as manifests:
            for dialogue in shuffled:
                manifests.add(dialogue, said[dialogue])
        texts.append([(tmp_path / "m" / f"{name}.jsonl").read_bytes() for name in NAMES])
        assert manifests.summary()[0] == f"{tmp_path}/m/user_train.jsonl: 13 utterances, 0.00 h"
    assert texts[0] == texts[1] == texts[2] and [text.count(b"\n") for text in texts[0]] == [2, 13, 2, 13]


def run(spec: CorpusSpec, *arguments: str) -> None:
    given = [f"out={spec.cast.bank}", f"source=[{spec.source[0]}]", f"text.store={spec.text_store}", "takes=1"]
    users = [f"user_voices.{split}={{espeak: 1}}" for split in ("train", "dev")]
    runpy.run_path(str(SCRIPT))["main"]([*given, "agent_voice=espeak", *users, *arguments])


def test_the_script(spec, capsys, monkeypatch):
    run(spec, "workers=1", "manifests=true")
    said = capsys.readouterr().out.splitlines()
    assert said[-4].startswith(f"{spec.cast.bank}/manifests/user_train.jsonl: 34 utterances, 0.0")
    assert "espeak-ng" in said[-5] and "55 utterances spoken" in said[-5]
    before = written(spec)
    monkeypatch.setattr(bank_filling, "_CHUNK", 5)
    run(spec, "workers=1", "manifests=true", "slice=1/2")
    assert capsys.readouterr().out.splitlines()[-1] == "no manifests: they are written without slice=, after all slices"
    assert written(spec) == before
    with pytest.raises(SystemExit):
        run(spec, "only_kept=true")
    assert "error: only_kept=true: " in capsys.readouterr().err


@pytest.mark.slow
def test_several_processes_write_the_same_bytes(spec, tmp_path, monkeypatch):
    other = replace(spec, cast=replace(spec.cast, bank=str(tmp_path / "other")))
    monkeypatch.setattr(bank_filling, "_CHUNK", 3)
    run(spec, "workers=1", "manifests=true")
    run(other, "workers=3", "manifests=true")
    assert written(spec) == written(other)
