"""A whole run: rows that follow the rules, a summary that counts the others, and the same rows after any interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nemo_duplex.files import atomic
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.writing import near_duplicates, replies, rules, run, turn_by_turn
from nemo_duplex.synthesis.writing.endpoint import Endpoint
from nemo_duplex.synthesis.writing.prompts import topic_request
from nemo_duplex.synthesis.writing.run import WritingSpec, write_dialogues
from nemo_duplex.synthesis.writing.turn_by_turn import Drawn
from tests.synthesis.writing.stub_endpoint import Reply, Stub, endpoint, saying

ROOT = Path(__file__).parents[3]
WORDS = "river stone cloud tiger apple window garden silver candle forest bridge meadow".split()


def dialogue(number: int) -> list[str]:
    a, b, c = (WORDS[number % 12], WORDS[number // 12 % 12], WORDS[number // 3 % 12])
    return [
        f"Why is every {a} near a {b} so pretty?",
        f"A {a} is pretty because morning light number {chr(97 + number % 26)} makes it shine over the {b}.",
        f"And what about the {c} behind the mountain road?",
        f"That {c} hides from rain, and {b} people visit with {a} baskets every {chr(97 + number // 26 % 26)} autumn.",
    ]


def unlike(number: int) -> list[str]:
    """Four turns that no other number has."""
    rng = np.random.default_rng(number)
    return [" ".join("".join(rng.choice(list("bdfgklmnprst"), 4)) for _ in range(9)) for _ in range(4)]


def as_answer(turns: list[str]) -> str:
    return json.dumps({"turns": [{"role": ("user", "agent")[n % 2], "text": text} for n, text in enumerate(turns)]})


def scripted(body: dict, before: int) -> Reply:
    """By the seed of a request: one good dialogue in two, the others bad in a way of their own, some after a failure."""
    number = body["seed"] % 1000
    if number % 7 == 0 and before == 0:
        return Reply(500, {})
    bad = {
        1: saying("{broken"),
        3: saying("cut", finish_reason="length"),
        5: saying(as_answer([*dialogue(number)[:3], "Why do you ask me that today?"])),
    }
    return bad.get(number % 8) or saying(as_answer(dialogue(number)))


@pytest.fixture
def quick(monkeypatch):
    """Topics name what the stub talks about, and nobody waits."""
    monkeypatch.setattr(run, "Answers", lambda *a: _Answers(*a, wait=lambda seconds: None))


_Answers = run.Answers


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "dialogues.jsonl").read_text().splitlines()]


def number_of(place: str) -> int:
    """Of the chat that a row, or a rejected one, is about."""
    return int(place.split(":")[0].removeprefix("ultrachat-0-chat"))


CHATS = [
    {"id": f"chat{n}", "data": [f"Tell me about number {WORDS[n % 12]} {WORDS[n // 12]}.", "It is there."]} for n in range(60)
]


def chat_spec(out: Path, stub: Stub, count: int = 10, **how) -> WritingSpec:
    source = out.parent / "chats.jsonl"
    source.write_text("\n".join(map(json.dumps, CHATS)))
    return WritingSpec("ultrachat", out, count, 0, (str(source),), Endpoint(stub.url, "tiny", parallel=3), **how)


def by_chat(body: dict, before: int) -> Reply:
    """Like `scripted`, by the number of the chat in the prompt."""
    text = body["messages"][0]["content"].split("<chat>\n")[1]
    words = text.split("number ")[1].split(".")[0].split()
    return scripted({"seed": WORDS.index(words[0]) + 12 * WORDS.index(words[1])}, before)


def test_chats_become_dialogues(tmp_path, quick):
    with endpoint(by_chat) as stub:
        summary = write_dialogues(chat_spec(tmp_path / "out", stub))
    written = rows(tmp_path / "out")
    assert len(written) == summary["accepted"] == 10 and summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    first = written[0]
    assert list(first) == ["id", "source", "topic", "turns", "written_by", "prompt_version"]
    assert (first["source"], first["written_by"], first["prompt_version"]) == ("ultrachat", "tiny", "prompts-1")
    assert [turn["role"] for turn in first["turns"]] == ["user", "agent", "user", "agent"]
    ways = {replies.NOT_JSON: 1, replies.CUT: 3, rules.ASKS: 5}  # in which `scripted` is bad
    assert set(summary["rejected"]) == {*ways, near_duplicates.NEAR_DUPLICATE}
    assert not {number_of(row["id"]) % 8 for row in written} & {*ways.values()}
    for reason, way in ways.items():
        assert {number_of(place) % 8 for place in summary["rejected"][reason]["first"]} == {way}
    assert (
        summary["asked"] == 10 + sum(found["count"] for found in summary["rejected"].values()) and summary["tries_failed"] > 0
    )


def test_a_run_that_goes_on_asks_for_no_answer_twice(tmp_path, quick):
    with endpoint(by_chat) as stub:
        write_dialogues(chat_spec(tmp_path / "whole", stub))
        write_dialogues(chat_spec(tmp_path / "parts", stub, count=3))
        before = len(stub.asked)
        summary = write_dialogues(chat_spec(tmp_path / "parts", stub))
        paid = len(stub.asked) - before - summary["tries_failed"]
        again = write_dialogues(chat_spec(tmp_path / "parts", stub))
    whole, parts = tmp_path / "whole" / "dialogues.jsonl", tmp_path / "parts" / "dialogues.jsonl"
    assert whole.read_bytes() == parts.read_bytes()
    assert paid == summary["requests_paid"] and again["requests_paid"] <= 6  # two for each that may be on its way
    assert [10 * run["requests_paid"] for run in (summary, again)] == [run["tokens"] for run in (summary, again)]


def test_topics(tmp_path, quick):
    """The words of a topic must be in the first question; this stub talks about something else, but for one request."""
    asked = [topic_request(0, index) for index in range(3)]
    about = asked[2].subject.split()[0]
    on_topic = [f"Why is {about} so pretty?", f"Morning light makes {about} shine over the bridge.", *dialogue(3)[2:]]

    def answer(body: dict, before: int) -> Reply:
        return saying(as_answer(on_topic if body["messages"] == list(asked[2].messages) else dialogue(3)))

    with endpoint(answer) as stub:
        summary = write_dialogues(WritingSpec("topic", tmp_path / "out", 1, endpoint=Endpoint(stub.url, "tiny")))
    first = [f"topic-0-{index}: {asked[index].topic}: {dialogue(3)[0]}" for index in range(2)]
    assert summary["rejected"] == {rules.OFF_TOPIC: {"count": 2, "first": first}}
    assert (summary["asked"], summary["accepted"]) == (3, 1)
    assert [(row["id"], row["topic"]) for row in rows(tmp_path / "out")] == [("topic-0-2", asked[2].topic)]


def test_questions_about_recordings(tmp_path, quick):
    manifest = tmp_path / "manifest.json"
    texts = {"one": "the train to the coast was late again", "two": "we bought seven apples at the market", "three": "hm"}
    manifest.write_text("\n".join(json.dumps({"audio_filepath": f"{name}.wav", "text": text}) for name, text in texts.items()))

    def answer(body: dict, before: int) -> Reply:
        late = "train" in body["messages"][0]["content"]
        return saying('{"question": "What was late?", "answer": "The train."}' if late else '{"question": "What?"}')

    with endpoint(answer) as stub:
        spec = WritingSpec("asr_qa", tmp_path / "out", None, 0, (str(manifest),), Endpoint(stub.url, "tiny"))
        summary = write_dialogues(spec)
    assert rows(tmp_path / "out") == [
        {
            "utt_id": "one.wav",
            "question": "What was late?",
            "answer": "The train.",
            "written_by": "tiny",
            "prompt_version": "prompts-1",
        }
    ]
    assert summary["rejected"][replies.NOT_JSON]["count"] == 1
    assert summary["rows_left_out"]["a transcript that is too short to ask about"]["count"] == 1


CHILD = """
import sys
from tests.synthesis.writing.test_run import *
url, out = sys.argv[1:]
write_dialogues(chat_spec(Path(out), Stub(url, [], {})))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path, quick):
    def slow(body: dict, before: int) -> Reply:
        reply = by_chat(body, 1)
        reply.seconds = 0.1
        return reply

    with endpoint(slow) as stub:
        write_dialogues(chat_spec(tmp_path / "whole", stub))
        num_whole = len(stub.asked)
        child = subprocess.Popen([sys.executable, "-c", CHILD, stub.url, str(tmp_path / "out")], cwd=ROOT, env=os.environ)
        while len(stub.asked) < num_whole + 7:
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        write_dialogues(chat_spec(tmp_path / "out", stub))
    assert (tmp_path / "whole" / "dialogues.jsonl").read_bytes() == (tmp_path / "out" / "dialogues.jsonl").read_bytes()
    asked = [json.dumps(body) for body in stub.asked[num_whole:]]
    assert len(asked) - len(set(asked)) <= 3  # those that were on their way


