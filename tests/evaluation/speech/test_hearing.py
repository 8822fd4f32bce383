"""What is heard, kept on disk, and left out."""

import json

import pytest

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.speech.hearing import hear, language_of
from tests.evaluation.speech.spoken import Reader, agent, outcome, user


def conversations(reader, count=4):
    """Each has two questions and answers, of the agent and of the corpus' agent."""
    return [
        outcome(
            reader,
            [user(0, 1), agent(2, 3, f"right {i}"), user(5, 6), agent(7, 8, f"yes {i}")],
            [(2, 3, f"right {i}"), (7, 8, f"no {i}")],
            [agent(2, 3, f"right {i}"), agent(7, 8, f"no {i}")],
            [(2, 3, f"right {i}"), (7, 8, f"yes {i}")],
            name=f"c{i}",
        )
        for i in range(count)
    ]


def test_the_agent_s_turns_are_heard_each_by_itself():
    reader = Reader()
    found = hear(conversations(reader, 1), reader, turns_per_set=None)
    assert found.scorer is reader.scorer and list(found.heard) == ["c0"]
    heard = found.heard["c0"]
    assert [(t.start, t.end, t.text) for t in heard.turns] == [(2, 3, "right 0"), (7, 8, "no 0")]
    assert [(h.stretch.voice, h.transcript) for h in heard.stretches] == [
        ("agent", "right 0"), ("agent", "no 0"), ("reference", "right 0"), ("reference", "yes 0"),
    ]  # fmt: skip


def test_what_was_heard_is_not_heard_again(tmp_path):
    reader = Reader()
    rows = conversations(reader)
    first = hear(rows, reader, tmp_path, turns_per_set=None)
    # the corpus' agent says the same sound in the same stretch for the first answer: it is heard once, or twice at a time
    asked = len(reader.asked)
    assert 12 <= asked <= 16
    path = tmp_path / "transcripts.jsonl"
    assert json.loads(path.read_text().splitlines()[0])["answer"]["transcript"]
    path.write_text(path.read_text()[:-20])  # killed while it wrote
    again = hear(rows[::-1], reader, tmp_path, turns_per_set=None)
    assert again.heard == first.heard and len(reader.asked) == asked + 1
    assert hear(rows, reader, tmp_path, turns_per_set=None).heard == first.heard and len(reader.asked) == asked + 1
    other = Reader(name="other")
    other.words = reader.words
    assert hear(rows, other, tmp_path, turns_per_set=None, workers=1).heard == first.heard and len(other.asked) == 12


def test_a_failure_keeps_what_was_heard_before(tmp_path):
    class Failing(Reader):
        def transcribe(self, *given):
            if len(self.asked) == 5:
                raise RuntimeError("out of memory")
            return super().transcribe(*given)

    reader = Failing()
    rows = conversations(reader)
    with pytest.raises(RuntimeError):
        hear(rows, reader, tmp_path, turns_per_set=None, workers=1)
    assert len((tmp_path / "transcripts.jsonl").read_text().splitlines()) == 5


def test_whole_conversations_are_drawn_whatever_their_order():
    reader = Reader()
    rows = conversations(reader, 8)
    found = {seed: list(hear(rows, reader, turns_per_set=5, seed=seed).heard) for seed in range(4)}
    assert all(len(names) == 3 for names in found.values()), "two turns each"
    assert len({tuple(names) for names in found.values()}) > 1
    assert list(hear(rows[::-1], reader, turns_per_set=5, seed=0).heard) == found[0]
    assert hear(rows, reader, turns_per_set=0).heard == {}
    silent = [outcome(reader, [user(0, 1), agent(2, 3, "a")], [], reference=[(2, 3, "a")], name=f"s{i}") for i in range(4)]
    assert len(hear(silent, reader, turns_per_set=2).heard) == 2, "turns of the corpus' agent count where the agent is silent"


def test_the_answer_to_a_question_is_what_is_said_until_the_next():
    reader = Reader()
    turns = [user(0, 1), user(6, 7), user(12, 13), user(16, 17)]
    said = [(2, 3, "it is"), (4, 4.8, "Madrid"), (6.5, 7.2, "early"), (11, 13.5, "late"), (18, 20, "on and")]
    one = outcome(reader, turns, said, writes=False)
    heard = hear([one], reader).heard["c"]
    answers = [heard.answer(q) for q in one.questions]
    assert [a and (a.start, a.end, a.text) for a in answers] == [
        (2, 4.8, "it is Madrid"), (6.5, 13.5, "early late"), None, (18, 20, "on and"),
    ]  # fmt: skip
    assert [t.custom.get("unfinished", False) for t in heard.turns] == [False] * 4 + [True]
    writing = outcome(reader, turns, said, [agent(2, 3, "it is"), agent(4, 4.8, "Madrid"), agent(18, 21, "on and on")])
    answers = [hear([writing], reader).heard["c"].answer(q) for q in writing.questions]
    assert answers[0].text == "it is", "one that writes says where its turns end"
    assert not answers[-1].custom.get("unfinished"), "and whether they do"


@pytest.mark.parametrize(
    ("turns", "language"),
    [
        ([("hello", None)], "en"),
        ([("hallo", "de"), ("hallo", None)], "de"),
        ([("hello", None), ("hallo", "de")], "de"),
        ([("नमस्ते दुनिया", None)], "und"),
        ([("今日は", None), ("ok", None)], "und"),
        ([("Déjà vu 123", None)], "en"),
        ([("", None)], "en"),
    ],
)
def test_the_language_is_that_of_the_turns(turns, language):
    spoken = tuple(Turn("user", i, i + 0.5, text, language=tag) for i, (text, tag) in enumerate(turns))
    assert language_of(Conversation("c", 10, spoken)) == language


def test_conversations_in_languages_that_it_does_not_know_are_left_out_and_counted():
    reader = Reader(languages=("en", "de"))
    rows = [
        outcome(reader, [Turn("user", 0, 1, "a", language=tag)], [(2, 3, "b")], name=tag) for tag in ("de", "fr", "en", "fr-CA")
    ]
    found = hear(rows, reader, turns_per_set=None)
    assert sorted(found.heard) == ["de", "en"] and found.not_understood == {"fr": 1, "fr-CA": 1}
    assert sorted(language for _, language in reader.asked) == ["de", "en"]
