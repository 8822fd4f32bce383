from __future__ import annotations

import json
from pathlib import Path

import pytest
from lhotse import CutSet
from omegaconf import OmegaConf

from nemo_duplex.files import atomic
from nemo_duplex.inputs import InputError
from nemo_duplex.scripts.config import load
from nemo_duplex.synthesis import pipeline
from nemo_duplex.synthesis import run as run_module
from nemo_duplex.synthesis.corpus_spec import corpus_spec
from nemo_duplex.synthesis.dialogue_spec import Events
from nemo_duplex.synthesis.mixture import Part, parts_of, summarize_mixture
from nemo_duplex.synthesis.pipeline import synthesize
from nemo_duplex.synthesis.run import run
from nemo_duplex.words import words


def keys(out: Path, *overrides: str, **datasets: dict) -> dict:
    given = OmegaConf.to_container(load("synthesize", [f"out={out}", "workers=1", *overrides]))
    return given | {"datasets": datasets}


def test_without_datasets_there_is_one_corpus_in_the_folder_itself(tmp_path):
    (part,) = parts_of(keys(tmp_path, "seed=7"))
    assert part.out == tmp_path and part.name is None and part.keys["seed"] == 7


def test_a_dataset_has_the_keys_of_the_run_and_its_own(tmp_path):
    given = keys(tmp_path, "seed=7", "scale=0.5", "pause=0.2", short={"hours": 3}, told={"read_aloud": 1.0, "pause": 0.0})
    short, told = parts_of(given)
    assert (short.name, short.out, short.keys["hours"], short.keys["pause"]) == ("short", tmp_path / "short", 1.5, 0.2)
    assert (told.keys["hours"], told.keys["read_aloud"], told.keys["pause"]) == (0.5, 1.0, 0.0)
    assert len({7, short.keys["seed"], told.keys["seed"]}) == 3, "Datasets with one seed would draw the same voices."
    assert [part.keys["seed"] for part in parts_of(given)] == [short.keys["seed"], told.keys["seed"]]
    given = keys(tmp_path, a={"user_voices": {"train": {"kokoro": 2.0}}}) | {"user_voices": {"train": {"pico": 1.0}, "dev": {}}}
    assert parts_of(given)[0].keys["user_voices"] == {"train": {"kokoro": 2.0}, "dev": {}}, "Nobody but who is named."


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"hour": 3}, "datasets.a: unknown key 'hour'. Did you mean 'hours'"),
        ({"out": "x"}, "datasets.a: unknown key 'out'"),
        ({"workers": 3}, "datasets.a: unknown key 'workers'"),
        ({"codec": "x"}, "datasets.a: unknown key 'codec'"),
        ({"impatient_of": "x"}, "datasets.a: unknown key 'impatient_of'"),
        ({"examples": 3}, "datasets.a: unknown key 'examples'"),
        (5, "datasets.a=5: expected keys"),
        (["hours"], "datasets.a=.'hours'.: expected keys"),
        ({"hours": "x"}, "datasets.a.hours=x: expected a number from 0"),
        ({"hours": None}, "datasets.a.hours=null: expected a number from 0"),
        ({"hours": True}, "datasets.a.hours=true: expected a number from 0"),
        ({"timing": 3}, "datasets.a.timing=3: expected keys"),
        ({"timing": {"prompt": 2}}, "datasets.a.timing.prompt=2: expected a share"),
        ({"timing": {"promt": 0.2}}, "datasets.a.timing: unknown key 'promt'. Did you mean 'prompt'"),
        ({"user_voices": {"train": 3}}, "datasets.a.user_voices.train=3: expected keys"),
        (
            {"source": ["none.jsonl"], "obtained": "ask Ada"},
            "datasets.a: there is no file none.jsonl. .*: ask Ada",
        ),
    ],
)
def test_what_is_wrong_with_a_dataset_names_it(tmp_path, own, message):
    with pytest.raises(InputError, match=f"^{message}"):
        parts_of(keys(tmp_path, a=own))


def test_values_of_a_dataset_are_taken_as_the_script_takes_them(tmp_path):
    (tmp_path / "abc").touch()
    (part,) = parts_of(keys(tmp_path, a={"source": str(tmp_path / "abc"), "hours": 2, "language": 7}))
    assert part.keys["source"] == [str(tmp_path / "abc")] and part.keys["language"] == "7"
    assert repr(part.keys["hours"]) == "2.0"


@pytest.mark.parametrize("name", ["a b", "../a", ""])
def test_the_name_of_a_dataset_is_the_name_of_a_folder(tmp_path, name):
    with pytest.raises(InputError, match="dataset"):
        run(keys(tmp_path, **{name: {"hours": 0.001}}))


@pytest.mark.slow
def test_a_mixture_is_a_corpus_for_each_dataset_and_a_summary_of_all(tmp_path, capsys):
    made = keys(
        tmp_path,
        "dev=1",
        "sets=[train,dev]",
        "hours=0.004",
        "duration=7.2",
        questions={},
        told={"read_aloud": 1.0, "hours": 0.002},
    )
    run(made)
    printed = capsys.readouterr().out
    summary = json.loads((tmp_path / "mixture.json").read_text())
    assert list(summary["datasets"]) == ["questions", "told"]
    assert [summary["datasets"][name]["cuts"] for name in ("questions", "told")] == [2, 1]
    assert summary["total"]["hours"] == pytest.approx(0.006) and summary["total"]["cuts"] == 3
    assert "mixture: hours 0.006, cuts 3" in printed and "questions train: hours 0.004" in printed
    ids = []
    for name in ("questions", "told"):
        for cut in CutSet.from_shar(in_dir=tmp_path / name / "train" / "shar"):
            assert cut.custom["dataset"] == name and cut.id.startswith(f"{name}-train-")
            ids.append(cut.id)
    assert len(set(ids)) == 3
    texts = (tmp_path / "texts.txt").read_text().splitlines()
    spoken = [words((tmp_path / name / "texts.txt").read_text()) for name in ("questions", "told")]
    assert [summary["datasets"][name]["words"] for name in ("questions", "told")] == [len(set(each)) for each in spoken]
    assert summary["total"]["words"] == len(set(spoken[0]) | set(spoken[1]))
    own = [set((tmp_path / name / "texts.txt").read_text().splitlines()) for name in ("questions", "told")]
    assert set(texts) == own[0] | own[1] and texts == sorted(texts)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    run(made)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


