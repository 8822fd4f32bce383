from __future__ import annotations

import json

import numpy as np
import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.text_sources import DialogueFiles

RNG = np.random.default_rng(0)
OTHER = {"id": "other", "data": ["One?", "Two."]}


def lines(path, *rows) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return str(path)


def both(source: DialogueFiles) -> dict:
    """{id: dialogue} of a source of two dialogues, one in each split."""
    return {d.id: d for d in (source.dialogue(split, 0, RNG) for split in ("train", "dev"))}


@pytest.mark.parametrize(
    "row",
    [
        {"id": "d", "turns": [{"role": "user", "text": "How are  you?"}, {"role": "agent", "text": "Fine,\nthanks."}]},
        {"id": "d", "messages": [
            {"role": "user", "content": "How are you?"},
            {"role": "assistant", "content": "Fine, thanks."},
        ]},
        {"id": "d", "conversations": [{"from": "human", "value": "How are you?"}, {"from": "gpt", "value": "Fine, thanks."}]},
        {"id": "d", "data": ["How are you?", "Fine, thanks."]},
        {"id": "d", "instruction": "How are", "input": "you?", "output": "Fine, thanks."},
        {"prompt_id": "d", "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "How are you?"},
            {"role": "assistant", "content": "Fine, thanks."},
        ]},
    ],
)  # fmt: skip
def test_every_form_of_row_is_the_same_dialogue(tmp_path, row):
    (exchange,) = both(DialogueFiles([lines(tmp_path / "a.jsonl", row, OTHER)]))["d"].exchanges
    assert (exchange.user, exchange.agent, exchange.answer) == ("How are you?", "Fine, thanks.", "Fine, thanks.")


def test_a_json_list_is_read_too(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"id": "d", "data": ["a b?", "c."]}, OTHER], indent=1))
    assert set(both(DialogueFiles([path]))) == {"d", "other"}


def test_a_tenth_is_kept_for_dev_whatever_the_order(tmp_path):
    rows = [{"id": f"d{i}", "data": [f"Question {i}?", "Yes.", "Same?", "No."]} for i in range(40)]
    source = DialogueFiles([lines(tmp_path / "a.jsonl", *rows)])
    shuffled = DialogueFiles([lines(tmp_path / "b.jsonl", *rows[::-1])])
    dev = {source.dialogue("dev", i, RNG).id for i in range(40)}
    assert len(dev) == 4 and dev == {shuffled.dialogue("dev", i, RNG).id for i in range(40)}
    train = {source.dialogue("train", i, RNG).id for i in range(40)}
    assert len(train) == 36 and not train & dev
    own, shared = source.dialogue("dev", 0, RNG).exchanges
    assert (own.seen, shared.seen) == (False, True)
    assert sorted(source.agent_texts(100)) == ["No.", "Yes."] and len(source.agent_texts(1)) == 1


def pair(first: str, second: str) -> dict:
    return {"id": "x7", "turns": [{"role": first, "text": "a"}, {"role": second, "text": "b"}]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "x7", "data": ["a", "b", "c"]}, r":2 \(dialogue x7\): 3 turns, expected pairs"),
        ({"id": "x7", "data": []}, r"x7\): 0 turns"),
        ({"id": "x7", "data": ["a", ""]}, r"x7\): turn 2 has nothing to say"),
        ({"id": "x7", "data": ["?!", "b"]}, r"x7\): turn 1 has nothing to say"),
        ({"id": "x7", "data": ["a", "b " * 400]}, r"x7\): turn 2 has 799 characters, more than 25 s"),
        (pair("user", "user"), r"x7\): turn 2 is by 'user', expected 'agent'"),
        (pair("agent", "user"), r"x7\): turn 1 is by 'agent', expected 'user'"),
        (pair("user", "narrator"), r"x7\): turn 2 has the role 'narrator'"),
        ({"id": "x7", "turns": ["a", "b"]}, r"x7\): turn 1 is 'a', expected an object with 'role' and 'text'"),
        ({"id": "x7", "question": "a"}, r"x7\): no dialogue in a row with the keys id, question; expected 'turns'"),
        (["a", "b"], r":2: expected an object with turns, got list"),
        ({"id": "other", "data": ["a", "b"]}, r":2: the id 'other' occurs twice"),
    ],
)
def test_an_odd_row_is_named(tmp_path, row, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([OTHER, row]))
    with pytest.raises(InputError, match=message):
        DialogueFiles([path])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a.jsonl is empty"),
        (b"\n\n", r"0 dialogue"),
        (b"hello\n", r"a.jsonl:1: not a row of JSON"),
        (b'{"id": 1, "data": ["a", "b"]}\n{"id": 2', r"a.jsonl:2: not a row of JSON"),
        (b'[{"id": 1},\n', r"a.jsonl:\d: not a row of JSON"),
        (b'{"id": 1, "data": ["a", "b"]}\n', r"1 dialogue in 1 file; train and dev need at least two"),
        (b"\xff\xfe\x00", r"a.jsonl is not UTF-8"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path, content, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        DialogueFiles([path])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="source: there is no file .*nowhere.jsonl"):
        DialogueFiles([tmp_path / "nowhere.jsonl"])
