"""eSpeak NG itself: words where they are said, and the same samples every time."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
import threading
import unicodedata
import zlib
from dataclasses import replace

import numpy as np
import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.tts import espeak
from nemo_duplex.synthesis.tts.espeak import EspeakEngine, _unmap, espeak_paths
from nemo_duplex.synthesis.tts.readable import readable
from nemo_duplex.synthesis.tts.utterance import Utterance, Voice
from nemo_duplex.synthesis.tts.voices import AGENT_VOICE, user_voice, voice_data
from nemo_duplex.synthesis.tts.word_times import word_times

TEXT = "The capital of France is Paris."


@pytest.fixture(scope="module")
def engine() -> EspeakEngine:
    return EspeakEngine(voice_data())


def test_speech_has_the_codecs_rate_and_no_silence_around_it(engine):
    spoken = engine.speak(TEXT, AGENT_VOICE)
    assert (engine.sample_rate, engine.version) == (22050, "1.52.0")
    assert spoken.audio.dtype == np.float32 and 0.1 < np.abs(spoken.audio).max() <= 1.0
    assert 1.2 < spoken.duration < 3.0
    loud = np.flatnonzero(np.abs(spoken.audio) > 0.01)
    assert loud[0] < 0.08 * 22050 and len(spoken.audio) - loud[-1] < 0.08 * 22050


@pytest.mark.parametrize(
    "text",
    [
        'He said "yes."', '"Yes," he said, "no."', "(Yes.)", "“Tell me.”", "— yes —", "[yes]", "«Yes.»", "'Hi.'", '"Is it?"',
        "...yes...", "… yes …", "¿Qué tal?", "> yes", '"One. Two." (Three.)', "One.\n\nTwo.\n", "„Ja.“", "(yes) .",
    ],
)  # fmt: skip
def test_quotation_marks_and_brackets_add_no_silence(engine, text):
    """eSpeak adds 128 ms before an opening one, 308 ms where one follows the full stop: four frames of "speech"."""
    spoken = engine.speak(text, AGENT_VOICE)
    sound = np.flatnonzero(np.abs(spoken.audio) > 1e-3 * np.abs(spoken.audio).max())
    assert sound[0] <= 0.062 * 22050, "At most the closure of a stop."
    assert len(spoken.audio) - sound[-1] <= 0.016 * 22050
    assert spoken.words[0].start <= 0.0101 and spoken.words[-1].end == pytest.approx(spoken.duration)
    assert all(0 <= w.start < w.end <= spoken.duration for w in spoken.words)


def test_a_plain_text_loses_no_sample(engine, monkeypatch):
    """So corpora made before keep their bytes. "Tell" begins with the closure of its stop, 60 ms in the slowest voices."""
    given = []
    monkeypatch.setattr(espeak, "Utterance", lambda text, audio, *more: given.append(audio) or Utterance(text, audio, *more))
    slowest = min((user_voice("train", number) for number in range(480)), key=lambda voice: voice.rate)
    for text in (
        "Tell me where the fish sleeps.",
        "Please count from two up until eight.",
        "Tell me what the cat does.",
        "Half.",
    ):
        for voice in (AGENT_VOICE, slowest):
            assert np.array_equal(engine.speak(text, voice).audio, given[-1]), text


def test_every_word_has_its_place_and_time(engine):
    text = "Tell me the day before Monday, it's the twenty-first."  # eSpeak runs "the day" together
    spoken = engine.speak(text, AGENT_VOICE)
    assert [w.text for w in spoken.words] == ["Tell", "me", "the", "day", "before", "Monday", "it's", "the", "twenty-first"]
    assert all(text[w.offset :].startswith(w.text) for w in spoken.words)
    assert all(w.end - w.start > 0.03 for w in spoken.words)
    assert all(a.end == b.start for a, b in zip(spoken.words, spoken.words[1:]))
    assert spoken.words[0].start == 0.0 and spoken.words[-1].end == pytest.approx(spoken.duration)
    guessed = word_times(text, {}, len(spoken.audio), 22050)
    shifts = [abs(said.start - letters.start) for said, letters in zip(spoken.words, guessed)]
    assert sum(shift > 0.02 for shift in shifts) >= 5, "Times are eSpeak's, not shares by letters."


def test_the_same_text_is_the_same_samples_whatever_was_said_before(engine):
    """eSpeak's state leaks between utterances: unless it is opened anew, four times the same text are four waveforms."""
    breathy = next(voice for voice in (user_voice("train", i) for i in range(99)) if "breath" in _variant(voice))
    for voice in (AGENT_VOICE, breathy):
        first = engine.speak(TEXT, voice).audio
        engine.speak("Something else, at length.", user_voice("dev", 1))
        assert np.array_equal(engine.speak(TEXT, voice).audio, first)
        assert not np.array_equal(engine.speak(TEXT, user_voice("train", 3)).audio[:1000], first[:1000])


