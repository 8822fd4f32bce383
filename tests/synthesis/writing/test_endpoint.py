"""An endpoint that is slow, full, broken or unwilling; and requests that are paid once."""

from __future__ import annotations

import email.utils
from types import SimpleNamespace

import pytest

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.writing import chat_post, replies
from nemo_duplex.synthesis.writing.endpoint import Answers, Endpoint
from nemo_duplex.synthesis.writing.prompts import Request
from tests.synthesis.writing.stub_endpoint import Reply, endpoint, give_up_the_first, saying


def request(number: int) -> Request:
    return Request(f"row-{number}", "dew", "dew", ({"role": "user", "content": f"Say {number}."},), seed=number)


def said(body: dict) -> str:
    return body["messages"][0]["content"]


class Asking:
    """Asks `count` requests; keeps the pauses instead of waiting."""

    def __init__(self, url, folder, count=1, **how) -> None:
        self.pauses: list[float] = []
        self.answers = Answers(Endpoint(url, "tiny", **how), folder, wait=self.pauses.append)
        self.got = [answer.odd or answer.text for _, answer in self.answers.ask(map(request, range(count)))]


def test_what_is_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with endpoint(lambda body, before: saying("yes")) as stub:
        asking = Asking(stub.url, tmp_path, body={"max_tokens": None, "max_completion_tokens": 9, "temperature": 1.0})
    messages = [{"role": "user", "content": "Say 0."}]
    assert stub.asked == [{"model": "tiny", "messages": messages, "temperature": 1.0, "seed": 0, "max_completion_tokens": 9}]
    assert stub.headers["Authorization"] == "Bearer secret"
    assert asking.got == ["yes"] and (asking.answers.tokens, asking.answers.paid, asking.answers.failed) == (10, 1, 0)


def test_answers_come_in_order_though_the_first_is_slow(tmp_path):
    def answer(body, before):
        reply = saying(said(body))
        reply.seconds = 0.2 if said(body) == "Say 0." else 0
        return reply

    with endpoint(answer) as stub:
        asking = Asking(stub.url, tmp_path, count=20, parallel=4)
    assert asking.got == [f"Say {number}." for number in range(20)]
    assert said(stub.asked[0]) != "Say 19."


FAILING = {
    "429": Reply(429, {"error": "slow down"}),
    "500": Reply(500, "<html>oops</html>"),
    "503": Reply(503, {}),
    "no reply": Reply(body=None),
    "no JSON": Reply(200, '{"choices": [{"mess'),
    "no choices": Reply(200, {"choices": []}),
}


@pytest.mark.parametrize("reply", FAILING.values(), ids=FAILING)
def test_a_failure_is_tried_again_with_growing_pauses(tmp_path, reply):
    with endpoint(lambda body, before: reply if before < 3 else saying("at last")) as stub:
        asking = Asking(stub.url, tmp_path)
    assert asking.got == ["at last"] and len(stub.asked) == 4
    assert (asking.answers.failed, asking.answers.paid) == (3, 1)
    assert [0.5 <= pause / 2**number < 1.5 for number, pause in enumerate(asking.pauses)] == [True] * 3


def test_a_slow_answer_is_given_up(tmp_path, monkeypatch):
    give_up_the_first(monkeypatch, 0.2)
    late = saying("slow")
    late.seconds = 600.0
    with endpoint(lambda body, before: late if before == 0 else saying("fast")) as stub:
        asking = Asking(stub.url, tmp_path, timeout=0.2)
    assert asking.got == ["fast"] and asking.answers.failed == 1


@pytest.mark.parametrize("after, seconds", [("7", 7.0), ("0", 0.0), ("9999", 60.0)])
def test_retry_after_is_kept(tmp_path, after, seconds):
    with endpoint(lambda body, before: saying("yes") if before else Reply(429, {}, {"Retry-After": after})) as stub:
        assert Asking(stub.url, tmp_path).pauses == [seconds]


def test_retry_after_as_a_date(tmp_path, monkeypatch):
    monkeypatch.setattr(chat_post, "time", SimpleNamespace(time=lambda: 1_800_000_000.25, monotonic=chat_post.time.monotonic))
    date = email.utils.formatdate(1_800_000_030, usegmt=True)
    with endpoint(lambda body, before: saying("yes") if before else Reply(503, {}, {"Retry-After": date})) as stub:
        assert Asking(stub.url, tmp_path).pauses == [29.75]


def test_an_endpoint_that_never_answers_ends_the_run(tmp_path):
    with (
        endpoint(lambda body, before: Reply(500, {})) as stub,
        pytest.raises(InputError, match=r"no answer in 3 tries \(HTTP 500\)"),
    ):
        Asking(stub.url, tmp_path, tries=3)
    assert len(stub.asked) == 3


REFUSING = {
    401: "Set the environment variable OPENAI_API_KEY.",
    404: r"Check llm \(it ends in /v1, as a rule\) and llm_model.",
    400: r"Change what it names by request=\{key: value\}; null leaves a key out.",
}


