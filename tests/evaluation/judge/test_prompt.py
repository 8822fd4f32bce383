"""What a judge reads; the prompt has a version that changes with it."""

from __future__ import annotations

from nemo_duplex.evaluation.judge.conversations import JudgedConversation, JudgedTurn
from nemo_duplex.evaluation.judge.prompt import JUDGE_PROMPT, judge_messages
from tests.evaluation.judge.stub_judge import data


def test_a_new_prompt_has_a_new_version():
    """Whoever changes the text gives it a new name: scores by two prompts are not comparable."""
    assert {JUDGE_PROMPT.version: JUDGE_PROMPT.sha256} == {
        "judge_prompt_v1": "6b602bcac08a90206df36f34e9dcdb01be20d17cf2791bdb20f2c466f4eb8ed9"
    }


def test_what_stands_in_a_turn():
    turns = (
        JudgedTurn("", ("Yes.", "Sure."), "yes", cut_off=True, answer="yes"),
        JudgedTurn("  Why\n\tthat? ", ("So.",), " \n"),
    )
    assert data({"messages": judge_messages(JudgedConversation("a", "dev", turns))}) == [
        {
            "turn": 1,
            "user": "(not written down)",
            "reference": "Yes.",
            "also_right": ["Sure."],
            "hypothesis": "yes",
            "cut_off": True,
        },
        {"turn": 2, "user": "Why that?", "reference": "So.", "hypothesis": "(no response)"},
    ]
    assert '"per_turn" with 2 numbers' in judge_messages(JudgedConversation("a", "dev", turns))[1]["content"]
    assert '"per_turn" with 1 number,' in judge_messages(JudgedConversation("a", "dev", turns[:1]))[1]["content"]


def test_the_mark_is_made_of_the_data():
    one, other = (judge_messages(JudgedConversation("a", "dev", (JudgedTurn(u, ("So.",), ""),)))[1]["content"] for u in "xy")
    assert one.splitlines()[0] != other.splitlines()[0]
    again = judge_messages(JudgedConversation("b", "test", (JudgedTurn("x", ("So.",), ""),)))[1]["content"]
    assert again == one  # an id is none of the judge's business
