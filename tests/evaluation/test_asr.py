import numpy as np
import pytest

from nemo_duplex.evaluation.asr import BigramRecogniser, SpokenTurn, bigram_arpa, word_error_rate, word_errors


def test_word_errors_ignore_case_and_punctuation():
    assert word_errors("The capital is Paris.", "the capital is paris") == (0, 4)
    assert word_errors("one two three", "one too three four") == (2, 3)
    assert word_errors("one two", "") == (2, 2)


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


def test_nothing_is_heard_in_silence_and_unknown_words_are_listed():
    recogniser = BigramRecogniser(["The capital of France is Paris.", "It is zzyqx."])
    assert recogniser.unknown == ["zzyqx"]
    assert recogniser.transcribe(np.zeros(22050), 22050) == ""
    assert recogniser.transcribe(np.zeros(0), 22050) == ""


def test_the_agent_voice_is_understood():
    from nemo_duplex.synthesis.grammar import Grammar
    from nemo_duplex.synthesis.tts.espeak import EspeakEngine
    from nemo_duplex.synthesis.tts.voices import AGENT_VOICE, voice_data

    texts = sorted({exchange.agent for exchange in Grammar().exchanges})
    engine, recogniser = EspeakEngine(voice_data()), BigramRecogniser(texts)
    said = [(text, engine.speak(text, AGENT_VOICE)) for text in texts[::25]]
    rate = word_error_rate(recogniser, [SpokenTurn(text, text, u.audio, u.sample_rate) for text, u in said])
    assert rate.n > 50 and rate.value < 0.15
    swapped = [SpokenTurn(text, text, u.audio, u.sample_rate) for (text, _), (_, u) in zip(said, said[1:], strict=False)]
    assert word_error_rate(recogniser, swapped).value > 0.5
