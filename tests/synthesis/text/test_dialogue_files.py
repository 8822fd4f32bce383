from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.text.dialogue_files import DialogueFiles
from nemo_duplex.synthesis.text.text_spec import TextSpec

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
    by_hash = sorted((row["id"] for row in rows), key=lambda name: hashlib.md5(name.encode()).hexdigest())
    assert dev == set(by_hash[:4])  # in every version: what was held out once is not trained on later
    assert len(dev) == 4 and dev == {shuffled.dialogue("dev", i, RNG).id for i in range(40)}
    train = {source.dialogue("train", i, RNG).id for i in range(40)}
    assert len(train) == 36 and not train & dev
    own, shared = source.dialogue("dev", 0, RNG).exchanges
    assert (own.seen, shared.seen) == (False, True)
    assert sorted(source.agent_texts(100)) == ["No.", "Yes."] and len(source.agent_texts(1)) == 1


def pair(first: str, second: str) -> dict:
    return {"id": "x7", "turns": [{"role": first, "text": "a"}, {"role": second, "text": "b"}]}


GOOD = [{"id": f"d{i}", "data": [f"a{i}", "b"]} for i in range(2)]


@pytest.mark.parametrize(
    ("row", "reason", "where"),
    [
        ({"id": "x7", "data": ["a", "b", "c"]}, "no answer to the last user turn", "2 (dialogue x7): it is 'c'"),
        ({"id": "x7", "data": []}, "no turns", "2 (dialogue x7)"),
        ({"id": "x7", "data": ["a", ""]}, "nothing to say", "2 (dialogue x7): turn 2 is ''"),
        ({"id": "x7", "data": ["?!", "b"]}, "nothing to say", "2 (dialogue x7): turn 1 is '?!'"),
        (pair("user", "user"), "two turns of one speaker in a row", "2 (dialogue x7): turn 2 is by 'user' again"),
        (pair("agent", "user"), "the agent speaks first", "2 (dialogue x7): turn 1 is by 'agent'"),
        (pair("user", "narrator"), "a role that is not known", "2 (dialogue x7): turn 2 is by 'narrator'"),
        (
            {"id": "x7", "turns": ["a", "b"]},
            "a turn that is no object with a role and a text",
            "2 (dialogue x7): turn 1 is 'a'",
        ),
        ({"id": "x7", "question": "a"}, "no dialogue in the row", "2 (dialogue x7): its keys are 'id, question'"),
        (["a", "b"], "a row that is no object", "2: it is ['a', 'b']"),
        ({"id": "d0", "data": ["c", "d"]}, "an id that occurs twice", "2 (dialogue d0)"),
        (
            {"id": "x7", "data": ["a", "b? " * 1501]},
            "a turn of over 25 s of speech",
            "2 (dialogue x7): 1501 letters and digits: 'b? b? b? b? b? b? b? b? b? b? b? b? b? b' ...",
        ),
    ],
)
def test_an_odd_row_is_left_out_and_counted(tmp_path, row, reason, where):
    source = DialogueFiles([lines(tmp_path / "a.jsonl", GOOD[0], row, GOOD[1])])
    assert set(both(source)) == {"d0", "d1"} and both(source)["d0"].exchanges[0].agent == "b"
    assert source.describe()["left_out"] == {reason: {"count": 1, "first": [f"{tmp_path / 'a.jsonl'}:{where}"]}}


