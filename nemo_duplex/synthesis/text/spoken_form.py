"""English texts with their digits and symbols written out in words: what is spoken is what is trained on.

WeTextProcessing's grammar for English (wetext) writes the numbers. It is given one number at a time with what belongs to it
(a unit, a month), never a whole text: wetext 0.1.8 takes a tenth of a millisecond a letter, drops full stops ("World War II."),
escapes quotation marks, and reads "$5.20" as "five point two dollars", "1990s" as seconds, "100m" as minutes and "555-1234" as
a range (`findings/wetext_english.sh`). What it gets wrong is written here in a form that it gets right, or in words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.inputs import NotInstalled
from nemo_duplex.synthesis.text.abbreviations import ABBREVIATION, BEFORE_ROMAN, RULERS, SYMBOL, written_out
from nemo_duplex.synthesis.tts.languages import language_of

_SHORT = "January February March April May June July August September October November December".split()
_MONTH = "|".join([*_SHORT, *(f"{name[:3]}\\.?" for name in _SHORT if name != "May"), "Sept\\.?"])
_SCALE = "hundred|thousand|million|billion|trillion"
_MONEY = {"$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny"), "¥": ("yen", ""), "₹": ("rupee", "paisa")}
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_UNIT = (
    "km/h|kph|mph|km²|m²|cm²|km|cm|mm|kg|mg|lbs?|oz|ft|mi|mL|ml|kHz|MHz|GHz|Hz|kB|KB|MB|GB|TB|kWh|kW|W|V|min|sec|ms|°\\s?[CF]|°"
)
# Units that wetext does not read, or reads as others.
_UNITS = {
    "m": "meters", "l": "liters", "L": "liters", "g": "grams", "s": "seconds", "h": "hours", "hr": "hours", "hrs": "hours",
    "k": "thousand", "M": "million",
}  # fmt: skip
_ROMAN = re.compile(rf"\b({BEFORE_ROMAN}) ((?=[IVX])X{{0,3}}(?:IX|IV|V?I{{0,3}}))(?![\w'’])")
_RULERS = re.compile(RULERS)


@lru_cache(maxsize=1)
def _normalizer() -> Callable[[str], str]:
    try:
        from wetext import Normalizer
    except ImportError:
        raise NotInstalled(
            "text.normalize: wetext is not installed, so digits and symbols are spoken as the voices read them: "
            "pip install 'nemo_duplex[text]'."
        ) from None
    return Normalizer(lang="en", operator="tn").normalize


def normalizer_version() -> str:
    """Name and version of the normaliser.

    Raises:
        NotInstalled: if it is missing.
    """
    _normalizer()
    from importlib.metadata import version

    return f"wetext {version('wetext')}"


def is_english(text: str, language: str | None) -> bool:
    """Whether a text is spoken in English: its row says so, or it is in Latin letters and its row says nothing."""
    if language is None:
        return language_of(text, own="en") == "en"
    return re.split(r"[-_ ]", language.strip().lower())[0] in ("en", "eng", "english")


def spoken_form(text: str) -> str:
    """An English text in words.

    Raises:
        NotInstalled: if wetext is missing and the text has digits.
        OddRow: if a symbol or a number in it cannot be written out.

    Examples:
        >>> spoken_form("Dr. Lee paid $5.20 at 7:30 p.m. in 1999, 3-4 times.")
        'Doctor Lee paid five dollars and twenty cents at seven thirty PM in nineteen ninety nine, three to four times.'
    """
    text = _ROMAN.sub(_roman, ABBREVIATION.sub(written_out, text))
    if any(character.isdigit() or character in "½¼¾⅓⅔⅛" for character in text):
        for pattern, words in _RULES:
            text = pattern.sub(words, text)
    text = SYMBOL.sub(written_out, text)
    text = " ".join(text.split())
    if left := re.search(r"\S*\d\S*", text):
        raise OddRow("a number that cannot be written out in words", repr(left[0]), "Write it in words.")
    return text


# ------------------------------------------------------------------ numbers, from the most special to any


def _say(number: str) -> str:
    """A number, in words; digit by digit where the grammar fails."""
    try:
        words = _read(number)
    except AssertionError:  # how wetext says that it cannot parse its own result
        words = ""
    return words if words and not re.search(r"\d", words) else _digits(number)


@lru_cache(maxsize=1 << 14)
def _read(number: str) -> str:
    words = _normalizer()(number).replace("\\", "")
    return re.sub(rf"\b({'|'.join(_SHORT)})\b".lower(), lambda month: month[0].capitalize(), words)


def _digits(number: str) -> str:
    return " ".join(_read(str(int(character))) for character in number if character.isdecimal())


def _whole(number: str) -> str:
    """A number that is no year: "1,000" and not "1000", which is read as "ten hundred"."""
    plain = number.replace(",", "")
    if "." in plain:
        before, after = plain.split(".", 1)
        return f"{_whole(before)} point {_digits(after)}"
    if len(plain) > 15 or (plain.startswith("0") and len(plain) > 1):
        return _digits(plain)
    return (
        re.sub(r"\bthousand\b", "one thousand", _say(f"{int(plain):,}"), count=1)
        if 1000 <= int(plain) < 2000
        else (_say(f"{int(plain):,}"))
    )


def _ordinal(number: str) -> str:
    return _say(number.replace(",", ""))


def _year(number: str) -> str:
    """A number of four digits."""
    century, rest = number[:2], number[2:]
    if number[1:] == "000" or (number[1] == "0" and rest[0] == "0"):
        return _whole(number)
    if rest == "00":
        return f"{_say(century)} hundred"
    return f"{_say(century)} {'oh ' if rest[0] == '0' else ''}{_say(str(int(rest)))}"


def _money(match: re.Match[str]) -> str:
    major, minor = _MONEY[match["sign"]]
    number, scale = match["number"], match["scale"]
    if scale:
        scale = {"k": "thousand", "K": "thousand", "M": "million", "B": "billion", "bn": "billion"}.get(scale, scale)
        return f"{_whole(number)} {scale} {major}{'' if major == 'yen' else 's'}"
    whole, _, cents = number.partition(".")
    if len(cents) != 2 or not minor:
        return f"{_whole(number)} {_plural(major, number)}"
    parts = [f"{_whole(whole)} {_plural(major, whole)}"] if int(whole.replace(",", "") or 0) or not int(cents) else []
    parts += [f"{_whole(str(int(cents)))} {_plural(minor, str(int(cents)))}"] if int(cents) else []
    return " and ".join(parts)


def _plural(noun: str, number: str) -> str:
    if number == "1" or noun == "yen":
        return noun
    return {"penny": "pence", "paisa": "paise"}.get(noun, f"{noun}s")


def _decade(match: re.Match[str]) -> str:
    century, tens = match["century"] or "", match["tens"]
    if tens == "00":
        return "two thousands" if century in ("", "20") else f"{_say(century)} hundreds"
    words = "tens" if tens == "10" else re.sub("y$", "ies", _say(tens))
    return f"{_say(century)} {words}" if century else words


def _clock(match: re.Match[str]) -> str:
    hour, minute, half = int(match["hour"]), match["minute"], re.sub(r"[\s.]", "", match["half"] or "").upper()
    words = _whole(str(hour))
    if minute and minute != "00":
        words += f" oh {_say(minute[1])}" if minute[0] == "0" else f" {_say(minute)}"
    elif not half:
        words += " o'clock" if 0 < hour <= 12 else " hundred"
    stop = "." if (match["half"] or "").endswith(".") and not _goes_on(match) else ""
    return f"{words} {half}".rstrip() + stop


def _goes_on(match: re.Match[str]) -> bool:
    """Whether the sentence goes on after a match that ends with a full stop."""
    return bool(re.match(r"\s+[^A-Z\s]|[,;:?!)]", match.string[match.end() :]))


def _date(match: re.Match[str]) -> str:
    month = next(name for name in _SHORT if name[:3] == match["month"][:3])
    day = _say(f"{int(match['day'])}{_suffix(int(match['day']))}")
    year = f", {_year(match['year'])}" if match["year"] else ""
    return f"{month} {day}{year}" if match.re is _AMERICAN else f"the {day} of {month}{year.replace(',', '')}"


def _numeric_date(match: re.Match[str]) -> str:
    year, month, day = (int(match[name]) for name in ("year", "month", "day"))
    if month > 12 and match.re is _SLASHED:  # as the British write it
        month, day = day, month
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return _digits(match[0])
    return f"{_SHORT[month - 1]} {_say(f'{day}{_suffix(day)}')}, {_year(str(year))}"


def _suffix(number: int) -> str:
    return "th" if number in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def _roman(match: re.Match[str]) -> str:
    if match[2] == "I" and match[1] != "War" and re.match(r"\s+[a-z]", match.string[match.end() :]):
        return match[0]  # "Part I liked"
    values = {"I": 1, "V": 5, "X": 10}
    numerals = [values[letter] for letter in match[2]]
    number = sum(-value if value < max(numerals[i:]) else value for i, value in enumerate(numerals))
    words = f"the {_say(f'{number}{_suffix(number)}')}" if _RULERS.fullmatch(match[1]) else _whole(str(number))
    return f"{match[1]} {words}"


def _fraction(match: re.Match[str]) -> str:
    top, bottom = int(match["top"]), int(match["bottom"])
    if 0 < top < bottom and bottom in ((2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 100) if top == 1 else (2, 3, 4, 5, 8, 16)):
        return _say(f"{top}/{bottom}")
    return f"{_whole(match['top'])} {'out of ' if top <= bottom <= 10 else ''}{_whole(match['bottom'])}"


_PROPER = "1/2|[12]/3|[13]/4|[1-4]/5|[1357]/8"  # fractions that stand after a whole number
_VULGAR = {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "⅛": "1/8"}
_AMERICAN = re.compile(
    rf"\b(?P<month>{_MONTH}) (?P<day>[12]?\d|3[01])(?:st|nd|rd|th)?\b(?![:/.]\d)(?:,? (?P<year>[12]\d{{3}})\b(?![,.]\d))?"
)
_SLASHED = re.compile(r"(?<![\w/.-])(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>[12]\d{3})(?![\w/])")
_BRITISH = re.compile(rf"\b(?P<day>[12]?\d|3[01])(?:st|nd|rd|th)? (?:of )?(?P<month>{_MONTH})\b(?:,? (?P<year>[12]\d{{3}})\b)?")
_Rules = list[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]]
# Each is applied to what those before it left; the most special first.
_RULES: _Rules = [
    (re.compile("[½¼¾⅓⅔⅛]"), lambda m: (" and " if m.start() and m.string[m.start() - 1].isdigit() else "") + _VULGAR[m[0]]),
    (re.compile(r"(?<=\d)[–—−‑](?=\d)"), lambda m: "-"),
    (re.compile(r"(?<=\d)[x×](?=\d)"), lambda m: " by "),
    (re.compile(r"(?<=\d)\s+[x×]\s+(?=\d)"), lambda m: " times "),
    (re.compile(r"(?i)\b([ap]\.?m\b\.?)\s?[-–]\s?(?=\d)"), lambda m: f"{m[1]} to "),
    (re.compile(r"(?i)(?<=\d)([ap]\.?m\b\.?)\s?[-–]\s?(?=\d)"), lambda m: f"{m[1]} to "),
    (re.compile(r"(?<=\d)\s*÷\s*(?=\d)"), lambda m: " divided by "),
    (re.compile(r"(?<![\w-])24/7(?![\w/])"), lambda m: "twenty four seven"),
    (re.compile(r"(?<![\w/.-])(?P<year>[12]\d{3})-(?P<month>\d{2})-(?P<day>\d{2})(?![\w-])"), _numeric_date),
    (_SLASHED, _numeric_date),
    (
        re.compile(r"(?<![\w.+-])(?:\+?\d{1,2}[-. ])?(?:\(\d{3}\) ?|\d{3}[-.])?\d{3}[-.]\d{4}(?![\w-])"),
        lambda m: ", ".join(_digits(part) for part in re.findall(r"\d+", m[0])),
    ),
    (
        re.compile(rf"(?P<sign>[$€£¥₹])(?P<from>{_NUMBER})\s?-\s?(?P=sign)?(?=\d)"),
        lambda m: f"{m['from']} to {m['sign']}",
    ),
    (
        re.compile(rf"(?:US)?(?P<sign>[$€£¥₹])\s?(?P<number>{_NUMBER}|\.\d\d)(?:\s?(?P<scale>{_SCALE}|bn\b|[kKMB]\b))?"),
        _money,
    ),
    (
        re.compile(r"(?<![\w.,])(?:(?<=\bthe )|(?=[\d,]+s (?:of|or)\b))1(?P<zeros>00|,?000)s\b"),
        lambda m: "hundreds" if m["zeros"] == "00" else "thousands",
    ),
    (re.compile(r"(?<!\w)['’‘]?(?P<century>1\d|20)?(?P<tens>\d0)['’]?s\b"), _decade),
    (_AMERICAN, _date),
    (_BRITISH, _date),
    (re.compile(r"(?<=\d)\s?-\s?(?=(?:[01]?\d|2[0-3]):[0-5]\d(?![\d:]))"), lambda m: " to "),
    (
        re.compile(
            r"(?<![\w:.,-])(?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]\d)(?![\d:])(?P<half>\s?[aApP](?:\.[mM]\.|[mM]\b))?"
        ),
        _clock,
    ),
    (re.compile(r"(?<![\w:.,-])(?P<hour>1[0-2]|[1-9])(?P<minute>)(?P<half>\s?[aApP](?:\.[mM]\.|[mM]\b))"), _clock),
    (re.compile(r"(?<=\d):(?=\d)"), lambda m: " to "),
    (re.compile(rf"(?<![\w/.,-])(\d{{1,3}})[ -](?=(?:{_PROPER})(?![\w/]))"), lambda m: f"{m[1]} and "),
    (re.compile(r"(?<![\w/.])(?P<top>\d{1,3})/(?P<bottom>\d{1,3})(?![\w/])"), _fraction),
    (re.compile(r"(?P<feet>\d)['′](?P<inches>\d{1,2})(?:[\"”″]|'')?"), lambda m: f"{m['feet']} foot {m['inches']}"),
    (re.compile(r"(?<=\d)[-](?=\d)"), lambda m: " to "),
    (re.compile(r"(?<![\w.])-(?=\d)"), lambda m: "minus "),
    (re.compile(r"#\s?(?=\d)"), lambda m: "number "),
    (re.compile(r"(?<!\w)[~≈]\s?(?=\d)"), lambda m: "about "),
    (re.compile(r"(?<=\d)\s?%"), lambda m: " percent"),
    (re.compile(r"\b(?:\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b"), lambda m: _ordinal(m[0])),
    (re.compile(rf"(?<![\w.])(?:{_NUMBER})\s?(?:{_UNIT})(?![\w²³/])"), lambda m: _say(m[0].replace(",", ""))),
    (
        re.compile(rf"(?<![\w.])(?P<number>{_NUMBER})\s?(?P<unit>{'|'.join(_UNITS)})(?![\w'’/])"),
        lambda m: f"{_whole(m['number'])} {_UNITS[m['unit']].removesuffix('s' if m['number'] == '1' else '-')}",
    ),
    (re.compile(r"(?<=[A-Za-z])-(?=\d)"), lambda m: " "),
    (re.compile(r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])"), lambda m: " "),
    (re.compile(r"(?<![\w.,])[12]\d{3}(?![\w]|[.,]\d)"), lambda m: _year(m[0])),
    (re.compile(r"\d+(?:\.\d+){2,}"), lambda m: " point ".join(_whole(part) for part in m[0].split("."))),
    (re.compile(r"(?<![\d.])\.(?=\d)"), lambda m: " point "),
    (re.compile(_NUMBER), lambda m: _whole(m[0])),
]
