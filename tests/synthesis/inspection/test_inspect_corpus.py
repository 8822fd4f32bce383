"""What is counted of a corpus whose every turn is known, and the page: its figures, dialogues, and nothing from outside."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
import soundfile

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.inspection import page
from nemo_duplex.synthesis.inspection.histogram import Histogram
from nemo_duplex.synthesis.inspection.inspect_corpus import inspect_corpus, lines
from nemo_duplex.synthesis.inspection.samples import Sample
from nemo_duplex.synthesis.inspection.set_facts import SetFacts
from nemo_duplex.synthesis.inspection.sets import SetShard
from tests.synthesis.inspection.corpora import corpus, dialogues, heard, turns, write

EVENT = {"kind": "cough", "speaker": "user", "start": 0.5, "end": 0.75}
EVIL = '</text><script>alert("1")</script>'


@pytest.fixture(scope="module")
def inspected(tmp_path_factory):
    """A corpus of two sets with an event, a dataset, rows that were left out; what is returned, and the page."""

    def change(cuts):
        cuts[0].custom["events"] = [EVENT, EVENT | {"kind": "<b>", "text": EVIL}]
        for cut in cuts:
            cut.custom["dataset"] = "chat"
        turns(cuts[0], "agent")[0].text = EVIL

    folder = corpus(tmp_path_factory.mktemp("inspected"), change)
    summary = json.loads((folder / "corpus.json").read_text())
    summary |= {"source": {"left_out": {"no answer": {"count": 3, "first": ["a.jsonl:3"]}}}}
    (folder / "corpus.json").write_text(json.dumps(summary))
    result = inspect_corpus(folder, examples=3, progress=False)
    return folder, result, (folder / "inspect.html").read_text()


def test_everything_is_counted(inspected):
    _, result, _ = inspected
    cuts = dialogues("dev")
    users, agents = ([s for cut in cuts for s in turns(cut, who)] for who in ("user", "agent"))
    dev = result["sets"]["dev"]
    assert (dev["cuts"], dev["dialogues"], dev["user_turns"], dev["agent_turns"]) == (4, 4, len(users), len(agents))
    assert dev["hours"] == round(sum(cut.duration for cut in cuts) / 3600, 4)
    assert dev["user_words"] == sum(len(re.findall(r"[\w']+", s.text)) for s in users)
    barge_ins = sum(bool(s.custom.get("barge_in")) for s in users)
    assert dev["barge_ins"] == barge_ins > 0 and dev["barge_in_rate"] == round(barge_ins / (len(agents) - 4), 4)
    assert dev["cut_answers"] == sum("cut" in s.custom for s in agents) > 0
    assert dev["events"] == {"cough": {"count": 1, "seconds": 0.25}, "<b>": {"count": 1, "seconds": 0.25}}
    assert list(dev["hours_of_datasets"]) == ["chat"] and result["left_out"]["the source"]["no answer"]["count"] == 3
    assert dev["voices"] == len({cut.custom["voice"] for cut in cuts}) and list(dev["hours_of_engines"]) == ["tones 1"]
    assert dev["gaps"]["user_to_agent"]["count"] == len(agents) and 0.6 <= dev["gaps"]["user_to_agent"]["p50"] <= 0.68
    assert dev["gaps"]["agent_to_user"]["count"] == len(users) - 4, "the first turn of each has no gap"
    overlaps = sum(n for edge, n in dev["gaps"]["agent_to_user"]["bins"] if edge < -0.5)
    ends = [
        [(s.start, max(a.end for a in turns(cut, "agent") if a.start < s.start)) for s in turns(cut, "user")[1:]]
        for cut in cuts
    ]
    assert overlaps == sum(start - end < -0.5 for each in ends for start, end in each) >= dev["cut_answers"]
    assert dev["turn_seconds"]["user"]["mean"] == pytest.approx(np.mean([s.duration for s in users]), abs=1e-3)


def test_levels_are_measured(inspected):
    levels = inspected[1]["sets"]["dev"]["levels"]
    assert levels["measured_on"] == 4
    assert levels["user_speech_db"]["p50"] == pytest.approx(-26, abs=1.5), "which the corpus was made with"
    assert levels["noise_db"]["p50"] == -120.0


def test_in_short(inspected):
    text = "\n".join(lines(inspected[1]))
    for part in ("dev: 0.02 h, 4 cuts", "events: 1 cough, 1 <b>", "left out of the source: 3 x no answer", "datasets: chat"):
        assert part in text
    assert "inspect.html: open it in a browser" in text


def test_the_same_is_written(inspected):
    folder, result, _ = inspected
    written = json.loads((folder / "inspect.json").read_text())
    assert written == json.loads(json.dumps({key: value for key, value in result.items() if key != "page"}))


def test_the_page_is_whole_and_cannot_be_broken_by_a_text(inspected):
    page = inspected[2]
    bare = re.sub('base64,[^"]+', "", page)
    assert not re.search(r'(src|href)="(?!data:)', bare) and "http" not in bare and "@import" not in bare
    assert "<script>alert" not in page and "<b>" not in page
    assert not re.search(r"\b(None|nan|undefined)\b", bare)
    assert page.count('<article class="conversation">') == 3
    for button in re.findall(r"<button[^>]*>", page):
        assert 'aria-label="Play ' in button
    for picture in re.findall(r"<svg(?![^>]*aria-hidden)[^>]*>", page):
        assert re.search('role="img"', picture) and re.search('aria-label="[^"]+"', picture)


def test_a_dialogue_is_heard_user_left_agent_right(inspected):
    sounds = re.findall('src="data:audio/flac;base64,([^"]+)"', inspected[2])
    names = re.findall(r"<h3>(\S+) <small>", inspected[2])
    by_id = {cut.id: cut for cut in (*dialogues("dev"), *dialogues("train"))}
    for name, sound in zip(names, sounds, strict=True):
        stereo, rate = soundfile.read(io.BytesIO(base64.b64decode(sound)))
        cut = by_id[name]
        assert rate == 16000 and len(stereo) == round(cut.duration * rate)
        user = cut.load_audio()[0]
        assert np.abs(stereo[:, 0] - user).max() < 1e-3
        agent = turns(cut, "agent")[0]
        inside = slice(round((agent.start + 0.1) * rate), round((agent.end - 0.1) * rate))
        assert np.abs(stereo[inside, 1]).mean() > 0.05 > np.abs(stereo[: round((agent.start - 0.05) * rate), 1]).max()


def test_a_shar_folder_gets_no_file(tmp_path):
    """Lhotse would take it for a field."""
    write(tmp_path / "theirs" / "shar", dialogues("dev"))
    before = sorted(path.name for path in (tmp_path / "theirs" / "shar").iterdir())
    result = inspect_corpus(tmp_path / "theirs" / "shar", examples=0, progress=False)
    assert sorted(path.name for path in (tmp_path / "theirs" / "shar").iterdir()) == before
    assert list(result["sets"]) == ["theirs"] and result["page"] == str(tmp_path / "theirs" / "inspect.html")
    result = inspect_corpus(tmp_path / "theirs" / "shar", examples=0, report=tmp_path / "there", progress=False)
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["inspect.html", "inspect.json"]


def test_a_damaged_shard_is_said_and_the_others_are_counted(tmp_path):
    folder = corpus(tmp_path)
    manifest = folder / "dev" / "shar" / "cuts.000000.jsonl.gz"
    manifest.write_bytes(manifest.read_bytes()[:300])
    (folder / "train" / "shar" / "recording.000001.tar").write_bytes(b"")
    heard(dialogues("dev")[0], "user", lambda x: x)
    result = inspect_corpus(folder, examples=8, progress=False)
    assert result["sets"]["dev"]["odd"]["a shard that cannot be read"]["count"] == 1
    assert result["sets"]["dev"]["cuts"] == 1 and result["sets"]["train"]["cuts"] == 4
    assert any("odd: 1 x a shard that cannot be read" in line for line in lines(result))


def test_what_is_no_corpus_is_one_line(tmp_path):
    (tmp_path / "a").write_text("a")
    with pytest.raises(InputError, match="inspect: .* is a file, expected a folder"):
        inspect_corpus(tmp_path / "a")
    with pytest.raises(InputError, match="holds no Lhotse Shar"):
        inspect_corpus(tmp_path)


def test_a_sample_is_the_same_in_any_order_and_half_of_it_eventful():
    cuts, shard = dialogues("dev", 8), SetShard("dev", "000000", {})
    samples = []
    for order in (cuts, cuts[::-1]):
        sample = Sample(4)
        for cut in order:
            sample.add(cut, shard, eventful=int(cut.id[-1]) < 3)
        samples.append(sample.drawn())
    assert samples[0] == samples[1] and [drawn.eventful for drawn in samples[0]] == [True, False, True, False]


def test_a_histogram_keeps_what_lies_outside_in_its_last_bins():
    values = Histogram(0.5, -1, 1)
    for number in (-7, -0.6, -0.5, 0.49, 0.99, 7):
        values.add(number)
    assert values.bins() == [(-1.0, 2), (-0.5, 1), (0.0, 1), (0.5, 2)]
    assert values.coarser(2) == [(-1.0, 3), (0.0, 3)]
    assert values.quantile(0.5) == -0.25 and values.mean == pytest.approx(0.38 / 6)


def test_an_empty_set_has_no_rate():
    facts = SetFacts("dev", {"user": "user", "agent": "agent"})
    assert facts.barge_in_rate is None and facts.describe()["gaps"]["user_to_agent"]["p50"] is None


def test_a_mixture_says_what_each_of_its_corpora_does(tmp_path):
    for name, count in (("chat", 2), ("qa", 5)):
        corpus(tmp_path / name, sets={"dev": dialogues("dev", 1)})
        about = {"source": {"left_out": {"no answer": {"count": count, "first": ["a:1"]}}}, "versions": {name: "1.0"}}
        (tmp_path / name / "corpus.json").write_text(json.dumps(about))
    result = inspect_corpus(tmp_path, examples=0, progress=False)
    assert {name: found["no answer"]["count"] for name, found in result["left_out"].items()} == {
        "chat: the source": 2,
        "qa: the source": 5,
    }
    assert result["made_with"] == {"chat": "1.0", "qa": "1.0"}


def test_a_corpus_of_single_exchanges_has_no_gap_before_the_user(tmp_path):
    cut = dialogues("dev", 1)[0]
    cut.supervisions = [turns(cut, "user")[0], turns(cut, "agent")[0]]
    cut.supervisions[1].custom.pop("cut", None)
    result = inspect_corpus(corpus(tmp_path, sets={"dev": [cut]}), examples=0, progress=False)
    (line,) = [line for line in lines(result) if "gaps:" in line]
    assert (
        line
        == f"  gaps: agent after user {result['sets']['dev']['gaps']['user_to_agent']['p50']} s; 0 barge-ins, 0 answers cut"
    )


def test_the_headline_is_of_all_sets():
    sets = [SetFacts(name, {"user": "user", "agent": "agent"}) for name in ("train", "dev")]
    for facts, gaps in zip(sets, ([0.5] * 3, [1.0] + [2.0] * 3)):
        for gap in gaps:
            facts.answer_gaps.add(gap)
    (card,) = [card for card in page._cards(sets) if card["title"] == "Response gap"]
    assert card["value"] == "0.99 s", "the median of all seven; that of the larger set is 2.01 s"
    assert sets[0].answer_gaps.count == 3
