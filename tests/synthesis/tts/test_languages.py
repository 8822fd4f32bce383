from __future__ import annotations

import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.tts.espeak import espeak_paths
from nemo_duplex.synthesis.tts.languages import _OF_THREE_LETTERS, Languages, foreign_words, language_of, scripts_of, tag
from nemo_duplex.synthesis.tts.voices import voice_data


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How are you?", "en"), ("5 + 5", "en"), ("", "en"), ("naïve café, Łódź", "en"), ("The angle α is π.", "en"),
        ("πr²", "en"),
        ("Привет, как дела?", "ru"), ("Привіт, їжак", "uk"), ("Ён жыве ў Мінску", "be"), ("Ђак иде у школу", "sr"),
        ("Бүгін ауа райы жақсы", "kk"), ("Хәерле көн, җир", "tt"), ("Чӑваш чӗлхи ҫук", "cv"),
        ("كيف حالك؟", "ar"), ("حال شما چطور است؟", "fa"), ("آپ کیسے ہیں؟", "ur"), ("پانی ٹھنڈا ہے", "ur"),
        ("ياخشىمۇسىز ۋە", "ug"),
        ("Τι κάνεις;", "el"), ("आप कैसे हैं?", "hi"), ("আপনি কেমন আছেন?", "bn"), ("মই ৰাম", "as"), ("ሰላም", "am"),
        ("你好吗？", "cmn"), ("今日は", "ja"), ("カタカナ", "ja"), ("漢字 안녕하세요 여러분", "ko"),
        ("안녕", "ko"), ("שלום", "he"),
        ("Բարեւ", "hy"), ("გამარჯობა", "ka"), ("ਸਤ ਸ੍ਰੀ", "pa"), ("કેમ", "gu"), ("ନମସ୍କାର", "or"), ("வணக்கம்", "ta"),
        ("నమస్కారం", "te"),
        ("ನಮಸ್ಕಾರ", "kn"), ("നമസ്കാരം", "ml"), ("ආයුබෝවන්", "si"),
        ("สวัสดี", "en"), ("Google पर खोजें", "hi"), ("OK了", "cmn"), ("Ada Lovelace и Иван", "ru"),
        ("My friend Дмитрий lives here", "en"), ("Is it Иван?", "ru"), ("That was not Иван", "en"),
    ],
)  # fmt: skip
def test_a_text_is_in_the_language_of_its_script_from_every_third_word_on(text, language):
    assert language_of(text, "en") == language


def test_a_voice_says_what_is_in_its_own_script():
    assert language_of("Привет", "uk") == "uk" and language_of("Hallo", "de") == "de" and language_of("你好", "yue") == "yue"
    assert language_of("今日は", "ja") == "ja" and language_of("Hello", "ru") == "ru" and language_of("你好", "ru") == "cmn"


def test_words_in_other_scripts_are_named_but_for_greek_symbols():
    assert foreign_words("My friend Дмитрий, α and Ωμέγα", "en") == ["Дмитрий", "Ωμέγα"]
    assert foreign_words("日本の", "ja") == [] and foreign_words("日本の", "cmn") == ["の"]
    assert foreign_words("Google पर में", "hi") == [] and foreign_words("Google पर में", "en") == ["पर", "में"]
    assert scripts_of("de") == {"Latin"} and scripts_of("ja") == {"Kana", "Han", "Latin"}


@pytest.mark.parametrize("data", [lambda: espeak_paths()[1], voice_data])
def test_languages_are_found_as_corpora_call_them(data):
    languages = Languages(data())
    names = {
        "hi": ("hi", "HI", "hi-IN", "Hindi", " hindi ", "hin"), "cmn": ("zh", "zh-CN", "zh_Hant_TW", "Chinese", "cmn",
                "zho_Hans", "Mandarin"),
        "yue": ("yue",),
        "pt-br": ("pt-BR", "pt_br"), "pt": ("pt", "Portuguese", "pt-PT"), "en-us": ("en-US",),
        "en": ("en", "English", "en-AU", "eng", "eng_Latn", "English (US)"),
        "nb": ("no", "nb-NO", "Norwegian"), "es": ("Spanish", "es"), "es-419": ("es-MX",), "el": ("el", "Greek"),
        "my": ("Myanmar",), "de": ("deu", "ger"), "he": ("iw", "heb_Hebr"), "ru": ("rus_Cyrl",),
    }  # fmt: skip
    assert {name: languages.find(name) for found in names.values() for name in found} == {
        name: code for code, found in names.items() for name in found
    }
    assert [languages.find(name) for name in ("und", "unknown", "", "None", "mul", "auto")] == [None] * 6
    assert all(languages.find(code) == own for code, own in _OF_THREE_LETTERS.items()), "eSpeak has each of them."
    assert "hi" in languages and languages.name("hi") == "Hindi"
    for name in ("klingonisch", "xx", "fo"):  # eSpeak has a voice for Faroese but no dictionary
        with pytest.raises(
            InputError, match=f"eSpeak NG has no language '{name}': leave `language` out, or give .* one of its 1.., such as de"
        ):
            languages.find(name)


def test_supervisions_have_the_tags_of_other_corpora():
    assert [tag(code) for code in ("en-gb-x-rp", "en", "cmn", "nb", "pt-br", "hi")] == ["en", "en", "zh", "no", "pt", "hi"]