def test_a_line_that_is_no_json_is_left_out_and_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{json.dumps(GOOD[0])}\n{{"id": 2\n\n{json.dumps(GOOD[1])}')
    source = DialogueFiles([path])
    (reason,) = source.describe()["left_out"].items()
    assert reason == ("not JSON", {"count": 1, "first": [f"{path}:2: Expecting ',' delimiter at character 10"]})
    assert source.summary() == ["source: 2 dialogues; rows left out: 1", f"  1 x not JSON: {reason[1]['first'][0]}"]


def test_more_odd_rows_than_a_share_end_the_run(tmp_path):
    rows = [*GOOD, *(pair("user", "user") | {"id": f"x{i}"} for i in range(2)), pair("agent", "user")]
    path = lines(tmp_path / "a.jsonl", *rows)
    with pytest.raises(InputError) as error:
        DialogueFiles([path])
    assert str(error.value) == (
        "source: 3 of 5 rows cannot be used, more than max_odd_rows=0.5 allows. 2 of them: two turns of one speaker in a row, "
        f"such as {path}:3 (dialogue x0): turn 2 is by 'user' again. Let the turns alternate, user first and agent last. "
        "To go on with the other 2, set max_odd_rows=0.6."
    )
    assert len(both(DialogueFiles([path], TextSpec(max_odd_rows=0.6)))) == 2


def test_a_text_that_no_voice_can_say_is_an_odd_row(tmp_path):
    asked = []

    def cannot_say(speaker: str, text: str, language: str | None) -> OddRow | None:
        asked.append((speaker, text, language))
        return OddRow("no voice for it", repr(text), "Install one.") if "я" in text else None

    path = lines(tmp_path / "a.jsonl", *GOOD, {"id": "ru", "language": "Russian", "data": ["a", "Да, я."]})
    source = DialogueFiles([path], TextSpec(language="de"), cannot_say=cannot_say)
    assert asked[-2:] == [("user", "a", "Russian"), ("agent", "Да, я.", "Russian")] and asked[0][2] == "de"
    assert source.describe()["left_out"] == {"no voice for it": {"count": 1, "first": [f"{path}:3 (dialogue ru): 'Да, я.'"]}}


def test_rows_name_their_language(tmp_path):
    rows = [{"id": "a", "language": "Hindi", "data": ["a", "b"]}, {"id": "b", "lang": "de", "data": ["a", "c"]}]
    rows += [{"id": "c", "language": None, "data": ["a", "d"]}, {"id": "d", "language": ["x"], "data": ["a", "e"]}]
    path = lines(tmp_path / "a.jsonl", *rows, {"id": "e", "data": ["a", "f"]})
    source = DialogueFiles([path], TextSpec(language="fr"))
    (dev,) = {source.dialogue("dev", i, RNG).id for i in range(9)}
    train = {d.id: d for d in (source.dialogue("train", i, RNG) for i in range(9))}
    languages = {"a": "Hindi", "b": "de", "c": "fr", "d": "fr", "e": "fr"}
    assert {name: d.language for name, d in train.items()} | {dev: source.dialogue("dev", 0, RNG).language} == languages
    assert set(source.agent_texts(9)) == {d.exchanges[0].agent for d in train.values()}
    assert all(source.language_of(d.exchanges[0].agent) == languages[d.id] for d in train.values())
    assert DialogueFiles([path]).dialogue("train", 0, RNG).language in ("Hindi", "de", None)


def test_long_turns_are_measured_when_they_are_spoken(tmp_path):
    row = {"id": "x7", "data": ["a", "b? " * 1500]}
    assert not DialogueFiles([lines(tmp_path / "a.jsonl", *GOOD, row)]).describe()["left_out"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a.jsonl is empty"),
        (b"\n\n", r"a.jsonl holds no rows"),
        (b"hello\n", r"a.jsonl:1: not JSON \(Expecting value\). Write one JSON object per line, or one JSON list"),
        (b'[{"id": 1},\n', r"a.jsonl:2: not JSON"),
        (b'{"id": 1, "data": ["a", "b"]}\n', r"1 dialogue in .*a.jsonl; train and dev need at least two"),
        (b"\xff\xfe\x00", r"a.jsonl is not UTF-16-LE text"),
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


def test_what_was_left_out_is_part_of_what_a_corpus_is_made_of(tmp_path):
    """A voice that is installed on one machine of two: their shards do not belong together."""
    path = lines(tmp_path / "a.jsonl", *GOOD, OTHER)
    whole = DialogueFiles([path]).describe()["sha256"]

    def cannot_say(speaker: str, text: str, language: str | None) -> OddRow | None:
        return OddRow("no voice for it") if text == "One?" else None

    less = DialogueFiles([path], cannot_say=cannot_say, voices="others").describe()["sha256"]
    fewer = DialogueFiles([lines(tmp_path / "b.jsonl", *GOOD)]).describe()["sha256"]
    assert less == fewer != whole
    (tmp_path / "c").mkdir()
    moved = lines(tmp_path / "c" / "other name.jsonl", *GOOD, OTHER | {"data": ["One?", "**Two**."]})
    assert DialogueFiles([moved]).describe()["sha256"] == whole  # it is what is said that counts


def test_what_was_taken_out_is_counted_in_turns_of_the_rows_that_are_used(tmp_path):
    rows = [{"data": ["**One**, *two*?", "Two. 😀"]}, {"data": ["*a*", "b", "c"]}, {"data": ["`Three`?", "Two."]}]
    source = DialogueFiles([lines(tmp_path / "a.jsonl", *rows)])
    assert source.describe()["taken_out"] == {"Markdown": 2, "emoji": 1}
    assert source.summary()[-1] == "  taken out of turns, because nobody says it: Markdown (2), emoji (1)"
    assert [e.agent for d in both(source).values() for e in d.exchanges] == ["Two.", "Two."]


def test_rows_without_ids_are_named_by_file_and_line(tmp_path):
    """In two files of one name by their paths: that is no id that occurs twice."""
    rows = [{"data": [f"Number {i}?", "Yes."]} for i in range(2)]
    (tmp_path / "b").mkdir()
    others = [{"data": [f"Other {i}?", "Yes."]} for i in range(2)]
    first, second = lines(tmp_path / "a.jsonl", *rows), lines(tmp_path / "b" / "a.jsonl", *others)
    assert set(both(DialogueFiles([first]))) == {"a.jsonl:1", "a.jsonl:2"}
    source = DialogueFiles([first, second])
    assert source.describe()["dialogues"] == {"dev": 1, "train": 3} and source.describe()["left_out"] == {}
    names = {source.dialogue("train", i, RNG).id for i in range(3)} | {source.dialogue("dev", 0, RNG).id}
    assert names == {f"{path}:{line}" for path in ("a.jsonl", "b/a.jsonl") for line in (1, 2)}
    assert DialogueFiles([first, first]).describe()["dialogues"] == {"dev": 1, "train": 1}  # it is one file


def test_rows_inside_of_one_object_are_counted_from_one(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"data": [{"data": ["How?", "Two."]}, {"odd": 1}, OTHER]}, indent=1))
    source = DialogueFiles([path])
    assert set(both(source)) == {"a.json:1.1", "other"}
    assert source.describe()["left_out"] == {"no dialogue in the row": {"count": 1, "first": [f"{path}:1: its keys are 'odd'"]}}
