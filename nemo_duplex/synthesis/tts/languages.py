"""In which language eSpeak NG says a text, by its script.

Measured with eSpeak NG 1.52 on the phonemes that it makes of sentences (`tests/synthesis/test_languages.py`). A language is in
the table below if its words keep their vowels; Thai, Burmese and Shan lose them, and Cherokee is spelled.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache
from pathlib import Path

from nemo_duplex.inputs import InputError

#: The languages that eSpeak reads in each script but Latin; a text is in the first one whose letters cover its own.
LANGUAGES_OF_SCRIPT: dict[str, tuple[str, ...]] = {
    "Cyrillic": ("ru", "uk", "be", "sr", "mk", "kk", "ky", "tt", "ba", "cv", "bg"),
    "Arabic": ("ar", "fa", "ur", "sd", "ug"),
    "Greek": ("el", "grc"),
    "Devanagari": ("hi", "mr", "ne", "kok"),
    "Bengali": ("bn", "as", "bpy"),
    "Ethiopic": ("am", "ti"),
    "Han": ("cmn", "yue"),
    "Kana": ("ja",),
    "Hangul": ("ko",),
    "Hebrew": ("he",),
    "Armenian": ("hy", "hyw"),
    "Georgian": ("ka",),
    "Gurmukhi": ("pa",),
    "Gujarati": ("gu",),
    "Oriya": ("or",),
    "Tamil": ("ta",),
    "Telugu": ("te",),
    "Kannada": ("kn",),
    "Malayalam": ("ml",),
    "Sinhala": ("si",),
}
#: Languages that eSpeak has and says so badly that nobody understands them.
UNINTELLIGIBLE = {"th": "Thai", "my": "Burmese", "shn": "Shan", "chr": "Cherokee"}

_RUSSIAN = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"
_ARABIC = "ءآأؤإئابةتثجحخدذرزسشصضطظعغـفقكلمنهوىيٱ"
_PERSIAN = "ءآأؤئابپةتثجچحخدذرزژسشصضطظعغـفقکگلمنوهۀی"
# Of the languages that are told apart by their letters. Where none of a script's covers a text, it is in the first.
_ALPHABETS = {
    "ru": _RUSSIAN,
    "uk": "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя",
    "be": "абвгдеёжзійклмнопрстуўфхцчшыьэюя",
    "sr": "абвгдђежзијклљмнњопрстћуфхцчџш",
    "mk": "абвгдѓежзѕијклљмнњопрстќуфхцчџшѐѝ",
    "kk": _RUSSIAN + "әғқңөұүһі",
    "ky": _RUSSIAN + "ңөү",
    "tt": _RUSSIAN + "әөүҗңһ",
    "ba": _RUSSIAN + "ғҙҡңөҫүһә",
    "cv": _RUSSIAN + "ӑӗҫӳ",
    "bg": "абвгдежзийклмнопрстуфхцчшщъьюя",
    "ar": _ARABIC,
    "fa": _PERSIAN,
    "ur": _PERSIAN + "ٹڈڑںھہۂۃۓے",
    "sd": _ARABIC + "ٻڀٺٽٿڄڃچڇڌڏڊڍڙڦڪکگڳڱڻھٹپ",
    "ug": "ئابپتجچخدرزژسشغفقكگڭلمنھوۇۆۈۋېەىي",
    "bn": "".join(chr(code) for code in range(0x980, 0xA00) if code not in (0x9F0, 0x9F1)),
    "as": "".join(map(chr, range(0x980, 0xA00))),
}
# How Unicode's names of letters begin, for scripts whose name is another word.
_SCRIPT_OF_NAME = {"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana", "KATAKANA-HIRAGANA": "Kana", "IDEOGRAPHIC": "Han"}
_NOT_NAMED = {"MODIFIER", "FEMININE", "MASCULINE", "MICRO"}  # letters of no script: they are said as the language says them
_MINORITY = 3  # a text is in another script's language from every third word on
_TAGS = {"cmn": "zh", "nb": "no"}  # as speech corpora call what eSpeak calls otherwise
# Codes of three letters (ISO 639-3), as FLORES, Aya and Common Voice write them; eSpeak's are of two.
_OF_THREE_LETTERS = dict(
    pair.split(":")
    for pair in (
        "eng:en deu:de ger:de fra:fr fre:fr spa:es por:pt ita:it nld:nl dut:nl rus:ru ukr:uk bel:be bul:bg srp:sr "
        "mkd:mk kaz:kk kir:ky tat:tt pol:pl ces:cs cze:cs slk:sk slv:sl hrv:hr bos:bs hun:hu ron:ro rum:ro ell:el "
        "gre:el tur:tr swe:sv dan:da nor:nb nob:nb nno:nb nn:nb fin:fi est:et lav:lv lit:lt gle:ga cat:ca eus:eu arb:ar "
        "ara:ar fas:fa pes:fa per:fa urd:ur snd:sd uig:ug heb:he iw:he hin:hi mar:mr nep:ne npi:ne ben:bn asm:as guj:gu "
        "pan:pa ori:or ory:or tam:ta tel:te kan:kn mal:ml sin:si zho:cmn chi:cmn mandarin:cmn cantonese:yue jpn:ja "
        "kor:ko vie:vi ind:id msa:ms zsm:ms tha:th amh:am tir:ti hye:hy arm:hy kat:ka geo:ka swa:sw swh:sw afr:af "
        "isl:is mlt:mt sqi:sq als:sq "
    ).split()
)
_UNKNOWN = {"", "und", "unknown", "none", "mul", "auto"}  # what corpora write where they do not know


def is_english(language: str) -> bool:
    """Whether a language, as corpora write it (`en`, `eng`, `en_GB`, `English`), is English, or says that it is not known."""
    name = language.split("(")[0].strip().lower().replace("_", "-")
    return name in _UNKNOWN or name.split("-")[0] in ("en", "eng", "english")


@lru_cache(maxsize=65536)
def script(character: str) -> str | None:
    """The script of a letter, such as `Cyrillic`; None of what is no letter or belongs to no script."""
    if not unicodedata.category(character).startswith("L"):
        return None
    first = unicodedata.name(character, "unnamed letter").split()[0]
    return None if first in _NOT_NAMED else _SCRIPT_OF_NAME.get(first, first.capitalize())


def scripts_of(language: str) -> set[str]:
    """The scripts that a language of eSpeak reads. Latin is always among them: words in it are said in English."""
    found = {name for name, languages in LANGUAGES_OF_SCRIPT.items() if language in languages}
    return found | {"Latin"} | ({"Han"} if language == "ja" else set())


def language_of(text: str, own: str) -> str:
    """The language of a text by its script.

    Args:
        text: of one turn.
        own: the voice's own language; it says texts in its own scripts.

    Returns:
        A language of `LANGUAGES_OF_SCRIPT`, if every third word or more is in its script: words in Latin letters are said
        in English there. Otherwise `own`.
    """
    words = Counter[str]()  # in halves: a Chinese word has two characters
    for name, run in _runs(text):
        if name != "Greek" or len(run) > 1:  # one letter is a symbol
            words[name] += 1 if name == "Han" else 2
    others = {name: count for name, count in words.items() if name not in scripts_of(own)}
    if not others or sum(others.values()) * _MINORITY < words.total():
        return own
    most = "Kana" if "Kana" in others else max(others, key=lambda name: others[name])
    languages = LANGUAGES_OF_SCRIPT.get(most, (own,))
    letters = {c for name, run in _runs(text) if name == most for c in run.lower() if script(c) is not None}  # without marks
    return next((found for found in languages if letters <= set(_ALPHABETS.get(found, letters))), languages[0])


def foreign_words(text: str, language: str) -> list[str]:
    """The words of a text that are in other scripts than those that a language reads.

    A single Greek letter is a symbol, which languages in Latin script call by its name: "the angle α".
    """
    scripts = scripts_of(language)
    return [run for name, run in _runs(text) if name not in scripts and not (name == "Greek" and len(run) == 1)]


def own_words(text: str, language: str) -> list[str]:
    """The words of a text that are in the language's script, if that is not Latin."""
    return [run for name, run in _runs(text) if name in scripts_of(language) - {"Latin"}]


