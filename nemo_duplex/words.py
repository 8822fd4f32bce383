"""Text as words to compare, in any language: every score that compares two texts splits them here.

    case             straße and STRASSE are equal; Turkish İ is i (without the language, I is i too, not ı)
    normal forms     é is one code point or two, １２ or 12, ｶﾅ or カナ, ﬁ or fi: equal (NFKC, and so NFC)
    marks            belong to their letter: vowel signs, points, tones, accents. दिन is one word, and another one than दीन
    digits           of all scripts are equal: ٣ and ३ are 3
    inside of words  apostrophes of all kinds, joiners, soft hyphens, Armenian stress and question marks: left out
    between words    blanks, dashes of all kinds, other punctuation, symbols, emoji

Chinese, Japanese, Thai, Lao, Khmer and Burmese have no blanks between words. There every character, with its marks, counts as
a word, so that a word error rate of such texts is their character error rate, as is usual; in mixed text, the mixed one.
"""

from __future__ import annotations

import unicodedata

import regex

# NFKC makes a blank with an accent of these, so they become an apostrophe before.
_APOSTROPHES_THAT_NFKC_BREAKS = str.maketrans(dict.fromkeys("´΄᾽᾿῾", "'") | {"\u200b": " "})  # this one is an invisible blank
_INVISIBLE = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Me}ـ]")  # and enclosing marks; ـ only stretches a word
_INSIDE_OF_WORDS = regex.compile("['`’‘‛ʼʻʽʹ′ꞌ׳״·՚՛՜՞]")
#: Scripts without blanks between words, as a part of a regular expression.
WITHOUT_BLANKS = r"\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(
    rf"(?V1)[[\p{{L}}\p{{N}}]&&[{WITHOUT_BLANKS}]]\p{{M}}*|(?:[[\p{{L}}\p{{N}}]--[{WITHOUT_BLANKS}]]\p{{M}}*)+"
)


def words(text: str) -> list[str]:
    """The words of a text; two texts are the same if their words are.

    Examples:
        >>> words("It's  PARIS, France!")
        ['its', 'paris', 'france']
        >>> words("दिन"), words("第12课。")
        (['दिन'], ['第', '12', '课'])
    """
    text = _INVISIBLE.sub("", text.translate(_APOSTROPHES_THAT_NFKC_BREAKS))
    folded = unicodedata.normalize("NFKC", text).casefold().replace("i\u0307", "i")  # how İ is folded
    letters = _INSIDE_OF_WORDS.sub("", unicodedata.normalize("NFKC", folded))
    return _WORD.findall("".join(str(unicodedata.decimal(character, character)) for character in letters))
