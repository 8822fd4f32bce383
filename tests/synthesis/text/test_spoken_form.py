from __future__ import annotations

import builtins
import hashlib
import threading

import pytest

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.inputs import NotInstalled
from nemo_duplex.synthesis.text import dialogue_files
from nemo_duplex.synthesis.text import spoken_form as module
from nemo_duplex.synthesis.text.spoken_form import is_english, normalizer_version, spoken_form

SPOKEN = [
    ("In 1999, 1905 and 2010.", "In nineteen ninety nine, nineteen oh five and twenty ten."),
    ("In 1800 and 2000.", "In eighteen hundred and two thousand."),
    ("The 1990s, the '90s, the 80s, 1990's.", "The nineteen nineties, the nineties, the eighties, nineteen nineties."),
    ("1000 m, 1,000 and 1000000.", "one thousand meters, one thousand and one million."),
    ("At 7:00, 7:05, 5:30 pm and 17:45.", "At seven o'clock, seven oh five, five thirty PM and seventeen forty five."),
    ("It ended at 6 p.m. We left at 7 p.m. and slept.", "It ended at six PM. We left at seven PM and slept."),
    ("From 9am-5pm", "From nine AM to five PM"),
    ("$5.20, $1, $0.99.", "five dollars and twenty cents, one dollar, ninety nine cents."),
    ("$1.01, £3, $.50", "one dollar and one cent, three pounds, fifty cents"),
    ("$3.5 million, $100K", "three point five million dollars, one hundred thousand dollars"),
    ("€1,000.50, $5-$10, £2-3", "one thousand euros and fifty cents, five to ten dollars, two to three pounds"),
    ("3-4 apples, 10–15 pages, 3:2", "three to four apples, ten to fifteen pages, three to two"),
    ("Call 555-1234.", "Call five five five, one two three four."),
    ("+1 (800) 555-1234", "one, eight zero zero, five five five, one two three four"),
    ("January 5, 2021 and 5 May 1999", "January fifth, twenty twenty one and the fifth of May nineteen ninety nine"),
    ("March 11, Louis XII, 13 May", "March eleventh, Louis the twelfth, the thirteenth of May"),
    ("12/25/2020, 2020-12-25", "December twenty fifth, twenty twenty, December twenty fifth, twenty twenty"),
    ("100m in 9.58s, 5 kg", "one hundred meters in nine point five eight seconds, five kilograms"),
    ("60 mph, 20°C, 2 hrs, 1 hr", "sixty miles per hour, twenty degrees Celsius, two hours, one hour"),
    ("The 1st, 2nd and 23rd.", "The first, second and twenty third."),
    ("1/2 cup, 3½ cups, 50%", "one half cup, three and one half cups, fifty percent"),
    ("8/10, 24/7, 9/11, 1/10", "eight out of ten, twenty four seven, nine eleven, one tenth"),
    ("-5, 3.14, .5, 007", "minus five, three point one four, point five, zero zero seven"),
    ("5'10\" tall, 3x5, 5 x 3 = 15", "five foot ten tall, three by five, five times three equals fifteen"),
    ("#1, No. 5, no. 2", "number one, number five, number two"),
    ("H2O, COVID-19, MP3", "H two O, COVID nineteen, MP three"),
    ("20-year-old, 221B", "twenty-year-old, two hundred and twenty one B"),
    ("Version 3.5.1", "Version three point five point one"),
    ("Dr. Lee and Mrs. Ray, etc.", "Doctor Lee and Missus Ray, et cetera."),
    ("She lives on Elm St. near St. Mary.", "She lives on Elm Street near Saint Mary."),
    ("Two vs. three, e.g. at No. 3 etc.", "Two versus three, for example at number three et cetera."),
    ("King Henry VIII, World War II, Part I.", "King Henry the eighth, World War two, Part one."),
    ("Part I liked. Vitamin C. Malcolm X.", "Part I liked. Vitamin C. Malcolm X."),
    ("A & B, me@example.com, he/she, and/or", "A and B, me at example dot com, he slash she, and or"),
    ('it\'s a well-known "fact", NASA says; they\'re OK.', 'it\'s a well-known "fact", NASA says; they\'re OK.'),
    ("It’s 5 o’clock.", "It’s five o’clock."),
    ("1234567890123456", "one two three four five six seven eight nine zero one two three four five six"),
    ("٣ apples", "three apples"),
    ("Was it you? No. 7 people came. Is it No. 7? Ranked No. 3 vs. No. 5.",
     "Was it you? No. seven people came. Is it number seven? Ranked number three versus number five."),
    ("No. 7 is best.", "number seven is best."),
    ("10:30-11:30, 9-10:15", "ten thirty to eleven thirty, nine to ten fifteen"),
    ("2 1/2 cups, 1-1/2 miles, 10 3/4", "two and one half cups, one and one half miles, ten and three quarters"),
    ("100s of people, 1,000s of miles, the 100s", "hundreds of people, thousands of miles, the hundreds"),
    ("It took 100s.", "It took one hundred seconds."),
    ("the 1,000th, the 1000th and the 21st", "the one thousandth, the one thousandth and the twenty first"),
    ("the '00s and the ‘90s, mid-'80s", "the two thousands and the nineties, mid-eighties"),
    ("31/12/2020, 1/12/2020", "December thirty first, twenty twenty, January twelfth, twenty twenty"),
    ("Ken Griffey Jr. was there. So was John Sr. He left. King Jr. Day. I met Ken Jr.",
     "Ken Griffey Junior was there. So was John Senior. He left. King Junior Day. I met Ken Junior."),
]  # fmt: skip


@pytest.mark.parametrize(("text", "spoken"), SPOKEN)
def test_what_is_said_for_digits_and_symbols(text, spoken):
    assert spoken_form(text) == spoken
    assert spoken_form(spoken) == spoken  # a text in words stays


def test_the_format_of_stores_changes_with_what_is_said():
    """Texts are imported once. If this fails, raise `_FORMAT`, and write both here."""
    said = "\n".join(spoken_form(text) for text, _ in SPOKEN)
    assert (dialogue_files._FORMAT, hashlib.sha256(said.encode()).hexdigest()[:16]) == (3, "0c0c12348f1aa29d")


def test_a_number_that_cannot_be_written_out_is_an_odd_row():
    with pytest.raises(OddRow, match="a number that cannot be written out in words .'x⁵1\\?'"):
        module._RULES, rules = module._RULES[:1], module._RULES
        try:
            spoken_form("It is x⁵1?")
        finally:
            module._RULES = rules


def test_all_threads_read_the_same():
    texts = [f"{number} km on May {number % 30 + 1}" for number in range(40)]
    expected = [spoken_form(text) for text in texts]
    module._read.cache_clear()
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append([spoken_form(text) for text in texts])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 3


@pytest.mark.parametrize(
    ("text", "language", "found"),
    [
        ("Two.", None, True), ("Two.", "en-GB", True), ("Two.", "English", True), ("Two.", "eng_Latn", True),
        ("Zwei.", "de", False), ("Два.", None, False), ("Два.", "en", True),
    ],
)  # fmt: skip
def test_only_english_is_written_out(text, language, found):
    assert is_english(text, language) is found


def test_a_missing_normaliser_is_one_line_with_its_cure(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "wetext":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    module._normalizer.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NotInstalled, match=r"^text.normalize: wetext is not installed.*: pip install 'nemo_duplex\[text\]'\.$"):
        normalizer_version()
    monkeypatch.undo()
    assert normalizer_version() == "wetext 0.1.8"