def _runs(text: str) -> list[tuple[str, str]]:
    """(script, letters with their marks) of every stretch of letters in one script; of Han, of every character."""
    runs: list[tuple[str, str]] = []
    inside = False
    for character in text:
        if unicodedata.category(character).startswith("M") or character in "\u200c\u200d":
            if inside:
                runs[-1] = (runs[-1][0], runs[-1][1] + character)
            continue
        name = script(character)
        if name is not None and inside and runs[-1][0] == name != "Han":
            runs[-1] = (name, runs[-1][1] + character)
        elif name is not None:
            runs.append((name, character))
        inside = name is not None
    return runs


class Languages:
    """The languages in a data folder of eSpeak, by code, tag and English name.

    Examples:
        >>> from nemo_duplex.synthesis.tts.espeak import espeak_paths
        >>> languages = Languages(espeak_paths()[1])
        >>> [languages.find(name) for name in ("hi", "Hindi", "zh-CN", "Chinese", "pt-BR", "en_US")]
        ['hi', 'hi', 'cmn', 'cmn', 'pt-br', 'en-us']
    """

    def __init__(self, data: Path) -> None:
        self._codes: dict[str, str] = {}
        self._names: dict[str, str] = {}
        files = sorted((f for f in (data / "lang").rglob("*") if f.is_file()), key=lambda f: (len(f.name), f.name.lower()))
        for file in files:  # "spa" is Spain's and not Latin America's: short names first
            code, rows = file.name.lower(), [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
            values = {row[0]: row[1:] for row in reversed(rows) if len(row) > 1}
            dictionary = values.get("dictionary", [code.split("-")[0]])[0]
            if not (data / f"{dictionary}_dict").is_file():
                continue  # eSpeak would say it by the rules of the language before
            name = " ".join(values.get("name", [code])).split("//")[0].split("(")[0].strip()
            self._names[code] = name
            tags = [row[1].lower() for row in rows if len(row) > 1 and row[0] == "language"]
            for known in (code, *tags, name.lower(), name.split()[0].lower()):
                self._codes.setdefault(known, code)

    def find(self, name: str) -> str | None:
        """eSpeak's code of a language; None for what says that it is not known (`und`).

        Args:
            name: a code (`hi`, `hin`), a tag (`zh-CN`, `hin_Deva`), or the English name (`Hindi`), as corpora write them.

        Raises:
            InputError: if eSpeak does not have it.
        """
        wanted = name.split("(")[0].strip().lower().replace("_", "-")
        if wanted in _UNKNOWN:
            return None
        parts = wanted.split("-")
        for end in range(len(parts), 0, -1):
            code = "-".join(parts[:end])
            if (found := self._codes.get(code) or self._codes.get(_OF_THREE_LETTERS.get(code, ""))) is not None:
                return found
        raise InputError(
            f"eSpeak NG has no language {name!r}: leave `language` out, or give the code or the English name of one of its "
            f"{len(self._names)}, such as de or German."
        )

    def voice(self, accent: str) -> str | None:
        """The code of an accent such as `en-us` or `en-gb`, which is also the name of its file; None if there is none."""
        return self._codes.get(accent.lower())

    def __contains__(self, code: str) -> bool:
        return code in self._names

    def name(self, code: str) -> str:
        """The English name of a language, for messages."""
        return self._names.get(code, code)


def tag(language: str) -> str:
    """What a supervision says about speech in a language of eSpeak: `en` for every accent of English, `zh` for Mandarin."""
    main = language.split("-")[0]
    return _TAGS.get(main, main)
