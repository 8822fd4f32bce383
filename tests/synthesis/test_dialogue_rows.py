from __future__ import annotations

import pytest

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.synthesis.dialogue_rows import dialogue_id, rows_inside, spoken_turns

ASKED = {"role": "user", "content": "How many?"}
SAID = {"role": "assistant", "content": "Two."}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "look", "arguments": "{}"}}]}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "2"}


def said(row) -> list[tuple[str, str]]:
    return [(user.text, agent.text) for user, agent in spoken_turns(row)]


def messages(*turns) -> list[tuple[str, str]]:
    return said({"messages": list(turns)})


@pytest.mark.parametrize(
    "row",
    [
        {"turns": [{"role": "user", "text": "How many?"}, {"role": "agent", "text": "Two."}]},
        {"turns": [{"speaker": "User ", "text": "How many?"}, {"speaker": "BOT", "text": "Two."}]},
        {"messages": [ASKED, SAID]},
        {"messages": [ASKED, SAID], "prompt": "How many?", "prompt_id": "p", "tools": [], "parallel_tool_calls": False},
        {"messages": [ASKED, SAID | {"weight": 1}]},
        {"messages": [ASKED | {"name": "Ann"}, SAID | {"tool_calls": None, "function_call": None, "refusal": None}]},
        {"messages": [ASKED, {"role": "assistant", "content": None, "refusal": "Two."}]},
        {"messages": [{"role": "system", "content": None}, {"role": "developer", "content": [{"type": "x"}]}, ASKED, SAID]},
        {"conversations": [{"from": "human", "value": "How many?"}, {"from": "gpt", "value": "Two."}], "system": "Be kind."},
        {"conversations": [ASKED, SAID]},
        {"conversations": [
            {"from": "system", "value": "Tools: {}"}, {"from": "human", "value": "How many?"},
            {"from": "function_call", "value": '{"name": "look"}'}, {"from": "observation", "value": "2"},
            {"from": "gpt", "value": "Two."},
        ]},
        {"messages": [ASKED, CALL, RESULT, SAID]},
        {"messages": [ASKED, {"role": "assistant", "function_call": {"name": "look"}}, RESULT | {"role": "function"}, SAID]},
        {"messages": [ASKED, CALL, RESULT, CALL, RESULT, SAID]},
        {"messages": [
            ASKED,
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "2"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Two."}]},
        ]},
        {"conversations": [
            {"from": "human", "value": "How many?"}, {"from": "gpt", "value": '<tool_call>{"name": "look"}</tool_call>'},
            {"from": "tool", "value": "<tool_response>2</tool_response>"}, {"from": "gpt", "value": "Two."},
        ]},
        {"contents": [{"role": "user", "parts": [{"text": "How many?"}]}, {"role": "model", "parts": [{"text": "Two."}]}]},
        {"data": ["How many?", "Two."]},
        {"data": [ASKED, SAID]},
        {"instruction": "How many?", "input": "", "output": "Two."},
        {"instruction": "How", "input": "many?", "output": "Two."},
        {"instruction": "How many?", "input": None, "output": [{"type": "text", "text": "Two."}], "messages": []},
    ],
)  # fmt: skip
def test_every_form_of_row_is_the_same_dialogue(row):
    assert said(row) == [("How many?", "Two.")]


