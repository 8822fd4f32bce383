"""Whole small corpora through eSpeak: the same bytes however they are made."""

from __future__ import annotations

import gc
import itertools
import json
import multiprocessing
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from lhotse import CutSet

from nemo_duplex.conversation import Conversation
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis import pipeline, shards
from nemo_duplex.synthesis.corpus_spec import CorpusSpec
from nemo_duplex.synthesis.dialogue_spec import DialogueSpec
from nemo_duplex.synthesis.pipeline import SETS, synthesize
from nemo_duplex.synthesis.ray_executor import RayCluster
from nemo_duplex.synthesis.text import dialogue_import
from nemo_duplex.synthesis.text.grammar import Grammar
from nemo_duplex.synthesis.text.text_spec import TextSpec
from nemo_duplex.synthesis.timing import Rhythm
from nemo_duplex.synthesis.tts import engines
from nemo_duplex.synthesis.tts.engines import CastSpec

ESPEAK = CastSpec("espeak", (("espeak", 1.0),), (("espeak", 1.0),))
SHORT = {"long_answers": 0.0, "read_aloud": 0.0, "cast": ESPEAK}
SPEC = CorpusSpec(hours=9 * 5.6 / 3600, dev=3, agent_utterances=3, dialogues=DialogueSpec(seed=5, duration=5.6), **SHORT)


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


def test_ids_begin_with_the_dataset_so_that_those_of_a_mixture_are_different(tmp_path):
    synthesize(replace(SPEC, dialogues=replace(SPEC.dialogues, dataset="shop")), tmp_path, ["dev", "agent"])
    ids = [cut.id for name in ("dev", "agent") for cut in CutSet.from_shar(in_dir=tmp_path / name / "shar")]
    assert ids == [f"shop-dev-5-{i:07d}" for i in range(3)] + [f"shop-agent-{i:06d}" for i in range(12)]


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
def test_workers_and_slices_make_the_same_bytes(corpus, tmp_path):
    """Of every file: shards, markers, corpus.json, texts.txt; slices by other numbers of workers, in another order."""
    sets = ("train", "dev", "impatient")
    synthesize(SPEC, tmp_path / "one", sets)
    for part, workers in ((2, 8), (0, 1)):
        assert synthesize(SPEC, tmp_path / "slices", sets, workers=workers, slice=(part, 3)) is None
        assert not (tmp_path / "slices" / "corpus.json").exists()
    assert synthesize(SPEC, tmp_path / "slices", sets, workers=2, slice=(1, 3)) is not None
    assert content(tmp_path / "slices") == content(tmp_path / "one")
    expected = {name: data for name, data in content(corpus).items() if name.split("/")[0] in (*sets, "texts.txt")}
    assert {name: data for name, data in content(tmp_path / "one").items() if name != "corpus.json"} == expected


