"""A language model behind an endpoint is told what the user says, turn by turn, and what it has answered itself."""

from __future__ import annotations

import pytest

from nemo_duplex.evaluation.judge.chats import LLM_PROMPT, EndpointChats, limited
from nemo_duplex.evaluation.judge.setting import JudgeSetting
from nemo_duplex.files.odd_rows import OddRow
from tests.synthesis.writing.stub_endpoint import Reply, endpoint, saying

CHATS = [("Hello!", "Why?", "Since when?"), ("Hello!",), ("Bye!", "So late?")]


def chats(stub, folder, most_words=5) -> EndpointChats:
    endpoint_of = JudgeSetting(
        llm=stub.url, llm_model="tiny", parallel=2, tries=2, request={"top_p": 1, "response_format": "JSON"}
    ).llm_endpoint(most_words)
    return EndpointChats(endpoint_of, folder, most_words, seed=3, wait=lambda pause: None)


def echo(body, before):
    return saying("To " + body["messages"][-1]["content"])


def test_the_new_prompt_has_a_new_version():
    assert {LLM_PROMPT.version: LLM_PROMPT.sha256} == {
        "gt_llm_prompt_v1": "e72a739f798c172668baa30456cb3fd8715eb4452766237567d484b219e453db"
    }


def test_each_turn_is_asked_with_the_answers_before(tmp_path):
    with endpoint(echo) as stub:
        assert chats(stub, tmp_path).replies(CHATS) == [
            ["To Hello!", "To Why?", "To Since when?"],
            ["To Hello!"],
            ["To Bye!", "To So late?"],
        ]
        last = max(stub.asked, key=lambda body: len(body["messages"]))
        assert len(stub.asked) == 5  # the first question of two chats is one request
        assert chats(stub, tmp_path).replies(CHATS)[0] == ["To Hello!", "To Why?", "To Since when?"] and len(stub.asked) == 5
    system, *rest = last.pop("messages")
    assert last == {"model": "tiny", "temperature": 0, "max_tokens": 65, "seed": 3, "top_p": 1}
    assert system["role"] == "system" and "at most 5 words together" in system["content"]
    assert [(m["role"], m["content"]) for m in rest] == [
        ("user", "Hello!"),
        ("assistant", "To Hello!"),
        ("user", "Why?"),
        ("assistant", "To Why?"),
        ("user", "Since when?"),
    ]


def test_a_chat_with_a_failure_has_no_answers_and_the_others_go_on(tmp_path):
    def answer(body, before):
        return Reply(500, {}) if body["messages"][-1]["content"] == "Why?" else echo(body, before)

    with endpoint(answer) as stub:
        first, *others = chats(stub, tmp_path).replies(CHATS)
    assert isinstance(first, OddRow) and first.reason == "no answer from the endpoint"
    assert others == [["To Hello!"], ["To Bye!", "To So late?"]]
    assert "Since when?" not in str(stub.asked)


def test_an_answer_that_was_cut_is_one_and_so_is_silence(tmp_path):
    with endpoint(lambda body, before: saying("One two. Three four five six", finish_reason="length")) as stub:
        assert chats(stub, tmp_path).replies([("Hi!",)]) == [["One two."]]
    with endpoint(lambda body, before: saying("")) as stub:
        assert chats(stub, tmp_path).replies([("Hi!", "Hm?")]) == [["", ""]]
    assert stub.asked[-1]["messages"][2] == {"role": "assistant", "content": "..."}
    with endpoint(lambda body, before: saying(None, refusal="No.")) as stub:
        (odd,) = chats(stub, tmp_path).replies([("Hi!", "Hm?")])
    assert isinstance(odd, OddRow) and odd.reason == "the model refused"


@pytest.mark.parametrize(
    "text, said",
    [
        ("One two three four five.", "One two three four five."),
        ("One two. Three four! Five six.", "One two. Three four!"),
        ("One two three four five six. Seven.", "One two three four five"),
        ("<think>Which one?</think>\n One\n two ", "One two"),
        ("", ""),
    ],
)
def test_the_limit_of_words(text, said):
    assert limited(text, 5) == said