# --- SmolLM2 ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """A model that writes one bad dialogue in four, in no time; the numbers of the batches that it wrote."""
    batches: list[int] = []

    def write_batch(model: object, tokens: object, seed: int, first: int, count: int) -> tuple[list[Drawn], int]:
        batches.append(first // count)
        faults = {number: turn_by_turn.UNSURE for number in range(0, 10_000, 4)}
        numbers = range(first, first + count)
        return [Drawn("nature", "stones", unlike(number + seed), faults.get(number)) for number in numbers], 50 * count

    monkeypatch.setattr(turn_by_turn, "write_batch", write_batch)
    monkeypatch.setattr(run, "open_smollm2", lambda folder: ("model", "tokens"))
    return batches


def test_dialogues_of_smollm2(tmp_path, small):
    summary = write_dialogues(WritingSpec("topic", tmp_path, 120))
    assert len(rows(tmp_path)) == summary["accepted"] == 120 and small == [0, 1]
    assert rows(tmp_path)[0]["id"] == "topic-0-1" and rows(tmp_path)[0]["topic"] == "nature"
    assert summary["tokens"] == 2 * 128 * 50 and summary["rejected"][turn_by_turn.UNSURE]["count"] >= 20
    assert "SmolLM2-135M-Instruct" in rows(tmp_path)[0]["written_by"]


def test_batches_on_disk_are_not_written_again(tmp_path, small):
    write_dialogues(WritingSpec("topic", tmp_path / "whole", 120))
    write_dialogues(WritingSpec("topic", tmp_path / "parts", 20))
    kept = next((tmp_path / "parts" / "written").glob("*/000000.json"))
    write_dialogues(WritingSpec("topic", tmp_path / "parts", 120))
    assert small == [0, 1, 0, 1]
    assert (tmp_path / "whole" / "dialogues.jsonl").read_bytes() == (tmp_path / "parts" / "dialogues.jsonl").read_bytes()
    kept.write_text("[]")
    write_dialogues(WritingSpec("topic", tmp_path / "parts", 120))
    assert small[4:] == [0]


def test_another_seed_is_written_anew(tmp_path, small):
    write_dialogues(WritingSpec("topic", tmp_path, 5))
    write_dialogues(WritingSpec("topic", tmp_path, 5, seed=1))
    assert small == [0, 0] and rows(tmp_path)[0]["id"].startswith("topic-1-")
    assert json.loads((tmp_path / "summary.json").read_text())["rows_replaced"] == 5


def test_ctrl_c_keeps_what_was_accepted(tmp_path, small, monkeypatch):
    written = turn_by_turn.write_batch

    def interrupted(*args: object, first: int, **how: object) -> object:
        if first >= 128:
            raise KeyboardInterrupt
        return written(*args, first=first, **how)

    monkeypatch.setattr(turn_by_turn, "write_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_dialogues(WritingSpec("topic", tmp_path, 120))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert len(rows(tmp_path)) == summary["accepted"] == 96


def test_rows_that_a_smaller_count_leaves_out_are_counted(tmp_path, small):
    assert write_dialogues(WritingSpec("topic", tmp_path, 20))["rows_replaced"] == 0
    assert write_dialogues(WritingSpec("topic", tmp_path, 5))["rows_replaced"] == 15
    assert len(rows(tmp_path)) == 5
    assert write_dialogues(WritingSpec("topic", tmp_path, 20))["rows_replaced"] == 0


def test_an_interrupted_run_leaves_the_longer_file_of_an_earlier_one(tmp_path, small, monkeypatch):
    write_dialogues(WritingSpec("topic", tmp_path, 120))
    whole = (tmp_path / "dialogues.jsonl").read_bytes()

    def interrupted(self: object, written: object) -> bool:
        if self._asked == 50:
            raise KeyboardInterrupt
        return judge(self, written)

    judge = run.WrittenFile._judge
    monkeypatch.setattr(run.WrittenFile, "_judge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_dialogues(WritingSpec("topic", tmp_path, 500))
    assert (tmp_path / "dialogues.jsonl").read_bytes() == whole


def test_what_a_killed_run_left_unfinished_is_removed(tmp_path, small):
    left = [tmp_path / name / f".part-{atomic._here()}-{1 << 22}-x.json" for name in (".", "written/a", "answers/0f")]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    write_dialogues(WritingSpec("topic", tmp_path, 5))
    assert not any(path.exists() for path in left)


WRONG = {
    "what=poem: expected one of topic, ultrachat, asr_qa.": {"what": "poem"},
    "llm=smollm2 writes what=topic alone. Give an endpoint": {"what": "asr_qa", "source": ("a",)},
    r"source: what=ultrachat needs files to write from. Set source=\[FILE\].": {
        "what": "ultrachat",
        "endpoint": Endpoint("http://host/v1", "m"),
    },
    "count: what=topic needs a number of dialogues. Set count=1000.": {"what": "topic", "count": None},
}


@pytest.mark.parametrize("message, given", WRONG.items(), ids=WRONG)
def test_a_spec_that_cannot_be_used(tmp_path, message, given):
    with pytest.raises(InputError, match=message):
        WritingSpec(**{"out": tmp_path, "count": 5, **given})