@contextmanager
def nothing_collected() -> Iterator[None]:
    """Garbage stays, unless somebody collects it."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.slow
def test_ray_makes_the_same_bytes(corpus, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    sets = ("train", "dev", "impatient")  # its processes do not see the few texts of the agent that are planned here
    with nothing_collected():
        assert synthesize(SPEC, tmp_path, sets, workers=2, cluster=RayCluster()) is not None
        left = [kept for kept in gc.get_objects() if type(kept).__name__ == "GcsClient"]
    assert not left, "A process that is forked from here would wait for their threads."
    expected = {name: data for name, data in content(corpus).items() if name.split("/")[0] in (*sets, "texts.txt")}
    assert {name: data for name, data in content(tmp_path).items() if name != "corpus.json"} == expected


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
    assert [p.name.split("-")[-1] for p in (tmp_path / "train").glob(".part-*")] == ["000001"] and not (
        tmp_path / "corpus.json"
    ).exists()
    done = (tmp_path / "train" / "shar" / "recording.000000.tar").stat().st_mtime_ns
    synthesize(SPEC, tmp_path, ["train"])
    assert (tmp_path / "train" / "shar" / "recording.000000.tar").stat().st_mtime_ns == done
    assert sorted(os.listdir(tmp_path / "train")) == ["shar", "state"]
    assert content(tmp_path / "train") == content(corpus / "train")


def _kill_at(operation: int, folder: Path) -> None:
    """Ends this process, as SIGKILL does, before its n-th change or opening of a file in a folder."""
    seen = itertools.count()

    def hook(event: str, arguments: tuple) -> None:
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and str(arguments[0]).startswith(str(folder)):
            if next(seen) == operation:
                os._exit(9)

    sys.addaudithook(hook)


def _killed(out: Path, operation: int) -> bool:
    """Whether a run was killed there; it may have ended before."""

    def work() -> None:
        _kill_at(operation, out)
        synthesize(SPEC, out, ["dev"])

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode in (0, 9)
    return process.exitcode == 9


def test_a_run_that_is_killed_anywhere_and_again_goes_on_to_the_same_bytes(tmp_path):
    """Before every fifth operation on files; the second run is killed, too, a little later."""
    synthesize(SPEC, tmp_path / "whole", ["dev"])
    num_killed = 0
    for operation in itertools.count(0, 5):
        out = tmp_path / str(operation)
        if not _killed(out, operation):
            break
        num_killed += 1 + _killed(out, operation % 7)
        assert not (out / "corpus.json").exists() or content(out)["corpus.json"] == content(tmp_path / "whole")["corpus.json"]
        synthesize(SPEC, out, ["dev"])
        assert content(out) == content(tmp_path / "whole"), f"killed before operation {operation}"
    assert num_killed > 20


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
    monkeypatch.setattr(engines.engine_voices("espeak").engine, "version", "another version")
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
    spec = CorpusSpec(cast=ESPEAK, hours=0.003, dev=1, source=(str(path),))
    facts = synthesize(spec, tmp_path / "out")
    assert facts["source"]["dialogues"] == {"dev": 1, "train": 2} and facts["sets"]["agent"]["cuts"] == 1
    texts = {s.text for cut in CutSet.from_shar(in_dir=tmp_path / "out" / "train" / "shar") for s in cut.supervisions}
    assert "On the table." in texts and len(texts) == 3
    strict = replace(spec, text=TextSpec(max_odd_rows=0.1))  # the key ends a run or changes nothing
    stricter = synthesize(strict, tmp_path / "out")
    assert stricter["sets"] == facts["sets"] and stricter["source"]["left_out"] == {} == stricter["source"]["taken_out"]
    path.rename(tmp_path / "moved.jsonl")  # what counts is what it says, not where it lies
    assert synthesize(replace(spec, source=(str(tmp_path / "moved.jsonl"),)), tmp_path / "out")["sets"] == facts["sets"]
    (tmp_path / "moved.jsonl").write_text((tmp_path / "moved.jsonl").read_text().replace("cup", "hat"))
    pipeline._maker.cache_clear()
    with pytest.raises(InputError, match="was made with other settings"):
        synthesize(replace(spec, source=(str(tmp_path / "moved.jsonl"),)), tmp_path / "out")


# 234 letters and 36 s of eSpeak, with its pause after each word: far fewer letters than are refused unheard.
COUNTED = "one, two, three, four, five, six, seven, eight, nine, ten, " * 6


def dialogues(path: Path, *rows: dict | list) -> str:
    """A file of dialogues: rows, or the turns of one."""
    rows = tuple(row if isinstance(row, dict) else {"id": f"d{i}", "data": row} for i, row in enumerate(rows))
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_dialogues_are_spoken_in_their_languages_and_the_rest_is_counted(tmp_path):
    source = dialogues(
        tmp_path / "a.jsonl",
        ["आज मौसम कैसा है?", "आज मौसम बहुत अच्छा है।"], ["Wie geht es?", "Mir geht es gut."], ["What is it?", "It is tea."],
        ["วันนี้", "Yes."], {"id": "en", "language": "English", "data": ["Is it?", "It is."]},
    )  # fmt: skip
    facts = synthesize(
        CorpusSpec(cast=ESPEAK, hours=0.02, dev=2, source=(source,), text=TextSpec(language="de")), tmp_path / "out"
    )
    (reason,) = facts["source"]["left_out"]
    assert reason == "a text that the voices cannot say" and facts["source"]["dialogues"] == {"dev": 1, "train": 3}
    (place,) = facts["source"]["left_out"][reason]["first"]
    assert place.startswith(
        f"{source}:4 (dialogue d3): eSpeak NG cannot say 'วันนี้': it says 'วันนี้' (Thai letters) in no language"
    )
    cuts = [cut for name in ("train", "dev", "agent") for cut in CutSet.from_shar(in_dir=tmp_path / "out" / name / "shar")]
    languages = {s.text: s.language for cut in cuts for s in cut.supervisions if "full_text" not in (s.custom or {})}
    questions = {"Wie geht es?": "de", "What is it?": "de", "Is it?": "en", "आज मौसम कैसा है?": "hi"}
    answers = {"Mir geht es gut.": "de", "It is tea.": "de", "It is.": "en", "आज मौसम बहुत अच्छा है।": "hi"}
    assert languages == questions | answers
    train = {s.text for cut in CutSet.from_shar(in_dir=tmp_path / "out" / "train" / "shar") for s in cut.supervisions}
    assert set((tmp_path / "out" / "texts.txt").read_text().splitlines()) == train


def long_and_short(path: Path, num_long: int, num_short: int) -> str:
    """A file of short dialogues d0, d1, ..., and after them long ones."""
    short = [["Where is my cup?", f"On table {i}."] for i in range(num_short)]
    return dialogues(path, *short, *(["When was it?", f"{COUNTED} {i}"] for i in range(num_long)))


def test_long_turns_in_a_short_file_are_found_when_it_is_read(tmp_path):
    source = long_and_short(tmp_path / "a.jsonl", num_long=4, num_short=5)
    facts = synthesize(CorpusSpec(cast=ESPEAK, hours=0.01, dev=1, source=(source,), agent_utterances=9), tmp_path / "out")
    found = facts["source"]["left_out"]["a turn of over 25 s of speech"]
    assert found["count"] == 4 and facts["source"]["dialogues"] == {"dev": 1, "train": 4}
    assert sorted(found["first"])[0] == f"{source}:6 (dialogue d5): the agent says '{COUNTED[:40]}' ... for 35.8 s"
    assert not any("left_out" in facts["sets"][name] for name in SETS)
    with pytest.raises(InputError) as error:
        synthesize(
            CorpusSpec(cast=ESPEAK, hours=0.01, source=(long_and_short(tmp_path / "b.jsonl", 5, 3),)), tmp_path / "other"
        )
    assert str(error.value).startswith(
        "source: 5 of 8 rows cannot be used, more than max_odd_rows=0.5 allows. All of them: a turn of over 25 s of speech"
    )
    assert str(error.value).endswith("Split such turns into shorter ones. To go on with the other 3, set max_odd_rows=0.63.")
    assert not (tmp_path / "other").exists()
    with pytest.raises(
        InputError, match="source: none of 3 rows can be used. All of them: a turn of over 25 s of speech, such as "
    ):
        synthesize(
            CorpusSpec(cast=ESPEAK, hours=0.01, source=(long_and_short(tmp_path / "c.jsonl", 3, 0),)), tmp_path / "other"
        )


def test_long_turns_in_a_long_file_are_found_when_they_are_spoken(tmp_path, monkeypatch):
    monkeypatch.setattr(dialogue_import, "_NUM_MEASURED", 0)
    source = long_and_short(tmp_path / "a.jsonl", num_long=8, num_short=22)
    spec = CorpusSpec(cast=ESPEAK, hours=0.02, dev=4, source=(source,), agent_utterances=100)
    facts = synthesize(spec, tmp_path / "out")
    sets = {name: list(CutSet.from_shar(in_dir=tmp_path / "out" / name / "shar")) for name in SETS}
    long = {f"d{i}" for i in range(22, 30)}
    for name in ("train", "dev", "impatient"):
        assert all(s.duration <= 25 for cut in sets[name] for s in cut.supervisions)
        drawn = {name for cut in sets[name] for name in cut.custom.get("left_out", ())}
        assert drawn <= long and facts["sets"][name]["cuts"] == len(sets[name])
        left = facts["sets"][name].get("left_out", {"a turn of over 25 s of speech": {"count": 0, "first": []}})
        assert [found["count"] for found in left.values()] == [len(drawn)]
        assert all(
            re.match(r"dialogue d2\d: the agent says 'one, two, three, .*' ... for 3\d.\d s$", p)
            for p in sum((found["first"] for found in left.values()), [])
        )
        assert not {cut.custom["source"] for cut in sets[name]} & long
    assert "left_out" in facts["sets"]["train"]
    answers = facts["sets"]["agent"]
    assert answers["cuts"] == len(sets["agent"]) == 27 - answers["left_out"]["a turn of over 25 s of speech"]["count"] < 27
    for part in range(2):
        again = synthesize(spec, tmp_path / "again", slice=(part, 2))
    assert again["sets"] == facts["sets"] and content(tmp_path / "again") == content(tmp_path / "out"), "Whoever makes them."


def test_a_source_that_no_voice_speaks_ends_in_one_line(tmp_path):
    source = dialogues(tmp_path / "a.jsonl", ["วันนี้", "ดี"], ["มา", "ไป"])
    with pytest.raises(
        InputError, match="none of 2 rows can be used. All of them: a text that the voices cannot say, such as "
    ) as error:
        synthesize(CorpusSpec(cast=ESPEAK, hours=0.02, source=(source,)), tmp_path / "out")
    assert "\n" not in str(error.value)
    source = dialogues(tmp_path / "b.jsonl", ["Is it?", "Yes."], ["Was it?", "No."])
    for language, reason in (
        ("xx", "eSpeak NG has no language 'xx': leave"),
        ("Thai", ".*does not say Thai so that it is understood"),
    ):
        with pytest.raises(InputError, match=f"^language={language}: {reason}"):
            synthesize(
                CorpusSpec(cast=ESPEAK, hours=0.02, source=(source,), text=TextSpec(language=language)), tmp_path / "out"
            )


def test_a_shard_of_the_agent_without_a_usable_answer_is_empty(tmp_path, monkeypatch):
    monkeypatch.setattr(dialogue_import, "_NUM_MEASURED", 0)
    monkeypatch.setattr(pipeline, "_SHARD_SIZE", {"train": 4, "dev": 2, "impatient": 2, "agent": 1})
    spec = CorpusSpec(cast=ESPEAK, hours=0.0, dev=0, source=(long_and_short(tmp_path / "a.jsonl", 3, 5),))
    facts = synthesize(spec, tmp_path / "out", ["agent"])["sets"]["agent"]
    assert facts["cuts"] == len(list(CutSet.from_shar(in_dir=tmp_path / "out" / "agent" / "shar"))) >= 4
    assert 2 <= facts["left_out"]["a turn of over 25 s of speech"]["count"] <= 3
    assert synthesize(spec, tmp_path / "out", ["agent"])["sets"]["agent"] == facts


def test_the_built_in_dialogues_keep_their_fingerprint():
    """Corpora of before go on: a new key that has its default, and rules that change none of their samples, are not in it."""
    assert pipeline._maker(CorpusSpec()).fingerprint == "90e52e46565e4f22"


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="this needs about .* kB, and the disk has 1000 B free|this needs about .* MB"):
        synthesize(SPEC, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CorpusSpec(hours=-1), "hours=-1: expected 0 to 1000000"),
        (lambda: CorpusSpec(text=TextSpec(max_odd_rows=1.1)), "max_odd_rows=1.1: expected a share from 0 to 1"),
        (lambda: CorpusSpec(hours=1e9), "hours=1000000000.0: expected 0 to 1000000"),
        (lambda: CorpusSpec(dialogues=DialogueSpec(pause=1.5)), "pause=1.5: expected a share from 0 to 1"),
        (lambda: CorpusSpec(dialogues=DialogueSpec(rhythm=Rhythm(barge_in=-0.1))), "barge_in=-0.1: expected a share"),
        (lambda: CorpusSpec(dialogues=DialogueSpec(duration=12.75)), "duration=12.75: expected .* such as 12.72|such as 12.8"),
        (lambda: CorpusSpec(dialogues=DialogueSpec(duration=1.6)), "duration=1.6: expected 4 to 3600 s"),
        (lambda: CorpusSpec(dialogues=DialogueSpec(rhythm=Rhythm(response_gap=0.0))), "response_gap=0.0: expected seconds"),
        (lambda: CorpusSpec(text=TextSpec(language="de")), "language=de: the built-in dialogues are English"),
        (lambda: synthesize(SPEC, Path("nowhere"), ["test"]), "sets: 'test' is none of train, dev, impatient, agent"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
    assert not Path("nowhere").exists()
