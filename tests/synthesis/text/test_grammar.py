from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.text import grammar
from nemo_duplex.synthesis.text.grammar import Grammar
from nemo_duplex.synthesis.tts.voices import espeak_voices

GRAMMAR = Grammar()
TEXTS = [text for e in GRAMMAR.exchanges for text in (e.user, e.agent)]


def drawn(split: str, count: int) -> list:
    return [e for i in range(count) for e in GRAMMAR.dialogue(split, i, np.random.default_rng(i)).exchanges]


def test_size_is_what_a_small_model_learns_in_minutes():
    facts = GRAMMAR.describe()
    assert 380 <= facts["questions"]["train"] <= 500
    assert 250 <= facts["answers"] <= 360
    assert facts["words"] <= 300


def test_every_question_has_one_answer_that_its_text_contains():
    assert len({e.user for e in GRAMMAR.exchanges}) == len(GRAMMAR.exchanges)
    for e in GRAMMAR.exchanges:
        assert e.answer.lower() in e.agent.lower(), e


def test_texts_are_spoken_as_they_are_written():
    for text in TEXTS:
        assert re.fullmatch(r"[A-Z][a-zA-Z,:' ]*[.?]", text), text
        assert "  " not in text and "|" not in text


def test_arithmetic_is_right():
    names = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen".split()
    for e in GRAMMAR.exchanges:
        if e.family in ("sum", "difference"):
            first, sign, second, _, result = e.agent.rstrip(".").lower().split()
            a, b = names.index(first), names.index(second)
            assert names.index(result) == (a + b if sign == "plus" else a - b)


@pytest.mark.parametrize(
    "question, answer",
    [
        ("Which day comes after Sunday?", "The day after Sunday is Monday."),
        ("Can you tell me the month before January?", "The month before January is December."),
        ("Which number comes before nine?", "The number before nine is eight."),
        ("Which number comes after nine?", "The number after nine is ten."),
        ("What is the opposite of slow?", "The opposite of slow is fast."),
        ("Please count from three up until nine.", "Three, four, five, six, seven, eight, nine."),
    ],
)
def test_answers_are_right(question, answer):
    assert [e.agent for e in GRAMMAR.exchanges if e.user == question] == [answer]


def test_a_dialogue_has_two_to_six_questions_of_small_families_as_well_as_of_large_ones():
    dialogues = [GRAMMAR.dialogue("train", i, np.random.default_rng(i)).exchanges for i in range(600)]
    lengths = Counter(map(len, dialogues))
    shares = [lengths[n] / 600 for n in (2, 3, 4, 5, 6)]
    assert shares == pytest.approx([0.35, 0.33, 0.18, 0.09, 0.05], abs=0.05)
    sizes = Counter(e.family for e in GRAMMAR.exchanges if e.seen)
    weights = {family: size**0.75 for family, size in sizes.items()}
    asked = Counter(e.family for exchanges in dialogues for e in exchanges)
    for family in ("capital", "echo", "opposite", "list"):
        assert asked[family] / asked.total() == pytest.approx(weights[family] / sum(weights.values()), rel=0.2), family


def test_pauses_stand_before_words_and_what_precedes_them_is_no_question():
    questions = {e.user.rstrip(".?") for e in GRAMMAR.exchanges}
    paused = [e for e in GRAMMAR.exchanges if e.pauses]
    assert len(paused) > 0.9 * len(GRAMMAR.exchanges)
    for e in paused:
        for offset in e.pauses:
            assert e.user[offset - 1] == " " and e.user[offset].isalnum()
            assert e.user[:offset].strip(" ,:") not in questions


def test_open_families_keep_a_part_for_dev_and_closed_ones_nothing():
    families, unseen = Counter(e.family for e in GRAMMAR.exchanges), Counter(e.family for e in GRAMMAR.exchanges if not e.seen)
    assert set(unseen) == {"sum", "difference", "number", "echo"}
    assert all(0.08 <= unseen[family] / families[family] <= 0.20 for family in unseen)
    assert not {e.agent for e in GRAMMAR.exchanges if e.seen} & {e.agent for e in GRAMMAR.exchanges if not e.seen}


def test_held_out_questions_are_made_of_parts_that_train_asks_about():
    known = {word for e in GRAMMAR.exchanges if e.seen for word in re.findall("[a-z]+", f"{e.user} {e.agent}".lower())}
    assert all(set(re.findall("[a-z]+", text.lower())) <= known for text in TEXTS)