def test_the_same_text_is_the_same_samples_in_another_process(engine):
    number = next(number for number in range(99) if "breath" in _variant(user_voice("train", number)))  # noise is seeded
    code = (
        "import zlib; from nemo_duplex.synthesis.tts.espeak import *; from nemo_duplex.synthesis.tts.voices import *;"
        f"engine, voices = EspeakEngine(voice_data()), (user_voice('train', {number}), AGENT_VOICE);"
        f"print(*(zlib.crc32(engine.speak({TEXT!r}, voice).audio) for voice in voices))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.split() == [str(zlib.crc32(engine.speak(TEXT, v).audio)) for v in (user_voice("train", number), AGENT_VOICE)]


def test_each_parameter_of_a_voice_is_heard(engine):
    plain = Voice("v", "en-us+klatt2", rate=160, pitch=50, pitch_range=50)
    said = {name: engine.speak(TEXT, replace(plain, **{name: 90})) for name in ("rate", "pitch", "pitch_range")}
    usual = engine.speak(TEXT, plain)
    assert said["rate"].duration > 1.4 * usual.duration
    for name in ("pitch", "pitch_range"):
        assert said[name].duration == pytest.approx(usual.duration, rel=0.1)
        assert not np.array_equal(said[name].audio[:8000], usual.audio[:8000]), name


def test_threads_wait_for_each_other(engine):
    """The library crashes the process when two threads use it at once."""
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(engine.speak(TEXT, AGENT_VOICE).audio)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(np.array_equal(audio, results[0]) for audio in results)


def test_ctrl_c_while_espeak_speaks_is_not_lost(engine, monkeypatch):
    """ctypes drops what a callback raises, and a signal that comes while eSpeak works is raised in the callback."""

    def interrupted(events):
        raise KeyboardInterrupt

    monkeypatch.setattr(espeak, "_until_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.speak(TEXT, AGENT_VOICE)
    monkeypatch.undo()
    assert engine.speak(TEXT, AGENT_VOICE).duration > 1


@pytest.mark.parametrize("name", ["xx-nowhere", "xx-nowhere+m1", "en-us+nosuchvariant"])
def test_an_unknown_voice_is_an_error_that_names_it(engine, name):
    """eSpeak takes an unknown variant for none, and all speakers would sound alike. For an unknown voice it reads all
    files, and may end the process where they are more than 349."""
    with pytest.raises(InputError, match="no voice.*nosuchvariant|no voice.*xx-nowhere"):
        engine.speak("hello", Voice("somebody", name))


SENTENCES = {
    "en": ("The weather is fine today.", "My sister lives in London."),
    "hi": ("आज मौसम बहुत अच्छा है।", "मेरी बहन दिल्ली में रहती है।"),
    "ru": ("Сегодня хорошая погода.", "Моя сестра живёт в Москве."),
    "uk": ("Сьогодні гарна погода, її сестра каже.", "Моя сестра живе у Києві."),
    "ko": ("오늘 날씨가 아주 좋습니다.", "제 여동생은 서울에 삽니다."),
    "zh": ("今天天气很好，我们去公园。", "我妹妹住在北京，她是医生。"),
    "ja": ("きょうは てんきが いいです。", "カタカナもよめますか。"),
    "el": ("Σήμερα ο καιρός είναι καλός.", "Η αδελφή μου μένει στην Αθήνα."),
    "ar": ("الطقس جميل جدا هذا اليوم.", "أختي تسكن في القاهرة."),
    "fa": ("امروز هوا خیلی خوب است، گفت.", "خواهر من پزشک است."),
    "ur": ("آج موسم بہت اچھا ہے۔", "میری بہن لاہور میں رہتی ہے۔"),
    "hy": ("Այսօր եղանակը շատ լավ է։", "Քույրս ապրում է Երևանում։"),
    "ka": ("დღეს კარგი ამინდია.", "ჩემი და თბილისში ცხოვრობს."),
    "ta": ("இன்று வானிலை நன்றாக உள்ளது.", "என் சகோதரி சென்னையில் வசிக்கிறாள்."),
    "te": ("ఈరోజు వాతావరణం బాగుంది.", "మా చెల్లి హైదరాబాద్లో ఉంటుంది."),
    "kn": ("ಇಂದು ಹವಾಮಾನ ಚೆನ್ನಾಗಿದೆ.", "ನನ್ನ ತಂಗಿ ಬೆಂಗಳೂರಿನಲ್ಲಿ ಇದ್ದಾಳೆ."),
    "ml": ("ഇന്ന് കാലാവസ്ഥ നല്ലതാണ്.", "എന്റെ സഹോദരി കൊച്ചിയിൽ താമസിക്കുന്നു."),
    "bn": ("আজ আবহাওয়া খুব ভালো।", "আমার বোন ঢাকায় থাকে।"),
    "gu": ("આજે હવામાન સારું છે.", "મારી બહેન સુરતમાં રહે છે."),
    "pa": ("ਅੱਜ ਮੌਸਮ ਬਹੁਤ ਚੰਗਾ ਹੈ।", "ਮੇਰੀ ਭੈਣ ਦਿੱਲੀ ਵਿੱਚ ਰਹਿੰਦੀ ਹੈ।"),
    "or": ("ଆଜି ପାଗ ବହୁତ ଭଲ ଅଛି।", "ମୋ ଭଉଣୀ କଟକରେ ରହେ।"),
    "si": ("අද කාලගුණය ඉතා හොඳයි.", "මගේ සහෝදරිය කොළඹ ජීවත් වෙනවා."),
    "am": ("ዛሬ አየሩ በጣም ጥሩ ነው።", "እህቴ በአዲስ አበባ ትኖራለች።"),
    "he": ("הַיּוֹם מֶזֶג הָאֲוִיר יָפֶה.", "שלום, אני רוצה תודה."),
}


@pytest.mark.parametrize("language", SENTENCES)
def test_every_script_is_spoken_in_its_language(engine, language):
    """In the English voice, letters were named, different sentences were one sound, and a turn took 0.01 s."""
    spoken = [engine.speak(text, AGENT_VOICE) for text in SENTENCES[language]]
    for text, utterance in zip(SENTENCES[language], spoken):
        assert utterance.language == language and utterance.text == text
        letters = len(text.replace(" ", ""))
        seconds_per_letter = utterance.duration / letters
        assert (0.15 < seconds_per_letter < 0.35) if language in ("zh", "ko") else (0.05 < seconds_per_letter < 0.2)
        assert len(utterance.words) == len(word_times(text, {}, 1, 1)) >= 3
        assert all(text[w.offset :].startswith(w.text) for w in utterance.words)
        assert all(a.start < a.end == b.start for a, b in zip(utterance.words, utterance.words[1:]))
        assert utterance.words[0].start == 0.0 and utterance.words[-1].end == pytest.approx(utterance.duration)
    assert spoken[0].duration != spoken[1].duration
    other = engine.speak(SENTENCES[language][0], user_voice("train", 3))
    assert not np.array_equal(other.audio[:8000], spoken[0].audio[:8000]), "Each speaker has a voice in every language."


def test_word_times_are_espeaks_in_other_scripts_too(engine):
    for text in (
        "मेरा नाम Ada है, क्या हाल है?",
        "今天天气很好，我们去银行。",
        unicodedata.normalize("NFD", "été à Paris, déjà vu"),
    ):
        spoken = engine.speak(text, AGENT_VOICE)
        guessed = word_times(text, {}, len(spoken.audio), engine.sample_rate)
        shifts = [abs(said.start - letters.start) for said, letters in zip(spoken.words, guessed)]
        assert sum(shift > 0.02 for shift in shifts) >= 0.4 * len(shifts)


def test_texts_in_other_normal_forms_and_fancy_letters_sound_the_same(engine):
    for text in ("été, naïve café", "오늘 날씨가 좋습니다.", "Tiếng Việt"):
        voice = replace(AGENT_VOICE, language="vi") if "V" in text else AGENT_VOICE
        spoken, apart = (engine.speak(unicodedata.normalize(form, text), voice) for form in ("NFC", "NFD"))
        assert spoken.duration == apart.duration
        assert [w.start for w in spoken.words] == [w.start for w in apart.words]
        assert [unicodedata.normalize("NFC", w.text) for w in apart.words] == [w.text for w in spoken.words]
    assert engine.speak("ﾃｽﾄ", AGENT_VOICE).language == "ja", "Its letters tell the language in their plain form."
    assert engine.speak("𝐇𝐞𝐥𝐥𝐨 ｗｏｒｌｄ", AGENT_VOICE).duration == engine.speak("Hello world", AGENT_VOICE).duration


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("วันนี้อากาศดีมาก", "'วันนี้อากาศดีมาก' (Thai letters)"),
        ("ဒီနေ့ရာသီဥတု", "(Myanmar letters)"),
        ("ថ្ងៃនេះអាកាសធាតុល្អ", "(Khmer letters)"),
        ("ມື້ນີ້ອາກາດດີ", "(Lao letters)"),
        ("ᎣᏏᏲ", "(Cherokee letters)"),
        ("ᠮᠣᠩᠭᠣᠯ", "(Mongolian letters)"),
        ("今日は天気がいいです。", "the kanji '今', '日', '天' and 1 more: write the text in kana"),
        ("היום מזג האוויר יפה.", "'מזג', 'האוויר', 'יפה' without vowels: write the vowel points"),
        ("My friend Дмитрий lives here now.", "'Дмитрий' (Cyrillic letters) in English: write it in Latin letters, or name"),
        ("She said hello to 日本.", "'日', '本' (Han letters) in English"),
        ("The city of Αθήνα is old.", "'Αθήνα' (Greek letters) in English"),
        ("I met Nguyễn here.", "'ễ' in English: write it with other letters, or name the language of the text"),
        ("That is 5‰ or ₿2.", "drops '‰', '₿' in English: write it in words"),
        ("मैं 5₹ दूँगा", "drops '₹' in Hindi"),
        ("Это 5 ₽", "drops '₽' in Russian"),
        ("한국 and Россия", "'Россия' (Cyrillic letters) in Korean: write it in Hangul or Latin letters."),
        (
            "בֹּקֶר טוֹב",
            "it spells '\u05d1\u05bc\u05b9\u05e7\u05b6\u05e8' in Hebrew: write it with other letters, or another word.",
        ),
        ("Python を つかう", "spells 'Python' in Japanese: write it in Kana letters"),
        ("чӑваш Python", "spells 'Python' in Chuvash: write it in Cyrillic letters"),
        ("hǎo 好的你好", "spells 'hǎo' in Chinese: write it in Han letters"),
        ("نعم 50% نعم", "drops '%' in Arabic: write it in words"),
        ("نعم ٥٠٪ نعم", "drops '٪' in Arabic: write it in words"),
        ("ʿAlī came", "does not read 'ʿ' in English"),
        ("( ͡° ) yes", "does not read ' ͡' in English"),
        ("Салом, чӣ хел?", "does not read 'ӣ' in Russian"),
        ("я люблю аpple", "'аpple', with Latin and Cyrillic letters in one word: write it in letters of one script"),
        ("クラス5〜10", "does not say the sign in '5〜10': write it in words"),
        ("5～10人", "does not say the sign in '5～10': write it in words"),
    ],
)
def test_what_espeak_cannot_say_is_refused_before_it_speaks(engine, text, culprit):
    reason = engine.cannot_say(text, AGENT_VOICE)
    assert reason is not None and culprit in reason and reason.startswith(f"eSpeak NG cannot say {text!r}: it ")
    assert "\n" not in reason and len(reason) < 250
    with pytest.raises(InputError) as refused:
        engine.speak(text, AGENT_VOICE)
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("My friend Дмитрий lives here now.", "ru"), ("I met Nguyễn here.", "vi"), ("My friend Dmitry lives here now.", None),
        ("今天，謝謝", "Chinese"), ("今日天氣好好", "yue"), ("きょうは てんきが いい", None), ("That is 5 per mille.", None),
        ("מֶזֶג", None),
        ("मैं 5 रुपये दूँगा", None), ("Łódź ist schön", "de"), ("Xin chào, bạn khỏe không?", "vi-VN"),
    ],
)  # fmt: skip
def test_the_cures_work(engine, text, language):
    voice = replace(AGENT_VOICE, language=language)
    assert engine.cannot_say(text, voice) is None and engine.speak(text, voice).duration > 0.4


