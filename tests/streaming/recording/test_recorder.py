"""What happens in a session is on disk: whole at the end, readable at any time, and never in the way."""

import json
import logging
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet

from nemo_duplex.conversation import Turn
from nemo_duplex.inputs import InputError
from nemo_duplex.models.nemo.model_hash import model_hash
from nemo_duplex.streaming.recording import format as files
from nemo_duplex.streaming.recording import recorder as module
from nemo_duplex.streaming.recording.growing_files import GrowingFile
from nemo_duplex.streaming.recording.reader import SessionRecording
from nemo_duplex.streaming.recording.recorder import recover
from tests.dummies import speech_like, voice_like


def hold(session, audio, chunk=777, end=True):
    """Pushes a signal, and returns all frames."""
    frames = []
    for start in range(0, len(audio), chunk):
        frames += session.push(audio[start : start + chunk])
    return frames + (session.flush() if end else [])


def parts(folder):
    return [path for path in folder.iterdir() if path.name.startswith(".part-")]


def test_both_channels_and_all_that_was_chosen(model, tmp_path):
    audio = speech_like(2.1, sample_rate=48000).numpy()
    options = {"sampling": {"text": {"temperature": 0.7}}, "seed": 5, "sample_rate": 48000, "system_prompt": "six"}
    before = time.time()
    session = model.open_session(record=tmp_path / "new" / "talk", **options)
    made = hold(session, audio, end=False)
    frames = made + session.flush()
    session.close()

    recording = SessionRecording.read(tmp_path / "new" / "talk")
    assert len(recording) == len(frames) == 27
    assert recording.tokens.tolist() == [f.token for f in frames]
    assert np.array_equal(recording.codes, np.stack([f.codes for f in frames]))
    assert np.array_equal(np.concatenate(list(recording.agent_frames())), np.concatenate([f.audio for f in frames]))
    assert np.array_equal(np.concatenate(list(recording.user_chunks())), audio)
    assert [len(chunk) for chunk in recording.user_chunks()][:-1] == [777] * 129
    assert recording.steps["user_active"].tolist() == [f.user_active for f in frames]
    assert recording.session["seed"] == 5 and recording.session["sampling"]["text"]["temperature"] == 0.7
    assert recording.session["prompt"] == model.prompt_tokens("six") and recording.flushed
    assert [(w["frame"], w["wish"]) for w in recording.session["wishes"]] == [(len(made), "flush")] and 0 < len(made) < 27
    times = [recording.steps[name] for name in ("heard", "begun", "made")]
    assert (np.diff(times, axis=0) >= 0).all() and before <= times[0].min() and times[2].max() <= time.time()
    assert (np.diff(recording.pushes["arrived"]) >= 0).all()
    known = recording.pushes["frame"]  # what was known when a frame was made: all pushes up to some
    assert (np.diff(known) >= 0).all() and 24 <= known[-1] < 27


def test_lhotse_reads_it_and_it_is_training_data(model, tmp_path, monkeypatch):
    session = model.open_session(record=tmp_path / "talk")
    frames = hold(session, voice_like(1.3).numpy())
    session.close()
    monkeypatch.chdir(tmp_path / "talk")
    (cut,) = CutSet.from_file("cut.jsonl")
    assert cut.load_agent_codes().shape == (17, 2) and cut.load_agent_steps()["made"].shape == (17,)
    assert cut.load_user_pushes()["samples"].sum() == cut.recording.num_samples == 20800
    monkeypatch.chdir("/")  # and from anywhere, with whole paths
    cut = SessionRecording.read(tmp_path / "talk").cut
    assert {s.speaker for s in cut.supervisions} == {"user", "agent"}
    assert {s.language for s in cut.supervisions} == {None}, "The language of a session is not known."
    assert np.array_equal(cut.load_agent_tokens(), [f.token for f in frames])
    batch = model.dataset()[CutSet.from_cuts([cut])]
    assert batch.num_frames.tolist() == [17]
    assert torch.equal(batch.user_audio[0], voice_like(1.3))
    whole = np.concatenate([f.audio for f in frames])[: batch.agent_audio_lens[0]]
    assert np.array_equal(batch.agent_audio[0].numpy(), whole) and np.abs(whole).max() > 0.01
    assert batch.agent_texts == [" ".join(turn.text for turn in session.transcript.agent)] != [""]
    loss = model.training_step(batch, 0)["loss"]
    assert torch.isfinite(loss)


