from dataclasses import replace

import numpy as np
import pytest

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.asr import (
    BigramRecogniser,
    SpokenTurn,
    bigram_arpa,
    spoken_by_agent,
    spoken_by_reference,
    word_error_rate,
    word_errors,
)
from nemo_duplex.evaluation.outcome import Outcome, questions
from nemo_duplex.inputs import InputError
from tests.evaluation.agents import cut_of, dialogue


def test_word_errors_ignore_case_and_punctuation():
    assert word_errors("The capital is Paris.", "the capital is paris") == (0, 4)
    assert word_errors("one two three", "one too three four") == (2, 3)
    assert word_errors("one two", "") == (2, 2)
    assert word_errors("one", "one two three") == (2, 1)


@pytest.mark.parametrize(
    ("reference", "transcript", "errors", "counted"),
    [
        ("आज दिन", "आज दीन", 1, 2),  # "day" for "poor"
        ("un été", "un e\u0301te\u0301", 0, 2),
        ("今日は晴れ", "明日は 晴れ。", 1, 5),
        ("ผมรัก", "ผมรก", 1, 4),
    ],
)
def test_word_errors_in_any_language(reference, transcript, errors, counted):
    assert word_errors(reference, transcript) == (errors, counted)


def test_every_history_of_the_bigram_model_sums_to_one():
    sentences = ["a b c", "a b", "c a b", "b"]
    arpa = bigram_arpa([s.split() for s in sentences])
    uni, bi, section = {}, {}, None
    for line in arpa.splitlines():
        section = line if line.startswith("\\") else section
        parts = line.split()
        if section == "\\1-grams:" and len(parts) == 3:
            uni[parts[1]] = (10 ** float(parts[0]), 10 ** float(parts[2]))
        if section == "\\2-grams:" and len(parts) == 3:
            bi[parts[1], parts[2]] = 10 ** float(parts[0])
    vocabulary = set(uni) - {"<s>"}
    for history in set(uni) - {"</s>"}:
        mass = sum(bi.get((history, w), uni[history][1] * uni[w][0]) for w in vocabulary)
        assert mass == pytest.approx(1, abs=1e-3), history
    assert f"ngram 1={len(uni)}\nngram 2={len(bi)}" in arpa


def test_rates_are_pooled_over_words():
    class Deaf:
        def transcribe(self, audio, sample_rate):
            return "one"

    silence = np.zeros(100)
    said = [
        SpokenTurn("a", "one", silence, 100),
        SpokenTurn("a", "one two three four", silence, 100),
        SpokenTurn("b", "one", silence, 100),
    ]
    rate = word_error_rate(Deaf(), said)
    assert (rate.value, rate.n) == (pytest.approx(3 / 6), 6)
    assert rate.ci95 == (0.0, 0.6), "of two conversations, 3 of 5 and 0 of 1"
    many = [SpokenTurn(str(i % 29), "one" + " two" * (i * 7 % 5), silence, 100) for i in range(60)]
    assert word_error_rate(Deaf(), many, seed=0).ci95 != word_error_rate(Deaf(), many, seed=1).ci95


def test_sound_is_transcribed_at_its_own_rate():
    class Asked:
        def transcribe(self, audio, sample_rate):
            return f"{len(audio)} {sample_rate}"

    assert word_error_rate(Asked(), [SpokenTurn("a", "100 8000", np.zeros(100), 8000)]).value == 0


def test_whole_turns_of_both_voices_are_cut_out_with_a_margin():
    """Of three answers the first is cut off; 0.2 s are added at both edges."""
    cut = cut_of(dialogue("d"))
    conversation = Conversation.from_cut(cut)
    agent = (*conversation.agent, Turn("agent", 15.0, 16.0, "and", custom={"unfinished": True}), Turn("agent", 14.0, 14.2, ""))
    outcome = Outcome(cut, questions(cut), agent, (), np.full(16 * 22050, 16384, np.int16), 22050)
    said = spoken_by_agent(outcome)
    assert [(u.of, u.text, u.sample_rate) for u in said] == [("d", "it is Madrid", 22050), ("d", "a word", 22050)]
    assert [len(u.audio) / 22050 for u in said] == pytest.approx([1.6 + 0.4, 1.92 + 0.4], abs=1e-3)
    assert said[0].audio == pytest.approx(0.5)
    original = spoken_by_reference(outcome)
    assert [(u.of, u.text, u.sample_rate) for u in original] == [("d", "it is Madrid", 22050), ("d", "a word", 22050)]
    middle = original[0].audio[round(0.2 * 22050) : round(1.8 * 22050)]
    assert np.abs(middle).mean() > 10 * np.abs(original[0].audio[: round(0.19 * 22050)]).mean()
    assert spoken_by_reference(replace(outcome, cut=cut_of(dialogue("d"), agent=False))) == []


def test_a_turn_at_the_very_start_has_what_margin_there_is():
    cut = cut_of(Conversation("c", 3.0, (Turn("user", 2.0, 2.5, "q"),)))
    outcome = Outcome(cut, questions(cut), (Turn("agent", 0.1, 1.0, "hello"),), (), np.zeros(3 * 22050, np.int16), 22050)
    assert [len(u.audio) for u in spoken_by_agent(outcome)] == [round(1.2 * 22050)]


def test_nothing_is_heard_in_silence_and_unknown_words_are_listed():
    recogniser = BigramRecogniser(["The capital of France is Paris.", "It is zzyqx."])
    assert recogniser.unknown == ["zzyqx"]
    assert recogniser.transcribe(np.zeros(22050), 22050) == ""
    assert recogniser.transcribe(np.zeros(0), 22050) == ""


@pytest.mark.parametrize(
    ("texts", "refusal"),
    [
        (["आज दिन अच्छा है।"], "its dictionary lacks 100% of the words of the texts (अच्छा, आज, दिन)"),
        (["Die Hauptstadt von Frankreich ist Paris."], "lacks 50% of the words of the texts (frankreich, hauptstadt, ist)"),
        (["…"], "lacks 100%"),
    ],
)
def test_other_languages_are_refused(texts, refusal):
    with pytest.raises(InputError, match="knows English alone") as error:
        BigramRecogniser(texts)
    assert refusal in str(error.value)


def test_a_quarter_of_unknown_words_is_still_english():
    assert BigramRecogniser(["It is Paris zzyqx."]).unknown == ["zzyqx"]
    with pytest.raises(InputError, match="lacks 40%"):
        BigramRecogniser(["It is Paris zzyqx zzyqy."])
    with pytest.raises(InputError, match="lacks 67%"):
        BigramRecogniser(["It is zzyqx zzyqx zzyqx zzyqx."])


def test_the_agent_voice_is_understood():
    from nemo_duplex.synthesis.grammar import Grammar
    from nemo_duplex.synthesis.tts.espeak import EspeakEngine
    from nemo_duplex.synthesis.tts.voices import AGENT_VOICE, voice_data

    texts = sorted({exchange.agent for exchange in Grammar().exchanges})
    engine, recogniser = EspeakEngine(voice_data()), BigramRecogniser(texts)
    said = [(text, engine.speak(text, AGENT_VOICE)) for text in texts[::50]]
    rate = word_error_rate(recogniser, [SpokenTurn(text, text, u.audio, u.sample_rate) for text, u in said])
    assert rate.n > 25 and rate.value < 0.15
    swapped = [SpokenTurn(text, text, u.audio, u.sample_rate) for (text, _), (_, u) in zip(said, said[1:], strict=False)]
    assert word_error_rate(recogniser, swapped).value > 0.5
