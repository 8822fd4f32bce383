"""From a folder of recordings to an agent with their voice: the commands of the page, as they stand there."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest
import soundfile
import torch

from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.codec.held_out import compare_on
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from tests.codec.codecs import lively
from tests.dummies import CODEC, speech_like, tiny_model

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "how-to" / "my-voice.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(c) for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for c in block.splitlines()]


def run(script: str, *keys: str) -> None:
    spec = importlib.util.spec_from_file_location(script, ROOT / "examples" / f"{script}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(list(keys))


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with an agent and recordings, and nothing that judges."""
    (tmp_path / "demo").mkdir()
    model = tiny_model(tmp_path)
    model.audio_codec.load_state_dict(lively(CODEC).state_dict())
    model.save_to(str(tmp_path / "demo" / "agent.nemo"))
    for folder in ("recordings", "other_voices"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            sound = speech_like(1.2, number + len(folder), 16000).clamp(-1, 1)
            soundfile.write(tmp_path / folder / f"{number}.wav", sound.numpy(), 16000)
    asked: list = []
    monkeypatch.setattr("nemo_duplex.evaluation.commands.evaluate_command", lambda keys: asked.append(keys) or [])
    monkeypatch.chdir(tmp_path)
    return asked


@pytest.mark.slow
def test_the_page_leads_from_recordings_to_an_agent_with_their_voice(desk, capsys):
    scripts = [Path(command[1]).stem for command in COMMANDS]
    assert scripts == ["train_codec", "swap_codec", "serve", "swap_codec"]
    run("train_codec", *COMMANDS[0][2:], "steps=3", "accelerator=cpu", "precision=fp32")
    codec = FSQCodec.restore_from("personal/codec.nemo")
    first = FSQCodec.restore_from("demo/agent.nemo")
    assert codec.fingerprint == first.fingerprint
    assert [p.name for p in Path("personal/held_out").iterdir()] == ["000.flac"]
    capsys.readouterr()

    run("swap_codec", *COMMANDS[1][2:])
    said = capsys.readouterr().out
    assert said.startswith("demo/my_agent.nemo: the same codes, another decoder\nmel distance at 22050 Hz: ")
    assert "of 1 recordings\ndemo/my_agent-comparison/sounds: hear them" in said
    found = json.loads(Path("demo/my_agent-comparison/before_and_after.json").read_text())
    assert (found["data"], found["recordings"], found["agent"]) == ("personal/held_out", 1, "demo/agent.nemo")
    quality = json.loads(Path("personal/quality.json").read_text())
    measured = {"before": quality["mel_distance_before"], "after": quality["mel_distance"]}
    assert found["mel_distance"] == pytest.approx(measured, abs=2e-4)
    assert len(list(Path("demo/my_agent-comparison/sounds").iterdir())) == 3
    agent = DuplexS2SModel.restore_from("demo/my_agent.nemo", map_location="cpu")
    weights = agent.audio_codec.model.state_dict()
    assert all(weight.equal(weights[name]) for name, weight in codec.model.state_dict().items())
    assert any(not weight.equal(weights[name]) for name, weight in first.model.state_dict().items())

    run("swap_codec", *COMMANDS[3][2:])
    assert json.loads(Path("cost/before_and_after.json").read_text())["recordings"] == 3
    for keys, data, folder in zip(
        desk, ("personal/held_out", "other_voices"), ("demo/my_agent-comparison", "cost"), strict=True
    ):
        assert (keys["what"], keys["data"], keys["out"], keys["asr_turns"]) == ("codec", data, folder, 60)
        assert keys["codecs"] == ["demo/agent.nemo", "demo/my_agent.nemo"] and keys["recogniser"] == "whisper-tiny.en"
        assert keys["conventional_codecs"] == []


def test_without_recordings_the_agent_is_written_and_it_is_said_that_nothing_was_compared(desk, capsys):
    other = lively(CODEC, seed=3)
    other.save_to("codec.nemo")
    keys = ["agent=demo/agent.nemo", "codec=codec.nemo", "out=new.nemo"]
    with pytest.raises(SystemExit) as ended:
        run("swap_codec", *keys)
    refused = capsys.readouterr()
    assert ended.value.code == 2 and refused.err.startswith("error: codec: codec.nemo encodes otherwise")
    assert not Path("new.nemo").exists()
    run("swap_codec", *keys, "allow_other_codes=true")
    said = capsys.readouterr().out
    assert "new.nemo: other codes: train the agent further\nnot compared: there is no folder held_out." in said and not desk
    assert torch.equal(FSQCodec.restore_from("new.nemo").silence_codes, other.silence_codes)
    assert not Path("new-comparison").exists()


def test_before_is_the_agents_codec_and_after_the_given_one(desk, tmp_path, capsys):
    other = lively(CODEC, seed=3)
    with torch.no_grad():
        for weight in other.model.audio_decoder.parameters():
            weight.mul_(0.5)
    other.save_to("codec.nemo")
    keys = ["agent=demo/agent.nemo", "codec=codec.nemo", "out=new.nemo", "allow_other_codes=true", "data=other_voices"]
    run("swap_codec", *keys)
    known = compare_on(FSQCodec.restore_from("demo/agent.nemo"), other, "other_voices", tmp_path / "known")
    found = json.loads(Path("new-comparison/before_and_after.json").read_text())
    assert found["mel_distance"] == pytest.approx(known["mel_distance"], abs=2e-4) and found["nearer"] == known["nearer"]
    assert abs(known["mel_distance"]["before"] - known["mel_distance"]["after"]) > 0.01, "they can be told apart"
    assert "mel distance at 22050 Hz: " in capsys.readouterr().out
    assert [(keys["codecs"], keys["data"]) for keys in desk] == [(["demo/agent.nemo", "new.nemo"], "other_voices")]


def test_two_agents_of_one_name_cannot_be_compared(desk, capsys):
    FSQCodec.restore_from("demo/agent.nemo").save_to("codec.nemo")
    keys = ["agent=demo/agent.nemo", "codec=codec.nemo", "out=agent.nemo", "data=recordings"]
    with pytest.raises(SystemExit):
        run("swap_codec", *keys)
    assert "out: agent.nemo has the name of the agent" in capsys.readouterr().err and not Path("agent.nemo").exists()
