"""Answers on disk: read again, by key; half a row costs one answer."""

import json

import numpy as np

from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.evaluation.speech.kept_answers import KeptAnswers

SCORER = Scorer("ear", "1", "00")


def test_answers_come_back(tmp_path):
    path = tmp_path / "new" / "quality.jsonl"
    kept = KeptAnswers(path)
    assert not path.exists() and kept.get("a") is None
    kept.add("a", "ear", "d1 agent", {"score": 4.5})
    kept.add("b", "ear", "d2 agent", {"refused": "silence"})
    assert kept.get("a") == {"score": 4.5}
    again = KeptAnswers(path)
    assert again.get("a") == {"score": 4.5} and again.get("b") == {"refused": "silence"}
    assert json.loads(path.read_text().split("\n")[0]) == {
        "key": "a",
        "scorer": "ear",
        "of": "d1 agent",
        "answer": {"score": 4.5},
    }


def test_after_a_half_written_row_the_next_ones_are_whole(tmp_path):
    path = tmp_path / "quality.jsonl"
    KeptAnswers(path).add("a", "ear", "x", {"score": 1.0})
    with open(path, "ab") as file:
        file.write(b'{"key": "b", "scorer": "ear\xff')
    kept = KeptAnswers(path)
    assert kept.get("a") == {"score": 1.0} and kept.get("b") is None
    kept.add("c", "ear", "x", {"score": 2.0})
    kept.add("d", "ear", "x", {"score": 3.0})
    again = KeptAnswers(path)
    assert [again.get(key) for key in "abcd"] == [{"score": 1.0}, None, {"score": 2.0}, {"score": 3.0}]


def test_rows_that_are_no_answers_are_passed_over(tmp_path):
    path = tmp_path / "quality.jsonl"
    path.write_text('[]\n{"key": "a"}\n{"key": "b", "answer": 7}\n\nnull\n{"key": "c", "answer": {"score": 1}}\n')
    kept = KeptAnswers(path)
    assert [kept.get(key) for key in "abc"] == [None, None, {"score": 1}]


def test_the_key_is_of_the_samples_the_rate_and_the_scorer():
    audio = np.arange(8, dtype=np.float32)
    one = KeptAnswers.key(SCORER, audio, 16000)
    assert one == KeptAnswers.key(Scorer("ear", "1", "00", about="said otherwise"), audio.copy(), 16000)
    changed = audio.copy()
    changed[3] += 1
    others = [
        KeptAnswers.key(SCORER, changed, 16000),
        KeptAnswers.key(SCORER, audio, 16001),
        KeptAnswers.key(SCORER, audio.view(np.int32), 16000),
        KeptAnswers.key(Scorer("ear", "2", "00"), audio, 16000),
        KeptAnswers.key(Scorer("ear", "1", "01"), audio, 16000),
        KeptAnswers.key(Scorer("eye", "1", "00"), audio, 16000),
    ]
    assert len({one, *others}) == 7


def test_without_a_file_answers_are_in_memory():
    kept = KeptAnswers(None)
    kept.add("a", "ear", "x", {"score": 1.0})
    assert kept.get("a") == {"score": 1.0}