def test_what_the_agent_says_before_and_after_a_tool_is_one_turn():
    assert messages(ASKED, CALL | {"content": "Let me look."}, RESULT, SAID) == [("How many?", "Let me look. Two.")]
    assert messages(ASKED, SAID, CALL, RESULT, SAID) == [("How many?", "Two. Two.")]
    assert messages(ASKED, CALL, RESULT, SAID, ASKED, SAID) == [("How many?", "Two.")] * 2
    with pytest.raises(OddRow, match="two turns of one speaker in a row"):
        messages(ASKED, CALL, RESULT, SAID, SAID)
    with pytest.raises(OddRow, match="two turns of one speaker in a row"):
        messages(ASKED, CALL, RESULT, ASKED, SAID)


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ({"messages": [ASKED, ASKED, SAID]}, "two turns of one speaker in a row", "turn 2 is by 'user' again"),
        ({"messages": [ASKED, SAID, SAID]}, "two turns of one speaker in a row", "turn 3 is by 'assistant' again"),
        ({"messages": [SAID, ASKED, SAID]}, "the agent speaks first", "turn 1 is by 'assistant'"),
        ({"messages": [CALL, RESULT, SAID, ASKED, SAID]}, "the agent speaks first", "turn 3 is by 'assistant'"),
        ({"messages": [ASKED, SAID, ASKED]}, "no answer to the last user turn", "it is 'How many?'"),
        ({"messages": [ASKED, CALL, RESULT]}, "no answer to the last user turn", "it is 'How many?'"),
        ({"messages": [{"role": "system", "content": "Hi."}]}, "no turns", ""),
        ({"messages": [ASKED, {"role": "system", "content": "x"}, SAID]}, "a system message after the first turn", "turn 2"),
        ({"messages": [ASKED, SAID | {"role": "narrator"}]}, "a role that is not known", "turn 2 is by 'narrator'"),
        ({"messages": [ASKED, SAID | {"role": None}]}, "a role that is not known", "turn 2 is by None"),
        ({"messages": [ASKED, SAID | {"weight": 0}]}, "an agent turn of weight 0: not to be learned", "turn 2"),
        ({"messages": [ASKED, SAID | {"content": None}]}, "nothing to say", "turn 2 is None"),
        ({"messages": [ASKED, SAID | {"content": {"a": 1}}]}, "an object instead of a text", "turn 2 is {'a': 1}"),
        (
            {"messages": [ASKED, {"role": "assistant"}]},
            "a turn that is no object with a role and a text",
            "turn 2 is {'role': 'assistant'}",
        ),
        ({"messages": [ASKED, "Two."]}, "a turn that is no object with a role and a text", "turn 2 is 'Two.'"),
        ({"data": ["How many?", 3, "And?", {"a": 1}]}, "a turn that is no object with a role and a text", "turn 4 is {'a': 1}"),
        ({"messages": "[]"}, "no dialogue in the row", "its keys are 'messages'"),
        ({"prompt": "How many?", "completion": "Two."}, "no dialogue in the row", "its keys are 'completion, prompt'"),
        (
            {"message_tree_id": "m", "prompt": {"replies": []}},
            "no dialogue in the row",
            "its keys are 'message_tree_id, prompt'",
        ),
        ({}, "no dialogue in the row", "its keys are ''"),
        ([ASKED, SAID], "a row that is no object", "it is [{'role': 'user', 'content': 'How many?'}, {'role': 'assista"),
        (None, "a row that is no object", "it is None"),
    ],
)
def test_why_a_row_is_no_dialogue(row, reason, detail):
    with pytest.raises(OddRow) as error:
        spoken_turns(row)
    assert (error.value.reason, error.value.detail) == (reason, detail) and error.value.cure


def test_the_kinds_of_things_that_were_taken_out_are_told_with_the_turn():
    ((user, agent),) = spoken_turns({"messages": [ASKED | {"content": "How *many*?"}, SAID | {"content": "Two. 😀"}]})
    assert (user.text, user.taken_out, agent.text, agent.taken_out) == ("How many?", ("Markdown",), "Two.", ("emoji",))


@pytest.mark.parametrize("key", ["data", "rows", "dialogues", "conversations", "examples", "items", "records", "train"])
def test_rows_inside_of_one_object(key):
    rows = [{"messages": [ASKED, SAID]}, {"odd": 1}]
    assert rows_inside({"version": 1, key: rows}) == rows
    assert rows_inside({key: [{"row_idx": i, "row": row} for i, row in enumerate(rows)]}) == rows


@pytest.mark.parametrize(
    "row",
    [{"data": ["a", "b"]}, {"data": [ASKED, SAID]}, {"conversations": [ASKED, SAID]}, {"data": []}, ["a"], {"rows": 1}, None],
)
def test_a_row_is_itself(row):
    assert rows_inside(row) == [row]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"id": "a", "prompt_id": "b"}, "a"),
        ({"prompt_id": "b"}, "b"),
        ({"id": 7}, "7"),
        ({"id": 0}, "0"),
        ({"id": None, "prompt_id": "b"}, "b"),
        ({"id": ""}, None),
        ({"id": {"$oid": "a"}}, None),
        ({"id": "a\ud83d"}, "a?"),
        (["id"], None),
    ],
)
def test_the_id_of_a_row(row, name):
    assert dialogue_id(row) == name
