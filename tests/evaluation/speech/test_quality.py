"""What is judged of each conversation, how numbers are pooled, and that nothing is judged twice."""

import json

import numpy as np
import pytest

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.outcome import Outcome
from nemo_duplex.evaluation.sound import Samples
from nemo_duplex.evaluation.speech.quality import quality_results
from nemo_duplex.evaluation.speech.speech_scorers import SpeechScorers
from tests.evaluation.speech.sounds import Moody, Pitch, Seconds, tone

RATE = 16000


def channel(duration, *tones):
    """Samples of a channel that holds tones (start, end, pitch)."""
    samples = np.zeros(round(duration * RATE), np.float32)
    for start, end, pitch in tones:
        samples[round(start * RATE) : round(end * RATE)] = tone(end - start, pitch=pitch)
    return Samples.of(samples, RATE)


def outcome(name, duration, *tones, reference=None):
    conversation = Conversation(name, duration, (Turn("user", 0.0, 0.5, "Hi"),))
    return Outcome(
        conversation,
        (),
        (),
        speech=tuple((start, end) for start, end, _ in tones),
        agent_sound=channel(duration, *tones),
        reference_sound=None if reference is None else channel(duration, *reference),
    )


def results(outcomes, folder=None, **scorers):
    return quality_results(outcomes, SpeechScorers(**scorers), folder, workers=0, progress=False)


def test_the_agents_speech_without_silence_is_one_sound_per_conversation():
    outcomes = [
        outcome("a", 10.0, (1.0, 2.0, 220), (4.0, 5.0, 220)),  # 2 s, and a margin of 0.1 s at four edges
        outcome("b", 10.0, (2.0, 6.0, 220), reference=[(1.0, 3.0, 220)]),
        outcome("c", 10.0, (1.0, 1.5, 220)),
        Outcome(Conversation("d", 5.0, ()), (), ()),
    ]
    found = results(outcomes, quality={"distillmos": Seconds()}, missing={"utmos": "give utmos=PATH"})
    assert list(found) == ["distillmos", "distillmos_reference", "utmos"]
    entry = found["distillmos"]
    assert entry["by_conversation"] == {"a": 2.4, "b": 4.2}
    assert (entry["value"], entry["n"], entry["scorer"]) == (pytest.approx(3.3), 2, "seconds")
    assert entry["ci95"] == entry["bootstrap95"] == (pytest.approx(2.4), pytest.approx(4.2))
    assert entry["p5"] == pytest.approx(2.4 + 0.05 * 1.8)
    assert entry["refused"] == {"less than 1 s of speech": 1, "no samples": 1}
    assert found["distillmos_reference"]["by_conversation"] == {"b": pytest.approx(2.2, abs=0.05)}
    assert found["utmos"]["not_run"] == "give utmos=PATH" and found["utmos"]["value"] is None


def test_conversations_of_one_name_are_two():
    twice = [outcome("a", 10.0, (1.0, 3.0, 220)), outcome("a", 10.0, (1.0, 4.0, 220))]
    entry = results(twice, quality={"distillmos": Seconds()})["distillmos"]
    assert (entry["value"], entry["n"]) == (pytest.approx(2.7), 2)


def test_where_the_corpus_has_no_recorded_agent_it_is_said():
    found = results([outcome("a", 10.0, (1.0, 3.0, 220))], quality={"distillmos": Seconds()})
    assert found["distillmos_reference"]["not_run"] == "the corpus has no recorded agent"
    assert results([], quality={"distillmos": Seconds()})["distillmos"]["value"] is None


def test_parts_of_dnsmos_stand_beside_its_score():
    class Parts(Seconds):
        def _judge(self, sound):
            return {"score": 3.0, "ovrl": 3.0, "sig": 3.5, "bak": 2.5}

    entry = results([outcome("a", 10.0, (1.0, 3.0, 220))], quality={"dnsmos": Parts()})
    assert (entry["dnsmos"]["value"], entry["dnsmos_sig"]["value"], entry["dnsmos_bak"]["value"]) == (3.0, 3.5, 2.5)