TWO = ("dev=1", "sets=[dev]", "agent_voice=espeak", "user_voices.train={espeak: 1}", "user_voices.dev={espeak: 1}")


def test_a_dataset_of_no_mixture_is_a_corpus_alone(tmp_path):
    run(keys(tmp_path, "dataset=foo", *TWO))
    assert (tmp_path / "corpus.json").is_file() and not (tmp_path / "mixture.json").exists()


def test_the_last_slice_to_end_summarizes_the_mixture(tmp_path, monkeypatch, capsys):
    """Job 1 makes its part of all datasets while job 0 is between the first and the second."""
    monkeypatch.setattr(pipeline, "_SHARD_SIZE", dict.fromkeys(pipeline.SETS, 1))
    second = keys(tmp_path, "slice=1/2", *TWO, "dev=2", a={}, b={})
    wait = [True]

    def interleaved(spec, out, *how):
        if wait and out.name == "b":
            wait.clear()
            run(second)
        return synthesize(spec, out, *how)

    monkeypatch.setattr(run_module, "synthesize", interleaved)
    run(keys(tmp_path, "slice=0/2", *TWO, "dev=2", a={}, b={}))
    assert list(json.loads((tmp_path / "mixture.json").read_text())["datasets"]) == ["a", "b"]
    printed = capsys.readouterr().out
    assert printed.count("b: slice 1/2 is done, others are not yet") == 1 and "slice 0/2" not in printed
    assert printed.count("mixture: ") == 1 and printed.count("a dev: ") == 2


# --- the mixtures of the project -------------------------------------------------------------------------------------------


def parts_with_texts(name: str, tmp_path: Path, monkeypatch, *overrides: str) -> list[Part]:
    """The datasets of a mixture, with a file wherever it looks for texts."""
    monkeypatch.chdir(tmp_path)
    given = OmegaConf.to_container(load(f"data/{name}", [f"out={tmp_path}", *overrides]))
    for dataset in given["datasets"].values():
        for pattern in dataset.get("source", []):
            path = tmp_path / pattern.replace("*", "a")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return parts_of(given)


def test_the_papers_mixture_is_table_1(tmp_path, monkeypatch):
    parts = parts_with_texts("paper", tmp_path, monkeypatch)
    table = {p.name: (p.keys["hours"], p.keys["concatenate"], p.keys["barge_in"] > 0) for p in parts}
    assert table == {
        "asr_qa": (20000, 2, False), "ms_marco": (200, 2, False), "alpaca": (200, 2, False),
        "sft": (3000, 1, True), "ultrachat": (3000, 2, True), "topic": (300, 2, True),
    }  # fmt: skip
    assert sum(hours for hours, _, _ in table.values()) == 26_700
    for part in parts:
        spec = corpus_spec(part.keys).dialogues
        assert corpus_spec(part.keys).cast.train == (("kokoro", 1.0),), "Nobody but who is named."
        assert spec.events == Events() and (spec.pause, spec.quiet, spec.rhythm.long_silence) == (0.0, 0.0, 0.0)
        assert (spec.rhythm.response_gap, spec.rhythm.stop_delay) == (0.64, 0.64)
        assert spec.rhythm.gaps is None and spec.rhythm.response_gaps is None
        sound, line = spec.acoustics, spec.acoustics.transmission
        assert not any((sound.noise, sound.room, sound.leak, line.tilt, line.telephone, line.clipping, line.packet_loss))
        assert part.obtained and part.keys["text"]["longest_turn"] == 25.0
        assert part.keys["text"]["max_words"] == (30 if part.name in ("ultrachat", "topic") else None)
    assert [p.name for p in parts if "impatient" in p.keys["sets"]] == ["asr_qa"]


def test_the_mixture_of_voices_has_flite_in_no_train_set(tmp_path, monkeypatch):
    parts = parts_with_texts("voices", tmp_path, monkeypatch, "scale=0.1")
    assert {p.name: p.keys["hours"] for p in parts} == {"questions": 4.0, "aloud": 1.0, "everyday": 5.0}
    for part in parts:
        spec = corpus_spec(part.keys)
        assert spec.cast.agent == "hibari" and "flite" not in dict(spec.cast.train) and "flite" in dict(spec.cast.dev)
        assert spec.dialogues.rhythm.gaps is not None and spec.dialogues.events.backchannel > 0


@pytest.mark.parametrize("name", ["paper", "voices"])
def test_texts_that_are_not_there_are_named_with_how_they_are_obtained(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="datasets.(asr_qa|everyday): there is no file texts/.* examples/write_dialogues.py"):
        parts_of(OmegaConf.to_container(load(f"data/{name}", [f"out={tmp_path}"])))


def test_what_a_killed_run_left_beside_the_summary_is_removed(tmp_path):
    (tmp_path / f".part-{atomic._here()}-{1 << 22}-texts.txt").write_text("half")
    summarize_mixture(tmp_path, [], [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mixture.json", "texts.txt"]
