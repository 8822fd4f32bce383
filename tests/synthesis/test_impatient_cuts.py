"""The Impatient set of any two-channel corpus: where turns are then, that their samples are theirs, what stays known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.shar import SharWriter

from nemo_duplex.conversation import Conversation
from nemo_duplex.files.atomic import _here, sha256
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis import impatient_cuts
from nemo_duplex.synthesis.cuts import DialogueCuts, two_channel_cut
from nemo_duplex.synthesis.dialogue_spec import DialogueSpec, Events
from nemo_duplex.synthesis.impatient_cuts import impatient_cut, write_impatient
from nemo_duplex.synthesis.text.grammar import Grammar
from nemo_duplex.synthesis.timing import Rhythm
from tests.synthesis.test_synthesize_script import run
from tests.synthesis.tones import cast_of

TURNS = [
    ("user", 1.0, 2.0, "one"),
    ("agent", 2.5, 5.5, "first answer"),
    ("user", 8.0, 9.5, "two"),
    ("agent", 10.0, 11.0, "second"),
]


def made(turns=TURNS, rate: int = 16000, duration: float = 12.0, names=("user", "agent"), agent_rate: int = 22050) -> MonoCut:
    """Every sample of the user's channel tells its own time, in the turns and between them."""
    samples = round(duration * rate)
    audio = (np.arange(samples) % 30000 / 32768).astype(np.float32)
    cut = two_channel_cut(
        Conversation("c", duration, ()), audio, np.zeros(round(duration * agent_rate), np.float32), rate, agent_rate
    )
    label = dict(zip(("user", "agent"), names))
    cut.supervisions = [
        SupervisionSegment(f"s{i}", "c", start, end - start, text=text, speaker=label[who])
        for i, (who, start, end, text) in enumerate(turns)
    ]
    return cut


@pytest.mark.parametrize("rate", [16000, 8000, 24000])
@pytest.mark.parametrize("factor", [0.5, 0.25, 1.0, 0.0])
def test_a_silence_is_shortened_in_its_middle_to_the_sample(rate, factor):
    source = made(rate=rate)
    cut = impatient_cut(source, Rhythm(impatient=factor))
    first, second = Conversation.from_cut(cut).user
    assert (first.start, first.end) == (1.0, 2.0)
    assert second.start == pytest.approx(2.0 + factor * 6.0, abs=1e-6) and second.duration == pytest.approx(1.5)
    before, after = source.load_audio()[0], cut.load_audio()[0]
    assert np.array_equal(after[: 2 * rate], before[: 2 * rate])
    moved = round(second.start * rate)
    assert np.array_equal(after[moved : moved + round(1.5 * rate)], before[8 * rate : round(9.5 * rate)])
    kept = round(factor * 3.0 * rate)  # on each side
    fade = min(round(0.01 * rate), kept)
    assert np.array_equal(after[2 * rate : 2 * rate + kept - fade], before[2 * rate : 2 * rate + kept - fade])
    assert np.array_equal(after[moved - kept : moved], before[8 * rate - kept : 8 * rate])


def test_the_agent_is_silent_and_its_words_are_references():
    cut = impatient_cut(made(), Rhythm())
    assert cut.custom["references"] == [["first answer"], ["second"]] and cut.custom["factor"] == 0.5
    assert cut.id == "c-impatient" and cut.custom["source"] == "c"
    assert not cut.load_target_audio().any() and all(s.speaker == "user" for s in cut.supervisions)
    assert cut.supervisions[1].custom == {"silence": 3.0, "source_silence": 6.0}
    assert cut.load_audio().shape[1] / 1280 == cut.load_target_audio().shape[1] / 1764 == round(cut.duration / 0.08)
    assert cut.duration == pytest.approx(5.0 + 1.5 + 6.0, abs=0.08)


def test_turns_that_interrupt_an_answer_on_time_are_known():
    """The answer of 3 s would last from 2.64 to 5.64; the next turn is at 5.0, or at 8.0 with the whole silence."""
    for factor, interrupts in ((0.5, True), (1.0, False), (0.1, False)):
        assert impatient_cut(made(), Rhythm(impatient=factor)).custom["interrupts"] == [False, interrupts]
    assert impatient_cut(made(), Rhythm(response_gap=3.2)).custom["interrupts"] == [False, False]


