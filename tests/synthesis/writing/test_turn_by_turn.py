"""A dialogue that is written turn by turn: where turns end, what is drawn, what is rejected."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from nemo_duplex.synthesis.writing import rules, turn_by_turn
from nemo_duplex.synthesis.writing.topics import EVERYDAY, SCIENCE, TOPICS
from nemo_duplex.synthesis.writing.turn_by_turn import ChatTokens, DialogueDraft, write_batch
from tests.llm.tiny_gguf import model, tokenizer

CHAT = ChatTokens(tokenizer())
END = CHAT.end


@pytest.fixture
def about_dew(monkeypatch):
    """A draft about dew whose first question begins "What is dew", one sentence for each answer."""
    monkeypatch.setattr(turn_by_turn, "_FREE_SHARE", 0.0)
    monkeypatch.setattr(turn_by_turn, "_MOST_TOKENS_OF_A_TURN", 70)  # a token is a letter here
    monkeypatch.setattr(turn_by_turn, "_ANY_OPENINGS", ("What is {}",))
    monkeypatch.setattr(turn_by_turn, "_SINGULAR_OPENINGS", ())
    monkeypatch.setattr(turn_by_turn, "_NEXT_OPENINGS", ("Why",))
    for topics in ("EVERYDAY", "SCIENCE"):
        monkeypatch.setattr(turn_by_turn, topics, (type(TOPICS[0])("water", ("dew",)),))
    draft = DialogueDraft(CHAT, seed=0, index=0)
    draft._sentences = [1, 1, 1, 1]
    return draft


def feed(draft: DialogueDraft, text: str, end: Iterable[int] = (END,), log_prob: float = -0.5) -> None:
    """Draws the tokens of `text`, as a model would."""
    for token in [*CHAT.encode(text), *end]:
        draft.given.clear()
        draft.take(token, log_prob)


def test_a_whole_dialogue(about_dew):
    given = CHAT.decode(about_dew.given)
    assert given == (
        "I have a question about dew.<|im_end|>\n<|im_start|>assistant\n"
        "Sure, what would you like to know about dew?<|im_end|>\n"
        "<|im_start|>user\nWhat is dew"
    )
    assert (about_dew.temperature, about_dew.top_p) == (0.8, 0.95)
    feed(about_dew, " on the grass?")
    assert CHAT.decode(about_dew.given) == "<|im_end|>\n<|im_start|>assistant\n"
    assert (about_dew.temperature, about_dew.top_p) == (0.3, 0.9)
    feed(about_dew, "Great question! Dew is water from the cool air.")
    assert CHAT.decode(about_dew.given) == "<|im_end|>\n<|im_start|>user\nWhy"
    feed(about_dew, " does it come at night?")
    feed(about_dew, "It comes at night because the grass is cold then.")
    assert about_dew.done and about_dew.given == []
    drawn = about_dew.drawn
    assert (drawn.topic, drawn.subtopic, drawn.fault) == ("water", "dew", None)
    assert drawn.turns == [
        "What is dew on the grass?",
        "Dew is water from the cool air.",
        "Why does it come at night?",
        "It comes at night because the grass is cold then.",
    ]


def test_a_turn_ends_with_its_sentences_not_inside_of_a_number(about_dew):
    """The token after the sentence is not lost: it is never taken."""
    feed(about_dew, "?", end=CHAT.encode(" "))
    assert about_dew.drawn.turns == ["What is dew?"]
    feed(about_dew, "Sure! Dew is water from U.", end=CHAT.encode("S. "))
    assert about_dew.drawn.turns == ["What is dew?", "Dew is water from U.S."]


def test_a_line_feed_ends_a_turn(about_dew):
    feed(about_dew, " like?", end=CHAT.encode("\n"))
    assert about_dew.drawn.turns == ["What is dew like?"]


def test_the_first_turn_that_is_rejected_ends_the_dialogue(about_dew):
    feed(about_dew, " like.")
    assert about_dew.done and about_dew.given == []
    assert (about_dew.drawn.turns, about_dew.drawn.fault) == (["What is dew like."], rules.NO_QUESTION)


def test_a_turn_of_which_the_model_is_not_sure(about_dew):
    feed(about_dew, " like?", log_prob=-1.5)
    assert not about_dew.done
    feed(about_dew, "Dew is water from the cool air.", log_prob=-0.8)
    assert about_dew.drawn.fault == turn_by_turn.UNSURE and about_dew.drawn.sure == [-1.5, -0.8]


def test_a_turn_without_an_end(about_dew):
    feed(about_dew, " like in all the " + "many " * 15, end=())
    assert about_dew.drawn.fault == turn_by_turn.CUT


def test_of_a_long_answer_the_whole_sentences_stay(about_dew):
    about_dew._sentences = [1, 2, 1, 1]
    feed(about_dew, " like?")
    feed(about_dew, "Dew is cool air and water. It is on the grass and ", end=CHAT.encode("on leaves in the cold night"))
    assert about_dew.drawn.turns[1] == "Dew is cool air and water."


def test_a_dialogue_is_the_same_in_any_batch():
    together, _ = write_batch(model(), tokenizer(), seed=3, first=0, count=6)
    parts = [
        write_batch(model(), tokenizer(), seed=3, first=first, count=count)[0] for first, count in ((0, 2), (2, 1), (3, 3))
    ]
    assert together == [drawn for part in parts for drawn in part]
    others, _ = write_batch(model(), tokenizer(), seed=4, first=0, count=6)
    assert others != together and len({drawn.subtopic for drawn in together}) > 1


def test_every_opening_fits_the_number_of_its_subject():
    of = turn_by_turn._openings_by_number
    plural = {
        "dogs",
        "teeth",
        "the rings of Saturn",
        "minerals in soil",
        "house plants",
        "mice",
        "time zones",
        "plants as food",
    }
    singular = {
        "washing windows",
        "a flat tire",
        "Mars",
        "rice",
        "tennis",
        "the bus",
        "chess",
        "the price of milk",
        "a gift for a friend",
    }
    assert {of(subject) for subject in plural} == {turn_by_turn._PLURAL_OPENINGS}
    assert {of(subject) for subject in singular} == {turn_by_turn._SINGULAR_OPENINGS}


def test_63_topics():
    assert (len(EVERYDAY), len(SCIENCE)) == (20, 43) and len({topic.name for topic in TOPICS}) == 63
    assert {len(set(topic.subtopics)) for topic in TOPICS} == {8}
    drawn = [DialogueDraft(CHAT, 0, index).drawn for index in range(2000)]
    assert len({d.topic for d in drawn}) == 63 and len({d.subtopic for d in drawn}) > 440


def test_openings_are_drawn_before_anything_is_written():
    drafts = [DialogueDraft(CHAT, 0, index) for index in range(300)]
    firsts = {CHAT.decode(draft.given).rsplit("user\n", 1)[1] for draft in drafts}
    assert len(firsts) > 200
    everyday = [draft.drawn.topic in {topic.name for topic in EVERYDAY} for draft in drafts]
    assert 130 < sum(everyday) < 170  # half of them, though there are more topics of science
