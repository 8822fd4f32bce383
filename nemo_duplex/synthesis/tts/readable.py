"""What eSpeak NG can read of a text: the form in which it reads the most, and the reason why it cannot say the rest.

eSpeak never refuses. It names what it does not know ("Chinese letter", "letter 1EC5"), drops symbols and the ends of long words
silently, and says Hebrew without vowel points as consonants alone. Its phonemes show it.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache

import regex

from nemo_duplex.synthesis.tts.languages import (
    LANGUAGES_OF_SCRIPT,
    UNINTELLIGIBLE,
    foreign_words,
    own_words,
    script,
    scripts_of,
)

#: Phonemes of texts, a string of each: letters of the IPA with "_" between phonemes and "__" or "_ _" between words.
Phonemes = Callable[[Iterable[str]], list[str]]

_FORMS = {"<wide>", "<narrow>", "<font>", "<compat>", "<square>", "<circle>", "<isolated>", "<initial>", "<medial>", "<final>"}
_READ_AS_THEY_ARE = "№µ～"  # eSpeak says "numero", "micro" and a longer vowel; in their plain form "no", "mu" and "tilde"
_WIDE_PUNCTUATION = "％﹪＆＠＃－／"  # silent, their plain forms are said
_APOSTROPHE = "ʼ"  # the letter of that name, which eSpeak names
_SYMBOLS = {"Sc", "Sm", "No", "Nl", "Nd"}  # money, mathematics, digits of other scripts
_SYMBOLS_OF_OTHER_KINDS = "%‰‱٪°′″"
_BULLETS = "⋅∙～"  # symbols of mathematics by their category; silent, as they should be
# Marks of Hebrew and Arabic in the order that eSpeak reads: dagesh, shin dot or shadda, then vowels. Unicode's normal forms
# have the vowels first; then eSpeak names every letter ("Hebrew shindot"), or loses the vowel. Biblical accents are not said.
_MARKS_IN_ORDER = re.compile("[\u0591-\u05c7\u064b-\u0652]+")
_ORDER = {"\u05bc": 0, "\u05c1": 1, "\u05c2": 1, "\u0651": 1}
_NOT_SAID = re.compile("[\u0591-\u05af\u05bd]")
# Of what eSpeak takes for one word it keeps 200 phonemes, at least 16 characters ("WWWW..."), and the rest is lost.
_SHORT, _LONGEST = 16, 200
# Initials ("a.b.c. d.e.") in long chains end its process; as many are no speech, and far fewer than end it.
_CHAIN = regex.compile(r"(?:\p{L}\p{M}*+\.[\s…]*+){41,}|(?:[^\s'’]?['’]s){41,}")
_STRETCHES = [regex.compile(pattern) for pattern in (r"\w(?:[^\s。、，！？；：…]*[\w\p{M}])?", r"[\w\p{M}]+")]
_MIXED = regex.compile(r"\w*(?:\p{Latin}\p{Cyrillic}|\p{Cyrillic}\p{Latin})\w*")
_RANGE = re.compile(r"\d+\s*[~～〜]\s*\d+")  # the sign is a longer vowel to eSpeak, and no "to"
_LATIN_WORD = regex.compile(r"\p{Latin}[\p{Latin}\p{M}]+")
_COMBINED = re.compile("[^\u0300-\u036f]?[\u0300-\u036f]+")
# Of Korean without punctuation it loses what is beyond 800 bytes of single letters.
_KOREAN_BYTES = 700
_VOWELS = set("aeiouyæɐɑɒɔəɛɜɪɨɵøœʊʉʌʏ")
_SHOWN, _LONGEST_SHOWN = 3, 30  # words in a message, letters of a word


@lru_cache(maxsize=4096)
def readable(text: str) -> str:
    """The text in the form that eSpeak reads: letters joined with their marks (NFC), fancy forms of them plain ("𝐀", "Ａ")."""
    if text.isascii():
        return text
    plain = "".join(map(_plain, unicodedata.normalize("NFC", text)))
    return _MARKS_IN_ORDER.sub(_reordered, _NOT_SAID.sub("", plain))


def _reordered(marks: re.Match[str]) -> str:
    return "".join(sorted(marks[0], key=lambda mark: _ORDER.get(mark, 2)))


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    form = unicodedata.decomposition(character).split(" ")[0]
    kind = unicodedata.category(character)
    if character == _APOSTROPHE:
        return "’"
    if character in _WIDE_PUNCTUATION or (form == "<super>" and kind == "Lm"):  # "1ˢᵗ", "xⁿ"
        return unicodedata.normalize("NFKC", character)
    if form not in _FORMS or character in _READ_AS_THEY_ARE or not (kind[0] in "LN" or kind in ("So", "Sc", "Sm")):
        return character
    return character if script(character) == "Hangul" else unicodedata.normalize("NFKC", character)


def why_unreadable(text: str, language: str, name: str, phonemes: Phonemes) -> str | None:
    """What eSpeak does with a text that it cannot say, and the cure; None if it can.

    Args:
        text: readable, with a word in it.
        language: eSpeak's code of it.
        name: the language's English name.
        phonemes: of texts in this language.
    """
    if language in UNINTELLIGIBLE:
        return f"it does not say {UNINTELLIGIBLE[language]} so that it is understood: leave the dialogue out"
    if chain := _CHAIN.search(text):
        return f"it cannot read as many initials as in {_listed([chain[0]])}: write them without full stops and apostrophes"
    if lost := _lost(text, language, phonemes):
        return f"it reads only the beginning of {_listed([lost])}: write blanks or punctuation in it"
    if text.isascii() and language.startswith("en"):
        return None
    if mixed := _MIXED.findall(text):
        return (
            f"it does not read {_listed(mixed)}, with Latin and Cyrillic letters in one word: write it in letters of one script"
        )
    if foreign := foreign_words(text, language):
        return _foreign(foreign, text, language, name)
    if unknown := _unknown_letters(text, phonemes):
        return (
            f"it does not read {_listed(unknown)} in {name}: write it with other letters, "
            "or name the language of the text (`language`)"
        )
    words = own_words(text, language)
    if named := [word for word, said in zip(words, phonemes(words)) if _is_spelled(word, said)]:
        if language == "ja" and all(script(c) == "Han" for word in named for c in word):
            return f"it does not read the kanji {_listed(named)}: write the text in kana"
        return f"it spells {_listed(named)} in {name}: write it with other letters, or another word"
    if spelled := _spelled_in_latin(text, language, phonemes):
        letters = "Kana" if language == "ja" else " or ".join(sorted(scripts_of(language) - {"Latin"}))
        return f"it spells {_listed(spelled)} in {name}: write it in {letters} letters"
    if language == "he":
        vowelless = [word for word in dict.fromkeys(words) if sum(map(str.isalpha, word)) > 1]
        mute = [word for word, said in zip(vowelless, phonemes(vowelless)) if not _VOWELS & set(said)]
        if mute:
            return f"it says {_listed(mute)} without vowels: write the vowel points"
    if ranges := _RANGE.findall(text):
        return f"it does not say the sign in {_listed(ranges)}: write it in words"
    symbols = [c for c in dict.fromkeys(text) if _is_symbol(c)]
    if silent := [c for c, said in zip(symbols, phonemes(symbols)) if not any(map(str.isalpha, said))]:
        return f"it drops {_listed(silent)} in {name}: write it in words"
    return None


def _lost(text: str, language: str, phonemes: Phonemes) -> str | None:
    """The first word that is too long for eSpeak, or clause of Korean."""
    for stretch in itertools.chain(*(pattern.findall(text) for pattern in _STRETCHES)):
        if len(stretch) > _LONGEST and sum(map(str.isalnum, stretch)) > _LONGEST / 2:
            return stretch
        if len(stretch) > _SHORT:
            whole, longer = phonemes([stretch, stretch + stretch[-8:]])
            if abs(len(longer) - len(whole)) <= 2:
                return stretch
    if language == "ko":
        for clause in re.split(r"[.,;:?!…。、，！？；：]", text):
            if len(unicodedata.normalize("NFD", clause).encode()) > _KOREAN_BYTES:
                return clause.strip()
    return None


def _foreign(words: list[str], text: str, language: str, name: str) -> str:
    found = script(words[0][0])
    assert found is not None, "words are letters"
    languages = LANGUAGES_OF_SCRIPT.get(found)
    if languages is None:
        return f"it says {_listed(words)} ({found} letters) in no language so that it is understood: leave the dialogue out"
    own = scripts_of(language) - {"Latin"}
    cure = f"write it in {' or '.join(sorted(own | {'Latin'}))} letters"
    if not own_words(text, language):
        cure += f", or name the language of the text, such as language={languages[0]}"
    return f"it does not read {_listed(words)} ({found} letters) in {name}: {cure}"


def _unknown_letters(text: str, phonemes: Phonemes) -> list[str]:
    """Letters that eSpeak would call by their number: "letter" and four digits or more, which are separate words to it."""
    letters = [c for c in dict.fromkeys(text.lower()) if c.isalpha() and not c.isascii() and script(c) != "Kana"]
    letters += dict.fromkeys(_COMBINED.findall(text.lower()))
    said = zip(letters, phonemes(letters))
    return [c for c, phones in said if "(" not in phones and len(re.findall("_ ?_", phones)) >= 3]


def _is_spelled(word: str, phones: str) -> bool:
    """Whether eSpeak names a letter or mark of a word in English, to which it changes in brackets ("(en)"), or every letter."""
    return "(" in phones or phones.strip().count(" ") > 1 + word.count("\u200d")  # it begins anew at a joiner


def _spelled_in_latin(text: str, language: str, phonemes: Phonemes) -> list[str]:
    """Words in Latin letters that are spelled in a language of another script: all of them in Japanese, Kyrgyz, Tigrinya and
    others, elsewhere those with accents that English does not have. Chinese says the tones of pinyin as digits."""
    words = [word for word in _LATIN_WORD.findall(text) if not word.isupper()]
    if not words or scripts_of(language) == {"Latin"}:
        return []
    if " " in phonemes(["hello"])[0].strip():
        return words
    said = zip(words, phonemes(words))
    accented = [(word, phones) for word, phones in said if not word.isascii()]
    return [word for word, phones in accented if language in ("cmn", "yue") or phones.strip().count(" ") > 1]


def _is_symbol(character: str) -> bool:
    kind = unicodedata.category(character)
    if character.isascii():
        return character in "%$=+&@#"
    return (kind in _SYMBOLS and character not in _BULLETS) or character in _SYMBOLS_OF_OTHER_KINDS


def _listed(words: list[str]) -> str:
    distinct = list(dict.fromkeys(word if len(word) <= _LONGEST_SHOWN else word[:_LONGEST_SHOWN] + "..." for word in words))
    return ", ".join(map(repr, distinct[:_SHOWN])) + (f" and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else "")
