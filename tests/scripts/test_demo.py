"""The demo's plan: every command is one that its script takes, and the minutes add up. The chain itself runs in .ci/run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from nemo_duplex.scripts.cli import _parse_arguments
from nemo_duplex.scripts.config import ScriptConfig
from nemo_duplex.scripts.demo import VOICES, Demo, DemoVoices

EXAMPLES = Path(__file__).parents[2] / "examples"


GIVEN = DemoVoices("hibari", "{pico: 1}", "voice", encoder=Path("ear.nemo"), codec=Path("voice.nemo"))


def demo(**changes) -> Demo:
    return Demo(**{**dict(out=Path("demo"), examples=EXAMPLES, voices=GIVEN), **changes})


@pytest.mark.parametrize("voices", VOICES)
@pytest.mark.parametrize("from_scratch", [False, True])
@pytest.mark.parametrize("minutes", [None, 1.0, 5.0, 600.0])
def test_every_script_takes_its_keys(voices, from_scratch, minutes):
    asked = demo(voices=VOICES[voices], from_scratch=from_scratch, minutes=minutes)
    for step in (s for group in asked.plan() for s in group):
        _, path, *arguments = step.command
        options, overrides = _parse_arguments(arguments)
        (name,) = re.findall(r'^@script\("(\w+)"\)$', Path(path).read_text(), re.MULTILINE)
        ScriptConfig(options.get("--config-name", name), overrides).checked()


@pytest.mark.parametrize(
    "changes, total",
    [(dict(), 20), (dict(from_scratch=True), 45), (dict(minutes=5.0), 5), (dict(minutes=5.0, from_scratch=True), 5)],
)
def test_the_minutes_add_up(changes, total):
    assert sum(max(step.minutes for step in group) for group in demo(**changes).plan()) == pytest.approx(total)


def keys(name: str, **changes) -> dict[str, str]:
    """The overrides of a step."""
    (step,) = (step for group in demo(**changes).plan() for step in group if step.name == name)
    return dict(word.split("=", 1) for word in step.command[2:] if not word.startswith("--"))


def test_work_shrinks_with_the_minutes():
    """12 minutes from scratch: 5.4 for the parts; of the 6.6 left 70 % for the training, 0.25 hours, 3 dialogues each."""
    asked = dict(minutes=12.0, from_scratch=True, seed=5)
    assert (keys("codec", **asked)["minutes"], keys("encoder", **asked)["minutes"]) == ("5.40", "5.40")
    assert keys("train", **asked)["minutes"] == "4.62"
    corpus = keys("synthesize", **asked)
    assert (corpus["hours"], corpus["dev"], corpus["agent_utterances"]) == ("1.65", "20", "405")
    assert keys("evaluate", **asked)["asr_turns"] == "20"
    assert keys("synthesize", minutes=0.1)["hours"] == "0.05" and keys("synthesize", minutes=0.1)["dev"] == "4"
    assert keys("train", minutes=10.0)["minutes"] == "7.00"


def test_who_speaks_and_which_parts_know_them():
    corpus = keys("synthesize")
    assert (corpus["agent_voice"], corpus["user_voices.train"], corpus["user_voices.dev"]) == (
        "hibari",
        "{pico: 1}",
        "{pico: 1}",
    )
    given = keys("train")
    assert (given["model.pretrained_asr"], given["model.pretrained_audio_codec"]) == ("ear.nemo", "voice.nemo")
    assert keys("codes")["codec"] == "voice.nemo"
    assert keys("codec", from_scratch=True)["codec"] == "voice"
    espeak = VOICES["espeak"]
    assert (espeak.agent, espeak.users, espeak.codec.name, espeak.encoder.name) == (
        "espeak",
        "{espeak: 1}",
        "agent_codec.nemo",
        "user_encoder.nemo",
    )
    assert VOICES["hibari"].agent == "hibari" and VOICES["hibari"].codec.name == "voice_codec.nemo"


@pytest.mark.parametrize("name", ["synthesize", "codec", "encoder", "codes", "train", "evaluate"])
def test_every_step_has_the_seed_and_a_folder_of_its_own(name):
    given = keys(name, from_scratch=True, seed=5)
    folders = {"codes": "demo/corpus", "synthesize": "demo/corpus", "evaluate": "demo"}
    assert given["seed"] == "5" and given["out"] == folders.get(name, f"demo/{name}")


def test_from_scratch_nothing_is_taken_from_elsewhere():
    steps = {step.name: step for group in demo(from_scratch=True).plan() for step in group}
    text = " ".join(word for step in steps.values() for word in step.command)
    assert "ear.nemo" not in text and "voice.nemo" not in text and "bundled" not in text
    assert [step.name for step in demo(from_scratch=True).plan()[1]] == ["codec", "encoder"], "side by side"
    assert {"codec", "encoder"} <= set(steps["train"].after) and "codec" in steps["codes"].after
    assert "agent" in next(word for word in steps["synthesize"].command if word.startswith("sets="))


def test_from_scratch_the_parts_learn_from_clear_speech_and_reconstruction_alone():
    """Nothing happens to the speech but another level, whatever else a configuration offers; there are no discriminators."""
    for name in ("codec", "encoder"):
        step = next(step for group in demo(from_scratch=True).plan() for step in group if step.name == name)
        cfg = OmegaConf.to_container(ScriptConfig(f"train_{name}", _parse_arguments(step.command[2:])[1]).checked())
        if name == "codec":
            assert cfg["adversarial"] is None
        else:
            augmentation = cfg["augmentation"]
            shares = {key: value for key, value in augmentation.items() if isinstance(value, int | float)}
            assert len(shares) >= 8 and not any(shares.values()) and augmentation["speed"] == [1.0, 1.0]


def test_a_change_of_the_code_redoes_the_steps_that_run_it():
    package, network = EXAMPLES.parent / "nemo_duplex", {"llm", "perception", "models"}
    rooms = {
        "synthesize": {"synthesis"},
        "codec": {"codec", "training"},
        "encoder": {"perception", "training"},
        "codes": {"codec"},
        "train": {"codec", "data", "training", *network},
        "evaluate": {"codec", "evaluation", "streaming", *network},
    }
    for step in (step for group in demo(from_scratch=True).plan() for step in group):
        assert [path for path in step.reads if not path.exists()] == [], step.name
        read = {path.relative_to(package).as_posix() for path in step.reads if path.is_relative_to(package)}
        assert read == {"frames.py", "conversation.py", "channels", *rooms.pop(step.name)}
        assert Path(step.command[1]) in step.reads
    assert rooms == {}


def test_the_given_parts_are_read():
    """So that another bundled codec, under the same name, redoes the codes and the training."""
    steps = {step.name: step for group in demo().plan() for step in group}
    assert {Path("ear.nemo"), Path("voice.nemo")} <= set(steps["codes"].reads) & set(steps["train"].reads)


def test_the_codes_use_the_corpus_as_it_was_made():
    """Other keys would make synthesize.py refuse the folder, or make it again."""
    steps = {step.name: step for group in demo().plan() for step in group}
    assert steps["codes"].command[:-1] == steps["synthesize"].command