@pytest.mark.parametrize(
    "text",
    ["naïve café", "The value of π is three.", "A → B", "№ 5, ½ cup, €5, 5€", "H₂O at 20℃", "Erdős, Škoda", "“Hi” … — ★"],
)
def test_what_english_reads_is_spoken(engine, text):
    assert engine.cannot_say(text, AGENT_VOICE) is None and engine.speak(text, AGENT_VOICE).language == "en"


@pytest.mark.parametrize(
    ("text", "language", "phonemes"),
    [
        ("שָׁלוֹם", "he", "ʃ_ˈa_l_o_m"), ("כֵּן, הַכֹּל טוֹב.", "he", "k_ˈe_n_ə h_ˈa_k_o_l t_ˈo_v"),
        ("בְּרֵאשִׁ֖ית", "he", "b_ə_r_ˈe_ʔ_ʃ_i_t"), ("אִשָּׁה", "he", "ʔ_i_ʃ_ˈa_ə_h"),
        ("مُحَمَّد", "ar", "m_u_ħ_ˈa_m_m_a_d"), ("مُحَمَّد", "fa", "m_o_h_ˈa_m_a_d"),
        ("1ˢᵗ place, 10ᵗʰ", "en-us", "f_ˈɜː_s_t p_l_ˈeɪ_s t_ˈɛ_n_θ"), ("itʼs", "en-us", "ɪ_t_s"),
        ("10 µg", "en-us", "t_ˈɛ_n m_ˌaɪ_k_ɹ_oʊ_dʒ_ˈiː"), ("Tom ＆ Jerry", "en-us", "t_ˈɑː_m _æ_n_d dʒ_ˈɛ_ɹ_i"),
        ("50％", "cmn", "w_ˈu2_s._i.ɜ__ (en)_p_ə_s_ˈɛ_n_t_(cmn)_"), ("はい～", "ja", "h_ˈä_i"),
        ("TV", "ja", "_(en)_t_ˈiː _v_ˈiː_(ja)"),
        ("за́мок", "ru", "z_a_m_ˈo_k"), ("приві́т", "uk", "p_r_ɪ_β_ˈiː_t̪"),
        ("Салам кандайсың", "ky", "s_ɑ_l_ˈɑ_m q_ɑ_n_d[_ɑ_j_s_ˈɯ_N"),
        ("ياخشىمۇسىز ئۆي", "ug", "j_ˌɑ_χ_ʃ_ɪ_m_ˈu_s_ɪ_z ˈœ_j"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_marks_and_signs_are_said_in_every_normal_form(engine, text, language, phonemes, form):
    """The normal forms put Hebrew and Arabic vowels before dagesh and shadda: eSpeak named each letter of such a word."""
    text = unicodedata.normalize(form, text)
    assert [" ".join(said.split()) for said in engine._phonemes_of(language, [readable(text)])] == [phonemes]
    assert engine.cannot_say(text, replace(AGENT_VOICE, language=language)) is None


@pytest.mark.parametrize(
    ("whole", "cut", "language"),
    [
        ("9" * 40, "9" * 60, "en"), ("a" * 110, "a" * 150, "en"), ("W" * 12, "W" * 20, "en"), ("1.2." * 9, "1.2." * 12, "en"),
        ("これは" * 21, "これは" * 23, "ja"), ("나" * 48, "나" * 52, "ko"), ("का" * 70, "का" * 85, "hi"),
        ("да" * 60, "да" * 75, "ru"),
        ("好" * 180, "好" * 201, "zh"), ("한국 사람 " * 19, "한국 사람 " * 25, "ko"),
        ("きょうは、" * 60, "これは" * 60, "ja"), ("yes-" + "W" * 9 + "-no", "yes-" + "W" * 20 + "-no", "en"),
        ("x" + "!" * 300, "a/b/" * 75, "en"),
    ],
)  # fmt: skip
def test_words_of_which_espeak_says_the_beginning_alone_are_refused(engine, whole, cut, language):
    """eSpeak keeps 200 phonemes of a word, and said the first 58 digits of 100."""
    voice = replace(AGENT_VOICE, language=language)
    assert engine.cannot_say(whole, voice) is None
    assert "it reads only the beginning of '" in (reason := engine.cannot_say(cut, voice))
    assert reason.endswith("...': write blanks or punctuation in it.") or len(cut) <= 30
    assert len(reason) < 250


def test_the_cure_for_long_words_works(engine):
    for word, parts, language in (("9" * 60, 6, "en"), ("これは" * 60, 6, "ja")):
        voice, size = replace(AGENT_VOICE, language=language), len(word) // parts
        spaced = " ".join(word[at : at + size] for at in range(0, len(word), size))
        assert engine.cannot_say(word, voice) is not None and engine.cannot_say(spaced, voice) is None
        once = engine._phonemes_of(language, [word[:size]])[0]
        assert len(engine._phonemes_of(language, [spaced])[0]) >= parts * len(once)


def test_many_initials_are_refused(engine):
    """Longer chains end eSpeak's process, whether or not blanks are among them; these are only as long as the limit."""
    for initials in ("a." * 41, "a.b. " * 21, "म." * 41, "а. б." * 21, "a.m.…" * 21, "'s" * 41, "x’s" * 41):
        assert "it cannot read as many initials as in" in (reason := engine.cannot_say(initials, AGENT_VOICE))
        assert reason.replace('"', "'").endswith("...': write them without full stops and apostrophes.") and len(reason) < 250
        assert engine.cannot_say(re.sub("[.'’…]", " ", initials), AGENT_VOICE) is None
    for few in ("a." * 40, "म." * 40, "U.S.A. and U.K."):
        assert engine.cannot_say(few, AGENT_VOICE) is None and engine.speak(few, AGENT_VOICE).duration > 0.5


def test_a_language_that_is_named_is_spoken(engine):
    text = "Die Straße ist lang."
    german, english = (engine.speak(text, replace(AGENT_VOICE, language=name)) for name in ("de-AT", None))
    assert (german.language, english.language) == ("de", "en") and german.duration != english.duration
    assert np.array_equal(engine.speak(text, Voice("agent", "de+klatt2", rate=160)).audio, german.audio)
    assert np.array_equal(
        engine.speak(TEXT, replace(AGENT_VOICE, language="English")).audio, engine.speak(TEXT, AGENT_VOICE).audio
    )
    assert np.array_equal(engine.speak(TEXT, replace(AGENT_VOICE, language="und")).audio, engine.speak(TEXT, AGENT_VOICE).audio)
    assert "no language 'xx'" in engine.cannot_say(TEXT, replace(AGENT_VOICE, language="xx"))
    assert "does not say Thai so that it is understood" in engine.cannot_say(TEXT, replace(AGENT_VOICE, language="th"))
    for name, text, language in (
        ("de", "आज मौसम", "hi"),
        ("en", "Привет", "ru"),
        ("zh", "Hello", "zh"),
        ("yue", "你好", "yue"),
    ):
        assert engine.speak(text, replace(AGENT_VOICE, language=name)).language == language, "Of texts in its script."


def test_the_wheels_own_data_speaks_the_same(engine):
    for text in (TEXT, "आज मौसम अच्छा है।"):
        assert np.array_equal(EspeakEngine().speak(text, AGENT_VOICE).audio, engine.speak(text, AGENT_VOICE).audio)


def test_data_without_a_language_cannot_say_it(engine, tmp_path):
    shutil.copytree(voice_data(), tmp_path / "data")
    (tmp_path / "data" / "hi_dict").unlink()
    assert "'आज' (Devanagari letters) in English" in EspeakEngine(tmp_path / "data").cannot_say("आज", AGENT_VOICE)


def test_a_long_text_is_shown_in_part(engine):
    reason = engine.cannot_say("A word. " * 30 + "Иван", AGENT_VOICE)
    assert reason.startswith(
        "eSpeak NG cannot say 'A word. A word. A word. A word. A word. A word. A word. A wo...': it does not"
    )


@pytest.mark.parametrize("text", ["", "?!", " - "])
def test_a_text_without_words_is_an_error(engine, text):
    with pytest.raises(InputError, match="makes no sound of the text"):
        engine.speak(text, AGENT_VOICE)


def test_an_accent_may_be_named_by_its_tag(engine):
    for name, file in (("en-gb+m3", "en+m3"), ("EN-US", "en-us")):
        assert np.array_equal(engine.speak(TEXT, Voice("v", name)).audio, engine.speak(TEXT, Voice("v", file)).audio)


def test_without_the_wheel_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(InputError, match="pip install espeakng-loader"):
        EspeakEngine()


def test_a_broken_data_folder_is_an_error_and_spoils_nothing(engine, tmp_path):
    """The library stayed mapped after the error, and from then on no utterance was like another."""
    (tmp_path / "lang").mkdir()
    with pytest.raises(InputError, match="cannot read its data folder"):
        EspeakEngine(tmp_path)
    assert np.array_equal(engine.speak(TEXT, AGENT_VOICE).audio, engine.speak(TEXT, AGENT_VOICE).audio)


def test_a_process_that_cannot_unload_the_library_is_told(engine, caplog):
    held = ctypes.CDLL(str(espeak_paths()[0]))  # as another package would
    try:
        EspeakEngine(voice_data())
    finally:
        _unmap(held)
    assert "cannot be unloaded" in caplog.text
    caplog.clear()
    EspeakEngine(voice_data())
    assert not caplog.text


def _variant(voice: Voice) -> str:
    return (voice_data() / "voices" / "!v" / voice.name.split("+")[1]).read_text()
