"""A recording that is not whole, not ours or not safe is refused in one line, and nothing that it names is opened."""

import json
import os
import shutil

import numpy as np
import pytest
import soundfile

from nemo_duplex.inputs import InputError
from nemo_duplex.streaming.recording import format as files
from nemo_duplex.streaming.recording.reader import SessionRecording
from tests.dummies import speech_like, tiny_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    session = tiny_model(folder).open_session(record=folder / "talk")
    session.push(speech_like(1.0).numpy())
    session.stop()
    session.push(speech_like(0.5).numpy())
    session.flush()
    session.close()
    return folder / "talk"


@pytest.fixture
def talk(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "talk")


def test_a_folder_or_its_cut_and_wherever_it_was_moved(talk):
    for path in (talk, str(talk), talk / files.CUT):
        recording = SessionRecording.read(path)
        assert recording.name == "talk" and len(recording) == 19 and recording.sample_rate == 16000
        assert recording.cut.load_audio().shape == (1, 24000)
    assert len(recording.user_audio(0)) == 1280
    assert len(recording.user_audio(18)) == 24000 - 18 * 1280 and len(recording.user_audio(99)) == 0


def changed(talk, *keys, to):
    """Another value in the cut."""
    cut = json.loads((talk / files.CUT).read_text())
    inside = cut
    for key in keys[:-1]:
        inside = inside[key]
    inside[keys[-1]] = to
    (talk / files.CUT).write_text(json.dumps(cut))


SESSION = ("custom", "session")
WRONG = {
    "newer": ((*SESSION, "format"), files.FORMAT + 1, "has format 2, nemo_duplex here reads up to 1"),
    "another cut": (("custom",), {}, "is not the one cut of a recorded session"),
    "no cut": ((*SESSION,), "text", "is not the one cut of a recorded session"),
    "no seed": ((*SESSION, "seed"), None, "session has no seed of the right kind"),
    "no hash": ((*SESSION, "model", "hash"), None, "session.model has no hash of the right kind"),
    "unknown wish": ((*SESSION, "wishes"), [{"frame": 0, "wish": "__init__"}], "a wish reads"),
    "wish for nothing": ((*SESSION, "wishes"), [{"frame": 0, "wish": "say", "value": "six"}], "a wish reads"),
    "mute and how": ((*SESSION, "wishes"), [{"frame": 0, "wish": "mute", "value": "yes"}], "a wish reads"),
    "stop of what": ((*SESSION, "wishes"), [{"frame": 0, "wish": "stop", "value": 1}], "a wish reads"),
    "no agent": (("custom", "target_audio"), None, "was changed"),
    "a file elsewhere": (("recording", "sources", 0, "source"), "../user.wav", "not safe to read"),
    "an absolute file": (("custom", "target_audio", "sources", 0, "source"), "/etc/passwd", "not safe to read"),
    "a command": (("recording", "sources", 0, "type"), "command", "not safe to read"),
    "a URL": (("recording", "sources", 0, "type"), "url", "not safe to read"),
    "an array elsewhere": (("custom", "agent_codes", "storage_path"), "/tmp", "not safe to read"),
    "another array": (("custom", "agent_codes", "storage_key"), "agent_tokens.npy", "not safe to read"),
    "a pickled array": (("custom", "agent_codes", "storage_type"), "pickle", "not safe to read"),
    "other codebooks": ((*SESSION, "model", "num_codebooks"), 3, "agent_codes.npy is truncated or was changed"),
}


@pytest.mark.parametrize("keys, value, message", WRONG.values(), ids=WRONG)
def test_a_cut_that_is_wrong(talk, keys, value, message):
    changed(talk, *keys, to=value)
    with pytest.raises(InputError, match="recording: ") as error:
        SessionRecording.read(talk)
    assert message in str(error.value) and len(str(error.value).splitlines()) == 1


def edited_array(path, change):
    array = np.load(path)
    np.save(path, change(array))


def place(column, value):
    def change(steps):
        steps[column][3] = value
        return steps

    return lambda f: edited_array(f / files.STEPS, change)


DAMAGE = {
    "no cut": (lambda f: (f / files.CUT).unlink(), "there is no file"),
    "empty cut": (lambda f: (f / files.CUT).write_text(""), "is empty"),
    "half a cut": (lambda f: (f / files.CUT).write_text((f / files.CUT).read_text()[:500]), "is not the one cut"),
    "two cuts": (lambda f: (f / files.CUT).write_text(2 * (f / files.CUT).read_text()), "is not the one cut"),
    "no sound": (lambda f: (f / files.AGENT).unlink(), "there is no file"),
    "half the sound": (
        lambda f: (f / files.AGENT).write_bytes((f / files.AGENT).read_bytes()[:5000]),
        "agent.wav is truncated",
    ),
    "half of the user": (lambda f: (f / files.USER).write_bytes((f / files.USER).read_bytes()[:5000]), "user.wav is truncated"),
    "no WAV": (lambda f: (f / files.USER).write_text("text"), "user.wav is truncated or was changed"),
    "stereo": (lambda f: soundfile.write(f / files.USER, np.zeros((24000, 2)), 16000), "user.wav is truncated or was changed"),
    "half the codes": (
        lambda f: (f / files.CODES).write_bytes((f / files.CODES).read_bytes()[:-8]),
        "agent_codes.npy is trunc",
    ),
    "fewer codes": (lambda f: edited_array(f / files.CODES, lambda a: a[:-1]), "it has 18 rows, expected 19"),
    "no array": (lambda f: (f / files.STEPS).write_text("text"), "agent_steps.npy is truncated or was changed"),
    "other numbers": (lambda f: edited_array(f / files.TOKENS, lambda a: a.astype(float)), "it holds float64"),
    "objects": (lambda f: np.save(f / files.TOKENS, np.array([{}] * 19), allow_pickle=True), "agent_tokens.npy is truncated"),
    "no such row": (place("row", 1), "a row is not one of its rows"),
    "a row below the first": (place("row", -1), "a row is not one of its rows"),
    "no such entry": (place("entry", 1), "a entry is not one of its entries"),
    "no cut has this size": (lambda f: os.truncate(f / files.CUT, (64 << 20) + 1), "cut.jsonl has over 64 MB"),
    "a link": (
        lambda f: ((f / files.USER).rename(f.parent / "user.wav"), (f / files.USER).symlink_to(f.parent / "user.wav")),
        "not safe to read",
    ),
}


@pytest.mark.parametrize("damage, message", DAMAGE.values(), ids=DAMAGE)
def test_files_that_are_wrong(talk, damage, message):
    damage(talk)
    with pytest.raises(InputError, match="recording: ") as error:
        SessionRecording.read(talk)
    assert message in str(error.value) and len(str(error.value).splitlines()) == 1


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        SessionRecording.read(tmp_path / "missing")


def test_what_else_a_cut_says_is_not_handed_on(talk):
    """Lhotse would run it as soon as somebody loaded it."""
    source = {"type": "command", "channels": [0], "source": "touch /tmp/owned"}
    evil = {"id": "x", "sources": [source], "sampling_rate": 16000, "num_samples": 1, "duration": 1 / 16000, "channel_ids": [0]}
    changed(talk, "custom", "evil", to=evil)
    cut = SessionRecording.read(talk).cut
    assert set(cut.custom) == {"target_audio", "agent_tokens", "agent_codes", "agent_steps", "user_pushes", "session"}
