"""Questions about recordings: from manifests and their questions to the user's turn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, Recording, SupervisionSegment
from lhotse.shar import SharWriter
from lhotse.supervision import AlignmentItem

from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.cuts import DialogueCuts
from nemo_duplex.synthesis.dialogue_spec import DialogueSpec
from nemo_duplex.synthesis.recorded_speech import recorded, with_question
from nemo_duplex.synthesis.text.dialogue_files import DialogueFiles
from nemo_duplex.synthesis.text.recordings import Recordings
from nemo_duplex.synthesis.text.text_spec import TextSpec
from nemo_duplex.synthesis.writing.spoken_sources import transcripts
from tests.synthesis.tones import ToneEngine, cast_of

RNG = np.random.default_rng(0)
QUESTIONS = [
    {"utt_id": "a", "question": "Who sat?", "answer": "The cat."},
    {"utt_id": "a", "question": "Where?", "answer": "On the mat."},
    {"utt_id": "b", "question": "How many?", "answer": "3 dogs."},
]
X = {"utt_id": "x", "audio_filepath": "audio/a.wav", "text": "a"}


def sound(path, seconds, rate=16000, channels=1, level=0.1):
    """A tone of one speaker, silence around it, the other channels silent."""
    tone = level * np.sin(2 * np.pi * 300 * np.arange(round((seconds - 0.4) * rate)) / rate)
    audio = np.zeros((round(seconds * rate), channels))
    audio[round(0.2 * rate) : round(0.2 * rate) + len(tone), -1] = tone
    soundfile.write(path, audio, rate)
    return path


def rows(path, *values):
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return str(path)


@pytest.fixture
def manifest(tmp_path):
    """Two recordings of 16 and 8 kHz; the second is a part of its file."""
    (tmp_path / "audio").mkdir()
    sound(tmp_path / "audio" / "a.wav", 1.4)
    sound(tmp_path / "audio" / "b.wav", 3.0, rate=8000, level=0.4)
    return rows(
        tmp_path / "manifest.json",
        {"audio_filepath": "audio/a.wav", "duration": 1.4, "text": "the cat sat on the mat"},
        {
            "utt_id": "b",
            "audio_filepath": str(tmp_path / "audio" / "b.wav"),
            "duration": 2.0,
            "offset": 0.5,
            "text": "3 dogs ran",
        },
    )


def opened(tmp_path, manifest, *questions, **keys):
    return DialogueFiles([rows(tmp_path / "qa.jsonl", *questions)], TextSpec(recordings=(str(manifest),), **keys))


def exchanges(source):
    counts = source.describe()["dialogues"]
    return [source.dialogue(split, i, RNG).exchanges[0] for split in ("dev", "train") for i in range(counts[split])]


def test_questions_and_a_nemo_manifest(tmp_path, manifest):
    source = opened(tmp_path, manifest, *QUESTIONS)
    found = {exchange.agent: exchange for exchange in exchanges(source)}
    assert {e.user for e in found.values()} == {
        "the cat sat on the mat Who sat?", "the cat sat on the mat Where?", "three dogs ran How many?",
    }  # fmt: skip
    sat, dogs = found["The cat."].recording, found["three dogs."].recording
    assert (sat.id, sat.path, sat.start, sat.duration) == ("a", str(tmp_path / "audio" / "a.wav"), 0.0, 1.4)
    assert (dogs.start, dogs.duration, dogs.text, dogs.gap) == (0.5, 2.0, "three dogs ran", 0.5)
    splits = [{source.dialogue(split, i, RNG).exchanges[0].recording.id for i in range(3)} for split in ("dev", "train")]
    assert not splits[0] & splits[1]  # what is said in dev is not in train


def test_the_user_s_turn_is_the_recording_a_gap_and_the_question(tmp_path, manifest):
    source = opened(tmp_path, manifest, *QUESTIONS, recording_gap=0.3)
    recording = next(e.recording for e in exchanges(source) if e.recording.id == "b")
    alone = recorded(recording)
    assert alone.sample_rate == 16000 and alone.duration == pytest.approx(2.0, abs=0.02)  # inside of the tone
    question = ToneEngine().speak("How many?", cast_of().agent)
    turn = with_question(recording, question)
    assert turn.text == "three dogs ran How many?" and turn.duration == pytest.approx(alone.duration + 0.3 + 0.6, abs=1e-3)
    assert [(word.text, word.offset) for word in turn.words] == [("How", 15), ("many", 19)]
    assert turn.words[0].start == pytest.approx(alone.duration + 0.3, abs=1e-3)
    begin, end = len(alone.audio), len(alone.audio) + round(0.3 * 16000)
    assert not turn.audio[begin:end].any() and turn.audio[begin - 50 : begin].any() and turn.audio[end : end + 50].any()
    levels = [float(np.sqrt(np.mean(np.square(part)))) for part in (turn.audio[:begin], turn.audio[end:])]
    assert levels[0] == pytest.approx(levels[1], rel=0.05)


def test_recordings_are_in_the_cut_and_their_text_in_its_supervision(tmp_path, manifest):
    cuts = DialogueCuts(DialogueSpec(pause=0, quiet=0), opened(tmp_path, manifest, *QUESTIONS), cast_of())
    for index in range(2):
        cut = cuts.cut("train", index)
        user = next(s for s in cut.supervisions if s.speaker == "user")
        name = user.custom["recording"]
        assert user.text.startswith({"a": "the cat sat on the mat ", "b": "three dogs ran "}[name])
        assert user.duration > {"a": 1.0, "b": 2.0}[name] + 0.5
    again = DialogueCuts(DialogueSpec(pause=0, quiet=0), opened(tmp_path, manifest, *QUESTIONS), cast_of())
    assert np.array_equal(cut.load_audio(), again.cut("train", 1).load_audio())


def cut_of(path, name):
    cut = Recording.from_file(path, recording_id=name).to_cut()
    words = [AlignmentItem("the", 0.3, 0.2), AlignmentItem("cat", 0.6, 0.3)]
    cut.supervisions = [SupervisionSegment(f"{name}-s", name, 0.2, 0.8, text="The cat!", alignment={"word": words})]
    return cut


def test_lhotse_cuts_and_shar_give_the_words_their_times(tmp_path):
    cuts = [cut_of(sound(tmp_path / f"{name}.wav", 1.4), name) for name in "ab"]
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl.gz")
    (tmp_path / "shar").mkdir()
    with SharWriter(str(tmp_path / "shar"), {"recording": "flac"}, shard_size=10) as writer:
        for cut in cuts:
            writer.write(cut)
    found = []
    for manifest in (tmp_path / "cuts.jsonl.gz", tmp_path / "shar"):
        source = opened(tmp_path, manifest, *QUESTIONS[:1], QUESTIONS[2] | {"utt_id": "b-s"})
        recording = next(e.recording for e in exchanges(source) if e.agent == "The cat.")
        speech = recorded(recording)
        begin = [(word.text, word.offset, round(word.start, 2), round(word.end, 2)) for word in speech.words]
        assert begin == [("The", 0, 0.11, 0.31), ("cat", 4, 0.41, 0.71)]  # 0.19 s of silence were cut off
        found.append(speech.audio)
    assert np.abs(found[0] - found[1]).max() < 1e-3


@pytest.mark.parametrize(
    ("row", "question", "reason"),
    [
        ({"utt_id": "x", "audio_filepath": "audio/nowhere.wav", "text": "a"}, "x", "a recording whose file is missing"),
        ({"utt_id": "x", "audio_filepath": "manifest.json", "text": "a"}, "x", "a recording that cannot be read as audio"),
        ({"utt_id": "x", "audio_filepath": "audio/two.wav", "text": "a"}, "x", "a recording of several channels"),
        (X | {"duration": 9}, "x", "a recording that is shorter than its manifest says"),
        (X | {"duration": 1.0, "offset": 0.6}, "x", "a recording that is shorter than its manifest says"),
        ({"utt_id": "x", "audio_filepath": "audio/long.wav", "text": "a"}, "x", "a turn of over 25 s of speech"),
        (X | {"offset": "1"}, "x", "a time that is no number of seconds"),
        (X | {"text": " "}, "x", "a recording without its text"),
        ({"utt_id": "x", "path": "audio/a.wav"}, "x", "no recording in the row"),
        ({"utt_id": "b", "audio_filepath": "audio/a.wav", "text": "a"}, "b", "a name that several recordings have"),
        (X, "y", "a recording that is not in text.recordings"),
        (X, None, "a question without an 'utt_id'"),
    ],
)  # fmt: skip
def test_a_recording_that_cannot_be_used_is_counted_with_its_row(tmp_path, manifest, row, question, reason):
    sound(tmp_path / "audio" / "two.wav", 1.4, channels=2)
    sound(tmp_path / "audio" / "long.wav", 26.0, rate=8000)
    with open(manifest, "a") as file:
        file.write(json.dumps(row) + "\n")
    asked = [{"question": "What is it?", "answer": "Nothing.", "utt_id": question}]
    source = opened(tmp_path, manifest, *QUESTIONS[:2], *(QUESTIONS[2:] if question != "b" else []), *asked)
    asked_for, listed = (source.describe()[key] for key in ("left_out", "recordings_left_out"))
    left_out = asked_for | listed
    assert reason in left_out and "The cat." in {e.agent for e in exchanges(source)}
    place = left_out[reason]["first"][0]
    assert (reason in listed) == place.startswith(manifest)
    assert place.startswith((f"{tmp_path / 'qa.jsonl'}:{4 if question != 'b' else 3}", f"{manifest}:3"))


def test_what_is_wrong_with_a_recording_when_it_is_heard(tmp_path, manifest):
    soundfile.write(tmp_path / "audio" / "silent.wav", np.zeros(16000), 16000)
    with open(manifest, "a") as file:
        file.write(json.dumps({"audio_filepath": "audio/silent.wav", "text": "a"}) + "\n")
    source = opened(tmp_path, manifest, *QUESTIONS, {"utt_id": "silent", "question": "What?", "answer": "No."})
    found = {e.recording.id: e.recording for e in exchanges(source)}
    with pytest.raises(OddRow, match="a recording without a sound .*silent.wav"):
        recorded(found["silent"])
    sound(tmp_path / "audio" / "a.wav", 2.0)
    with pytest.raises(OddRow, match="a recording that has changed .*a.wav"):
        recorded(found["a"])
    (tmp_path / "audio" / "a.wav").unlink()
    with pytest.raises(OddRow, match="a recording that cannot be read"):
        recorded(found["a"])


def test_a_question_without_its_recordings(tmp_path):
    with pytest.raises(InputError, match=r"a question about a recording.*'a'. Give text.recordings=\[manifest\]"):
        DialogueFiles([rows(tmp_path / "qa.jsonl", *QUESTIONS)])
    with pytest.raises(InputError, match="text.recordings: there is no file .*nowhere.json"):
        opened(tmp_path, tmp_path / "nowhere.json", *QUESTIONS)
    (tmp_path / "other.json").write_text('{"a": 1}\n')
    with pytest.raises(InputError, match="text.recordings: .*other.json: none of 1 rows .*no recording in the row"):
        opened(tmp_path, tmp_path / "other.json", *QUESTIONS)


def test_the_gap_is_part_of_what_a_corpus_is_made_of_where_there_are_recordings(tmp_path, manifest):
    asked = rows(tmp_path / "qa.jsonl", *QUESTIONS)
    first, other = (DialogueFiles([asked], TextSpec(recordings=(manifest,), recording_gap=gap)) for gap in (0.5, 0.3))
    assert first.folder == other.folder and first.describe()["sha256"] != other.describe()["sha256"]
    pairs = rows(tmp_path / "pairs.jsonl", *({"question": f"{name}?", "answer": "Yes."} for name in "ab"))
    without = [DialogueFiles([pairs], TextSpec(recording_gap=gap)).describe()["sha256"] for gap in (0.5, 0.3)]
    assert without[0] == without[1]


def test_what_was_imported_is_imported_again_with_its_recordings(tmp_path, manifest):
    first = opened(tmp_path, manifest, *QUESTIONS)
    again = DialogueFiles([first.dialogues])
    assert {e.user: e.recording for e in exchanges(again)} == {e.user: e.recording for e in exchanges(first)}


def split_of_recordings(source):
    counts = source.describe()["dialogues"]
    return {
        split: {source.dialogue(split, i, RNG).exchanges[0].recording.id for i in range(counts[split])}
        for split in ("dev", "train")
    }


def test_questions_of_one_recording_stay_in_one_split_however_they_name_it_and_when_imported_again(tmp_path):
    names = [f"r{number}" for number in range(6)]
    listed = [{"audio_filepath": f"{sound(tmp_path / f'{name}.wav', 1.0).name}", "text": f"we met {name}"} for name in names]
    manifest = rows(tmp_path / "manifest.json", *listed)
    asked = [
        {"utt_id": f"{name}.wav" if number % 2 else name, "question": f"Question {number}?", "answer": "Yes."}
        for number in range(7)
        for name in names
    ]
    first = DialogueFiles([rows(tmp_path / "qa.jsonl", *asked)], TextSpec(recordings=(manifest,)))
    again = DialogueFiles([first.dialogues])
    for source in (first, again):
        assert source.describe()["dialogues"] == {"dev": 7, "train": 35}  # a tenth would be 4
        splits = split_of_recordings(source)
        assert len(splits["dev"]) == 1 and splits["dev"] | splits["train"] == set(names)
        assert not splits["dev"] & splits["train"]
    assert split_of_recordings(first) == split_of_recordings(again)


AUDIO = {
    "id": "a", "path": "/a.wav", "start": 0.0, "duration": 1.0, "text": "the cat", "words": [["the", 0.1, 0.2]],
    "channel": None, "tar": None, "size": 9,
}  # fmt: skip


@pytest.mark.parametrize(
    ("audio", "role", "detail"),
    [
        ("a.wav", "user", "it is no object"),
        (AUDIO | {"speaker": "x"}, "user", "missing or unknown keys: 'speaker'"),
        ({**AUDIO, "id2": 1} | {"tar2": 1}, "user", "missing or unknown keys: 'id2', 'tar2'"),
        ({key: AUDIO[key] for key in AUDIO if key != "tar"}, "user", "missing or unknown keys: 'tar'"),
        (AUDIO | {"id": 1}, "user", "'id' is 1"),
        (AUDIO | {"start": "0"}, "user", "'start' is '0'"),
        (AUDIO | {"duration": 0}, "user", "'duration' is 0"),
        (AUDIO | {"text": "?"}, "user", "'text' is '?'"),
        (AUDIO | {"words": [["the", 0.1]]}, "user", "'words' is [['the', 0.1]]"),
        (AUDIO | {"words": {"the": 1}}, "user", "'words' is {'the': 1}"),
        (AUDIO | {"channel": -1}, "user", "'channel' is -1"),
        (AUDIO | {"tar": [5]}, "user", "'tar' is [5]"),
        (AUDIO | {"size": True}, "user", "'size' is True"),
        (AUDIO, "agent", "the agent says it"),
    ],
)  # fmt: skip
def test_audio_that_no_import_wrote_is_an_odd_row(tmp_path, audio, role, detail):
    turns = [{"role": "user", "text": "Who?"}, {"role": "agent", "text": "The cat."}]
    turns[role == "agent"]["audio"] = audio
    good = [{"turns": [{"role": "user", "text": f"{name}?"}, {"role": "agent", "text": "Yes."}]} for name in "ab"]
    path = rows(tmp_path / "a.jsonl", *good, {"turns": turns})
    reason = "a turn whose 'audio' is no recording that was imported"
    assert DialogueFiles([path]).describe()["left_out"] == {reason: {"count": 1, "first": [f"{path}:3: {detail}"]}}


def test_imported_audio_is_not_longer_than_a_turn_may_be(tmp_path):
    turns = [{"role": "user", "text": "Who?", "audio": AUDIO | {"duration": 25.5}}, {"role": "agent", "text": "The cat."}]
    good = [{"turns": [{"role": "user", "text": f"{name}?"}, {"role": "agent", "text": "Yes."}]} for name in "ab"]
    source = DialogueFiles([rows(tmp_path / "a.jsonl", *good, {"turns": turns})])
    assert list(source.describe()["left_out"]) == ["a turn of over 25 s of speech"]


def test_audio_stays_with_its_turn_where_turns_before_it_are_left_out(tmp_path):
    greeting = [{"role": "user", "text": "Hi"}, {"role": "agent", "text": "Hello! How can I help you today?"}]
    asked = [{"role": "user", "text": "Who?", "audio": AUDIO}, {"role": "agent", "text": "The cat."}]
    others = [{"role": "user", "text": "Where?"}, {"role": "agent", "text": "On the mat."}]
    written = rows(
        tmp_path / "a.jsonl",
        {"turns": greeting + asked + others},
        {"turns": [{"role": "system", "text": "Be kind."}, *others, *asked]},
    )
    source = DialogueFiles([written], TextSpec(keep_greetings=False))
    for split in ("dev", "train"):
        found = {e.agent: e.recording for e in source.dialogue(split, 0, RNG).exchanges}
        assert found["The cat."].path == "/a.wav" and found["On the mat."] is None and len(found) == 2


def without(key):
    return {name: value for name, value in CUT.items() if name != key}


UNALIGNED = "an alignment that is no list of words and times"
SAID = {"id": "s", "text": "the cat sat"}
SOURCE = {"type": "file", "channels": [0], "source": "audio/a.wav"}
CUT = {
    "id": "c", "type": "MonoCut", "start": 0.0, "duration": 1.0, "channel": 0, "supervisions": [SAID],
    "recording": {"id": "r", "sources": [SOURCE]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("cut", "reason"),
    [
        (without("id"), "a cut without an id"),
        (CUT | {"id": None}, "a cut without an id"),
        (without("start"), "a time that is no number of seconds"),
        (without("duration"), "a time that is no number of seconds"),
        (CUT | {"recording": {"id": "r"}}, "a cut whose audio is in no file"),
        (CUT | {"recording": {"sources": [{"type": "file"}]}}, "a cut whose audio is in no file"),
        (CUT | {"recording": {"sources": ["audio/a.wav"]}}, "a cut whose audio is in no file"),
        (CUT | {"channel": 1}, "a recording without the channel of its cut"),
        (CUT | {"channel": "left"}, "a cut without a channel"),
        (CUT | {"recording": {"sources": [SOURCE | {"channels": 1}]}}, "a recording without the channel of its cut"),
        (CUT | {"supervisions": ["the cat sat"]}, "a supervision that is no object"),
        (CUT | {"supervisions": {"text": "the cat sat"}}, "a supervision that is no object"),
        (CUT | {"supervisions": [SAID | {"alignment": {"word": [["the", 0.1]]}}]}, UNALIGNED),
        (CUT | {"supervisions": [SAID | {"alignment": {"word": [["the", "0", 1]]}}]}, UNALIGNED),
        (CUT | {"supervisions": [SAID | {"alignment": ["the"]}]}, UNALIGNED),
        (CUT | {"recording": {"sources": [SOURCE | {"source": "a" * 5000}]}}, "a recording whose file is missing"),
    ],
)  # fmt: skip
def test_a_cut_that_cannot_be_used_is_counted_apart_from_the_questions(tmp_path, manifest, cut, reason):
    bad = rows(tmp_path / "cuts.jsonl", CUT | {"id": "good"}, *[cut] * 9)
    source = DialogueFiles([rows(tmp_path / "qa.jsonl", *QUESTIONS)], TextSpec(recordings=(manifest, bad)))
    told = source.describe()
    assert sum(told["dialogues"].values()) == 3 and told["left_out"] == {}
    assert {name: found["count"] for name, found in told["recordings_left_out"].items()} == {reason: 9}
    assert told["recordings_left_out"][reason]["first"][0].startswith(f"{bad}:2")
    assert source.summary()[1:3] == [
        "text.recordings: rows left out: 9",
        f"  9 x {reason}: {told['recordings_left_out'][reason]['first'][0]}",
    ]


def test_alignments_of_old_lhotse_are_read(tmp_path):
    """Before 1.8 it wrote each item as an object."""
    sound(tmp_path / "a.wav", 1.4)
    item = {"symbol": "cat", "start": 0.5, "duration": 0.25, "score": None}
    said = SAID | {"alignment": {"word": [item, {"symbol": " ", "start": 0.0, "duration": 0.1}]}}
    cut = CUT | {"supervisions": [said], "recording": {"id": "r", "sources": [SOURCE | {"source": "a.wav"}]}}
    with Recordings([Path(rows(tmp_path / "cuts.jsonl", cut))], tmp_path / "index", 25.0) as recordings:
        assert recordings.find("c")["words"] == [["cat", 0.5, 0.75]]


def test_what_the_writer_names_is_found(tmp_path):
    """Files of one name in two folders, parts of one file, and ids that are the names of other files."""
    for folder in "xy":
        (tmp_path / folder).mkdir()
        sound(tmp_path / folder / "a.wav", 3.0)
    text = "the cat sat on the mat"
    listed = [
        {"audio_filepath": "x/a.wav", "offset": 0, "duration": 1.0, "text": text},
        {"audio_filepath": "x/a.wav", "offset": 1.2345678, "duration": 1.0, "text": text},
        {"audio_filepath": "x/a.wav", "offset": 1.2345679, "duration": 1.1, "text": text},
        {"audio_filepath": "x/a.wav", "text": text},
        {"audio_filepath": "y/a.wav", "text": text},
        {"audio_filepath": "y/a.wav", "id": "a", "offset": 0.5, "text": text},
        {"audio_filepath": "y/a.wav", "utt_id": "", "offset": 0.25, "duration": 1.0, "text": text},
        {"audio_filepath": "y/a.wav", "utt_id": 0, "offset": 0.75, "duration": 1.0, "text": text},
    ]
    manifest = rows(tmp_path / "manifest.json", *listed, listed[4])
    named = [name for name, _ in transcripts([manifest], OddRows())]
    assert named == [
        "x/a.wav@0.0", "x/a.wav@1.2345678", "x/a.wav@1.2345679", "x/a.wav", "y/a.wav", "a", "y/a.wav@0.25", "0", "y/a.wav",
    ]  # fmt: skip
    with Recordings([Path(manifest)], tmp_path / "index", 25.0) as recordings:
        found = [recordings.find(name) for name in named]
        assert [Path(recording["path"]).parent.name for recording in found] == list("xxxxyyyyy")
        assert [recording["start"] for recording in found] == [0.0, 1.2345678, 1.2345679, 0.0, 0.0, 0.5, 0.25, 0.75, 0.0]
        assert [recording["id"] for recording in found[:2]] == ["a@0", "a@1.2345678"]
        assert recordings.find("a@0.25")["start"] == 0.25  # a short name that no other has
        with pytest.raises(OddRow, match="a name that several recordings have"):
            recordings.find("a@1.23457")


def test_what_was_written_about_recordings_is_imported(tmp_path):
    for folder in "xy":
        (tmp_path / folder).mkdir()
        sound(tmp_path / folder / "a.wav", 3.0)
    manifest = rows(
        tmp_path / "manifest.json",
        *({"audio_filepath": f"{folder}/a.wav", "text": f"the {folder} cat sat on the mat"} for folder in "xy"),
    )
    named = [name for name, _ in transcripts([manifest], OddRows())]
    source = opened(tmp_path, manifest, *({"utt_id": name, "question": "Who sat?", "answer": "The cat."} for name in named))
    assert source.describe()["left_out"] == {}
    assert {e.recording.text: Path(e.recording.path).parent.name for e in exchanges(source)} == {
        "the x cat sat on the mat": "x", "the y cat sat on the mat": "y",
    }  # fmt: skip