@pytest.mark.parametrize("status", REFUSING)
def test_a_request_that_is_refused_is_not_tried_again(tmp_path, status):
    message = rf"refuses the request \(HTTP {status}: .*wrong.*\). {REFUSING[status]}"
    with endpoint(lambda body, before: Reply(status, {"error": {"message": "wrong"}})) as stub:
        with pytest.raises(InputError, match=message):
            Asking(stub.url, tmp_path)
    assert len(stub.asked) == 1


UNUSABLE = {
    "cut": (saying('{"turns": [', finish_reason="length"), replies.CUT),
    "refused": (saying(None, refusal="No."), replies.REFUSED),
    "filtered": (saying("", finish_reason="content_filter"), replies.REFUSED),
    "filtered before": (Reply(400, {"error": {"code": "content_filter"}}), replies.REFUSED),
    "empty": (saying(" "), replies.EMPTY),
}


@pytest.mark.parametrize("reply, reason", UNUSABLE.values(), ids=UNUSABLE)
def test_an_answer_that_cannot_be_used_is_paid_once_too(tmp_path, reply, reason):
    with endpoint(lambda body, before: reply) as stub:
        first, second = Asking(stub.url, tmp_path), Asking(stub.url, tmp_path)
    (odd,) = first.got
    assert isinstance(odd, OddRow) and odd.reason == reason
    assert [o.reason for o in second.got if isinstance(o, OddRow)] == [reason] and len(stub.asked) == 1


def test_each_request_is_paid_once(tmp_path):
    with endpoint(lambda body, before: saying(said(body))) as stub:
        Asking(stub.url, tmp_path, count=5)
        again = Asking(stub.url, tmp_path, count=8)
        other = Asking(stub.url, tmp_path, body={"temperature": 0})
    assert again.got == [f"Say {number}." for number in range(8)] and again.answers.paid == 3
    assert len(stub.asked) == 9 and other.answers.paid == 1
    assert again.answers.tokens == 30, "of the three that were paid"


def test_another_version_of_the_prompts_is_asked_anew(tmp_path, monkeypatch):
    with endpoint(lambda body, before: saying("yes")) as stub:
        Asking(stub.url, tmp_path)
        monkeypatch.setattr("nemo_duplex.synthesis.writing.prompts.VERSION", "prompts-0")
        assert Asking(stub.url, tmp_path).answers.paid == 1


def test_a_kept_answer_that_was_cut_is_asked_again(tmp_path):
    with endpoint(lambda body, before: saying("yes")) as stub:
        Asking(stub.url, tmp_path)
        (kept,) = tmp_path.glob("*/*.json")
        kept.write_text('{"choices": [')
        assert Asking(stub.url, tmp_path).got == ["yes"]


def test_what_is_no_endpoint():
    with pytest.raises(InputError, match="llm=gpt: expected smollm2, or the address of an endpoint, such as"):
        Endpoint("gpt", "tiny")
    with pytest.raises(InputError, match="llm_model: http://host/v1 needs the name of a model. Set llm_model=NAME."):
        Endpoint("http://host/v1", "")


def test_a_password_in_the_address_is_refused_and_not_shown():
    with pytest.raises(InputError, match="llm: expected an address without a password") as error:
        Endpoint("http://me:hunter2@host/v1", "tiny")
    assert "hunter2" not in str(error.value)


def test_an_answer_that_drips_is_given_up(tmp_path, monkeypatch):
    give_up_the_first(monkeypatch, 0.2)
    dripping = saying("slow")
    dripping.pause = 0.05
    with endpoint(lambda body, before: saying("fast") if before else dripping) as stub:
        asking = Asking(stub.url, tmp_path, timeout=0.2)
    assert asking.got == ["fast"] and asking.answers.failed == 1


def test_an_error_that_drips_is_not_waited_for(tmp_path, monkeypatch):
    give_up_the_first(monkeypatch, 0.2)
    dripping = Reply(500, "x" * 4000, pause=0.05)
    with endpoint(lambda body, before: saying("fast") if before else dripping) as stub:
        asking = Asking(stub.url, tmp_path, timeout=0.2)
        assert asking.got == ["fast"] and asking.answers.failed == 1
        assert 0 < stub.dripped < 4000


def test_the_same_request_is_on_its_way_once(tmp_path):
    class Same:
        messages, seed, kept_by = ({"role": "user", "content": "Say it."},), 0, ("v1",)

    slow = saying("it")
    slow.seconds = 0.1
    with endpoint(lambda body, before: slow) as stub:
        answers = Answers(Endpoint(stub.url, "tiny"), tmp_path)
        assert [answer.text for _, answer in answers.ask([Same()] * 5)] == ["it"] * 5
    assert len(stub.asked) == answers.paid == 1