def test_answers_are_whole_several_or_none():
    turns = [("user", 1.0, 2.0, "a"), ("agent", 2.5, 3.0, "b"), ("agent", 3.2, 4.0, "c"), ("user", 6.0, 7.0, "d")]
    cut = made(turns)
    cut.supervisions[1].custom = {"full_text": "b and more"}
    assert impatient_cut(cut, Rhythm()).custom["references"] == [["b and more c"], [""]]


def test_users_who_overlap_themselves_are_left_as_they_are():
    turns = [("user", 1.0, 4.0, "a"), ("user", 3.0, 3.5, "b"), ("user", 6.0, 7.0, "c")]
    users = Conversation.from_cut(impatient_cut(made(turns), Rhythm())).user
    assert [t.start for t in users] == pytest.approx([1.0, 3.0, 5.0])


@pytest.mark.parametrize("names", [("User", "Assistant"), ("USER", "agent"), ("user", "System")])
def test_speakers_have_any_of_their_usual_names(names):
    cut = impatient_cut(made(names=names), Rhythm())
    assert [s.text for s in cut.supervisions] == ["one", "two"]


def test_other_speakers_are_refused_with_the_cuts_id():
    with pytest.raises(InputError, match="Cut c: supervision s0 has speaker 'A'"):
        impatient_cut(made(names=("A", "B")), Rhythm())


def test_what_comes_after_the_last_turn_goes_on_as_background():
    cut = impatient_cut(made([("user", 1.0, 2.0, "a")], duration=3.2), Rhythm())
    audio = cut.load_audio()[0]
    assert cut.duration >= 8.0 and np.abs(audio[round(3.2 * 16000) :]).min() > 0
    assert np.array_equal(audio[51200 : 51200 + 100], audio[51199 - 100 : 51199][::-1]), "Back and forth, without a jump."


def test_our_own_cuts_keep_words_pauses_and_events_in_place():
    source = DialogueCuts(
        DialogueSpec(pause=1.0, events=Events(hesitation=1.0, cough=1.0), rhythm=Rhythm(barge_in=0.0)), Grammar(), cast_of()
    )
    dev = source.cut("dev", 3)
    cut = impatient_cut(dev, Rhythm())
    before, after = Conversation.from_cut(dev).user, Conversation.from_cut(cut).user
    assert [t.text for t in before] == [t.text for t in after]
    for a, b in zip(before, after):
        by = b.start - a.start
        assert [w.start for w in b.words] == pytest.approx([w.start + by for w in a.words], abs=1e-4)
        assert b.custom.get("pauses", []) == [
            [pytest.approx(s + by, abs=1e-3), pytest.approx(e + by, abs=1e-3)] for s, e in a.custom.get("pauses", [])
        ]
        old, new = (
            [e for e in c.custom["events"] if e["kind"] == "hesitation" and t.start - 1e-3 <= e["start"] <= t.end]
            for c, t in ((dev, a), (cut, b))
        )
        assert [(e["start"], e["text"]) for e in new] == [(pytest.approx(e["start"] + by, abs=1e-3), e["text"]) for e in old]
    assert all(0 <= e["start"] < e["end"] <= cut.duration for e in cut.custom["events"])
    assert cut.custom["voice"] == dev.custom["voice"]


# --- from Shar to Shar ---------------------------------------------------------------------------------------------------


def shar(folder: Path, cuts: list[MonoCut], fields=("recording", "target_audio"), shard_size: int = 2) -> Path:
    folder.mkdir()
    with SharWriter(str(folder), dict.fromkeys(fields, "flac"), shard_size=shard_size, warn_unused_fields=False) as writer:
        for cut in cuts:
            writer.write(cut)
    return folder


def numbered(count: int) -> list[MonoCut]:
    cuts = [made() for _ in range(count)]
    for i, cut in enumerate(cuts):
        cut.id = f"c{i}"
    return cuts


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_any_shar_of_two_channels_becomes_an_impatient_set(tmp_path):
    quiet = made([("agent", 1.0, 2.0, "unasked")])
    quiet.id = "quiet"
    source = shar(tmp_path / "source", [*numbered(5), quiet])
    summary = write_impatient(source, tmp_path / "out", Rhythm())
    assert summary["sets"]["impatient"] == {
        "hours": pytest.approx(5 * 12.56 / 3600, abs=1e-3), "cuts": 5, "user_turns": 10, "onsets_after_the_first": 5,
        "interruptions": 5, "left_out_without_user": 1, "interruption_rate": 1.0,
    }  # fmt: skip
    assert json.loads((tmp_path / "out" / "corpus.json").read_text()) == summary
    cuts = list(CutSet.from_shar(in_dir=tmp_path / "out" / "impatient" / "shar"))
    assert [cut.id for cut in cuts] == [f"c{i}-impatient" for i in range(5)]
    assert cuts[3].load_audio().shape[1] / 1280 == cuts[3].load_target_audio().shape[1] / 1764


