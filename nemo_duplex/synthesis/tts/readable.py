"""What eSpeak NG can read of a text: the form in which it reads the most, and the reason why it cannot say the rest.

eSpeak never refuses. It names what it does not know ("Chinese letter", "letter 1EC5"), drops symbols silently, and says Hebrew
without vowel points as consonants alone. Its phonemes show it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache

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
_READ_AS_THEY_ARE = "№µ"  # eSpeak says "numero" and "micro"; in their plain form "no" and "mu"
_SYMBOLS = {"Sc", "Sm", "No", "Nl", "Nd"}  # money, mathematics, digits of other scripts
_SYMBOLS_OF_OTHER_KINDS = "%‰°′″"
_BULLETS = "⋅∙"  # symbols of mathematics by their category; silent, as they should be
_VOWELS = set("aeiouyæɐɑɒɔəɛɜɪɨɵøœʊʉʌʏ")
_SHOWN = 3  # words in a message


@lru_cache(maxsize=4096)
def readable(text: str) -> str:
    """The text in the form that eSpeak reads: letters joined with their marks (NFC), fancy forms of them plain ("𝐀", "Ａ")."""
    if text.isascii():
        return text
    return "".join(map(_plain, unicodedata.normalize("NFC", text)))


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    form = unicodedata.decomposition(character).split(" ")[0]
    kind = unicodedata.category(character)
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
    if text.isascii() and language.startswith("en"):
        return None
    if foreign := foreign_words(text, language):
        return _foreign(foreign, text, language, name)
    if unknown := _unknown_letters(text, language, phonemes):
        if language == "ja":
            return f"it does not read the kanji {_listed(unknown)}: write the text in kana"
        return (
            f"it does not read {_listed(unknown)} in {name}: write it with other letters, "
            "or name the language of the text (`language`)"
        )
    if language == "he":
        words = [word for word in dict.fromkeys(own_words(text, language)) if sum(map(str.isalpha, word)) > 1]
        mute = [word for word, said in zip(words, phonemes(words)) if not _VOWELS & set(said)]
        if mute:
            return f"it says {_listed(mute)} without vowels: write the vowel points"
    symbols = [c for c in dict.fromkeys(text) if _is_symbol(c)]
    if silent := [c for c, said in zip(symbols, phonemes(symbols)) if not any(map(str.isalpha, said))]:
        return f"it drops {_listed(silent)} in {name}: write it in words"
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


def _unknown_letters(text: str, language: str, phonemes: Phonemes) -> list[str]:
    """Letters that eSpeak would name: by their number, or in English, to which it changes in brackets: "(en)"."""
    letters = [c for c in dict.fromkeys(text.lower()) if c.isalpha() and not c.isascii() and script(c) not in (None, "Kana")]
    latin = {c for c in letters if script(c) == "Latin"}
    said = zip(letters, phonemes(letters))
    return [c for c, phones in said if _is_number(phones) or ("(" in phones and c not in latin)]


def _is_number(phones: str) -> bool:
    """Whether a letter is said as "letter" and four digits or more: these are separate words to eSpeak."""
    return len(re.findall("_ ?_", phones)) >= 3


def _is_symbol(character: str) -> bool:
    kind = unicodedata.category(character)
    if character.isascii():
        return character in "%$=+"
    return (kind in _SYMBOLS and character not in _BULLETS) or character in _SYMBOLS_OF_OTHER_KINDS


def _listed(words: list[str]) -> str:
    distinct = list(dict.fromkeys(words))
    return ", ".join(map(repr, distinct[:_SHOWN])) + (f" and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else "")
