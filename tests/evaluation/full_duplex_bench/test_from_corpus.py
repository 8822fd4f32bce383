"""Conversations of ours as samples of the benchmark."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.full_duplex_bench.from_corpus import corpus_channels, write_corpus
from nemo_duplex.evaluation.full_duplex_bench.samples import read_tree
from nemo_duplex.evaluation.sound import Samples
from nemo_duplex.inputs import InputError
from tests.evaluation.agents import dialogue, voice, write_set
from tests.evaluation.full_duplex_bench.trees import buzzes


def conversation(name="d", **custom):
    """The three questions of `dialogue`, the first one with a pause."""
    given = dialogue(name)
    first = replace(given.user[0], custom={**given.user[0].custom, "pauses": [[1.6, 2.1]]})
    turns = tuple(first if turn == given.user[0] else turn for turn in given.turns)
    return replace(given, turns=turns, custom=custom)


def channel(conversation, *events, background=0.0):
    """At 8 kHz, the user's turns and the events buzzing."""
    sounds = [*conversation.user, *(Turn("user", start, end) for start, end in events)]
    heard = voice(sounds, conversation.duration, 8000)
    return Samples.of(heard + background * np.sin(np.arange(len(heard))), 8000)


def written(folder, task, number="1"):
    sample = folder / task / number
    annotation = {path.stem: json.loads(path.read_text()) for path in sample.glob("*.json")}
    return annotation, {path.stem: soundfile.read(path) for path in sample.glob("*.wav")}


def speech(sound):
    return pytest.approx(np.asarray([value for span in buzzes(*sound) for value in span]), abs=0.01)


def test_version_1(tmp_path):
    given = conversation()
    assert write_corpus([(given, channel(given))], "v1", tmp_path / "out") == {
        "pause_handling": 1,
        "smooth_turn_taking": 2,
        "user_interruption": 1,
    }
    annotation, wavs = written(tmp_path / "out", "pause_handling")
    assert annotation == {"pause": [{"text": "[PAUSE]", "timestamp": [1.1, 1.6]}]}, "the clip begins at 0.5 s"
    assert wavs["input"][1] == 16000 and len(wavs["input"][0]) == 32000, "it ends with the turn"
    assert np.asarray([0.5, 2.0]) == speech(wavs["input"])
    annotation, wavs = written(tmp_path / "out", "smooth_turn_taking")
    assert annotation == {"turn_taking": [{"text": "[TURN-TAKING]", "timestamp": [2.0, 2.7]}]}
    assert len(wavs["input"][0]) == round((5.0003 - 0.5) * 16000), "until the next user turn"
    annotation, _ = written(tmp_path / "out", "smooth_turn_taking", "2")
    assert annotation["turn_taking"][0]["timestamp"] == [2.0, 2.68]
    annotation, wavs = written(tmp_path / "out", "user_interruption")
    mark = {"context": "What is the capital of France?", "interrupt": "No, of Spain?", "timestamp": [4.5, 5.9]}
    assert annotation == {"interrupt": [mark]}
    assert len(wavs["input"][0]) == round((9.5 - 0.5) * 16000)
    assert np.asarray([0.5, 2.0, 4.5, 5.9]) == speech(wavs["input"])
    index = json.loads((tmp_path / "out" / "from_corpus.json").read_text())
    assert index["user_interruption"] == {"1": {"conversation": "d", "start": 0.5, "end": 9.5}}
    assert {sample.task.name for sample in read_tree(tmp_path / "out", "v1")} == set(index)
    for sample in read_tree(tmp_path / "out", "v1"):
        sample.check()


def test_users_of_an_impatient_set_interrupt(tmp_path):
    given = conversation(references=["Paris", "Madrid", "a word"])
    impatient = replace(given, turns=given.user)
    found = write_corpus([(impatient, channel(impatient))], "v1", tmp_path / "out")
    assert found == {"pause_handling": 1, "smooth_turn_taking": 1, "user_interruption": 2}
    unknown = replace(conversation(), turns=given.user)
    assert write_corpus([(unknown, channel(unknown))], "v1", tmp_path / "other")["smooth_turn_taking"] == 3