def test_the_bytes_are_the_same_in_slices_and_again(tmp_path):
    source = shar(tmp_path / "source", numbered(5))
    write_impatient(source, tmp_path / "one", Rhythm())
    assert write_impatient(source, tmp_path / "two", Rhythm(), slice=(1, 2)) is None
    assert write_impatient(source, tmp_path / "two", Rhythm(), slice=(0, 2)) is not None
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert one == two and len(one) == 3 * 4 + 1
    written = (tmp_path / "one" / "impatient" / "shar" / "recording.000001.tar").stat().st_mtime_ns
    write_impatient(source, tmp_path / "one", Rhythm())
    assert (tmp_path / "one" / "impatient" / "shar" / "recording.000001.tar").stat().st_mtime_ns == written
    with pytest.raises(InputError, match="was made with other settings"):
        write_impatient(source, tmp_path / "one", Rhythm(impatient=0.25))
    assert write_impatient(source, tmp_path / "one", Rhythm(impatient=0.25), overwrite=True)["factor"] == 0.25


def test_audio_outside_of_the_shar_is_found_by_the_cuts(tmp_path):
    cut = made()
    sf.write(tmp_path / "user.wav", cut.load_audio()[0], 16000, subtype="PCM_16")
    cut.recording = Recording.from_file(tmp_path / "user.wav")
    cut.custom = None
    folder = tmp_path / "manifests"
    folder.mkdir()
    CutSet.from_cuts([cut]).to_file(folder / "cuts.000000.jsonl.gz")
    write_impatient(folder, tmp_path / "out", Rhythm())
    (found,) = CutSet.from_shar(in_dir=tmp_path / "out" / "impatient" / "shar")
    assert np.abs(found.load_audio()[0] - impatient_cut(made(), Rhythm()).load_audio()[0]).max() < 1e-4


def test_a_folder_without_cuts_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("x")
    with pytest.raises(InputError, match="holds no cuts .* Give a set such as CORPUS/dev, or a Lhotse Shar."):
        write_impatient(tmp_path / "a", tmp_path / "out", Rhythm())
    with pytest.raises(InputError, match="impatient_of: there is no folder"):
        write_impatient(tmp_path / "b", tmp_path / "out", Rhythm())


def test_a_set_of_other_audio_is_not_continued(tmp_path):
    """The same names and sizes: one bit of a recording differs, or the version of what is made of it."""
    source = shar(tmp_path / "source", numbered(3))
    write_impatient(source, tmp_path / "out", Rhythm())
    path = source / "recording.000001.tar"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # of the padding at the end of a tar file
    path.write_bytes(data)
    with pytest.raises(InputError, match="was made with other settings"):
        write_impatient(source, tmp_path / "out", Rhythm())


def test_the_version_of_what_is_made_is_in_the_fingerprint(tmp_path, monkeypatch):
    source = shar(tmp_path / "source", numbered(1))
    write_impatient(source, tmp_path / "out", Rhythm())
    monkeypatch.setattr(impatient_cuts, "FORMAT", -1)
    with pytest.raises(InputError, match="was made with other settings"):
        write_impatient(source, tmp_path / "out", Rhythm())


def test_a_set_of_ours_is_known_by_its_markers(tmp_path, monkeypatch):
    source = (
        write_impatient(shar(tmp_path / "source", numbered(3)), tmp_path / "ours", Rhythm()) and tmp_path / "ours/impatient"
    )
    write_impatient(source, tmp_path / "out", Rhythm(impatient=0.25))
    read = []
    monkeypatch.setattr(impatient_cuts, "sha256", lambda path: read.append(path.name) or sha256(path))
    write_impatient(source, tmp_path / "out", Rhythm(impatient=0.25))
    assert read == ["cuts.000000.jsonl.gz", "cuts.000001.jsonl.gz"]
    shutil.rmtree(source / "state")
    write_impatient(source, tmp_path / "out", Rhythm(impatient=0.25))
    assert "recording.000001.tar" in read, "Without markers the content is the same."


