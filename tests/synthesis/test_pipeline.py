"""Whole small corpora through eSpeak: the same bytes however they are made."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from lhotse import CutSet

from nemo_duplex.conversation import Conversation
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis import pipeline, shards
from nemo_duplex.synthesis.cuts import DialogueSpec
from nemo_duplex.synthesis.grammar import Grammar
from nemo_duplex.synthesis.pipeline import SETS, CorpusSpec, synthesize
from nemo_duplex.synthesis.timing import Rhythm
from nemo_duplex.synthesis.tts.espeak import EspeakEngine

SPEC = CorpusSpec(hours=9 * 5.6 / 3600, dev=3, agent_utterances=3, dialogues=DialogueSpec(seed=5, duration=5.6))


@pytest.fixture(scope="module", autouse=True)
def small_shards():
    """Three shards for nine cuts, and only 12 texts for the agent; worker processes, which do not see this, only write shards
    that are planned here."""
    texts = Grammar.agent_texts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_SHARD_SIZE", {"train": 4, "dev": 2, "impatient": 2, "agent": 5})
        patch.setattr(pipeline, "_PILOT", 5)
        patch.setattr(Grammar, "agent_texts", lambda self, count: texts(self, count)[-12:])
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("corpus")
    synthesize(SPEC, out)
    return out


def content(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def test_corpus_has_what_was_asked_for(corpus):
    facts = json.loads((corpus / "corpus.json").read_text())
    assert list(facts["sets"]) == list(SETS)
    assert facts["sets"]["train"]["cuts"] == 9 and facts["sets"]["train"]["hours"] == pytest.approx(SPEC.hours, abs=1e-3)
    assert facts["sets"]["dev"]["cuts"] == facts["sets"]["impatient"]["cuts"] == 3
    assert facts["source"]["questions"]["train"] > 300 and facts["versions"]["espeak-ng"] == "1.52.0"
    assert sorted(os.listdir(corpus / "train" / "shar"))[:3] == [f"cuts.00000{i}.jsonl.gz" for i in range(3)]
    texts = (corpus / "texts.txt").read_text().splitlines()
    spoken = {
        s.custom.get("full_text", s.text)
        for cut in CutSet.from_shar(in_dir=corpus / "train" / "shar")
        for s in cut.supervisions
    }
    assert set(texts) == spoken and len(texts) == len(set(texts))


def test_every_set_is_read_back(corpus):
    for name, count in (("train", 9), ("dev", 3), ("impatient", 3)):
        cuts = list(CutSet.from_shar(in_dir=corpus / name / "shar"))
        split, suffix = ("train", "") if name == "train" else ("dev", "-impatient" * (name == "impatient"))
        assert [cut.id for cut in cuts] == [f"{split}-5-{index:07d}{suffix}" for index in range(count)]
        for cut in cuts:
            assert cut.load_audio().shape[1] // 1280 == cut.load_target_audio().shape[1] // 1764 == round(cut.duration / 0.08)
            assert Conversation.from_cut(cut).duration == cut.duration
    agent = list(CutSet.from_shar(in_dir=corpus / "agent" / "shar"))
    assert [cut.id for cut in agent] == [f"agent-{index:06d}" for index in range(12)]
    assert [cut.supervisions[0].text for cut in agent] == Grammar().agent_texts(3)
    assert {(cut.recording.sampling_rate, cut.supervisions[0].speaker) for cut in agent} == {(22050, "agent")}


def test_events_are_counted_over_all_shards(corpus):
    facts, seen = json.loads((corpus / "corpus.json").read_text())["sets"], Counter()
    for name in ("train", "dev"):
        read = [Conversation.from_cut(cut) for cut in CutSet.from_shar(in_dir=corpus / name / "shar")]
        users, agents = ([t for c in read for t in c.of(speaker)] for speaker in ("user", "agent"))
        expected = {
            "user_turns": len(users),
            "agent_turns": len(agents),
            "pauses": sum(len(t.custom.get("pauses", [])) for t in users),
            "barge_ins": sum("barge_in" in t.custom for t in users),
            "cut_answers": sum("cut" in t.custom for t in agents),
            "unfinished_turns": sum("unfinished" in t.custom for t in users + agents),
            "quiet_cuts": sum(not c.turns for c in read),
            "unseen_questions": sum(not t.custom["seen"] for t in users),
            "speakers": len({c.custom["voice"] for c in read}),
        }
        assert {key: facts[name].get(key, 0) for key in expected} == expected
        seen.update(expected)
    assert all(seen[key] > 0 for key in ("pauses", "barge_ins", "cut_answers", "unfinished_turns", "unseen_questions"))
    interrupts = [cut.custom["interrupts"] for cut in CutSet.from_shar(in_dir=corpus / "impatient" / "shar")]
    onsets, hits = sum(len(each) - 1 for each in interrupts), sum(map(sum, interrupts))
    assert facts["impatient"]["interruption_rate"] == round(hits / onsets, 4) > 0


def test_each_slice_makes_every_nth_shard(tmp_path):
    spec = replace(SPEC, dev=5)
    assert synthesize(spec, tmp_path, ["dev"], slice=(1, 2)) is None
    assert [path.stem for path in (tmp_path / "dev" / "state").iterdir()] == ["000001"]
    assert synthesize(spec, tmp_path, ["dev"], slice=(0, 2))["sets"]["dev"]["cuts"] == 5


@pytest.mark.slow
def test_two_workers_and_slices_make_the_same_bytes(corpus, tmp_path):
    sets = ("train", "dev", "impatient")
    for name in ("state", "shar"):
        for made in sets:
            assert (corpus / made / name).is_dir()
    assert synthesize(SPEC, tmp_path, sets, workers=2, slice=(1, 2)) is None
    assert not (tmp_path / "corpus.json").exists()
    assert synthesize(SPEC, tmp_path, sets, slice=(0, 2)) is not None
    expected = {name: data for name, data in content(corpus).items() if name.split("/")[0] in sets}
    made = {name: data for name, data in content(tmp_path).items() if name.split("/")[0] in sets}
    assert made == expected


def _die_in_the_second_shard(out: Path) -> None:
    """What a SIGKILL does: no handler, no cleaning up."""
    write, written = shards.SharWriter.write, []

    def count_and_die(self, cut):
        written.append(cut.id)
        if len(written) == 6:
            os._exit(9)
        write(self, cut)

    shards.SharWriter.write = count_and_die
    synthesize(SPEC, out, ["train"])


def test_a_killed_run_goes_on_to_the_same_bytes(corpus, tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_die_in_the_second_shard, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert (tmp_path / "train" / "part.000001").is_dir() and not (tmp_path / "corpus.json").exists()
    done = (tmp_path / "train" / "shar" / "recording.000000.tar").stat().st_mtime_ns
    synthesize(SPEC, tmp_path, ["train"])
    assert (tmp_path / "train" / "shar" / "recording.000000.tar").stat().st_mtime_ns == done
    assert sorted(os.listdir(tmp_path / "train")) == ["shar", "state"]
    assert content(tmp_path / "train") == content(corpus / "train")


def test_running_again_changes_nothing_and_mends_what_is_damaged(corpus, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(corpus, out)
    (out / "dev" / "shar" / "recording.000001.tar").write_bytes(b"damaged")
    facts = synthesize(SPEC, out)
    assert json.loads(json.dumps(facts)) == json.loads((corpus / "corpus.json").read_text())
    assert content(out) == content(corpus)
    (out / "dev" / "state" / "000000.json").unlink()
    assert list(synthesize(SPEC, out, ["train"])["sets"]) == ["train", "impatient", "agent"], "Only sets that are whole."


def test_shards_of_another_engine_are_not_mixed_in(corpus, monkeypatch):
    monkeypatch.setattr(EspeakEngine, "name", "another engine")
    pipeline._maker.cache_clear()
    with pytest.raises(InputError, match="dev was made with other settings than these"):
        synthesize(SPEC, corpus, ["dev"])
    pipeline._maker.cache_clear()


def test_other_settings_in_the_same_folder_are_refused(corpus, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(corpus, out)
    other = replace(SPEC, dialogues=replace(SPEC.dialogues, seed=6))
    before = content(out)
    with pytest.raises(InputError, match="was made with other settings than these.*overwrite=true"):
        synthesize(other, out, ["dev"])
    assert content(out) == before
    facts = synthesize(other, out, ["dev"], overwrite=True)
    assert list(facts["sets"]) == ["dev"] and not (out / "train" / "shar").exists()
    with pytest.raises(InputError, match="overwrite=true would remove what the other slices make"):
        synthesize(other, out, ["dev"], slice=(0, 2), overwrite=True)


def test_own_dialogues_from_a_file(tmp_path):
    rows = [
        {"id": f"d{i}", "data": [f"Where is my cup number {w}?", "On the table."]}
        for i, w in enumerate("one two three".split())
    ]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    spec = CorpusSpec(hours=0.003, dev=1, source=(str(path),))
    facts = synthesize(spec, tmp_path / "out")
    assert facts["source"]["dialogues"] == {"dev": 1, "train": 2} and facts["sets"]["agent"]["cuts"] == 1
    texts = {s.text for cut in CutSet.from_shar(in_dir=tmp_path / "out" / "train" / "shar") for s in cut.supervisions}
    assert "On the table." in texts and len(texts) == 3
    stricter = synthesize(replace(spec, max_odd_rows=0.1), tmp_path / "out")  # the key ends a run or changes nothing
    assert stricter["sets"] == facts["sets"] and stricter["source"]["left_out"] == {} == stricter["source"]["taken_out"]
    path.rename(tmp_path / "moved.jsonl")  # what counts is what it says, not where it lies
    assert synthesize(replace(spec, source=(str(tmp_path / "moved.jsonl"),)), tmp_path / "out")["sets"] == facts["sets"]
    (tmp_path / "moved.jsonl").write_text((tmp_path / "moved.jsonl").read_text().replace("cup", "hat"))
    pipeline._maker.cache_clear()
    with pytest.raises(InputError, match="was made with other settings"):
        synthesize(replace(spec, source=(str(tmp_path / "moved.jsonl"),)), tmp_path / "out")


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="this needs about .* kB, and the disk has 1000 B free|this needs about .* MB"):
        synthesize(SPEC, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CorpusSpec(hours=-1), "hours=-1: expected 0 to 1000000"),
        (lambda: CorpusSpec(max_odd_rows=1.1), "max_odd_rows=1.1: expected a share from 0 to 1"),
        (lambda: CorpusSpec(hours=1e9), "hours=1000000000.0: expected 0 to 1000000"),
        (lambda: CorpusSpec(dialogues=DialogueSpec(pause=1.5)), "pause=1.5: expected a share from 0 to 1"),
        (lambda: CorpusSpec(dialogues=DialogueSpec(rhythm=Rhythm(barge_in=-0.1))), "barge_in=-0.1: expected a share"),
        (lambda: CorpusSpec(dialogues=DialogueSpec(duration=12.75)), "duration=12.75: expected .* such as 12.72|such as 12.8"),
        (lambda: CorpusSpec(dialogues=DialogueSpec(duration=1.6)), "duration=1.6: expected 4 s or more"),
        (lambda: CorpusSpec(dialogues=DialogueSpec(rhythm=Rhythm(response_gap=0.0))), "response_gap=0.0: expected seconds"),
        (lambda: synthesize(SPEC, Path("nowhere"), ["test"]), "sets: 'test' is none of train, dev, impatient, agent"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
    assert not Path("nowhere").exists()
