from __future__ import annotations

import pytest

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.synthesis.text.dialogue_rows import dialogue_id, rows_inside, spoken_turns
from nemo_duplex.synthesis.text.markup import TOO_MANY

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
        {"conversations": [{"from": "human", "value": None, "text": "How many?"}, SAID]},
        {"conversation": [ASKED | {"language": "English"}, SAID], "turn": 1},  # LMSYS, WildChat
        {"chat_messages": [  # an export of Claude
            {"sender": "human", "text": "How many?", "content": [], "attachments": [], "files": []},
            {"sender": "assistant", "text": "Two.", "attachments": []},
        ]},
        {"conversations": [  # NeMo's multimodal conversations
            {"from": "User", "type": "text", "value": "How many?"}, {"from": "Assistant", "type": "text", "value": "Two."},
        ]},
        {"messages": [ASKED | {"type": "message"}, {"type": "message"} | SAID | {"tool_calls": None, "images": []}]},
        {"messages": [ASKED, {"role": "assistant", "type": "function_call", "content": "{}"}, RESULT, SAID]},
        {"messages": [ASKED | {"type": "audio", "transcript": "How many?", "content": "a.wav"}, SAID]},
        {"instruction": "How many?", "input": "", "output": "Two."},
        {"instruction": "How", "input": "many?", "output": "Two."},
        {"instruction": "How many?", "input": "Noinput", "output": "Two."},
        {"instruction": "How many?", "input": "N/A", "output": "Two."},
        {"instruction": "How many?", "input": float("nan"), "output": "Two.", "history": None},
        {"instruction": "How many?", "input": "", "output": "Two.", "history": [], "messages": {"0": []}},
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
        (
            {"conversations": [{"from": "User", "type": "audio", "value": "a.wav", "duration": 5.7}, SAID]},
            "an image, a sound or another part that is no text",
            "turn 1 is {'from': 'User', 'type': 'audio', 'value': 'a.wav', 'duratio",
        ),
        (
            {"messages": [ASKED | {"images": ["a.png"]}, SAID]},
            "an image, a sound or another part that is no text",
            "turn 1 is ['How many?', {'type': 'images', 'images': ['a.png']}]",
        ),
        (
            {"messages": [ASKED, CALL, RESULT | {"role": "user", "content": [{"type": "tool_result"}, {"text": "Go."}]}, SAID]},
            "two turns of one speaker in a row",
            "turn 3 is by 'user' again, after a call of a tool alone",
        ),
        (
            {"instruction": "A?", "output": "B.", "history": [["How many?", "Two.", "x"]]},
            "a history that is no list of pairs",
            "it is [['How many?', 'Two.', 'x']]",
        ),
        ({"instruction": "A?", "output": "B.", "history": "x"}, "a history that is no list of pairs", "it is 'x'"),
        ({"messages": [ASKED, SAID | {"content": "a *a *" * 99_999}]}, TOO_MANY, "turn 2 is '" + "a *a *" * 8 + "a '"),
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


SPLIT = {"columns": ["instruction", "output"], "index": [0, 1], "data": [["How many?", "Two."], ["When?", "At nine."]]}


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        (SPLIT, "'data' is [['How many?', 'Two.'], ['When?', 'At nine.']]"),
        ({"data": [[0.5, 1], [2, 3]]}, "'data' is [[0.5, 1], [2, 3]]"),
        ({"data": [["How many?", "Two."]]}, "'data' is [['How many?', 'Two.']]"),
        ({"instruction": {"0": "How many?"}, "output": {"0": "Two."}}, "'instruction' is {'0': 'How many?'}"),
        ({"instruction": ["How many?", "When?"], "output": ["Two.", "At nine."]}, "'instruction' is ['How many?', 'When?']"),
        ({"instruction": "How many?", "output": ["Two.", "Three."]}, "'output' is ['Two.', 'Three.']"),
        ({"messages": {"0": [], "1": [SAID]}}, "'messages' is {'0': [], '1': [{'role': 'assistant', 'content': 'Two.'}]}"),
        ({"messages": [[ASKED]]}, "'messages' is [[{'role': 'user', 'content': 'How many?'}]]"),
    ],
)
def test_a_table_by_columns_is_no_dialogue(row, detail):
    assert rows_inside(row) == [row]
    with pytest.raises(OddRow) as error:
        spoken_turns(row)
    assert str(error.value) == f"a table by columns, not by rows ({detail})" and "orient='records'" in error.value.cure


