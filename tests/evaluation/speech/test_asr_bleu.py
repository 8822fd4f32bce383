"""ASR-BLEU beside sacrebleu, and what counts as an answer."""

import numpy as np
import pytest
import sacrebleu

from nemo_duplex.evaluation.speech.asr_bleu import Pair, asr_bleu, bleu_of_counts, corpus_bleu
from nemo_duplex.evaluation.speech.hearing import hear
from tests.evaluation.speech.spoken import Reader, agent, outcome, user

RNG = np.random.default_rng(0)
WORDS = "the cat sat on a mat and then it slept for 5 hours $20".split()


def sentence(most=12):
    return " ".join(RNG.choice(WORDS, RNG.integers(0, most)))


def test_the_value_is_that_of_sacrebleu_with_one_and_with_several_right_answers():
    pairs = [[Pair(sentence(), (sentence(), sentence())) for _ in range(3)] for _ in range(20)]
    flat = [pair for one in pairs for pair in one]
    estimate, signature = corpus_bleu(pairs)
    expected = sacrebleu.corpus_bleu([p.heard for p in flat], [[p.right[i] for p in flat] for i in range(2)])
    assert estimate.value == pytest.approx(expected.score) and estimate.n == 60
    assert signature.startswith("nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    estimate, signature = corpus_bleu([[Pair("a b c d", ("a b c d", "x")), Pair("e f g", ("e f g h",))]])
    assert signature.startswith("nrefs:var|")
    assert estimate.value == pytest.approx(sacrebleu.corpus_bleu(["a b c d", "e f g"], [["a b c d", "e f g h"]]).score)


def test_counts_add_up_to_the_value():
    for _ in range(50):
        pairs = [Pair(sentence(6), (sentence(6),)) for _ in range(RNG.integers(1, 4))]
        bleu = sacrebleu.BLEU(effective_order=True)
        found = [bleu.sentence_score(p.heard, list(p.right)) for p in pairs]
        counts = np.sum([[f.sys_len, f.ref_len, *f.counts, *f.totals] for f in found], axis=0)
        expected = sacrebleu.corpus_bleu([p.heard for p in pairs], [[p.right[0] for p in pairs]]).score
        assert bleu_of_counts(counts[None].astype(float))[0] == pytest.approx(expected, abs=1e-9)


def test_the_interval_is_that_of_drawn_conversations():
    """Of two conversations, one right and one wrong, a draw is both right, one of each, or both wrong."""
    right, wrong = [Pair("a b c d", ("a b c d",))], [Pair("x", ("e f g h",))]
    estimate, _ = corpus_bleu([right, wrong])
    assert estimate.ci95 == (0, 100) and 0 < estimate.value < 100
    assert corpus_bleu([right, right])[0].ci95 == (100, 100)
    assert corpus_bleu([right + wrong])[0].ci95 is None, "one conversation shows no spread"


def test_right_answers_shorter_than_four_words_are_not_scored():
    assert corpus_bleu([[Pair("yes it is", ("yes it is",))]])[0].value is None
    assert corpus_bleu([[Pair("yes it is", ("yes it is",)), Pair("", ("a b c d",))]])[0].value == 0


def scored(*outcomes, reader):
    heard = hear(outcomes, reader, turns_per_set=None).heard
    return asr_bleu([(one, heard[one.id]) for one in outcomes], reader.scorer)


def test_answers_are_paired_with_their_questions():
    reader = Reader()
    turns = [
        user(0, 1),
        agent(2, 3, "the capital is Madrid"),
        user(5, 6),
        agent(7, 8, "it is two o'clock"),
        user(10, 11),
        agent(12, 13, "yes it is so"),
        user(15, 16),
    ]
    said = [(2, 3, "The capital is Madrid."), (7, 10.5, "it is 2 o'clock")]
    found = scored(outcome(reader, turns, said), reader=reader)
    by_turn = found["asr_bleu_turn"]
    expected = sacrebleu.corpus_bleu(["the capital is madrid", ""], [["the capital is madrid", "yes it is so"]]).score
    assert by_turn["value"] == pytest.approx(expected) and by_turn["n"] == 2
    assert (by_turn["unanswered"], by_turn["cut_off"]) == (1, 1)
    assert by_turn["scorer"] == "reader" and by_turn["signature"].startswith("nrefs:1|")
    whole = sacrebleu.corpus_bleu(
        ["the capital is madrid it is 2 oclock"], [["the capital is madrid it is 2 oclock yes it is so"]]
    ).score
    assert found["asr_bleu_conversation"]["value"] == pytest.approx(whole)
    assert found["asr_bleu_conversation"]["n"] == 1


def test_several_right_answers_and_conversations_without_an_agent():
    reader = Reader()
    references = {"references": [["it is half past four", "four thirty it is now"], "good bye my dear friend"]}
    said = [(2, 3, "four thirty it is now"), (7, 8, "good bye my dear friend")]
    found = scored(outcome(reader, [user(0, 1), user(5, 6)], said, custom=references), reader=reader)
    assert found["asr_bleu_turn"]["value"] == pytest.approx(100)
    assert found["asr_bleu_conversation"]["value"] == pytest.approx(100), "the second right answer, then the only one"
    assert found["asr_bleu_turn"]["signature"].startswith("nrefs:var|")


def test_a_silent_agent_scores_0_and_nothing_to_compare_with_is_said():
    reader = Reader()
    turns = [user(0, 1), agent(2, 3, "the capital is Madrid")]
    found = scored(outcome(reader, turns, [], reference=[(2, 3, "the capital is Madrid")]), reader=reader)
    assert (found["asr_bleu_turn"]["value"], found["asr_bleu_turn"]["n"], found["asr_bleu_turn"]["unanswered"]) == (0, 1, 1)
    found = scored(outcome(reader, [user(0, 1)], [(2, 3, "a")]), reader=reader)
    assert found["asr_bleu_turn"]["not_run"] == "the corpus has no right answers to compare with"
    short = outcome(reader, [user(0, 1), agent(2, 3, "yes it is")], [(2, 3, "yes it is")])
    assert scored(short, reader=reader)["asr_bleu_turn"]["not_run"] == "no right answer has 4 words, which BLEU needs"