def test_long_turns_are_monologues(tmp_path):
    given = conversation()
    long = replace(given, turns=(*given.turns[:4], Turn("user", 9.5, 14.6, "On and on.")))
    assert write_corpus([(long, channel(long))], "v1", tmp_path / "out")["backchannel"] == 1
    annotation, wavs = written(tmp_path / "out", "backchannel")
    assert annotation == {} and len(wavs["input"][0]) == round((14.6 - 9.0) * 16000)


def test_version_15(tmp_path):
    events = [
        {"kind": "backchannel", "speaker": "user", "start": 3.4, "end": 3.8, "level_db": -6.0, "text": "mhm"},
        {"kind": "side_talk", "speaker": "user", "start": 7.2, "end": 7.5, "level_db": -6.0, "text": "not you"},
        {"kind": "background_voice", "speaker": "other", "start": 11.9, "end": 12.5, "level_db": -6.0},
        {"kind": "background_voice", "speaker": "other", "start": 10.0, "end": 12.0, "level_db": -6.0},  # during a question
        {"kind": "side_talk", "speaker": "user", "start": 4.2, "end": 5.2, "level_db": -6.0},  # into the next question
        {"kind": "noise", "speaker": "other", "start": 0.0, "end": 16.0, "level_db": -30.0},
    ]
    given = conversation(events=events)
    sound = channel(given, (3.4, 3.8), (7.2, 7.5), (11.9, 12.5))
    found = write_corpus([(given, sound)], "v1.5", tmp_path / "out")
    assert found == {"user_interruption": 1, "user_backchannel": 1, "talking_to_other": 1, "background_speech": 1}
    annotation, wavs = written(tmp_path / "out", "user_backchannel")
    about = {"context_text": "What is the capital of France?", "current_turn_text": "mhm", "timestamps": [2.9, 3.3]}
    assert annotation == {"metadata": about}
    assert len(wavs["input"][0]) == len(wavs["clean_input"][0]) == round((5.0003 - 0.5) * 16000)
    assert np.asarray([0.5, 2.0, 2.9, 3.3]) == speech(wavs["input"])
    assert np.asarray([0.5, 2.0]) == speech(wavs["clean_input"])
    annotation, wavs = written(tmp_path / "out", "user_interruption")
    assert annotation["metadata"]["timestamps"] == [4.5, 5.9]
    assert np.asarray([0.5, 2.0, 2.9, 3.3, 6.7, 7.0]) == speech(wavs["clean_input"]), "only the interruption is gone"
    annotation, _ = written(tmp_path / "out", "background_speech")
    assert annotation["metadata"]["context_text"] == "Say a word." and annotation["metadata"]["timestamps"] == [2.9, 3.5]


def test_what_is_left_out_is_replaced_by_the_background(tmp_path):
    event = {"kind": "backchannel", "speaker": "user", "start": 3.4, "end": 3.8, "level_db": -6.0, "text": "mhm"}
    given = conversation(events=[event])
    write_corpus([(given, channel(given, (3.4, 3.8), background=0.01))], "v1.5", tmp_path / "out")
    _, wavs = written(tmp_path / "out", "user_backchannel")
    gone = wavs["clean_input"][0][round(2.92 * 16000) : round(3.28 * 16000)]
    beside = wavs["clean_input"][0][round(2.4 * 16000) : round(2.9 * 16000)]
    assert np.std(gone) == pytest.approx(np.std(beside), rel=0.1)


def test_a_corpus_on_disk(tmp_path, cuts):
    write_set(tmp_path / "corpus" / "dev" / "shar", cuts)
    found = write_corpus(corpus_channels(tmp_path / "corpus", ["dev"]), "v1", tmp_path / "out")
    assert found == {"smooth_turn_taking": 6, "user_interruption": 3}


def test_nothing_to_cut_is_one_line(tmp_path):
    given = replace(conversation(), turns=())
    with pytest.raises(InputError, match="no conversation has interruptions, backchannels"):
        write_corpus([(given, channel(given))], "v1.5", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="version=v3: samples can be cut from a corpus for v1 and v1.5"):
        write_corpus([], "v3", tmp_path / "out")
