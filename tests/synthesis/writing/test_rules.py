"""Every rule rejects what it is for, and leaves good turns alone."""

from __future__ import annotations

import pytest

from nemo_duplex.synthesis.writing import rules
from nemo_duplex.synthesis.writing.rules import (
    Rules,
    num_sentences,
    plain_text,
    shortened,
    stems,
    whole_sentences,
    without_fillers,
)

DEW = ["What is dew and where does it come from?"]
GOOD = [
    ("user", DEW[0], []),
    ("agent", "Dew is water from the air that settles on cool grass at night.", DEW),
    ("agent", "It's water, mostly from the air. You'll see it on the lawn!", DEW),
    ("user", "Why do spiders' webs show it so well?", [*DEW, "Dew is water that settles on cool grass at night."]),
]
BAD = {
    "two words": ("agent", "From air.", rules.LENGTH),
    "31 words": (
        "agent",
        " ".join(["Dew"] + [f"falls{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(30)]) + ".",
        rules.LENGTH,
    ),
    "Cyrillic": ("agent", "Dew is вода from the cool night air.", rules.LETTERS),
    "an emoji": ("agent", "Dew is water from the cool night air 😀.", rules.LETTERS),
    "a list": ("agent", "Dew needs clear skies\n- cool grass\n- damp air.", rules.MARKUP),
    "numbered": ("agent", "1. Dew needs cool grass and damp air.", rules.MARKUP),
    "bold": ("agent", "Dew is **water** from the cool night air.", rules.MARKUP),
    "an address": ("agent", "Dew is explained on www.example.org in short words.", rules.MARKUP),
    "a colon at the end": ("agent", "Dew has several causes at night, such as these:", rules.MARKUP),
    "a placeholder": ("agent", "Dew is what [name] saw on the cool grass.", rules.MARKUP),
    "a machine": ("agent", "As an AI language model I have never seen dew on grass.", rules.MACHINE),
    "a role": ("agent", "Agent: dew is water from the cool night air.", rules.ROLE),
    "unfinished": ("agent", "Dew is water from the cool night", rules.UNFINISHED),
    "a run twice": ("agent", "Dew is in the air at night and dew is in the air by day.", rules.REPEATS),
    "a word twice in a row": ("agent", "Dew is is water from the cool night air.", rules.REPEATS),
    "a word all over": ("agent", "Dew makes dew as dew on leaves becomes cold dew.", rules.REPEATS),
    "an echo": ("agent", "Dew does come from where dew is.", rules.ECHO),
    "a question back": ("agent", "Dew is water. Where did you see it?", rules.ASKS),
    "a filler": ("agent", "That's a great question!", rules.FILLER),
    "another subject": ("agent", "Bicycles have two wheels and a chain.", rules.OFF_TOPIC),
    "unsafe": ("agent", "Dew can kill small insects on the grass.", rules.UNSAFE),
}
STRICT = {
    "figures": ("agent", "Dew appears at about 5 degrees on the grass.", rules.FIGURES),
    "quotation marks": ("agent", 'Dew is called "morning water" in some villages.', rules.LETTERS),
    "yes to an open question": ("agent", "Yes, dew is water from the air on grass.", rules.YES_TO_WHY),
    "two words twice": ("agent", "Morning dew is like morning dew in the hills and valleys.", rules.REPEATS),
    "a life of its own": ("agent", "Dew was on the grass when I was a child at home.", rules.SELF),
}


@pytest.mark.parametrize("role, text, before", GOOD)
def test_a_good_turn_stays(role, text, before):
    assert Rules(strict=True).fault_of_turn(role, text, before, "dew") is None


@pytest.mark.parametrize("role, text, reason", BAD.values(), ids=BAD)
def test_a_bad_turn_is_rejected_by_its_reason(role, text, reason):
    assert Rules().fault_of_turn(role, text, DEW, "dew") == reason


@pytest.mark.parametrize("role, text, reason", STRICT.values(), ids=STRICT)
def test_a_small_model_has_more_rules(role, text, reason):
    assert Rules().fault_of_turn(role, text, DEW, "dew") is None
    assert Rules(strict=True).fault_of_turn(role, text, DEW, "dew") == reason


def test_30_words_stay():
    words = " ".join(["Dew", *(f"falls{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(29))])
    assert Rules().fault_of_turn("agent", f"{words}.", DEW, "dew") is None


def test_questions():
    before = [*DEW, "Dew is water from the air that settles on cool grass at night."]
    fault = Rules(strict=True).fault_of_turn
    assert fault("user", "Where does dew come from?", before, "dew") == rules.REPEATS
    assert fault("user", "Tell me more about morning fog.", before, "dew") == rules.NO_QUESTION
    assert fault("user", "What is your favorite kind of weather?", before, "dew") == rules.SELF
    assert fault("user", "Can you tell me why grass cools at night?", before, "dew") is None
    assert fault("user", "Why does it fall on grass?", [], "dew") == rules.OFF_TOPIC
    assert fault("user", "Why does it fall on grass?", [], "") is None
    assert Rules().fault_of_turn("user", "Tell me more about morning fog.", before, "dew") is None


def test_a_second_answer_that_says_the_first_again():
    before = ["What is dew?", "Dew is water from the air on cool grass.", "And why does it form at night?"]
    assert Rules().fault_of_turn("agent", "At night dew is water from the air on cool grass.", before, "dew") == rules.ECHO


def test_a_question_about_a_recording_may_be_answered_in_a_word():
    assert (
        Rules(fewest_words=1, new_words=0).fault_of_turn("agent", "Paris.", ["Where was the meeting?"], "a meeting in Paris")
        is None
    )


def test_text_in_plain_characters():
    assert plain_text("It\u2019s \u201cwet\u201d \u2014 very\u00a0wet\n\u2026") == 'It\'s "wet", very wet .'


def test_fillers_at_the_start_are_nothing_said():
    assert without_fillers("Sure! That's a great question. Dew is water.") == "Dew is water."
    assert without_fillers("Absolutely, dew is water.") == "Absolutely, dew is water."
    assert without_fillers("Yes, that's a great question. No worries! You're right. Dew is water.") == "Dew is water."
    assert without_fillers("Of course!") == ""
    assert num_sentences("Great question! Dew is water. It is") == 1


def test_sentences():
    assert whole_sentences("One is here. Two is not") == "One is here."
    assert whole_sentences("None is whole") == ""
    assert shortened("One two three. Four five six. Seven.", 6) == "One two three. Four five six."
    assert shortened("One two three four.", 2) == "One two three four."


def test_stems_meet():
    assert stems("Batteries charging") == stems("a battery charges") == {"battery", "charg"}
