"""Outputs of any model are opened, whatever wrote them; what is odd is counted and named, and the rest goes on."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from nemo_duplex.evaluation.readers.outputs import format_of, open_outputs
from nemo_duplex.inputs import InputError
from tests.evaluation.agents import cut_of, dialogue, write_set
from tests.evaluation.agents import voice as buzz
from tests.evaluation.readers.voices import voice

USER, AGENT, SECONDS = [(0.5, 1.5), (3.5, 4.5)], [(2.0, 3.0), (5.0, 5.8)], 6.0
TURNS = [{"start": start, "end": end, "text": "Hello?"} for start, end in USER]


def write(path, spans, rate=16000, seed=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, voice(spans, SECONDS, rate, seed), rate)


def write_both(path, rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.stack([voice(USER, SECONDS, rate, 1), voice(AGENT, SECONDS, rate, 2)], axis=1), rate)


def write_pair(user, agent, rates=(16000, 22050)):
    write(user, USER, rates[0], 1)
    write(agent, AGENT, rates[1], 2)


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def heard(path, **options):
    """(set, id) -> outcome, and the odd ones."""
    outputs = open_outputs(path, **options)
    found = {(set_name, outcome.id): outcome for set_name, outcome in outputs.listened()}
    return found, outputs


def about(spans):
    return pytest.approx(np.asarray(spans), abs=0.03)


def reasons(outputs):
    return {reason: found["first"] for reason, found in outputs.odd.describe().items()}


# ---- sounds by name


def test_a_name_that_is_no_utf8_is_left_out_and_named(tmp_path):
    write_both(tmp_path / "one.wav")
    shutil.copy(tmp_path / "one.wav", bytes(tmp_path) + b"/caf\xe9.wav")
    found, outputs = heard(tmp_path, max_odd_rows=0.5)
    assert [name for _, name in found] == ["one"] and "caf\udce9.wav" in reasons(outputs)["audio that cannot be read"][0]


def test_the_sound_of_a_report_is_not_the_models(tmp_path):
    for name in ("one.wav", "conversation.wav"):
        write_both(tmp_path / name)
    assert {name for _, name in heard(tmp_path)[0]} == {"one", "conversation"}
    (tmp_path / "report.json").write_text("{}")
    assert [name for _, name in heard(tmp_path)[0]] == ["one"]


@pytest.mark.parametrize(
    ("user", "agent", "key"),
    [
        ("a_user.wav", "a_agent.wav", ("out", "a")),
        ("a-b.input.flac", "a-b.output.flac", ("out", "a-b")),
        ("User_a.wav", "Assistant_a.wav", ("out", "a")),
        ("user/a.wav", "agent/a.ogg", ("out", "a")),
        ("user/x/a.wav", "model/x/a.wav", ("x", "a")),
        ("a/user.wav", "a/agent.wav", ("out", "a")),
        ("a/input.wav", "a/output.wav", ("out", "a")),
        ("dev/a/user.wav", "dev/a/agent.wav", ("dev", "a")),
        ("dev/user/a.wav", "dev/agent/a.wav", ("dev", "a")),
        ("user_interruption_3_user.wav", "user_interruption_3_agent.wav", ("out", "user_interruption_3")),
    ],
)
def test_pairs_of_sounds_are_told_by_their_names(user, agent, key, tmp_path):
    folder = tmp_path / "out"
    write_pair(folder / user, folder / agent, (8000, 24000))
    found, outputs = heard(folder)
    assert outputs.format == "sounds" and not outputs.odd
    assert list(found) == [key]
    outcome = found[key]
    assert (outcome.user_sound.sample_rate, outcome.agent_sound.sample_rate) == (8000, 24000)
    assert np.asarray(outcome.user) == about(USER) and np.asarray(outcome.speech) == about(AGENT)
    assert outcome.conversation.custom["user_turns_from"] == "vad" and not outcome.writes


@pytest.mark.parametrize("name", ["a.wav", "user_a.wav", "model/a.flac", "agent.wav"])
def test_a_sound_of_two_channels_is_a_conversation_whatever_its_name_says(name, tmp_path):
    write_both(tmp_path / "out" / name)
    found, _ = heard(tmp_path / "out")
    [outcome] = found.values()
    assert np.asarray(outcome.user) == about(USER) and np.asarray(outcome.speech) == about(AGENT)


def test_sounds_without_a_partner_are_odd(tmp_path):
    write_pair(tmp_path / "a_user.wav", tmp_path / "a_agent.wav")
    write(tmp_path / "b_user.wav", USER)
    write(tmp_path / "c_agent.wav", AGENT)
    write(tmp_path / "d.wav", AGENT)
    write(tmp_path / "a_user.flac", USER)
    (tmp_path / "e.wav").write_text("no sound")
    (tmp_path / "notes.txt").write_text("no sound")
    found, outputs = heard(tmp_path, max_odd_rows=0.9)
    assert [name for _, name in found] == ["a"]
    assert reasons(outputs) == {
        "neither user turns nor the user's sound": [f"{tmp_path}/c_agent.wav", f"{tmp_path}/d.wav"],
        "two sounds for one channel": [f"{tmp_path}/a_user.wav: beside a_user.flac"],
        "no sound of the agent": [f"{tmp_path}/b_user.wav"],
        "audio that cannot be read": [
            f"{tmp_path}/e.wav: {tmp_path}/e.wav: Error opening '{tmp_path}/e.wav': Format not recognised."
        ],
    }


# ---- rows


def test_rows_in_the_folders_of_sets(tmp_path):
    for name in ("dev", "test"):
        write_both(tmp_path / name / "audio" / "a.wav")
        write_rows(tmp_path / name / "conversations.jsonl", [{"id": "a", "audio": "audio/a.wav", "user_turns": TURNS}])
    found, outputs = heard(tmp_path)
    assert outputs.format == "rows" and list(found) == [("dev", "a"), ("test", "a")]
    assert all(outcome.user == USER and np.asarray(outcome.speech) == about(AGENT) for outcome in found.values())
    assert list(heard(tmp_path / "test")[0]) == [("test", "a")]
    assert list(heard(tmp_path / "test" / "conversations.jsonl")[0]) == [("test", "a")]


def test_rows_are_joined_with_the_sounds_of_their_ids(tmp_path):
    write_pair(tmp_path / "user_a.wav", tmp_path / "agent_a.wav")
    write_both(tmp_path / "agent_2.wav")
    for name in ("b", "user_1"):
        write(tmp_path / f"{name}.wav", AGENT, seed=2)
    names = ("a", "user_1", "b", "agent_2")
    rows = [{"id": name, "set": "dev", "user_turns": TURNS, "references": ["Hi.", "Yes."]} for name in names]
    write_rows(tmp_path / "texts.jsonl", rows)
    found, outputs = heard(tmp_path)
    assert outputs.format == "rows" and not outputs.odd
    assert list(found) == [("dev", name) for name in names]
    for outcome in found.values():
        assert outcome.user == USER and np.asarray(outcome.speech) == about(AGENT)
        assert [q.reference.texts for q in outcome.questions] == [("Hi.",), ("Yes.",)]
    assert found["dev", "b"].user_sound is None


def test_names_whose_accents_are_apart_and_folders_that_are_links_are_found(tmp_path):
    write_both(tmp_path / "elsewhere" / "cafe\u0301.wav")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "audio").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "out")
    assert list(heard(tmp_path / "out")[0]) == [("audio", "caf\u00e9")]
    (tmp_path / "out" / "conversations.json").write_text(json.dumps([{"id": "caf\u00e9", "set": "audio"}], indent=1))
    found, outputs = heard(tmp_path / "out")
    assert list(found) == [("audio", "caf\u00e9")] and outputs.format == "rows" and not outputs.odd


def test_a_sound_that_no_row_names_is_odd(tmp_path):
    for name in ("a", "b", "c"):
        write_both(tmp_path / f"{name}.wav")
    write_rows(tmp_path / "conversations.jsonl", [{"id": "a"}, {"id": "x", "audio": "c.wav"}])
    found, outputs = heard(tmp_path, max_odd_rows=0.5)
    assert len(found) == 2 and reasons(outputs) == {"a sound without a row": [f"{tmp_path}/b.wav"]}


def test_odd_rows_are_left_out_and_named_and_the_rest_goes_on(tmp_path):
    write_both(tmp_path / "a.wav")
    swapped = np.stack([voice(AGENT, SECONDS, 16000, 2), voice(USER, SECONDS, 16000, 1)], axis=1)
    soundfile.write(tmp_path / "swapped.wav", swapped, 16000)
    good = {"id": "a", "audio": "a.wav", "user_turns": TURNS}
    late = good | {"id": "late", "user_turns": [{"start": 3500, "end": 4500}]}
    broken = good | {"id": "broken", "user_turns": TURNS, "events": [{"kind": "cough", "start": 2, "end": 1}]}
    rows = [good | {"id": f"good{i}"} for i in range(30)] + [good, good, good | {"id": "swapped", "audio": "swapped.wav"}, late]
    file = tmp_path / "conversations.jsonl"
    write_rows(file, [*rows, broken, [1]])
    with open(file, "a") as more:
        more.write('{"id": "half", "au')
    found, outputs = heard(tmp_path, max_odd_rows=0.2)
    assert len(found) == 31
    assert outputs.odd.describe() == {
        "an id that is there twice": {
            "count": 1,
            "first": [f"{file}:32 (conversation a): a, first in {file}:31 (conversation a)"],
        },
        "a turn outside of the audio": {
            "count": 1,
            "first": [f"{file}:34 (conversation late): user_turns[0] lasts from 3500 to 4500 s, the audio 6 s"],
        },
        "turns that do not fit": {
            "count": 1,
            "first": [
                f"{file}:35 (conversation broken): Conversation broken: event 0 is {{'kind': 'cough', 'start': 2, 'end': 1}}, "
                "expected a kind and a start no later than its end, in seconds. Correct it in the `events` of its custom."
            ],
        },
        "no conversation": {"count": 1, "first": [f"{file}:36: [1]"]},
        "not JSON": {"count": 1, "first": [f"{file}:37: Unterminated string starting at character 16"]},
        "swapped channels": outputs.odd.describe()["swapped channels"],
    }
    with pytest.raises(InputError, match="outputs: 6 of 37 conversations cannot be used, more than max_odd_rows=0.1 allows"):
        heard(tmp_path)
    assert len(heard(tmp_path, limit=5, max_odd_rows=0.2)[0]) == 5


def test_nothing_usable_is_one_line_with_a_cure_that_works(tmp_path):
    swapped = np.stack([voice(AGENT, SECONDS, 16000, 2), voice(USER, SECONDS, 16000, 1)], axis=1)
    soundfile.write(tmp_path / "a.wav", swapped, 16000)
    write_rows(tmp_path / "conversations.jsonl", [{"id": "a", "audio": "a.wav", "user_turns": TURNS}])
    with pytest.raises(InputError) as error:
        heard(tmp_path)
    assert str(error.value).startswith("outputs: none of 1 conversations can be used. 1 of them: swapped channels, such as ")
    assert f"such as {tmp_path}/conversations.jsonl:1 (conversation a): the user's turns fit" in str(error.value)
    assert str(error.value).endswith("Exchange the files or channels, or set swap=true.")
    found, _ = heard(tmp_path, swap=True)
    [outcome] = found.values()
    assert np.asarray(outcome.speech) == about(AGENT)


def test_one_broken_file_of_several_is_odd_and_the_only_one_is_an_error(tmp_path):
    write_both(tmp_path / "dev" / "a.wav")
    write_rows(tmp_path / "dev" / "conversations.jsonl", [{"id": "a", "audio": "a.wav"}])
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "conversations.jsonl").touch()
    found, outputs = heard(tmp_path, max_odd_rows=0.5)
    assert list(found) == [("dev", "a")] and list(reasons(outputs)) == ["a file that cannot be read"]
    with pytest.raises(InputError, match="is empty"):
        heard(tmp_path / "test")


# ---- the format


def test_what_cannot_be_told_is_one_line(tmp_path):
    with pytest.raises(InputError, match="outputs: there is no folder"):
        open_outputs(tmp_path / "none")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="holds neither conversations.jsonl, nor sound files, nor pred_wavs"):
        open_outputs(tmp_path)
    with pytest.raises(InputError, match="is neither JSONL nor a folder"):
        open_outputs(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="format=row: expected one of auto, rows, .* Did you mean 'rows'"):
        open_outputs(tmp_path, "row")
    with pytest.raises(InputError, match="outputs: .* holds no conversations .format nemo."):
        list(open_outputs(tmp_path, "nemo").listened())
    (tmp_path / "pred_wavs").mkdir()
    write_rows(tmp_path / "conversations.jsonl", [])
    with pytest.raises(InputError, match="may be rows or nemo. Say which: format=rows"):
        open_outputs(tmp_path)
    for options, message in (({"max_odd_rows": 2}, "expected a share"), ({"limit": 0}, "expected at least 1")):
        with pytest.raises(InputError, match=message):
            open_outputs(tmp_path, "rows", **options)


def test_a_corpus_is_no_output(tmp_path):
    write_set(tmp_path / "dev" / "shar", [cut_of(dialogue("d0"))])
    with pytest.raises(InputError, match="is a corpus. Give it as corpus="):
        format_of(tmp_path)


# ---- a corpus and what was said to it


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_set(folder / "dev" / "shar", [cut_of(dialogue(f"d{i}", shift=0.08 * i)) for i in range(3)])
    write_set(folder / "test" / "shar", [cut_of(dialogue("t0"))])
    return folder


def write_answers(folder, names, late=0.2):
    for i, name in enumerate(names):
        said = [turn.shifted(late) for turn in dialogue(name, shift=0.08 * i).agent]
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{name}.wav", buzz(said, 16.0 + 0.08 * i, 24000), 24000)


def test_sounds_named_by_cuts_are_scored_with_the_turns_of_the_corpus(corpus, tmp_path):
    write_answers(tmp_path, ["d0", "d1", "d2"])
    found, outputs = heard(tmp_path, corpus=corpus)
    assert list(found) == [("dev", f"d{i}") for i in range(3)] and not outputs.odd
    for i in range(3):
        recorded, outcome = dialogue(f"d{i}", shift=0.08 * i), found["dev", f"d{i}"]
        assert np.asarray(outcome.user) == pytest.approx(np.asarray([(t.start, t.end) for t in recorded.user]))
        assert np.asarray(outcome.speech) == about([(t.start + 0.2, t.end + 0.2) for t in recorded.agent])
        assert outcome.questions[1].reference.answer == "Madrid"
        assert outcome.user_sound.sample_rate == 16000 and outcome.reference_sound.sample_rate == 22050
        assert "user_turns_from" not in outcome.conversation.custom


def test_texts_beside_them_are_the_agents(corpus, tmp_path):
    write_answers(tmp_path, ["d0"])
    said = [{"start": 3.4, "end": 5.8, "text": "the capital of France"}]
    write_rows(tmp_path / "texts.jsonl", [{"id": "d0", "agent_turns": said, "pred_agent_text": "the capital"}])
    found, outputs = heard(tmp_path, corpus=corpus / "dev" / "shar", max_odd_rows=0.7)
    outcome = found["dev", "d0"]
    assert outcome.agent[0].text == "the capital of France" and outcome.writes
    assert outcome.conversation.custom["pred_agent_text"] == "the capital"
    assert reasons(outputs) == {"no output of a conversation": ["dev: d1", "dev: d2"]}


def test_outputs_without_a_conversation_and_conversations_without_output_are_counted(corpus, tmp_path):
    write_answers(tmp_path, ["d1", "x"])
    found, outputs = heard(tmp_path, corpus=corpus, max_odd_rows=0.9)
    assert list(found) == [("dev", "d1")] or outputs.odd
    assert reasons(outputs)["no output of a conversation"] == ["dev: d0", "dev: d2"], "nobody asked for the set test"
    assert reasons(outputs)["an output of no conversation of the corpus"] == [f"{tmp_path.name}: x"]


def test_a_corpus_that_cannot_be_read_is_one_line(corpus, tmp_path):
    write_answers(tmp_path / "out", ["d0"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x").touch()
    with pytest.raises(InputError, match="holds no Lhotse Shar"):
        heard(tmp_path / "out", corpus=tmp_path / "empty")
    shutil.copytree(corpus, tmp_path / "cut")
    [shard] = (tmp_path / "cut" / "dev" / "shar").glob("recording.*.tar")
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(InputError, match="corpus: a shard in .* cannot be read"):
        heard(tmp_path / "out", corpus=tmp_path / "cut")


# ---- Full-Duplex-Bench


def test_a_tree_of_full_duplex_bench_is_conversations(tmp_path):
    sample = tmp_path / "candor_turn_taking" / "7"
    write_pair(sample / "input.wav", sample / "output.wav", (48000, 16000))
    (sample / "turn_taking.json").write_text(json.dumps([{"text": "[TURN-TAKING]", "timestamp": [1.25, 1.5]}], indent=1))
    (sample / "output.json").write_text(json.dumps({"text": "Yes.", "chunks": []}, indent=1))
    talking = tmp_path / "talking_to_other" / "3"
    write_pair(talking / "input.wav", talking / "output.wav")
    write_pair(talking / "clean_input.wav", talking / "clean_output.wav")
    annotation = {"context_text": "c", "current_turn_text": "Mum?", "timestamps": [3.5, 4.5]}
    (talking / "metadata.json").write_text(json.dumps(annotation, indent=1))
    found, outputs = heard(tmp_path)
    assert outputs.format == "full_duplex_bench" and not outputs.odd
    assert set(found) == {("candor_turn_taking", "7"), ("talking_to_other", "3"), ("talking_to_other_clean", "3")}
    outcome = found["candor_turn_taking", "7"]
    assert np.asarray(outcome.user) == about(USER) and np.asarray(outcome.speech) == about(AGENT)
    [event] = outcome.conversation.custom["events"]
    assert event == {"kind": "turn_end", "speaker": "user", "start": 1.25, "end": 1.5}
    assert outcome.conversation.custom["pred_agent_text"] == "Yes."
    [event] = found["talking_to_other", "3"].conversation.custom["events"]
    assert event == {"kind": "side_talk", "speaker": "user", "start": 3.5, "end": 4.5, "text": "Mum?"}
    assert "events" not in found["talking_to_other_clean", "3"].conversation.custom


# ---- recorded sessions


def write_recording(folder, name="talk"):
    write_pair(folder / "user.wav", folder / "agent.wav", (48000, 22050))
    turn = {"id": "x", "recording_id": name, "start": 2.0, "duration": 1.0, "text": "Hi there.", "speaker": "agent"}
    user = turn | {"start": 0.48, "speaker": "user", "text": ""}
    session = {"format": 1, "sample_rate": 48000, "seed": 5, "model": {"hash": "abc", "agent_sample_rate": 22050}}
    cut = {
        "id": name,
        "start": 0,
        "duration": 5.92,
        "supervisions": [turn, user],
        "custom": {"session": session},
        "type": "MonoCut",
    }
    (folder / "cut.jsonl").write_text(json.dumps(cut) + "\n")


def test_recorded_sessions_are_conversations(tmp_path):
    write_recording(tmp_path / "monday" / "talk")
    write_recording(tmp_path / "tuesday", "talk2")
    (tmp_path / ".part-x").mkdir()
    (tmp_path / ".part-x" / "session.json").write_text("{}")
    found, outputs = heard(tmp_path, max_odd_rows=0.4)
    assert outputs.format == "recordings"
    assert list(found) == [(tmp_path.name, "talk"), (tmp_path.name, "talk2")]
    assert reasons(outputs) == {"a recording that is not complete": [f"{tmp_path}/.part-x"]}
    outcome = found[tmp_path.name, "talk"]
    assert outcome.duration == 5.92, "what the user said after the last frame is left out"
    assert len(outcome.user_sound.samples()) == round(5.92 * 48000)
    assert np.asarray(outcome.user) == about(USER) and np.asarray(outcome.speech) == about(AGENT)
    assert [(t.start, t.end, t.text) for t in outcome.agent] == [(2.0, 3.0, "Hi there.")]
    assert heard(tmp_path / "tuesday" / "cut.jsonl")[0].keys() == {("tuesday", "talk2")}


def test_a_recording_of_another_rate_than_its_session_or_of_links_is_odd(tmp_path):
    write_recording(tmp_path / "a")
    write(tmp_path / "a" / "user.wav", USER, 16000)
    write_recording(tmp_path / "b")
    (tmp_path / "b" / "user.wav").rename(tmp_path / "elsewhere.wav")
    (tmp_path / "b" / "user.wav").symlink_to(tmp_path / "elsewhere.wav")
    outputs = open_outputs(tmp_path)
    assert list(outputs) == []
    assert reasons(outputs) == {
        "not the declared sample rate": [
            f"{tmp_path}/a/cut.jsonl: {tmp_path}/a/user.wav has 16000 Hz, user_sample_rate says 48000"
        ],
        "a file that is a link": [f"{tmp_path}/b/cut.jsonl: user.wav"],
    }


@pytest.mark.slow
def test_what_a_real_session_records_is_read(tmp_path):
    from tests.dummies import speech_like, tiny_model

    (tmp_path / "model").mkdir()
    (tmp_path / "recordings").mkdir()
    model = tiny_model(tmp_path / "model")
    for name in ("talk", "other"):
        session = model.open_session(record=str(tmp_path / "recordings" / name))
        session.push(speech_like(3.3).numpy())
        session.close()
    found, outputs = heard(tmp_path / "recordings")
    assert outputs.format == "recordings" and not outputs.odd
    assert set(found) == {("recordings", "talk"), ("recordings", "other")}
    outcome = found["recordings", "talk"]
    assert outcome.user and outcome.conversation.custom["model"]
    assert [(t.start, t.text) for t in outcome.agent] == [(t.start, t.text) for t in session.transcript.agent]
    assert len(outcome.agent_sound.samples()) == round(outcome.duration * 22050)
