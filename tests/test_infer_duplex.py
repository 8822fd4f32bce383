"""examples/infer_duplex.py: a recording in, both channels out; what is wrong is one line."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from tests.dummies import speech_like, tiny_model

SCRIPT = Path(__file__).parent.parent / "examples" / "infer_duplex.py"


@pytest.fixture(scope="module")
def infer():
    spec = importlib.util.spec_from_file_location("infer_duplex", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agent")
    tiny_model(folder).save_to(str(folder / "agent.nemo"))
    return folder / "agent.nemo"


@pytest.fixture
def question(tmp_path):
    soundfile.write(tmp_path / "question.wav", speech_like(1.3, sample_rate=8000).numpy(), 8000)
    return tmp_path / "question.wav"


def test_writes_both_channels_of_equal_length(infer, agent, question, tmp_path, capsys):
    infer([f"model={agent}", f"user={question}", f"out={tmp_path / 'answer'}", "tail=0.5", "chunk=0.05"])
    spoken, rate = soundfile.read(tmp_path / "answer" / "agent.wav")
    both, _ = soundfile.read(tmp_path / "answer" / "conversation.wav")
    assert rate == 22050 and len(spoken) == 23 * 1764, "1.8 s are 23 frames."
    assert both.shape == (len(spoken), 2) and np.abs(both[:22050, 0]).max() > 0.05
    assert (tmp_path / "answer" / "transcript.txt").is_file()
    assert "real-time factor" in capsys.readouterr().out


def test_an_agent_that_is_left_to_chance_says_the_same_for_a_seed(infer, agent, question, tmp_path):
    said = []
    for i, seed in enumerate((1, 1, 2)):
        hot = ["sampling.text.temperature=1.5", "sampling.speech.temperature=1", "sampling.speech.top_k=50", f"seed={seed}"]
        infer([f"model={agent}", f"user={question}", f"out={tmp_path / str(i)}", "tail=0", *hot])
        said.append((tmp_path / str(i) / "agent.wav").read_bytes())
    assert said[0] == said[1] != said[2]


def wrong_files(folder):
    soundfile.write(folder / "stereo.wav", np.zeros((800, 2)), 16000)
    soundfile.write(folder / "none.wav", np.zeros(0), 16000)
    (folder / "text.wav").write_text("this is no audio")
    (folder / "empty.wav").touch()
    (folder / "cut.nemo").write_bytes(b"half a tar")


WRONG = {
    "user=missing.wav": "there is no file",
    "user=stereo.wav": "has 2 channels, expected one",
    "user=none.wav": "holds no samples",
    "user=text.wav": "cannot be read as audio",
    "user=empty.wav": "is empty",
    "model=missing.nemo": "there is no file",
    "model=cut.nemo": "is truncated or not a .nemo",
    "chunks=1": "chunk",
    "sampling.text.temprature=1": "temperature",
    "sampling.text.top_p=2": "top_p is 2",
    "seed=-1": "seed=-1: expected a whole number from 0",
    "threads=0": "threads=0: expected a positive whole number",
    "device=gpu": "device=gpu: ",
    "chunk=0": "chunk=0: expected a positive number",
    "tail=-1": "tail=-1: expected a number from 0",
    "tail=1e12": "tail=1000000000000.0: expected seconds, 0 to 3600",
    "record=answer": "record=answer: expected a folder beside out=answer",
    "record=answer/talk": "neither inside the other",
    "record=.": "record: the folder . holds something already",
    "out=question.wav": "question.wav is a file, expected a folder to write",
    "out=": "out=: expected a path or null",
}


@pytest.mark.parametrize("key, message", WRONG.items(), ids=WRONG)
def test_what_is_wrong_is_one_line(infer, agent, question, tmp_path, capsys, monkeypatch, key, message):
    wrong_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        infer([f"model={agent}", f"user={question}", "out=answer", key])
    assert end.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "answer").exists()


def test_names_that_look_like_numbers_and_a_home(infer, agent, question, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    question.rename(tmp_path / "007")
    infer([f"model={agent}", "user=007", "out=20261128", "tail=0", "record=1e5"])
    infer([f"model={agent}", "user=~/007", "out=~/a/b", "tail=0"])
    for folder in ("20261128", "a/b"):
        assert (tmp_path / folder / "agent.wav").is_file()
    assert (tmp_path / "1e5" / "cut.jsonl").is_file() and not (tmp_path / "~").exists()


# ---------------------------------------------------------------------- record and replay


@pytest.fixture(scope="module")
def talk(infer, agent, tmp_path_factory):
    folder = tmp_path_factory.mktemp("talk")
    soundfile.write(folder / "question.wav", speech_like(2.0).numpy(), 16000)
    infer(
        [f"model={agent}", f"user={folder / 'question.wav'}", f"out={folder / 'answer'}", f"record={folder / 'talk'}", "tail=0"]
    )
    return folder / "talk"


def test_a_recorded_session_is_replayed(infer, agent, talk, capsys):
    assert np.array_equal(soundfile.read(talk / "user.wav")[0], soundfile.read(talk.parent / "question.wav")[0])
    infer([f"model={agent}", f"replay={talk}"])
    assert capsys.readouterr().out.strip() == "identical: 25 frames"
    infer([f"model={agent}", f"replay={talk / 'cut.jsonl'}", "threads=2"])
    assert "identical: 25 frames" in capsys.readouterr().out


def test_the_first_frame_that_differs_is_drawn(infer, agent, talk, tmp_path, capsys):
    model = DuplexS2SModel.restore_from(agent, map_location="cpu")
    codes = np.load(talk / "agent_codes.npy")[:, 0].tolist()
    code = min((c for c in set(codes) if 5 < codes.index(c)), key=codes.index)
    with torch.no_grad():
        model.lm.speech_embedding.table.weight[code] += 3.0
    model.save_to(str(tmp_path / "other.nemo"))
    with pytest.raises(SystemExit) as end:
        infer([f"model={tmp_path / 'other.nemo'}", f"replay={talk}"])
    assert end.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert "is the first that differs: " in lines[0] and any(line.startswith("not as recorded: model hash") for line in lines)
    (marked,) = [line for line in lines if line.startswith(">")]
    assert lines[0].startswith(f"frame {marked.split()[1]} of 25 (") and int(marked.split()[1]) > codes.index(code)
    drawn = [line.split()[0] for line in lines[lines.index("") + 2 :] if not line.startswith(">")]
    assert len(drawn) >= 12 and all(number.isdigit() for number in drawn)


WRONG_REPLAY = {
    "user=question.wav out=answer replay=talk": "without user, out and record",
    "record=there replay=talk": "without user, out and record",
    "user=question.wav": "Not given: user",
    "": "Not given: user",
    "replay=missing": "there is no file",
    "replay=question.wav": "is not the one cut of a recorded session",
    "user=question.wav out=answer record=there": "record: the folder there holds something already",
}


@pytest.mark.parametrize("keys, message", WRONG_REPLAY.items(), ids=WRONG_REPLAY)
def test_what_is_wrong_with_a_replay_is_one_line(infer, agent, question, capsys, monkeypatch, keys, message):
    monkeypatch.chdir(question.parent)
    Path("there").mkdir()
    Path("there/file").touch()
    with pytest.raises(SystemExit) as end:
        infer([f"model={agent}", *keys.split()])
    assert end.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1
    assert not Path("answer").exists()
