"""Ratings of answers to interruptions, by the same client, fence and reader as conversations."""

from __future__ import annotations

import json

import pytest

from nemo_duplex.evaluation.judge.interruption import INTERRUPTION_PROMPT, InterruptionRater
from nemo_duplex.evaluation.judge.setting import JudgeSetting
from nemo_duplex.inputs import NotInstalled
from tests.evaluation.judge.stub_judge import PLACE
from tests.synthesis.writing.stub_endpoint import endpoint, saying


def test_the_new_prompt_has_a_new_version():
    assert {INTERRUPTION_PROMPT.version: INTERRUPTION_PROMPT.sha256} == {
        "interruption_prompt_v1": "0441dd49776997d300ca642e15073e88c7f45be836cbc797184c664952cf2d29"
    }


def test_an_answer_is_rated_once(tmp_path):
    with endpoint(lambda body, before: saying('{"score": 5, "reason": "At once."}')) as stub:
        rater = InterruptionRater(JudgeSetting(url=stub.url, model="tiny"), tmp_path)
        assert [rater("Tell me\nof Rome.", "And Paris?", text) for text in ("it is in France", "", "")] == [5.0] * 3
    one, silent = ([message["content"] for message in body["messages"]] for body in stub.asked)
    assert one[0] == INTERRUPTION_PROMPT.text and stub.asked[0]["temperature"] == 0
    assert json.loads(PLACE.search(one[1])[2]) == {
        "before": "Tell me of Rome.",
        "interruption": "And Paris?",
        "answer": "it is in France",
    }
    assert json.loads(PLACE.search(silent[1])[2])["answer"] == "(no response)"


def test_a_rating_that_cannot_be_read_is_none_and_counted(tmp_path):
    with endpoint(lambda body, before: saying('{"score": 5.5}')) as stub:
        rater = InterruptionRater(JudgeSetting(url=stub.url, model="tiny"), tmp_path)
        assert rater("Rome?", "And Paris?", "well") is None
    assert rater.failures.describe() == {"a score out of its range": {"count": 1, "first": ["And Paris?: 5.5"]}}


def test_without_a_judge_there_is_no_rater(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(NotInstalled, match="no judge: give judge.url="):
        InterruptionRater(JudgeSetting(), tmp_path)