def test_a_voice_is_compared_with_the_corpus_or_with_the_one_that_is_given():
    outcomes = [
        outcome("a", 10.0, (1.0, 3.0, 200), reference=[(1.0, 3.0, 200)]),
        outcome("b", 10.0, (1.0, 3.0, 200), reference=[(1.0, 3.0, 300)]),
        outcome("c", 10.0, (1.0, 1.2, 200), reference=[(1.0, 3.0, 300)]),
        outcome("d", 10.0, (1.0, 3.0, 200)),
    ]
    entry = results(outcomes, speakers={"secs": Pitch()})["secs"]
    assert entry["by_conversation"] == {"a": pytest.approx(1, abs=0.01), "b": pytest.approx(0, abs=0.03)}
    assert entry["refused"] == {"less than 1 s of speech": 1} and entry["scorer"] == "pitch"
    given = results(outcomes, speakers={"secs": Pitch()}, voice=channel(3.0, (0.5, 2.5, 300)))["secs"]
    assert given["by_conversation"] == dict.fromkeys("abd", pytest.approx(0, abs=0.03))
    nothing = results(outcomes[3:], speakers={"secs": Pitch()})["secs"]
    assert nothing["not_run"] == "there is no recording of the voice that the agent should have: give voice=PATH"


def test_drift_compares_the_first_minute_with_the_last():
    both = outcome("a", 130.0, (10.0, 12.0, 200), (57.0, 71.0, 300), (100.0, 102.0, 200))
    changed = outcome("b", 120.0, (10.0, 12.0, 200), (100.0, 102.0, 300))
    mute = outcome("c", 300.0, (10.0, 12.0, 200), (100.0, 102.0, 200))
    short = outcome("d", 119.0, (1.0, 3.0, 200), (100.0, 102.0, 200))
    drift = results([both, changed, mute, short], speakers={"ecapa2_secs": Pitch()})["ecapa2_drift_secs"]
    # 3.1 s of 5.1 are at 300 Hz in its first minute, 1.1 s of 3.1 in its last: 261 and 235 Hz, 23 degrees
    assert drift["by_conversation"] == {"a": pytest.approx(0.922, abs=0.005), "b": pytest.approx(0, abs=0.03)}
    none = results([mute, short], speakers={"secs": Pitch()})["drift_secs"]
    assert none["not_run"] == "no conversation lasts 120 s with speech in its first and its last minute"


def test_nothing_is_judged_twice_and_failures_are_tried_again(tmp_path):
    outcomes = [outcome("a", 10.0, (1.0, 2.2, 220)), outcome("b", 10.0, (1.0, 1.2, 220)), outcome("c", 10.0, (1.0, 4.8, 220))]
    first, second, third = Seconds(), Seconds(), Moody("moody")
    assert results(outcomes, tmp_path, quality={"distillmos": first})["distillmos"]["n"] == 2
    rows = [json.loads(line) for line in (tmp_path / "quality.jsonl").read_text().splitlines()]
    assert [(row["of"], row["scorer"]) for row in rows] == [(f"{i} agent", "distillmos") for i in "abc"]
    again = results([*outcomes, outcome("new", 9.0, (1.0, 6.0, 220))], tmp_path, quality={"distillmos": second})["distillmos"]
    assert len(first.judged) == 2 and second.judged == [pytest.approx(5.2)]
    assert again["by_conversation"] == {"a": 1.4, "c": 4.0, "new": 5.2} and again["refused"] == {"less than 1 s of speech": 1}
    failing = results(outcomes, tmp_path, quality={"distillmos": Seconds("2"), "dnsmos": third})
    assert failing["dnsmos"]["refused"]["RuntimeError: the network is broken"] == 1
    assert failing["distillmos"]["n"] == 2, "Another version is asked anew."
    kept = (tmp_path / "quality.jsonl").read_text()
    assert kept.count('"dnsmos"') == 2 and "failed" not in kept
