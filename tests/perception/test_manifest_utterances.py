"""Utterances of NeMo manifests amid silence, and conversations that are made of them."""

import json

import numpy as np
import pytest
import soundfile

from nemo_duplex.files.odd_rows import OddRows
from nemo_duplex.inputs import InputError
from nemo_duplex.perception.manifest_utterances import Spliced, made_conversations, manifest_utterances

RATE = 16000


def manifest(folder, rows, name="user.jsonl"):
    """Rows of (samples, rate, other keys); the file of row i is i.wav."""
    lines = []
    for i, (samples, rate, keys) in enumerate(rows):
        soundfile.write(folder / f"{i}.wav", samples, rate, subtype="PCM_16")
        lines.append({"audio_filepath": f"{i}.wav", "text": "Good day!", **keys})
    (folder / name).write_text("\n".join(map(json.dumps, lines)))
    return folder / name


def ramp(seconds=1.0, rate=RATE):
    return np.linspace(0.1, 0.5, round(seconds * rate), dtype=np.float32)


def test_an_utterance_lies_amid_silence_with_its_words_where_they_are(tmp_path):
    words = [["Good", 0, 0.2, 0.4], ["day", 5, 0.5, 0.9]]
    path = manifest(tmp_path, [(ramp(), RATE, {"words": words, "engine": "hibari"}), (ramp(), RATE, {})])
    with_words, without = manifest_utterances([path], OddRows())
    assert (with_words.text, with_words.group, without.group) == ("good day", "hibari", "user")
    before = 9600  # 0.6 s
    assert (with_words.first, with_words.last) == (before + 3200, before + 14400)
    assert (without.first, without.last) == (before, before + 16000)
    assert (with_words.earliest, with_words.latest) == (0, before + 16000 + 12800) == (0, len(with_words.audio))
    assert [(w.text, round(w.start, 3)) for w in with_words.turns[0].words] == [("good", 0.8), ("day", 1.1)]
    expected = np.round(ramp() * 32768)
    around = with_words.audio[: len(with_words.audio)]
    assert not around[:before].any() and not around[before + 16000 :].any()
    np.testing.assert_allclose(around[before : before + 16000], expected, atol=2.1)
    assert with_words.id == f"{path}:1"


def test_other_rates_and_stretches(tmp_path):
    """Row 0 is at 8 kHz; row 1 is the second half of its file."""
    rows = [(ramp(rate=8000), 8000, {}), (ramp(2.0), RATE, {"offset": 1.0, "duration": 1.0})]
    resampled, half = manifest_utterances([manifest(tmp_path, rows)], OddRows())
    assert [u.last - u.first for u in (resampled, half)] == [16000, 16000]
    assert half.speech()[0] == pytest.approx(0.3, abs=1e-3)


def test_rows_that_cannot_be_used_are_counted(tmp_path):
    stereo = np.stack([ramp(), -ramp()], axis=1)
    rows = [
        (ramp(), RATE, {}),
        (stereo, RATE, {}),
        (ramp(0.05), RATE, {}),
        (np.zeros(RATE), RATE, {}),
        (ramp(), RATE, {"text": "..."}),
        (ramp(), RATE, {"words": [["day", 0, 0.5, 2.0]]}),
        (ramp(), RATE, {"words": [["day", 0]]}),
    ]
    odd = OddRows()
    assert len(manifest_utterances([manifest(tmp_path, rows)], odd)) == 1
    found = {reason: one["first"][0].partition(".jsonl:")[2].partition(":")[0] for reason, one in odd.describe().items()}
    assert found == {
        "several channels that differ": "2",
        "not 0.1 to 30 s long": "3",
        "silence alone": "4",
        "no words in its text": "5",
        "word times outside of the recording": "6",
        "word times that are none": "7",
    }


def test_both_channels_may_hold_the_same(tmp_path):
    assert len(manifest_utterances([manifest(tmp_path, [(np.stack([ramp(), ramp()], axis=1), RATE, {})])], OddRows())) == 1


def test_a_manifest_without_any_is_named(tmp_path):
    with pytest.raises(
        InputError, match=r"^manifests: .*user.jsonl holds no utterance that can be used. 1 of them: silence alone"
    ):
        manifest_utterances([manifest(tmp_path, [(np.zeros(RATE), RATE, {})])], OddRows())


def test_conversations_hold_every_utterance_once_with_silence_between(tmp_path):
    words = [["Good", 0, 0.2, 0.4], ["day", 5, 0.5, 0.9]]
    levels = [0.1 + 0.01 * i for i in range(12)]
    rows = [(np.full(RATE, level, np.float32), RATE, {"words": words, "engine": "ab"[i % 2]}) for i, level in enumerate(levels)]
    utterances = manifest_utterances([manifest(tmp_path, rows)], OddRows())
    made = made_conversations(utterances, seed=0)
    assert sum(len(one.turns) for one in made) == 12 and all(len(one.turns) <= 5 for one in made)
    heard = []
    for one in made:
        whole = one.audio[: len(one.audio)] / 32768
        assert one.text == " ".join(["good day"] * len(one.turns))
        for turn, later in zip(one.turns, (*one.turns[1:], None)):
            start = round(turn.start * RATE) - 3200  # the first word begins after 0.2 s
            assert whole[start - 1] == 0 and whole[start + RATE] == 0
            assert len({round(sample, 3) for sample in whole[start : start + RATE].tolist()}) == 1
            assert [round(word.start - turn.start, 3) for word in turn.words] == [0.0, 0.3]
            heard.append(round(float(whole[start]), 2))
            assert later is None or 0.2 <= later.start - turn.start - 1.0 <= 2.5
    assert sorted(heard) == [round(level, 2) for level in levels]
    assert heard != [round(level, 2) for level in levels], "Who speaks after whom is drawn."
    assert {one.group for one in made} <= {"a", "b", "several"}
    again = made_conversations(utterances, seed=0)
    assert (
        [one.turns for one in again] == [one.turns for one in made] != [one.turns for one in made_conversations(utterances, 1)]
    )


def test_samples_of_several_recordings():
    spliced = Spliced([(2, np.array([1, 2], np.int16)), (6, np.array([3], np.int16))], 8)
    assert spliced[:8].tolist() == [0, 0, 1, 2, 0, 0, 3, 0] and len(spliced) == 8
    assert spliced[3:7].tolist() == [2, 0, 0, 3] and spliced[4:6].tolist() == [0, 0] and spliced[5:3].tolist() == []
    assert spliced[6:20].tolist() == [3, 0], "as of an array"
