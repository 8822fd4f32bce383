"""What is heard of a corpus: which turns, whose errors, pooled; judges that are missing are named."""

from __future__ import annotations

import re

import numpy as np
import pytest
from lhotse import fastcopy

from nemo_duplex.benchmark import corpus as benchmark
from nemo_duplex.benchmark.corpus import CorpusSetting, benchmark_corpus, corpus_tables
from nemo_duplex.inputs import InputError, NotInstalled
from tests.synthesis.inspection.corpora import corpus, dialogues, turns


class Deaf:
    """Hears the agent's words but for the last, and nothing of the user; told apart by the sample rate."""

    def __init__(self) -> None:
        self.said = {}

    def transcribe(self, audio: np.ndarray, sample_rate: int) -> str:
        assert len(audio), "a turn is heard"
        return self.said.pop(0) if sample_rate == 22050 and self.said else ""


class Judge:
    heard: list[float] = []  # seconds

    def score(self, audio: np.ndarray, sample_rate: int) -> float:
        self.heard.append(len(audio) / sample_rate)
        assert sample_rate == 22050, "the agent alone is judged"
        return 4.0 if len(audio) > 2 * 22050 else 3.0


@pytest.fixture
def whole(monkeypatch):
    """Dialogues, and the whole turns of them."""
    cuts = dialogues("dev")
    agents = [s for cut in cuts for s in turns(cut, "agent") if "cut" not in s.custom]
    deaf = Deaf()
    Judge.heard.clear()
    deaf.said = [
        s.text.rsplit(" ", 1)[0]
        for cut in sorted(cuts, key=lambda c: c.id)
        for s in turns(cut, "agent")
        if "cut" not in s.custom
    ]
    monkeypatch.setattr(benchmark, "Whisper", lambda: deaf)
    monkeypatch.setattr(benchmark, "DistillMOS", Judge)
    return cuts, agents


def test_whole_turns_are_heard_channel_by_channel(whole, tmp_path):
    cuts, agents = whole
    result = benchmark_corpus(CorpusSetting(str(corpus(tmp_path, sets={"dev": cuts})), dialogues=4))
    users = [s for cut in cuts for s in turns(cut, "user")]
    assert result["dialogues"] == 4 and result["channels"]["user"]["value"] == 1.0
    agent = result["channels"]["agent"]
    assert 0.1 < agent["value"] < 0.5 and agent["ci95"][0] <= agent["value"] <= agent["ci95"][1]
    assert result["channels"]["user"]["n"] > agent["n"] > 0 and len(users) > len(agents)
    of_turns, of_dialogues = result["quality"]["of_turns"], result["quality"]["of_dialogues"]
    assert of_turns["turns"] == len(agents) and 3 <= of_turns["mean"] <= 4
    assert of_dialogues["dialogues"] == len({s.recording_id for s in agents})
    for dialogue in {s.recording_id for s in agents}:
        own = [s.duration for s in agents if s.recording_id == dialogue]
        joined = sum(own) + 0.2 * len(own)  # less where a margin reaches beyond the recording
        assert any(-0.1 < seconds - joined < 0.01 for seconds in Judge.heard), "Joined, without the silence between them."
    assert result["worst"][0]["errors"] >= result["worst"][-1]["errors"] > 0 and result["worst"][0]["transcript"] == ""
    text = "\n".join(table.text() for table in corpus_tables(result))
    assert re.search(r"user +100\.0 %", text) and "DistillMOS of the agent: mean" in text


def test_fewer_dialogues_and_no_quality(whole, tmp_path):
    cuts, _ = whole
    result = benchmark_corpus(CorpusSetting(str(corpus(tmp_path, sets={"dev": cuts})), dialogues=2, quality=False))
    assert result["dialogues"] == 2 and result["quality"] == {"not_run": "not run: quality=false"}
    assert "not run: quality=false" in corpus_tables(result)[0].text()


def test_a_judge_that_is_missing_is_named_and_no_number_stands_for_it(whole, tmp_path, monkeypatch):
    def missing():
        raise NotInstalled("distillmos 0.9.1 is not installed: pip install distillmos==0.9.1")

    monkeypatch.setattr(benchmark, "DistillMOS", missing)
    result = benchmark_corpus(CorpusSetting(str(corpus(tmp_path, sets={"dev": whole[0]})), dialogues=1))
    assert result["quality"] == {"not_run": "not run: distillmos 0.9.1 is not installed: pip install distillmos==0.9.1"}


def test_what_cannot_be_heard_is_one_line(whole, tmp_path):
    with pytest.raises(InputError, match="what=corpus listens to a corpus: give data=FOLDER"):
        benchmark_corpus(CorpusSetting(None))
    cuts, _ = whole
    for cut in cuts:
        for s in cut.supervisions:
            s.language = "de"
    with pytest.raises(InputError, match="has no whole English turn to listen to"):
        benchmark_corpus(CorpusSetting(str(corpus(tmp_path, sets={"dev": cuts}))))


def test_what_cannot_be_read_is_said_and_the_rest_is_heard(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    cuts, _ = whole
    first = turns(cuts[0], "user")[0]
    first.start = cuts[0].duration + 50.0  # outside of the channel
    recording = cuts[1].recording
    cuts[1].recording = fastcopy(recording, sources=[fastcopy(recording.sources[0], source=b"no audio")])
    folder = corpus(tmp_path, sets={"dev": cuts, "train": dialogues("train", 8)})
    manifest = folder / "train" / "shar" / "cuts.000001.jsonl.gz"
    manifest.write_bytes(manifest.read_bytes()[:100])
    (folder / "train" / "shar" / "recording.000002.tar").write_bytes(b"")
    result = benchmark_corpus(CorpusSetting(str(folder), dialogues=16, quality=False))
    assert {reason: found["count"] for reason, found in result["unread"].items()} == {
        "a shard that cannot be read": 1,
        "audio that cannot be decoded": 1,
        "a dialogue whose shard cannot be read": 2,
    }
    assert all(t["text"] != first.text or t["of"] != cuts[0].id for t in result["worst"])
    assert result["groups"]["dev, user, tones 1"]["n"] > 0
    assert "left out: 1 x audio that cannot be decoded: dev-3-0000001: recording" in corpus_tables(result)[0].text()


def test_sets_share_the_dialogues_without_a_progress_bar(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    folder = corpus(tmp_path, sets={"train": dialogues("train", 2), "dev": whole[0]})
    sizes = []
    drawn = benchmark.read_drawn
    monkeypatch.setattr(benchmark, "read_drawn", lambda shards, some: sizes.append(len(some)) or drawn(shards, some))
    benchmark_corpus(CorpusSetting(str(folder), dialogues=6, quality=False))
    assert sizes == [2, 4], "What train has not, dev has."
