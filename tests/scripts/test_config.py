"""Configurations: overrides, what builds on what, what is refused and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.scripts import config
from nemo_duplex.scripts.config import load

pytestmark = pytest.mark.usefixtures("conf")


def refused(*overrides: str, name: str = "train", folder: Path | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load(name, overrides, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what is accepted -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override, key, value",
    [
        ("hours=2", "hours", 2.0),
        ("hours=1e-3", "hours", 0.001),
        ("steps.every=5", "steps.every", 5),
        ("steps={every: 5}", "steps.every", 5),
        ("flag=false", "flag", False),
        ("limit=3", "limit", 3),
        ("most=null", "most", None),
        ("limit=abc", "limit", "abc"),
        ("limit=[1,2]", "limit", [1, 2]),
        ("source=a.txt", "source", ["a.txt"]),
        ("source=[a.txt,b.txt]", "source", ["a.txt", "b.txt"]),
        ("title=007", "title", "007"),
        ("title=my file (1) = x, y.wav", "title", "my file (1) = x, y.wav"),
        ("out=/tmp/my file (1).wav", "out", "/tmp/my file (1).wav"),
        ("title=null", "title", None),
        ("title='null'", "title", "null"),
        ('title="a b"', "title", "a b"),
        ("title=a,b", "title", "a,b"),
        ("limit=a,b", "limit", "a,b"),
        ("limit='3'", "limit", "3"),
        ("steps={rate: 1}", "steps.rate", 1.0),
        ("steps={rate: 1}", "steps.every", 200),
        ("llm.rope.theta=500000", "llm.rope.theta", 500000),
        ("llm={a: {b: 1}}", "llm.a.b", 1),
        ("hours=3", "twice", 3.0),
        ("twice=7", "twice", 7),
    ],
)
def test_an_override(override, key, value):
    node = load("train", ["out=x", override])
    for part in key.split("."):
        node = node[part]
    assert node == value and isinstance(node, float) == isinstance(value, float)


def test_a_required_key_takes_any_type():
    assert load("train", ["out=3"]).out == 3 and load("train", ["out=[1,2]"]).out == [1, 2]


def test_a_derived_configuration_keeps_explanations_and_adds_below_open_keys():
    cfg = load("tiny", ["out=x", "llm.hidden_size=8", "llm.other=1"])
    assert cfg.hours == 2.0 and cfg.steps.rate == 0.5
    assert cfg.llm == {"hidden_size": 8, "other": 1}
    assert config.ScriptConfig("tiny").explanation("hours") == "Hours of speech to make. All sets together."


def test_an_explanation_is_beside_its_key_or_in_the_lines_above_it(conf):
    (conf / "said.yaml").write_text(
        "# --- first part\na: 1\n# One.\n# Two.\nb: [1, 2]  # Beside.\n# Three.\n# Four.\nc: [1,\n  2]\n\nd:  # Of d.\n  e: 1\n"
        "# Of f.\nf: {}\n"
    )
    said = config.ScriptConfig("said")
    assert {name: key.explanation for name, key in said.keys.items()} == {
        **{"a": "", "b": "Beside.", "c": "Three. Four.", "d": "Of d.", "d.e": "", "f": "Of f."}
    }
    assert [name for name, key in said.keys.items() if key.is_open] == ["f"]
    assert list(said.leaves()) == [("a", 1), ("b", [1, 2]), ("c", [1, 2]), ("d.e", 1), ("f", {})]


def test_a_derived_configuration_may_explain_again(conf):
    """The explanation of the nearest file counts; a file that says nothing leaves it to the one it builds on."""
    (conf / "mine.yaml").write_text("defaults: [train, _self_]\nhours: 3.0  # Mine.\ntitle: b\n")
    mine = config.ScriptConfig("mine")
    assert (mine.explanation("hours"), mine.explanation("title")) == ("Mine.", "Any text.")


def test_files_named_after_self_are_read_too(conf):
    (conf / "more.yaml").write_text("extra: 1  # More.\n")
    (conf / "mine.yaml").write_text("defaults: [_self_, train, more]\nhours: 3.0\n")
    assert load("mine", ["out=x", "extra=2"]).extra == 2
    assert load("mine", ["out=x"]).hours == 1.0, "what is named later wins, as in hydra"


def test_a_group_is_chosen_by_its_name(conf):
    (conf / "voice").mkdir()
    (conf / "voice" / "low.yaml").write_text("pitch: 80  # Hz.\n")
    (conf / "voice" / "high.yaml").write_text("pitch: 200  # Hz, high.\n")
    (conf / "speak.yaml").write_text("defaults:\n  - voice: low\n  - _self_\nrate: 1.0  # Speed.\n")
    assert load("speak").voice.pitch == 80
    assert load("speak", ["voice=high"]).voice.pitch == 200
    assert load("speak", ["voice=high", "voice.pitch=210"]).voice.pitch == 210
    (conf / "voice" / "high.yaml").write_text("pitch: 200  # Hz, high.\nbreath: 1  # Of it.\n")
    assert load("speak", ["voice=high", "voice.breath=2"]).voice.breath == 2
    assert "Unknown key 'voice.breath'" in refused("voice.breath=2", name="speak")
    (conf / "shout.yaml").write_text("defaults:\n  - speak\n  - override /voice: high\n  - _self_\nrate: 2.0\n")
    shout = load("shout")
    assert (shout.voice.pitch, shout.rate) == (200, 2.0)
    assert config.ScriptConfig("shout").groups == {"voice": "high"}
    quiet = config.ScriptConfig("shout", ["voice=low"])
    assert quiet.groups == {"voice": "low"} and quiet.explanation("voice.pitch") == "Hz." and quiet.values.voice.pitch == 80
    assert config.ScriptConfig("speak", ["voice=high"]).explanation("voice.pitch") == "Hz, high."
    assert "Did you mean 'voice/high'?" in refused("voice=hihg", name="speak")


def test_a_configuration_of_ones_own_builds_on_ours(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.yaml").write_text("defaults: [train, _self_]\nhours: 9.0\nout: here\nllm:\n  any: 1\n")
    cfg = load("mine", [], own)
    assert (cfg.hours, cfg.out, cfg.llm.any, cfg.steps.every) == (9.0, "here", 1, 200)
    (own / "mine.yaml").write_text("defaults: [train, _self_]\nhour: 9.0\n")
    assert refused(name="mine", folder=own) == f"{own / 'mine.yaml'}, line 2: unknown key 'hour'. Did you mean 'hours'?"
    (own / "train.yaml").write_text("hours: 7.0\nout: here\n")
    assert "unknown key 'hours'" in refused(name="train", folder=own), "ours of that name is not read"
    (own / "train.yaml").unlink()
    (own / "mine.yaml").write_text("zzz: 9.0\n")
    assert "Its defaults list must name" in refused(name="mine", folder=own)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override, said",
    [
        ("hour=2", "Unknown key 'hour'. Did you mean 'hours'?"),
        ("every=2", "Did you mean 'steps.every'?"),
        ("steps.evry=2", "Did you mean 'steps.every'?"),
        ("steps={evry: 2}", "Unknown key 'steps.evry'"),
        ("steps=3", "steps=3: expected keys below it"),
        ("hours.x=2", "Unknown key 'hours.x'"),
        ("hydra.run.dir=x", "Unknown key 'hydra.run.dir'"),
        ("defaults=[x]", "Unknown key 'defaults'"),
        ("hours=abc", "hours=abc: expected a number, such as the default 1.0."),
        ("hours=true", "expected a number"),
        ("steps.every=1.5", "steps.every=1.5: expected a whole number, such as the default 200."),
        ("steps.every=null", "expected a whole number"),
        ("steps.every=true", "expected a whole number"),
        ("flag=null", "expected true or false"),
        ("steps={every: x}", "steps.every=x: expected a whole number"),
        ("~hours=1", "keys are neither added nor removed"),
        ("flag=3", "expected true or false"),
        ("+new=1", "neither added nor removed"),
        ("~hours", "'~hours' is not key=value"),
        ("hours", "'hours' is not key=value"),
        ("title=${nothing}", "nothing"),
    ],
)
def test_a_wrong_override_is_named_in_one_line(override, said):
    assert said in refused("out=x", override)


def test_a_required_key_is_asked_for_with_its_explanation():
    assert refused() == 'Not given: out (Folder to write, "#" is allowed). Add out=...'


def test_unknown_and_broken_files(conf, tmp_path):
    assert refused(name="trian") == "There is no configuration 'trian'. Did you mean 'train'? There are: tiny, train."
    assert "there is no folder" in refused(folder=tmp_path / "none")
    (conf / "broken.yaml").write_text("a: [1,\nb: 2\n")
    assert "broken.yaml is not readable as YAML" in refused(name="broken")
    (conf / "empty.yaml").write_text("# nothing\n")
    assert "expected 'key: value' lines" in refused(name="empty")
    (conf / "lost.yaml").write_text("defaults: [gone, _self_]\na: 1\n")
    assert "lost.yaml: There is no configuration 'gone'" in refused(name="lost")