def test_the_places_in_the_batch(model, tmp_path):
    """The third row of four is computed; its encoder chunk is the only one of its batch."""
    engine = model.open_engine(max_sessions=4)
    sessions = [engine.open_session(record=tmp_path / str(i)) for i in range(3)]
    sessions[2].push(speech_like(0.5).numpy())
    engine.run_until_idle()
    for session in sessions:
        session.close()
        assert session.recorder.wait(20)
    steps = SessionRecording.read(tmp_path / "2").steps
    assert set(steps[["row", "rows", "entry", "entries"]].tolist()) == {(2, 4, 0, 1)}


def test_the_turns_of_the_user(model, tmp_path):
    """As long as the detector heard somebody, up to the end of the audio."""
    session = model.open_session(record=tmp_path / "talk")
    silence = np.zeros(16000, np.float32)
    hold(session, np.concatenate([silence, voice_like(0.25, 1).numpy(), silence, voice_like(0.25, 2).numpy()]))
    session.close()
    recording = SessionRecording.read(tmp_path / "talk")
    assert recording.cut.duration == pytest.approx(2.5), "Not 2.56 s, which the frames would be."
    turns = [(s.start, s.end) for s in recording.cut.supervisions if s.speaker == "user"]
    edges = np.flatnonzero(np.diff(recording.steps["user_active"].astype(int), prepend=0, append=0)) * 0.08
    assert np.allclose(np.ravel(turns), np.minimum(edges, 2.5)) and len(turns) == 2


def test_commands_are_noted_with_the_frame_from_which_on_they_hold(model, tmp_path):
    session = model.open_session(record=tmp_path / "talk")
    chunk = speech_like(0.16).numpy()
    frames = session.push(chunk)
    session.stop()
    session.mute(True)
    session.say("six")
    frames += session.push(chunk)
    session.close()
    recording = SessionRecording.read(tmp_path / "talk")
    assert len(recording) == len(frames)
    say = ("say", model.tokenizer.text_to_ids("six"))
    assert recording.commands(2) == [("stop", None), ("mute", True), say] and recording.commands(0) == []
    assert not recording.flushed


def test_what_was_pushed_and_not_answered_any_more(model, tmp_path):
    """The caller hangs up in the middle: all audio is there, and the frames that were made."""
    engine = model.open_engine(max_sessions=1)
    session = engine.open_session(record=tmp_path / "talk")
    session.push(speech_like(1.0).numpy())
    for _ in range(5):
        engine.step()
    session.close()
    assert session.recorder.wait(20)
    recording = SessionRecording.read(tmp_path / "talk")
    assert len(recording) == 5 and recording.cut.duration == pytest.approx(0.4)
    assert sum(len(chunk) for chunk in recording.user_chunks()) == 16000
    assert all(s.end <= 0.4 + 1e-9 for s in recording.cut.supervisions)


def test_a_folder_that_is_empty_may_be_there(model, tmp_path):
    (tmp_path / "talk").mkdir()
    session = model.open_session(record=tmp_path / "talk")
    hold(session, speech_like(0.3).numpy())
    session.close()
    assert len(SessionRecording.read(tmp_path / "talk")) == 4


def test_a_turn_without_a_length_is_not_in_the_cut():
    """A turn that is stopped in the frame in which it begins has no sound."""
    turns = [Turn("agent", 0.4, 0.4), Turn("agent", 0.5, 2.0, "six"), Turn("user", 1.0, 1.5)]
    conversation = files._within(1.0, "talk", turns)
    assert conversation.turns == (Turn("agent", 0.5, 1.0, "six"),), "it ends with the audio, and what is outside is left out"


def test_a_session_that_is_flushed_before_its_first_frame_is_over(model, tmp_path):
    session = model.open_engine(max_sessions=1).open_session(record=tmp_path / "talk")
    session.flush()
    assert session.recorder.wait(20) and list(tmp_path.iterdir()) == []


