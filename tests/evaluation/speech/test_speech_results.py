"""Spoken against written text, answers by ear, and what was not measured."""

import pytest

from nemo_duplex.evaluation.speech.hearing import hear
from nemo_duplex.evaluation.speech.speech_results import NAMES, no_speech_results, speech_results
from tests.evaluation.speech.spoken import Reader, agent, outcome, user


def results(*outcomes, reader, **given):
    return speech_results(outcomes, hear(outcomes, reader, turns_per_set=None), **given)


def talk(reader, name, said="it is Madrid", written="it is Madrid", recorded="it is Madrid"):
    """Three questions; the second answer is cut off, and the third one is a word that is said as it is written."""
    turns = [user(0, 1), agent(2, 3, "it is Madrid"), user(5, 6), agent(7, 9, "on and on"), user(9.5, 10), agent(11, 12, "yes")]
    sounds = [(2, 3, said), (7, 9.6, "on and"), (11, 12, "yes")]
    texts = [agent(2, 3, written), agent(7, 9.6, "on and on and on"), agent(11, 12, "yes")]
    return outcome(reader, turns, sounds, texts, [(2, 3, recorded), (7, 9, "on and on"), (11, 12, "yes")], name=name)


def test_word_errors_of_both_voices_and_their_difference():
    reader = Reader()
    rows = [talk(reader, "a", said="it was Madrid sir"), talk(reader, "b", recorded="is Madrid")]
    found = results(*rows, reader=reader)
    spoken, reference, gap = (found[name] for name in NAMES[:3])
    assert (spoken["value"], spoken["n"]) == (pytest.approx(2 / 8), 8), "3 and 1 words of each, what is cut off left out"
    assert (reference["value"], reference["n"]) == (pytest.approx(1 / 14), 14)
    assert gap["value"] == pytest.approx(2 / 8 - 1 / 14)
    assert gap["ci95"] == (pytest.approx(-1 / 7, abs=1e-5), pytest.approx(0.5, abs=1e-5)), "only b drawn, only a drawn"
    assert spoken["by_conversation"] == {"a": [2, 4], "b": [0, 4]} and reference["by_conversation"] == {
        "a": [0, 7],
        "b": [1, 7],
    }
    assert {entry["scorer"] for entry in (spoken, reference, gap)} == {"reader"}
    assert found["recogniser"] == "reader" and found["heard"] == 2


def test_turns_that_do_not_say_all_they_write_do_not_count():
    reader = Reader()
    turns, said = [user(0, 1), user(5, 6)], [(2, 3, "a"), (4, 5.5, "b"), (7, 8, "c"), (19, 20, "d")]
    written = [
        agent(2, 3, "a"),
        agent(4, 5.5, "b b"),
        agent(7, 8, "c c", unfinished=True),
        agent(9, 10, ""),
        agent(19, 21, "d d d"),
    ]
    found = results(outcome(reader, turns, said, written), reader=reader)
    assert (found["spoken_wer"]["value"], found["spoken_wer"]["n"]) == (0, 1)
    assert found["reference_wer"]["not_run"] == "the corpus has no sound of an agent"
    assert found["spoken_wer_gap"]["not_run"] == "it takes whole turns of both voices"


def test_text_that_is_not_said_is_an_error():
    reader = Reader()
    found = results(outcome(reader, [user(0, 1)], [], [agent(2, 3, "nobody says this")]), reader=reader)
    assert (found["spoken_wer"]["value"], found["spoken_wer"]["n"]) == (1, 3)


def test_answers_by_ear():
    reader = Reader()
    custom = {"answer": "2 o'clock", "family": "time", "seen": True}
    turns = [
        user(0, 1), agent(2, 3, "It is two o'clock.", **custom), user(5, 6), agent(7, 8, "It is Madrid.", answer="Madrid"),
        user(10, 11), agent(12, 13, "Yes."), user(15, 16), agent(17, 18, "Not at all."),
    ]  # fmt: skip
    said = [(2, 2.5, "it's"), (3.5, 4, "2 o'clock"), (7, 8, "it is Paris"), (17, 20, "not at")]
    answers = results(outcome(reader, turns, said, writes=False), reader=reader)["answers_by_ear"]
    assert (answers["all"]["value"], answers["all"]["n"]) == (pytest.approx(1 / 3), 3), "right, wrong, missing"
    assert (answers["cut_off"]["value"], answers["cut_off"]["n"]) == (1, 1), "right so far"
    assert (answers["contains_answer"]["value"], answers["contains_answer"]["n"]) == (0.5, 2)
    assert (answers["families"]["time"]["seen"]["value"], answers["seen"]["n"]) == (1, 1)
    assert answers["all"]["scorer"] == "reader"


def test_a_model_without_a_text_channel_is_heard_all_the_same():
    reader = Reader()
    turns = [user(0, 1), agent(2, 3, "it is Madrid now")]
    one = outcome(reader, turns, [(2, 3, "it is Madrid now")], reference=[(2, 3, "it is Madrid now")], writes=False)
    found = results(one, reader=reader)
    assert found["spoken_wer"]["not_run"] == "the model has no text channel" and found["reference_wer"]["value"] == 0
    assert found["asr_bleu_turn"]["value"] == pytest.approx(100) and found["answers_by_ear"]["all"]["value"] == 1


def test_what_is_not_understood_is_not_run_and_says_why():
    reader = Reader(languages=("de",))
    found = results(talk(reader, "a"), reader=reader)
    why = found["spoken_wer"]["not_run"]
    assert why.startswith("reader does not know the language of the corpus (en): give a recogniser that does (recogniser=PATH)")
    assert all(found[name]["not_run"] == why and found[name]["value"] is None for name in NAMES)
    assert found["left_out"] == {"en": 1} and found["heard"] == 0
    assert speech_results([], hear([], reader))["asr_bleu_turn"]["not_run"] == "no conversation was heard"
    assert no_speech_results("asr_turns=0") == {name: no_speech_results("asr_turns=0")["spoken_wer"] for name in NAMES}


def test_a_missing_package_costs_its_own_numbers(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu.metrics.bleu", None)
    reader = Reader()
    found = results(talk(reader, "a"), reader=reader)
    assert found["asr_bleu_turn"]["not_run"] == "sacrebleu is not installed: pip install 'nemo_duplex[eval]'"
    assert found["spoken_wer"]["value"] == 0 and found["answers_by_ear"]["all"]["n"] == 2
