"""Word errors that do not depend on how a word is written, and that the faults of Whisper's normaliser do not change."""

import pytest

from nemo_duplex.evaluation.speech.normalized_text import is_english, normalized, word_errors


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("two o'clock", "2 o’clock"),
        ("Oh, yes.", "Yes."),
        ("At five thirty.", "at 5:30"),
        ("At five thirty.", "At 5.30."),
        ("three point one four", "3.14"),
        ("Cat: C, A, T.", "Cat, C-A-T."),
        ("One hundred and twenty.", "120"),
        ("It's Mr. Smith's colour", "it is mister Smith's color."),
        ("one, two, three", "1 2 3"),
        ("We open at five p.m.", "We open at 5:00 PM."),
        ("at five o'clock", "at 5:00"),
        ("twelve oh five", "12:05"),
        ("in nineteen oh five", "in 1905"),
        ("in the nineteen eighties", "in the 1980's"),
        ("a hundred and twenty", "120"),
        ("minus five degrees", "-5°"),
        ("seven minus two equals five", "7-2=5"),
        ("seven minus two", "7 − 2"),
        ("two to three days", "2-3 days"),
        ("five five five, one two three four", "555-1234"),
        ("salt and pepper", "Salt & pepper"),
        ("five percent", "5 %"),
        ("three point zero", "3.0"),
        ("zero point five", ".5"),
        ("five dollars and twenty cents", "$5.20"),
        ("five dollars", "$5.00"),
        ("one point five million euros", "€1.5 million"),
        ("on May fifth, twenty twenty", "on May 5, 2020"),
        ("one quarter", "1/4"),
        ("Okay, all right, goodbye.", "OK alright good-bye"),
        ("O.K.", "okay"),
        ("I cannot", "I can't"),
        ("email, Wi-Fi and T-shirts", "e-mail, wifi and tshirts"),
        ("five kilometers", "5 km"),
        ("number five", "#5"),
        ("yes, of course", "yes (of course)"),
        ("three times four", "3 x 4"),
        ("Smith versus Jones et cetera", "Smith vs. Jones, etc."),
        ("it is", "it´s"),
        ("Wait, what?", "Wait… what..."),
    ],
)
def test_the_same_words_written_otherwise_are_no_errors(said, written):
    assert word_errors(said, written) == (0, len(normalized(said))) and normalized(said)


def test_errors_are_wrong_missing_and_added_words():
    assert word_errors("the cat sat on the mat", "a cat sat the big mat") == (3, 6)
    assert word_errors("yes", "") == (1, 1) and word_errors("", "no") == (1, 0)
    assert normalized("Oh, it is two o'clock.") == ["it", "is", "2", "oclock"]


def test_words_that_differ_stay_different():
    assert word_errors("May fifth", "May sixth") == (1, 2)
    assert word_errors("five", "fifth") == (1, 1)
    assert word_errors("Oh no", "Oh yes") == (1, 1)
    assert word_errors("its colour", "it's color") == (2, 2), "spelling of another word"
    assert normalized("") == normalized("… % $") == []


def test_other_languages_are_compared_word_for_word():
    assert word_errors("Zwei o'clock, zwanzig", "zwei oclock 20", "de") == (1, 3)
    assert word_errors("今日は晴れ", "明日は 晴れ。", "ja") == (1, 5)
    assert [is_english(tag) for tag in ("en", "en-GB", "EN_us", "eng", "English", "enm", "de", "und")] == [True] * 5 + [
        False
    ] * 3