@pytest.mark.parametrize(
    ("row", "cure"),
    [
        ({"prompt": "How many?", "completion": "Two."}, "Name the key of its turns"),
        ({"messages": "[]"}, "Write the turns as a list of objects"),
        (
            {"messages": {"role": ["user", "assistant"], "content": ["How many?", "Two."]}},
            "Write the turns as a list of objects",
        ),
        ({"messages": ["How many?", "Two."]}, "Write the turns as a list of objects"),
        ([ASKED, SAID], 'Write a list of texts as {"data": [...]}, a list of messages as {"messages": [...]}'),
        ({"data": ["How many?", "Two. " * 3000]}, "Split such turns into shorter ones"),
        ({"data": ["How many?", "{Two}"]}, "Write these turns in words"),
    ],
)
def test_the_cure_is_one_for_this_row(row, cure):
    with pytest.raises(OddRow) as error:
        spoken_turns(row)
    assert error.value.cure.startswith(cure)


def test_what_was_said_before_an_instruction_is_a_part_of_the_dialogue():
    row = {
        "instruction": "And",
        "input": "you?",
        "output": "One.",
        "history": [["How many?", "Two."], ["When?", "At **nine**."]],
    }
    assert said(row) == [("How many?", "Two."), ("When?", "At nine."), ("And you?", "One.")]
    with pytest.raises(OddRow, match="nothing to say .turn 2 is None"):
        said(row | {"history": [["How many?", None]]})


def test_the_kinds_of_things_that_were_taken_out_are_told_with_the_turn():
    ((user, agent),) = spoken_turns({"messages": [ASKED | {"content": "How *many*?"}, SAID | {"content": "Two. 😀"}]})
    assert (user.text, user.taken_out, agent.text, agent.taken_out) == ("How many?", ("Markdown",), "Two.", ("emoji",))


@pytest.mark.parametrize("key", ["data", "rows", "dialogues", "conversations", "examples", "items", "records", "train"])
def test_rows_inside_of_one_object(key):
    rows = [{"messages": [ASKED, SAID]}, {"odd": 1}]
    assert rows_inside({"version": 1, key: rows}) == rows
    assert rows_inside({key: [{"row_idx": i, "row": row} for i, row in enumerate(rows)]}) == rows


def test_all_lists_of_rows_inside_of_one_object():
    first, second, third = ({"data": [text, "Two."]} for text in "abc")
    both = {
        "description": "x",
        "train": [first],
        "labels": [1, "x"],
        "validation": [second, third],
        "features": [{"name": "x"}],
    }
    assert rows_inside(both) == [first, second, third]
    assert rows_inside({"train": [first], "test": [{"odd": 1}]}) == [first, {"odd": 1}]  # to be counted
    assert rows_inside({"messages": [ASKED, SAID], "examples": [first]}) == [{"messages": [ASKED, SAID], "examples": [first]}]
    assert rows_inside(first | {"examples": [second]}) == [first | {"examples": [second]}]
    pair = {"instruction": "a", "output": "b", "examples": [first]}
    assert rows_inside(pair) == [pair]


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


def test_the_form_chooses_where_a_row_has_several():
    row = {"prompt": "Why?", "completion": "So.", "messages": [ASKED, SAID], "log": [ASKED, SAID | {"content": "Three."}]}
    for form, expected in [
        (None, ("How many?", "Two.")), ("messages", ("How many?", "Two.")), ("prompt/completion", ("Why?", "So.")),
        ("log", ("How many?", "Three.")),
    ]:  # fmt: skip
        assert [(user.text, agent.text) for user, agent in spoken_turns(row, form)] == [expected]
    with pytest.raises(OddRow, match="no dialogue in the row"):
        spoken_turns(row, "data")
    with pytest.raises(OddRow, match="no dialogue in the row"):
        spoken_turns({"instruction": "a", "output": "b", "query": "c", "answers": ["d"]}, "messages")
    assert said({"question": "How many?", "answer": "Two."}) == [("How many?", "Two.")]
    assert rows_inside({"rows": [row], "other": [{"x": 1}]}, "prompt/completion") == [row]


@pytest.mark.parametrize(
    ("text", "kind"),
    [("Run print('a') now.", "code"), ("a | b\n--|--\nc", "tables"), ("See https://a.org/b now.", "urls")],
)
def test_what_nobody_says_is_refused_where_it_is_not_allowed(text, kind):
    row = {"data": ["How?", text]}
    with pytest.raises(OddRow):
        spoken_turns(row, allowed=tuple({"code", "tables", "urls"} - {kind}))
    if kind != "tables":  # the symbols of a table stay what nobody says
        assert spoken_turns(row, allowed=(kind,))[0][1].text == text
