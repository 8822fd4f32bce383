"""The phonemes of English text: which word begins with which, in which runs, and what is refused."""

from __future__ import annotations

import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.tts.english_phonemes import EnglishPhonemes, Run
from nemo_duplex.synthesis.tts.word_times import word_spans


@pytest.fixture(scope="module")
def english():
    return EnglishPhonemes()


def said(english: EnglishPhonemes, run: Run) -> str:
    phonemes = {number: phoneme for phoneme, number in english._ids.items()}
    return "".join(phonemes[number] for number in run.ids[1:-1])


def test_each_word_begins_with_its_phonemes(english):
    text = "Good day, my well-known friend."
    (run,) = english.runs(text)
    assert run.ids[0] == run.ids[-1] == 0
    assert said(english, run) == "ɡˈʊd dˈA, mI wˌɛlnˈOn fɹˈɛnd."
    assert {text[at:].split()[0]: said(english, run)[begin - 1 :].split()[0] for at, begin in run.begins.items()} == {
        "Good": "ɡˈʊd",
        "day,": "dˈA,",
        "my": "mI",
        "well-known": "wˌɛlnˈOn",
        "friend.": "fɹˈɛnd.",
    }


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("Dr. Smith can't be here, is he?", []),
        ("It costs $5.20 or 3.5 km.", ["20", "5"]),  # "five dollars and twenty cents", "three point five"
        ("At 7:30pm, come in.", ["30pm"]),
        ("He said “no--really”: naïve café Nguyễn.", []),
        ("  Two  blanks\tand a tab ", []),
        ("One. Two! Three?", []),
    ],
)
def test_words_that_are_read_otherwise_keep_their_places(english, text, unknown):
    runs = english.runs(text)
    found = {at for run in runs for at in run.begins}
    missing = [text[begin:end] for begin, end in word_spans(text) if begin not in found]
    assert sorted(missing) == sorted(unknown)
    for run in runs:
        assert list(run.begins.values()) == sorted(set(run.begins.values()))


def test_sentences_are_runs_and_long_ones_are_cut_at_a_clause(english):
    assert len(english.runs("One. Two! Three?")) == 3
    clause = "this is one of the many clauses of a sentence that never ends, "
    first, *others = english.runs(clause * 15 + "I say.")
    assert others and all(len(run.ids) <= 402 for run in (first, *others))
    assert said(english, first).endswith(",")
    assert len(first.ids) > 300, "It is cut at the last clause that fits."
    assert len(english.runs("word " * 150)) > 1  # without any clause


def test_onsets_are_sums_of_durations_less_three_units():
    run = Run((0, 5, 6, 7, 0), {0: 1, 4: 3})
    assert run.onsets([2.0, 1.0, 1.0, 3.0, 1.0], 600, 1000) == {0: 1000 + 0 * 600, 4: 1000 + (4 - 3) * 600}
    assert run.onsets([0.0, 1.0, 1.0, 3.0, 1.0], 600, 0)[0] == 0


@pytest.mark.parametrize(
    ("text", "language", "reason"),
    [
        ("Guten Tag", "de", "hibari speaks English, and 'Guten Tag' is in the language de: take agent_voice=espeak"),
        ("Say Привет", None, "hibari speaks English, and 'Привет' is in other letters: take agent_voice=espeak"),
        ("?!...", None, "hibari makes no sound of '\\?!...': give it words"),
        ("yes " * 1001, None, "has 4004 characters; hibari says up to 4000: cut it"),
        ("a" * 25, None, "says only the beginning of 'a{25}': write blanks"),
        ("1" * 37, None, "says only the beginning of '1{37}': write blanks"),
        ("ŧest", None, "does not read the letter 'ŧ'"),
    ],
)
def test_what_cannot_be_said(english, text, language, reason):
    import re

    assert re.search(reason, english.cannot_say(text, language, "hibari"))


@pytest.mark.parametrize("language", [None, "en", "en-GB", "eng_Latn", "English", "und"])
def test_english_can_be_said(english, language):
    assert english.cannot_say("antidisestablishmentarianism, the angle α, " + "1" * 30, language, "hibari") is None


def test_two_minutes_are_too_long(english):
    with pytest.raises(InputError, match="is more than two minutes of speech: cut it into turns"):
        english.runs("a word " * 500)


def test_brackets_are_no_phonemes(english):
    """ "[text](/phonemes/)" is a notation of the reader's; in a text it is text."""
    (run,) = english.runs("[good](/day/)")
    assert said(english, run).startswith("ɡˈʊd") and said(english, run).rstrip(")").endswith("dˈA")


def test_sounds_are_phonemes_without_marks(english):
    assert english.sounds("through, father!") == [*"θɹuf", "ɑ", "ð", "ə", "ɹ"]
    with pytest.raises(InputError, match="finds no words"):
        english.sounds(", ...")