def test_train_asks_no_held_out_question_and_dev_a_quarter():
    assert all(e.seen for e in drawn("train", 300))
    share = sum(not e.seen for e in drawn("dev", 500)) / len(drawn("dev", 500))
    assert 0.20 < share < 0.30


def test_every_question_of_train_comes_up():
    asked = Counter(e.user for e in drawn("train", 3000))
    assert set(asked) == {e.user for e in GRAMMAR.exchanges if e.seen}
    assert max(asked.values()) < 8 * np.median(list(asked.values()))


def test_agent_texts_are_the_answers_of_train_and_new_sentences():
    texts = GRAMMAR.agent_texts(100)
    answers = {e.agent for e in GRAMMAR.exchanges if e.seen}
    assert len(set(texts)) == len(texts) == len(answers) + 100
    assert answers <= set(texts)
    assert not set(texts) & {e.agent for e in GRAMMAR.exchanges if not e.seen}


# --- long answers, and turns that a text gives -----------------------------------------------------------------------------

LONG = Grammar(long_answers=0.2)
TOLD = Grammar(long_answers=0.1, read_aloud=0.3)


def drawn_from(grammar: Grammar, split: str, count: int) -> list:
    return [e for i in range(count) for e in grammar.dialogue(split, i, np.random.default_rng(i)).exchanges]


def test_long_answers_take_8_to_15_seconds_and_have_a_place_in_both_splits():
    assert len(LONG.long_exchanges) == 24 and set(LONG.long_exchanges) <= set(LONG.exchanges)
    assert not set(LONG.long_exchanges) & set(GRAMMAR.exchanges), "Off by default."
    voices = espeak_voices()
    for e in LONG.long_exchanges:
        assert 8 <= voices.engine.speak(e.agent, voices.agent).duration <= 15, e.user
        assert re.fullmatch(r"([A-Z][a-zA-Z, ]+\. ?)+", e.agent) and e.user[-1] in ".?" and e.pauses and e.seen
    for split in ("train", "dev"):
        asked = drawn_from(LONG, split, 1000)
        assert sum(e in LONG.long_exchanges for e in asked) / len(asked) == pytest.approx(0.2, abs=0.02)
        assert {e.user for e in asked if e.family == "story"} == {e.user for e in LONG.long_exchanges if e.family == "story"}


def test_given_texts_are_said_in_train_alone_asked_for_or_not_and_hardly_ever_twice():
    asked = drawn_from(TOLD, "train", 2000)
    given = [e for e in asked if e.given]
    assert len(given) / len(asked) == pytest.approx(0.3, abs=0.02)
    assert sum(not e.user for e in given) / len(given) == pytest.approx(0.5, abs=0.05)
    assert all((e.family == "told") == (not e.user) and e.answer == "" for e in given)
    assert len({e.user for e in given}) == 11 and len({e.agent for e in given}) > 0.99 * len(given)
    assert not any(e.given for e in drawn_from(TOLD, "dev", 500))
    for e in given:
        assert re.fullmatch(r"([A-Z][a-zA-Z ]+\. ?)+", e.agent) and "  " not in e.agent, e.agent
        assert all(e.user[offset - 1] == " " and e.user[offset].isalnum() for offset in e.pauses)


def test_shares_of_nothing_change_no_dialogue():
    assert drawn_from(Grammar(0.0, 0.0), "train", 50) == drawn("train", 50)
    assert GRAMMAR.describe()["sha256"] == Grammar(0.0).describe()["sha256"]
    digests = {Grammar(long, told).describe()["sha256"] for long in (0.0, 0.1, 0.2) for told in (0.0, 0.1, 0.2)}
    assert len(digests) == 9, "Other shares are another corpus."


def test_other_requests_are_another_corpus(monkeypatch):
    before = TOLD.describe()["sha256"]
    monkeypatch.setattr(grammar, "CONTENT", "others")
    assert TOLD.describe()["sha256"] != before and GRAMMAR.describe()["sha256"] == Grammar().describe()["sha256"]


@pytest.mark.parametrize("shares", [{"long_answers": 1.5}, {"read_aloud": -0.1}])
def test_a_share_outside_of_0_to_1_is_refused(shares):
    with pytest.raises(InputError, match=f"{next(iter(shares))}=.*: expected a share from 0 to 1"):
        Grammar(**shares)
