"""What a model answers, however it wraps the JSON; and what is no dialogue."""

from __future__ import annotations

import json

import pytest

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.synthesis.writing import replies
from nemo_duplex.synthesis.writing.replies import written_question, written_turns

TEXTS = ["What is dew?", "Water on grass.", "Why at night?", "Because grass cools."]
TURNS = [{"role": role, "text": text} for role, text in zip(["user", "agent"] * 2, TEXTS)]
WHOLE = json.dumps({"turns": TURNS})


@pytest.mark.parametrize(
    "answer",
    [
        WHOLE,
        f"```json\n{WHOLE}\n```",
        f"Here it is:\n{WHOLE}\nDo you like it?",
        f"<think>I could write {{'turns': 1}}</think>\n{WHOLE}",
        json.dumps(TURNS),
        WHOLE.replace('"agent"', '"Assistant"'),
    ],
)
def test_a_dialogue_in_any_wrapping(answer):
    assert written_turns(answer) == TEXTS


@pytest.mark.parametrize(
    "answer, reason",
    [
        (WHOLE[:-20], replies.NOT_JSON),
        ("User: What is dew?", replies.NOT_JSON),
        ('{"turns": ["What is dew?"]}', replies.NOT_JSON),
        ('{"turns": [{"role": "user", "text": 5}]}', replies.NOT_JSON),
        ("[" * 5, replies.NOT_JSON),
        (json.dumps({"turns": TURNS[:3]}), replies.NOT_FOUR_TURNS),
        (json.dumps({"turns": TURNS[1:] + TURNS[:1]}), replies.NOT_FOUR_TURNS),
        (json.dumps({"turns": TURNS * 2}), replies.NOT_FOUR_TURNS),
        ("I'm sorry, but I can't help with that.", replies.REFUSED),
        ("<think>hm", replies.EMPTY),
    ],
)
def test_what_is_no_dialogue_is_said(answer, reason):
    with pytest.raises(OddRow) as odd:
        written_turns(answer)
    assert odd.value.reason == reason


def test_a_question_and_its_answer():
    assert written_question('{"question": "Who\u2019s there?", "answer": "A\u00a0friend."}') == ["Who's there?", "A friend."]
    with pytest.raises(OddRow, match=replies.NOT_JSON):
        written_question('{"question": "Who is there?", "reply": "A friend."}')
