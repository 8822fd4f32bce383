"""A row of conversations.jsonl is an outcome, and an outcome a row, exactly."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from nemo_duplex.conversation import Conversation, Turn, Word
from nemo_duplex.evaluation.outcome import Outcome, TextEntry, questions
from nemo_duplex.evaluation.readers.conversation_rows import outcome_of, row_of
from nemo_duplex.evaluation.sound import Samples
from nemo_duplex.files.odd_rows import OddRow


def through_json(outcome, folder, files=None):
    return outcome_of(json.loads(json.dumps(row_of(outcome, "dev", files or {}))), folder)


def full_outcome():
    words = (Word("The", 0, 3.2, 3.26475), Word("month", 4, 3.26475, 1 / 3 + 3.26475))
    turns = (
        Turn("user", 0.448917, 2.52098, "Which month?", custom={"family": "month", "barge_in": True}, language="en"),
        Turn("agent", 3.2, 4.88, "The month", "The month is March.", words, {"answer": "March", "cut": 4.88}),
        Turn("user", 4.313405, 26.4805, "How much is three plus", custom={"unfinished": True, "seen": False}),
    )
    events = [{"kind": "cough", "speaker": "user", "start": 1.0, "end": 1.2, "text": "laugh", "level_db": -6.0}]
    custom = {"events": events, "dataset": "own", "nested": {"a": [1, 2.5, None]}}
    conversation = Conversation("dev-0-äß/1", 26.48, turns, custom)
    agent = (
        Turn("agent", 3.28, 5.0, "The month is"),
        Turn("agent", 25.0, 26.56, "Three plus", custom={"unfinished": True, "confidence": 0.25}),
    )
    entries = (TextEntry(3.12, "bos"), TextEntry(3.2, "word"), TextEntry(4.96, "eos"))
    return Outcome(conversation, questions(conversation), agent, text_entries=entries, unterminated=1, orphan_eos=2)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"writes": False, "agent": (), "text_entries": (), "unterminated": 0},
        {"agent": (), "text_entries": (), "orphan_eos": 0},
    ],
)
def test_every_field_comes_back(change, tmp_path):
    outcome = replace(full_outcome(), **change)
    assert through_json(outcome, tmp_path) == outcome


def test_references_without_an_agent_come_back(tmp_path):
    turns = (Turn("user", 0.5, 1.0, "Capital?"), Turn("user", 2.0, 3.0, "And of Spain?"))
    conversation = Conversation("a", 4.0, turns, {"references": ["Paris.", ["Madrid.", "It is Madrid."]]})
    outcome = Outcome(conversation, questions(conversation), ())
    again = through_json(outcome, tmp_path)
    assert again == outcome
    assert [q.reference.texts for q in again.questions] == [("Paris.",), ("Madrid.", "It is Madrid.")]


def test_a_conversation_without_turns_and_one_whose_turns_are_unknown_stay_apart(tmp_path):
    silent = Outcome(Conversation("a", 4.0), (), ())
    assert through_json(silent, tmp_path) == silent
    unknown = outcome_of({"id": "a", "duration": 4.0}, tmp_path)
    assert unknown.conversation.custom == {"user_turns_from": "vad"}
    assert through_json(unknown, tmp_path) == unknown
    found = replace(unknown, conversation=replace(unknown.conversation, turns=(Turn("user", 1.0, 2.0),)))
    found = replace(found, questions=questions(found.conversation))
    assert through_json(found, tmp_path) == found


@pytest.fixture
def noise():
    rng = np.random.default_rng(0)
    return lambda seconds, rate: rng.uniform(-0.5, 0.5, round(seconds * rate))


def test_sounds_are_read_from_the_folder_of_the_rows(tmp_path, noise):
    (tmp_path / "audio").mkdir()
    sounds = {"user_audio": (4.0, 16000), "agent_audio": (4.0, 22050), "reference_audio": (4.0, 24000)}
    kept = {}
    for key, (seconds, rate) in sounds.items():
        kept[key] = Samples.of(noise(seconds, rate), rate)
        soundfile.write(tmp_path / "audio" / f"{key}.flac", kept[key].values, rate)
    outcome = outcome_of({"id": "a"} | {key: f"audio/{key}.flac" for key in sounds}, tmp_path)
    assert outcome.duration == 4.0
    for key, sound in zip(sounds, (outcome.user_sound, outcome.agent_sound, outcome.reference_sound), strict=True):
        assert sound.sample_rate == kept[key].sample_rate
        assert np.array_equal(sound.samples(), kept[key].samples())


def test_two_channels_are_the_user_and_the_agent(tmp_path, noise):
    both = np.stack([Samples.of(noise(2, 24000), 24000).values, Samples.of(noise(2, 24000), 24000).values], axis=1)
    soundfile.write(tmp_path / "a.wav", both, 24000)
    outcome = outcome_of({"id": "a", "audio": "a.wav"}, tmp_path)
    assert np.array_equal(outcome.user_sound.samples(), both[:, 0] / np.float32(32768))
    assert np.array_equal(outcome.agent_sound.samples(), both[:, 1] / np.float32(32768))


@pytest.mark.parametrize(
    ("bos", "eos", "spans", "unterminated", "orphans"),
    [
        ([10, 60], [40, 80], [(0.8, 3.2), (4.8, 6.4)], 0, 0),
        ([10], [], [(0.8, 8.0)], 1, 0),
        ([10, 30], [50], [(0.8, 2.4), (2.4, 4.0)], 1, 0),
        ([30], [10, 50], [(2.4, 4.0)], 0, 1),
        ([50, 10], [50, 70], [(0.8, 4.0), (4.0, 5.6)], 0, 0),
    ],
)
def test_the_token_channel_follows_rule_9(bos, eos, spans, unterminated, orphans, tmp_path):
    row = {"id": "a", "duration": 8.0, "user_turns": [], "agent_frames": {"frame_sec": 0.08, "bos": bos, "eos": eos}}
    outcome = outcome_of(row, tmp_path)
    assert [(t.start, t.end) for t in outcome.agent] == pytest.approx(np.asarray(spans))
    assert (outcome.unterminated, outcome.orphan_eos, outcome.writes) == (unterminated, orphans, True)
    assert [bool(t.custom) for t in outcome.agent] == [end == 8.0 for _, end in spans]
    delayed = outcome_of(row | {"agent_frames": row["agent_frames"] | {"delay": 2}}, tmp_path)
    assert [(t.start, t.end) for t in delayed.agent] == pytest.approx(np.minimum(np.asarray(spans) + 0.16, 8.0))


def user(*spans):
    return [{"start": start, "end": end, "text": "Hello?"} for start, end in spans]


def test_reference_turns_without_times_are_the_answers_where_there_is_one_for_each_turn(tmp_path):
    row = {"id": "a", "duration": 9.0, "user_turns": user((0, 1), (4, 5)), "ref_agent_turns": [{"text": "A."}, {"text": "B."}]}
    assert [q.reference.texts for q in outcome_of(row, tmp_path).questions] == [("A.",), ("B.",)]
    row["ref_agent_turns"].append({"text": "C."})
    outcome = outcome_of(row, tmp_path)
    assert outcome.conversation.custom["reference_text"] == "A. B. C."
    assert [q.reference for q in outcome.questions] == [None, None]


def test_ends_are_fitted_to_the_audio_as_those_of_a_corpus(tmp_path):
    row = {
        "id": "a",
        "duration": 5.0,
        "user_turns": user((4, 5.3)),
        "agent_turns": [{"start": 4.5, "end": 5.6, "text": "Yes."}],
    }
    row["reference_turns"] = [{"start": 1, "end": 9, "text": "one two three four"}, {"start": 6, "end": 7, "text": "no"}]
    outcome = outcome_of(row, tmp_path)
    assert outcome.user == [(4, 5.0)]
    [reference] = outcome.conversation.agent
    assert (reference.end, reference.text, reference.custom) == (5.0, "one two", {"unfinished": True})
    assert outcome.agent[0].end == 5.6, "what is heard after the recording's end was written in time"


def test_a_turn_may_have_no_right_answer(tmp_path):
    row = {"id": "a", "duration": 9.0, "user_turns": user((0, 1), (4, 5)), "references": [None, ["B.", "Bee."]]}
    outcome = outcome_of(row, tmp_path)
    assert outcome.questions[0].reference is None and outcome.questions[1].reference.texts == ("B.", "Bee.")
    assert through_json(outcome, tmp_path) == outcome
    del row["user_turns"]
    assert outcome_of(row, tmp_path).conversation.custom["reference_text"] == "B."


def test_paths_of_windows_are_found(tmp_path):
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "a.wav", np.zeros((8000, 2)), 8000)
    assert outcome_of({"id": "a", "audio": "audio\\a.wav"}, tmp_path).duration == 1.0


def test_places_of_words_are_found_in_the_text(tmp_path):
    words = [{"text": word, "start": i, "end": i + 1} for i, word in enumerate(["no", "no", "yes"])]
    row = {"id": "a", "duration": 9.0, "user_turns": [{"start": 0, "end": 3, "text": "no, no, yes.", "words": words}]}
    assert [word.offset for word in outcome_of(row, tmp_path).questions[0].turn.words] == [0, 4, 8]


def test_other_keys_are_kept(tmp_path):
    row = {"id": "a", "duration": 5.0, "user_turns": [], "accent": "scots", "meta": {"room": 3}, "pred_agent_text": "Yes."}
    outcome = outcome_of(row, tmp_path)
    assert outcome.conversation.custom == {"accent": "scots", "room": 3, "pred_agent_text": "Yes."}
    assert through_json(outcome, tmp_path) == outcome


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": None}, "no id"),
        ({"id": 7}, "a value of the wrong kind (id is 7, expected a text)"),
        ({"duration": None}, "no duration"),
        ({"duration": "5"}, "a value of the wrong kind (duration is '5', expected a number)"),
        ({"user_turn": []}, "an unknown key 'user_turn'"),
        ({"user_turns": {}}, "a value of the wrong kind (user_turns is {}, expected a list)"),
        ({"user_turns": [[0, 1]]}, "a value of the wrong kind (user_turns[0] is [0, 1], expected an object)"),
        ({"user_turns": [{"start": 1}]}, "a value is missing (user_turns[0].end)"),
        (
            {"user_turns": [{"start": True, "end": 2}]},
            "a value of the wrong kind (user_turns[0].start is True, expected a number)",
        ),
        (
            {"user_turns": [{"start": 1, "end": math.inf}]},
            "a value of the wrong kind (user_turns[0].end is inf, expected a number)",
        ),
        (
            {"user_turns": user((0, 1), (3, 2))},
            "a turn that runs backwards or begins before 0 (user_turns[1] lasts from 3 to 2 s)",
        ),
        (
            {"user_turns": user((-0.1, 2))},
            "a turn that runs backwards or begins before 0 (user_turns[0] lasts from -0.1 to 2 s)",
        ),
        ({"user_turns": user((1, 5.6))}, "a turn outside of the audio (user_turns[0] lasts from 1 to 5.6 s, the audio 5 s)"),
        ({"user_turns": user((5, 5.1))}, "a turn outside of the audio (user_turns[0] lasts from 5 to 5.1 s, the audio 5 s)"),
        ({"references": ["A."]}, "not as many references as user turns (1 references, 0 user turns)"),
        ({"user_turns": [{"start": 10**400, "end": 2}]}, "expected a number"),
        ({"agent_frames": {"bos": [10**400]}}, "expected frames from 0 on"),
        ({"text_entries": [[math.inf, "bos"]]}, "(text_entries has [inf, 'bos']"),
        ({"user_turns": [user((1, 2))[0] | {"custom": {"pauses": [[3, 4]]}}]}, "turns that do not fit"),
        ({"user_turns": user((1, 2)), "references": [[]]}, "(references[0] is [], expected a text or a list of texts)"),
        ({"reference_turns": [{"text": "A."}, *user((1, 2))]}, "reference turns with and without times"),
        ({"agent_frames": {"bos": [1.5]}}, "(agent_frames.bos has 1.5, expected frames from 0 on)"),
        ({"agent_frames": {"bos": [1], "frame_sec": 0}}, "(agent_frames.frame_sec is 0, expected more than 0)"),
        ({"text_entries": [[1, "pad"]]}, "(text_entries has [1, 'pad'], expected [seconds, 'bos', 'word' or 'eos'])"),
        ({"agent_audio": "none.wav"}, "an audio file is missing"),
        ({"agent_audio": "two.wav"}, "another number of channels"),
        ({"audio": "one.wav"}, "another number of channels"),
        ({"audio": "two.wav", "user_audio": "one.wav"}, "audio and user_audio or agent_audio"),
        ({"agent_audio": "text.wav"}, "audio that cannot be read"),
        ({"agent_audio": "empty.wav"}, "audio without samples"),
        ({"agent_audio": "one.wav", "agent_sample_rate": 16000}, "(FOLDER/one.wav has 8000 Hz, agent_sample_rate says 16000)"),
        ({"audio": "two.wav", "sample_rate": 16000}, "(FOLDER/two.wav has 8000 Hz, sample_rate says 16000)"),
    ],
)
def test_an_odd_row_says_what_is_odd(change, message, tmp_path):
    soundfile.write(tmp_path / "one.wav", np.zeros(40000), 8000)
    soundfile.write(tmp_path / "two.wav", np.zeros((40000, 2)), 8000)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(OddRow) as error:
        outcome_of({"id": "a", "duration": 5.0, "user_turns": []} | change, tmp_path)
    assert message in str(error.value).replace(str(tmp_path), "FOLDER")
