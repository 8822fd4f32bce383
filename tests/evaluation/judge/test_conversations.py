"""Who answered what, from times."""

from __future__ import annotations

import subprocess
import sys

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.judge.conversations import JudgedTurn, judged_conversations
from nemo_duplex.evaluation.outcome import Outcome, questions


def outcome(*speech: tuple[float, float], **custom) -> Outcome:
    user = [Turn("user", 2.0, 3.0, "What is red?", language="en-GB"), Turn("user", 6.0, 7.0, "And what is blue?")]
    agent = [Turn("agent", 3.5, 5.0, "An apple.", custom={"answer": "apple"}), Turn("agent", 7.5, 9.0, "The", "The sky.")]
    conversation = Conversation("a", 10.0, tuple(sorted(user + agent, key=lambda t: t.start)), custom)
    return Outcome(conversation, questions(conversation), (), speech)


def heard(*pieces: tuple[float, str]) -> dict[str, list[Turn]]:
    return {"a": [Turn("agent", start, start + 0.5, text) for start, text in pieces]}


def turns(found: Outcome, transcripts: dict[str, list[Turn]]) -> list[JudgedTurn]:
    (conversation,) = judged_conversations("dev", [found], transcripts)
    assert (conversation.id, conversation.set) == ("a", "dev")
    return list(conversation.turns)


def test_a_hypothesis_is_all_that_begins_between_two_questions():
    pieces = heard((0.5, "hello"), (2.0, "red"), (3.5, " an "), (5.9, "apple"), (6.0, "the"), (9.0, "sky"))
    assert turns(outcome(), pieces) == [
        JudgedTurn("What is red?", ("An apple.",), "red an apple", answer="apple", language="en-GB"),
        JudgedTurn("And what is blue?", ("The sky.",), "the sky"),
    ]
    assert [turn.hypothesis for turn in turns(outcome(), heard((0.5, "hello")))] == ["", ""]


def test_what_nobody_listened_to_is_not_judged():
    assert judged_conversations("dev", [outcome()], {}) == []


def test_what_was_cut_off():
    both = heard((3.5, "an apple"), (7.5, "the sky"))

    def cut_off(*speech: tuple[float, float], said=both) -> list[bool]:
        return [turn.cut_off for turn in turns(outcome(*speech), said)]

    assert cut_off((3.5, 5.0), (7.5, 9.0)) == [False, False]
    assert cut_off((3.5, 6.4), (7.5, 9.0)) == [True, False]
    assert cut_off((3.5, 6.0), (7.5, 10.0)) == [False, True]
    assert cut_off((3.5, 5.0), (7.5, 9.95)) == [False, True]
    assert cut_off((3.5, 5.0), (7.5, 9.9)) == [False, False]
    assert cut_off((3.5, 6.4), (7.5, 10.0), said=heard((7.5, "the sky"))) == [False, True]


def test_turns_that_want_no_answer_are_left_out():
    assert [turn.references for turn in turns(outcome(references=[["", "Hm."], ["The sky.", "It is the sky."]]), heard())] == [
        ("The sky.", "It is the sky.")
    ]


def test_a_judge_needs_no_torch():
    """Where only files of scores are read, nothing heavy is installed."""
    code = "import sys, nemo_duplex.evaluation.judge.scores; assert not {'torch', 'lhotse', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