def test_optional_keys_are_left_out_where_they_are_refused(tmp_path):
    def answer(body, before):
        return Reply(400, {"error": {"message": "unknown key"}}) if "response_format" in body else saying(said(body))

    how = {"body": {"response_format": {"type": "json_object"}}, "optional": ("response_format",), "parallel": 1}
    with endpoint(answer) as stub:
        assert Asking(stub.url, tmp_path, count=3, **how).got == ["Say 0.", "Say 1.", "Say 2."]
        assert ["response_format" in body for body in stub.asked] == [True, False, False, False]
        Asking(stub.url, tmp_path, count=3, **how)
    assert len(stub.asked) == 4


def test_a_request_that_is_refused_without_the_optional_keys_ends_the_run(tmp_path):
    how = {"body": {"response_format": {"type": "json_object"}}, "optional": ("response_format",)}
    with endpoint(lambda body, before: Reply(422, {"error": {"message": "no such model"}})) as stub:
        with pytest.raises(InputError, match=r"HTTP 422: .*no such model.*Change what it names by request="):
            Asking(stub.url, tmp_path, **how)
    assert len(stub.asked) == 2


TOO_LONG = {
    "OpenAI, vLLM": Reply(400, {"error": {"message": "This model's maximum context length is 4096 tokens."}}),
    "llama.cpp": Reply(400, {"error": {"message": "the request exceeds the available context size"}}),
    "a proxy": Reply(413, "<html>Payload Too Large</html>"),
}


@pytest.mark.parametrize("reply", TOO_LONG.values(), ids=TOO_LONG)
def test_a_request_that_is_too_long_ends_no_run_and_is_not_kept(tmp_path, reply):
    with endpoint(lambda body, before: reply if said(body) == "Say 1." else saying(said(body))) as stub:
        first, odd, last = Asking(stub.url, tmp_path, count=3).got
    assert (first, last) == ("Say 0.", "Say 2.") and isinstance(odd, OddRow) and odd.reason == "longer than the model's context"
    assert len(list(tmp_path.glob("*/*.json"))) == 2


def test_a_few_requests_may_stay_without_an_answer(tmp_path):
    def answer(body, before):
        return Reply(500, {}) if said(body) in ("Say 1.", "Say 2.", "Say 4.") else saying(said(body))

    with endpoint(answer) as stub:
        asking = Asking(stub.url, tmp_path, count=6, tries=2, most_unanswered=2, parallel=1)
    assert [str(got) for got in asking.got] == [
        "Say 0.",
        *["no answer from the endpoint (HTTP 500)"] * 2,
        "Say 3.",
        "no answer from the endpoint (HTTP 500)",
        "Say 5.",
    ]


def test_more_in_a_row_end_the_run(tmp_path):
    with endpoint(lambda body, before: Reply(500, {}) if said(body) != "Say 0." else saying("yes")) as stub:
        with pytest.raises(InputError, match=r"llm: .* gave no answer in 2 tries \(HTTP 500\)"):
            Asking(stub.url, tmp_path, count=6, tries=2, most_unanswered=2, parallel=1)
    assert [said(body) for body in stub.asked][:7] == ["Say 0.", *(f"Say {n}." for n in (1, 1, 2, 2, 3, 3))]


def test_an_account_without_money_is_not_waited_for(tmp_path):
    with endpoint(lambda body, before: Reply(429, {"error": {"code": "insufficient_quota"}})) as stub:
        with pytest.raises(InputError, match=r"HTTP 429: .*insufficient_quota.*Pay the account of OPENAI_API_KEY"):
            Asking(stub.url, tmp_path)
    assert len(stub.asked) == 1


def test_the_key_goes_to_no_other_host(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with endpoint(lambda body, before: saying("stolen")) as other:
        elsewhere = {"Location": f"{other.url}/chat/completions"}
        with endpoint(lambda body, before: Reply(302, "", elsewhere)) as stub:
            with pytest.raises(InputError, match=r"HTTP 302: .*It sends elsewhere: set llm to the address that answers"):
                Asking(stub.url, tmp_path)
    assert other.asked == []


def test_a_key_that_the_server_repeats_is_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret\n")
    with endpoint(lambda body, before: saying("Your key is sk-secret.")) as stub:
        assert Asking(stub.url, tmp_path).got == Asking(stub.url, tmp_path).got == ["Your key is (key)."]
    assert stub.headers["Authorization"] == "Bearer sk-secret"
    (kept,) = tmp_path.glob("*/*.json")
    assert "sk-secret" not in kept.read_text()
    with endpoint(lambda body, before: Reply(401, {"error": "Incorrect key sk-secret"})) as stub:
        with pytest.raises(InputError, match=r"Incorrect key \(key\)"):
            Asking(stub.url, tmp_path / "other")


def test_a_key_that_cannot_be_sent_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret\nsk-second")
    with (
        endpoint(lambda body, before: saying("yes")) as stub,
        pytest.raises(InputError, match="OPENAI_API_KEY: the key") as error,
    ):
        Asking(stub.url, tmp_path)
    assert "sk-" not in str(error.value)
