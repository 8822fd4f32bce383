from __future__ import annotations

import unicodedata

import pytest

from nemo_duplex.synthesis.tts.word_times import word_spans, word_times


def test_words_that_are_not_reported_share_the_time_by_their_letters():
    words = word_times("a bcd ef", {0: 0, 6: 800}, 1000, 1000)
    assert [(w.text, w.start, w.end) for w in words] == [("a", 0.0, 0.2), ("bcd", 0.2, 0.8), ("ef", 0.8, 1.0)]
    assert word_times("?!", {}, 1000, 1000) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's a well-known fact: 3 of x_y.", ["It's", "a", "well-known", "fact", "3", "of", "x", "y"]),
        ("मेरा नाम Ada है, दिन में।", ["मेरा", "नाम", "Ada", "है", "दिन", "में"]),  # vowel signs are marks, and no letters
        (unicodedata.normalize("NFD", "Déjà vu à Łódź"), [unicodedata.normalize("NFD", w) for w in "Déjà vu à Łódź".split()]),
        ("הַיּוֹם מֶזֶג צה״ל", ["הַיּוֹם", "מֶזֶג", "צה״ל"]),
        ("می\u200cخواهم بروم", ["می\u200cخواهم", "بروم"]),  # a joiner that is not seen
        ("안녕하세요, 만나서", ["안녕하세요", "만나서"]),
        ("他说：“好。”OK了", ["他", "说", "好", "OK", "了"]),
        ("きょうは、コーヒー。", ["きょ", "う", "は", "コー", "ヒー"]),
        ("வணக்கம், எப்படி", ["வணக்கம்", "எப்படி"]),
        ("col·lecció l’été п’ять", ["col·lecció", "l’été", "п’ять"]),
        ("— … 😀 -'", []),
    ],
)
def test_words_in_every_script(text, words):
    spans = word_spans(text)
    assert [text[begin:end] for begin, end in spans] == words