def test_without_a_frame_there_is_no_recording(model, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        session = model.open_session(record=tmp_path / "talk")
        session.push(np.zeros(100, np.float32))
        session.close()
    assert list(tmp_path.iterdir()) == []
    assert "before its first frame" in caplog.text


def test_a_session_that_breaks_is_recorded_until_then(model, tmp_path):
    engine = model.open_engine(max_sessions=1)
    session = engine.open_session(record=tmp_path / "talk")
    session.push(speech_like(1.0).numpy())
    for _ in range(5):
        engine.step()
    session._transcript = SimpleNamespace(add=lambda index, token: 1 / 0)
    engine.step()
    assert isinstance(session.error, ZeroDivisionError) and session.recorder.wait(20)
    assert len(SessionRecording.read(tmp_path / "talk")) == 5


@pytest.mark.parametrize("what", ["a file", "full", "below a file", "not writable", "no space"])
def test_a_folder_that_cannot_be_is_refused_at_once(model, tmp_path, what, monkeypatch):
    folder = tmp_path / "talk"
    if what == "a file":
        folder.write_text("mine")
    elif what == "full":
        folder.mkdir()
        (folder / "mine").touch()
    elif what == "below a file":
        folder.write_text("mine")
        folder = folder / "below"
    elif what == "no space":

        def full(file):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(GrowingFile, "begin", full)
    else:
        folder = Path("/proc/talk")
    engine = model.open_engine(max_sessions=1)
    with pytest.raises(InputError, match="record: "):
        engine.open_session(record=folder)
    assert len(engine) == 0, "It would keep its slot."
    assert parts(tmp_path) == []


def test_two_sessions_do_not_share_a_folder(model, tmp_path):
    engine = model.open_engine(max_sessions=2)
    session = engine.open_session(record=tmp_path / "talk")
    with pytest.raises(InputError, match="another session is being recorded"):
        engine.open_session(record=tmp_path / "talk")
    session.close()
    assert session.recorder.wait(20)


def test_a_full_disk_ends_the_recording_and_nothing_else(model, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(module, "_INTERVAL", 0.01)
    engine = model.open_engine(max_sessions=2)
    unlucky, lucky = (engine.open_session(record=tmp_path / name) for name in ("unlucky", "lucky"))
    append = GrowingFile.append

    def full(file, rows):
        if unlucky.recorder.part == file.path.parent and file.path.name == files.CODES and file.rows:
            append(file, rows[: len(rows) // 2])
            unlucky.recorder._note({files.AGENT: b"what comes just now"})
            raise OSError(28, "No space left on device")
        append(file, rows)

    monkeypatch.setattr(GrowingFile, "append", full)
    heard = {unlucky: [], lucky: []}
    with caplog.at_level(logging.WARNING):
        for number, chunk in enumerate(np.split(speech_like(2.0).numpy(), 25)):
            for session in heard:
                session.push(chunk)
            for session, frames in engine.step().items():
                heard[session] += frames
            deadline = time.time() + 20
            while number % 5 == 4 and unlucky.recorder._bytes:  # some of it is written before more comes
                assert time.time() < deadline
                time.sleep(0.001)
        for session in heard:
            session.flush()
        for session, frames in engine.run_until_idle().items():
            heard[session] += frames
        assert unlucky.recorder.wait(20) and lucky.recorder.wait(20)
    assert [f.token for f in heard[unlucky]] == [f.token for f in heard[lucky]] and len(heard[lucky]) == 25
    assert len(SessionRecording.read(tmp_path / "lucky")) == 25 and lucky.recorder.error is None
    assert not (tmp_path / "unlucky").exists() and isinstance(unlucky.recorder.error, OSError)
    assert unlucky.recorder._bytes == 0, "Nothing waits for a disk that is not written to any more."
    (said,) = [r.getMessage() for r in caplog.records]
    assert "unlucky was ended by an error" in said and "No space left" in said and str(unlucky.recorder.part) in said

    copy = shutil.copytree(unlucky.recorder.part, tmp_path / "copy")  # its name does not say what to call the recording
    for part, folder in ((copy, tmp_path / "copy-complete"), (unlucky.recorder.part, tmp_path / "unlucky")):
        with pytest.raises(InputError, match="is not complete. Once its session has ended") as error:
            SessionRecording.read(part)
        recovered = SessionRecording.read(eval(str(error.value).split("`")[1], {"recover": recover, "model": model}))
        assert recovered.folder == folder and len(recovered) > 0
    assert recovered.folder == tmp_path / "unlucky" and 0 < len(recovered) < 25
    assert recovered.tokens.tolist() == [f.token for f in heard[lucky]][: len(recovered)]


def test_a_disk_that_takes_nothing_does_not_fill_the_memory(model, tmp_path, caplog, monkeypatch):
    go_on, append = threading.Event(), GrowingFile.append
    monkeypatch.setattr(GrowingFile, "append", lambda file, rows: (go_on.wait(120), append(file, rows)))
    monkeypatch.setattr(module, "_MOST_WAITING", 100_000)
    monkeypatch.setattr(module, "_WRITE_TIMEOUT", 0.0)
    monkeypatch.setattr(module, "_INTERVAL", 0.01)
    engine = model.open_engine(max_sessions=1)
    session = engine.open_session(record=tmp_path / "talk")
    for _ in range(60):
        session.push(speech_like(0.08).numpy())
        engine.step()
    assert session.recorder._bytes < 120_000
    go_on.set()
    with caplog.at_level(logging.WARNING):
        assert session.recorder.wait(20)
    assert "nothing could be written" in str(session.recorder.error)
    session.close()


def test_audio_that_comes_much_faster_than_in_real_time(model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MOST_WAITING", 30_000)
    session = model.open_session(record=tmp_path / "talk")
    hold(session, speech_like(6.0).numpy(), chunk=96_000)
    session.close()
    assert len(SessionRecording.read(tmp_path / "talk")) == 75


def writer_threads():
    return [thread for thread in threading.enumerate() if thread.name == "recording writer"]


def wait_for_the_writer_to_end():
    deadline = time.time() + 20
    while writer_threads():
        assert time.time() < deadline, "A thread stays when there is nothing to write."
        time.sleep(0.01)


def test_a_crash_leaves_all_that_was_written(model, tmp_path, monkeypatch):
    """A process that is killed in the middle of a session."""
    monkeypatch.setattr(module, "_INTERVAL", 0.05)
    wait_for_the_writer_to_end()  # a child has none of the threads of its parent
    child = os.fork()
    if child == 0:
        session = model.open_session(record=tmp_path / "talk-with-alice")
        written, write = [], session.recorder.write
        session.recorder.write = lambda: written.append(write())
        session.mute(True)
        for chunk in np.split(speech_like(2.0).numpy(), 25):
            session.push(chunk)
        session.stop()  # in a frame that is not made any more
        enough, deadline = len(written) + 2, time.time() + 60  # what is being written, and then everything
        while len(written) < enough and time.time() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    (part,) = parts(tmp_path)
    assert json.loads((part / files.SESSION).read_text())["model"]["hash"] == model_hash(model), "whoever recovers it later"
    assert soundfile.info(part / files.USER).frames == 32000, "It plays as it is."
    with open(part / files.COMMANDS, "ab") as file:
        file.write(b'{"frame": 3, "wi')  # half a line
    recording = SessionRecording.read(recover(part, model))
    assert recording.folder == tmp_path / "talk-with-alice" and len(recording) == 24
    assert [(command["frame"], command["wish"]) for command in recording.session["wishes"]] == [(0, "mute")]
    with pytest.raises(InputError, match="there is no folder"):
        recover(part, model)


def test_recover_says_what_cannot_be(model, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(InputError, match="not an incomplete recording"):
        recover(tmp_path / "other", model)
    session = model.open_session(record=tmp_path / "talk")
    (part,) = parts(tmp_path)
    copy = tmp_path / ".part-1-copy"
    copy.mkdir()
    for name in (files.SESSION, *files.recording_files(part, session.recorder._session)):
        (copy / name).write_bytes((part / name).read_bytes())  # other files come and go while the writer thread works
    with pytest.raises(InputError, match="holds no whole frame"):
        recover(copy, model)
    with pytest.raises(InputError, match="is there already"):
        recover(copy, model, folder=tmp_path / "other")
    session.close()


def test_memory_is_constant_and_nothing_stays_open(model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_INTERVAL", 0.01)
    engine, chunk = model.open_engine(max_sessions=4), speech_like(0.08).numpy()
    sessions = [engine.open_session(record=tmp_path / str(i)) for i in range(4)]
    waiting, opened = [], []
    for _ in range(80):
        for session in sessions:
            session.push(chunk)
        engine.step()
        time.sleep(0.01)
        waiting.append(sum(session.recorder._bytes for session in sessions))
        opened.append(len(os.listdir("/proc/self/fd")))
    assert np.median(waiting[60:]) <= 2 * max(np.median(waiting[10:30]), 50_000)
    assert max(opened) - min(opened) <= 2
    for session in sessions:
        session.close()
        assert session.recorder.wait(20)
    wait_for_the_writer_to_end()


def test_the_cut_is_one_line_of_plain_json(model, tmp_path):
    session = model.open_session(record=tmp_path / "talk")
    hold(session, speech_like(0.5).numpy())
    session.close()
    (line,) = (tmp_path / "talk" / "cut.jsonl").read_text().splitlines()
    session = json.loads(line)["custom"]["session"]
    assert session["format"] == files.FORMAT and len(session["model"]["hash"]) == 64
    assert {path.name for path in (tmp_path / "talk").iterdir()} == {
        files.CUT,
        files.USER,
        files.AGENT,
        files.TOKENS,
        files.CODES,
        files.STEPS,
        files.PUSHES,
    }
