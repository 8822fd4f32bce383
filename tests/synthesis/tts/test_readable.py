from __future__ import annotations

import unicodedata

import pytest

from nemo_duplex.synthesis.tts.readable import readable, why_unreadable


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Hello", "Hello"), (unicodedata.normalize("NFD", "été 한국"), "été 한국"), ("𝐇𝐞𝐥𝐥𝐨 ｗｏｒｌｄ １２", "Hello world 12"),
        ("ﬁne ① Ⅷ 20℃ 5㎏", "fine 1 VIII 20°C 5kg"), ("ﾃｽﾄ", "テスト"), ("№ 5 µm ½ x² …，ㅋ™", "№ 5 µm ½ x² …，ㅋ™"),
        ("ﻣﺮﺣﺒﺎ", "مرحبا"), ("1ˢᵗ xⁿ 2ª itʼs ５０％ はい～", "1st xn 2ª it’s 50% はい～"),
        ("\u05e9\u05b8\u05c1 \u05e9\u05bd\u05b8\u05bc\u05c1\u0596 \u064e\u0651",
         "\u05e9\u05c1\u05b8 \u05e9\u05bc\u05c1\u05b8 \u0651\u064e"),
    ],
)  # fmt: skip
def test_letters_in_other_forms_become_plain(text, plain):
    assert readable(text) == plain


SAID = {"é": "ˌiː__ɐ_k_j_ˈuː_t_", "ạ": "l_ɛ_ɾ_ɚ__w_ʌ_n__iː__eɪ__w_ʌ_n_", "龍": "(en)_tʃ_aɪ_n_iː_z_(ja)_l_e_t_ə_", "の": "n_o_"}
SAID |= {
    "מזג": "m_z_ɡ_",
    "שלום": "ʃ_a_l_o_m_",
    "½": "h_æ_f_",
    "₽": "",
    "%": "",
    "‰": "_",
    "ж": "ʒ_",
    "𠀀": "j_i6_ _l_i_ _l_i_ _l_i_",
}


@pytest.mark.parametrize(
    ("text", "language", "reason"),
    [
        ("Hello 100% = $5", "en", None),
        ("café ½", "en", None),
        ("Xin chạo", "en", "it does not read 'ạ' in L: write it with other letters, "
                          "or name the language of the text (`language`)"),
        ("ж", "ru", None),
        ("5 ₽ и ‰ и %", "ru", "it drops '₽', '‰', '%' in L: write it in words"),
        ("龍の", "ja", "it does not read the kanji '龍': write the text in kana"),
        ("𠀀", "cmn", "it does not read '𠀀' in L: write it with other letters, or name the language of the text (`language`)"),
        ("שלום ו", "he", None),
        ("שלום מזג", "he", "it says 'מזג' without vowels: write the vowel points"),
        ("Hello", "th", "it does not say Thai so that it is understood: leave the dialogue out"),
        ("สวัสดี", "en", "it says 'สวัสดี' (Thai letters) in no language so that it is understood: leave the dialogue out"),
        ("a b Иван a", "en", "it does not read 'Иван' (Cyrillic letters) in L: write it in Latin letters, "
                             "or name the language of the text, such as language=ru"),
        ("안 日 本 人 出", "ko", "it does not read '日', '本', '人' and 1 more (Han letters) in L: "
                                  "write it in Hangul or Latin letters"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_with_a_cure(text, language, reason):
    assert why_unreadable(text, language, "L", lambda texts: [SAID.get(text, "a_") for text in texts]) == reason