def test_what_killed_runs_left_is_removed(tmp_path):
    source = shar(tmp_path / "source", numbered(3))
    out = tmp_path / "out"
    write_impatient(source, out, Rhythm())
    (out / "impatient" / "shar" / "recording.000007.tar").touch()
    part = out / "impatient" / f".part-{_here()}-999999999-000000"
    part.mkdir()
    write_impatient(source, out, Rhythm())
    assert not part.exists() and not (out / "impatient" / "shar" / "recording.000007.tar").exists()


def test_a_full_disk_is_known_before(tmp_path, monkeypatch):
    source = shar(tmp_path / "source", numbered(1))
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 9))
    with pytest.raises(InputError, match="this needs about"):
        write_impatient(source, tmp_path / "out", Rhythm())


# --- the script ----------------------------------------------------------------------------------------------------------


def script(tmp_path, *more: str) -> tuple[str, ...]:
    return (f"out={tmp_path / 'out'}", f"impatient_of={tmp_path / 'source'}", "workers=1", *more)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["executor=ray"], "impatient_of: executor=ray has no effect"),
        (["codec=a.nemo"], "impatient_of: codec=a.nemo has no effect"),
        (["sets=[dev]"], "impatient_of: sets=[dev] has no effect"),
        (["overwrite=true", "slice=0/2"], "overwrite=true would remove what the other slices make"),
    ],
)
def test_what_has_no_effect_on_it_is_refused(capsys, tmp_path, more, message):
    shar(tmp_path / "source", numbered(1))
    code, text = run(capsys, *script(tmp_path, *more))
    assert code == 2 and text.count("\n") == 1 and message in text and not (tmp_path / "out").exists()


def test_a_corpus_is_not_replaced(capsys, tmp_path):
    shar(tmp_path / "source", numbered(1))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "corpus.json").write_text('{"sets": {}, "spec": {}}')
    code, text = run(capsys, *script(tmp_path, "overwrite=true"))
    assert code == 2 and text.count("\n") == 1 and "holds a corpus, whose corpus.json would be replaced" in text
    assert (tmp_path / "out" / "corpus.json").read_text() == '{"sets": {}, "spec": {}}'


def test_the_script_makes_the_set_and_makes_it_again(capsys, tmp_path):
    shar(tmp_path / "source", numbered(3))
    for more in ((), (), ("overwrite=true",)):
        code, text = run(capsys, *script(tmp_path, *more))
        assert code == 0 and "impatient: hours 0.01, cuts 3" in text


@pytest.mark.parametrize(
    ("name", "message"),
    [("cuts.000001.jsonl.gz", "cuts.000001.jsonl.gz: "), ("recording.000001.tar", "shard 000001, after the cut c2: ")],
)
def test_a_broken_shard_is_one_line(capsys, tmp_path, name, message):
    source = shar(tmp_path / "source", numbered(4))
    path = source / name
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    code, text = run(capsys, *script(tmp_path))
    assert code == 2 and text.count("\n") == 1 and f"impatient_of: {source} cannot be read: " in text and message in text


@pytest.mark.parametrize("there", [True, False])
def test_a_recording_apart_that_cannot_be_read_is_one_line(capsys, tmp_path, there):
    cut = made()
    sf.write(tmp_path / "user.wav", cut.load_audio()[0], 16000)
    cut.recording, cut.custom = Recording.from_file(tmp_path / "user.wav"), None
    (tmp_path / "source").mkdir()
    CutSet.from_cuts([cut]).to_file(tmp_path / "source" / "cuts.000000.jsonl.gz")
    (tmp_path / "user.wav").write_text("no audio") if there else (tmp_path / "user.wav").unlink()
    code, text = run(capsys, *script(tmp_path))
    message = (
        f"impatient_of: {tmp_path / 'source'}: Cut c: its recording cannot be read" if there else "cut c: there is no recording"
    )
    assert code == 2 and text.splitlines()[-1].startswith("error: ") and message in text.splitlines()[-1]
    assert "Traceback" not in text


def test_a_cut_without_a_recording_is_one_line(capsys, tmp_path):
    source = shar(tmp_path / "source", numbered(1))
    (source / "recording.000000.tar").unlink()
    code, text = run(capsys, *script(tmp_path))
    assert code == 2 and text.count("\n") == 1 and "cut c0: it has no recording of the user" in text
