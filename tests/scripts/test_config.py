"""Configurations: overrides, what builds on what, what is refused and how."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

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
        ("title=null", "title", "null"),
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


#: What people give as names of files and folders, of which a parser makes numbers, lists, nothing, or an error.
NAMES = [
    *["20261128", "1e5", "007", "1_000", "0x10", "0o17", "1:30", "1.0", ".5", "5.", "-3", "+5", "nan", "inf", "2026-11-28"],
    *["true", "false", "no", "on", "a,b", "[x]", "[a,b]", "{x}", "{a: b}", "x=y", "my corpus", "it's", "#", "a #b", "%", "-"],
    *[
        "C:\\x",
        "a\\,b",
        "$HOME",
        "range(1,3)",
        "glob(*)",
        "str(7)",
        "&a",
        "*a",
        "!x",
        "a: b",
        "@",
        "'a' and 'b'",
        '"a',
        "ä/ü",
        "=",
    ],
]


@pytest.mark.parametrize("name", NAMES)
def test_text_is_what_was_typed(name):
    for key in ("out", "codec", "title"):
        assert load("train", ["out=x", f"{key}={name}"])[key] == name
    if not name.startswith("["):
        assert load("train", ["out=x", f"source={name}"]).source == [name]
    if "," not in name and not name.startswith(("'", '"')):
        assert load("train", ["out=x", f"source=[b, {name}]"]).source == ["b", name]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("-", "#", "=")])
def test_text_is_what_a_file_of_ones_own_says(tmp_path, name):
    """Where YAML makes a number, a date or a truth value of it; what YAML itself needs quotes for is between quotes here."""
    needs_quotes = name.startswith(("[", "{", "%", "@", "&", "*", "!", "'", '"')) or ": " in name or " #" in name
    written = "'" + name.replace("'", "''") + "'" if needs_quotes else name
    (tmp_path / "mine.yaml").write_text(
        "defaults: [train, _self_]\n"
        + "".join(f"{key}: {written}\n" for key in ("out", "codec", "title", "sets"))
        + f"source:\n  - {written}\n"
    )
    cfg = load("mine", [], tmp_path)
    assert (cfg.out, cfg.codec, cfg.title, cfg.source, cfg.sets) == (name, name, name, [name], [name])


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/ann")
    for given, path in (("~/x", "/home/ann/x"), ("~", "/home/ann"), ("~root", os.path.expanduser("~root")), ("a~", "a~")):
        cfg = load("train", [f"out={given}", f"codec={given}", f"source=[a,{given}]", f"title={given}"])
        assert (cfg.out, cfg.codec, cfg.source, cfg.title) == (path, path, ["a", path], given)
    assert load("train", ["out=./~/x"]).out == "./~/x"
    assert load("train", ["out='~/x'"]).out == "/home/ann/x"
    cfg = load("train", ["out=x", "llm.file=~/a", "llm.files=[{at: ~/b}]", "limit=~/c", "lora={at: ~/d, r: 8}"])
    assert cfg.llm == {"file": "/home/ann/a", "files": [{"at": "/home/ann/b"}]}
    assert (cfg.limit, cfg.lora) == ("/home/ann/c", {"at": "/home/ann/d", "r": 8})
    assert load("train", ["out=x", "llm.name=~x", "limit=~"]).llm.name == "~x", "no path, as far as anyone can tell"
    monkeypatch.setenv("CORPORA", "~/corpora")
    assert load("train", ["out=${oc.env:CORPORA}/a"]).out == "/home/ann/corpora/a"
    (tmp_path / "mine.yaml").write_text("defaults: [train, _self_]\nout: ~/x\nsource: [~/y]\nllm: {file: ~/z}\n")
    cfg = load("mine", [], tmp_path)
    assert (cfg.out, cfg.source, cfg.llm.file) == ("/home/ann/x", ["/home/ann/y"], "/home/ann/z")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("mine", [], "~").out == f"{tmp_path}/x", "a shell leaves the ~ of --config-dir=~/conf as it is"


def test_a_home_that_nobody_has_and_its_cure():
    said = refused("out=~nobody-here/x")
    assert said == "out=~nobody-here/x: there is no user 'nobody-here'. If a name begins with '~': out=./~nobody-here/x"
    assert load("train", ["out=./~nobody-here/x"]).out == "./~nobody-here/x"


@pytest.mark.parametrize(
    "override, key, value",
    [
        ("codec=null", "codec", None),
        ("codec='null'", "codec", "null"),
        ("out=null", "out", "null"),
        ("out='a b'", "out", "a b"),
        ("source=[]", "source", []),
        ("source=null", "source", []),
        ("llm=null", "llm", {}),
        ("net=null", "net", None),
        ("part=null", "part", None),
        ("loader.other.one=2", "loader.other.one", 2),
        ("loader={other: x}", "loader", {"size": 3, "other": "x"}),
        ("part=3", "part", 3),
        ("part=0", "part", 0),
        ("part=0.0", "part", 0.0),
        ("part=1.0", "part", 1.0),
        ("devices=auto", "devices", "auto"),
        ("devices=2", "devices", 2),
        ("devices=[0,1]", "devices", [0, 1]),
        ("source=[1.jsonl,2]", "source", ["1.jsonl", "2"]),
        ("source=[x y (1).jsonl, ^z]", "source", ["x y (1).jsonl", "^z"]),
        ("source=[\"a,b.jsonl\", 'c']", "source", ["a,b.jsonl", "c"]),
        ("source=[a,]", "source", ["a"]),
        ("sets=[^a\\.b(c|d),[e]+]", "sets", ["^a\\.b(c|d)", "[e]+"]),
        ("sets=train", "sets", ["train"]),
        ("count=3", "count", 3),
        ("count=null", "count", None),
        ("count=1_000", "count", 1000),
        ("pairs=[1,2.5]", "pairs", [1.0, 2.5]),
        ("pairs=[[1,2],[3,4]]", "pairs", [[1, 2], [3, 4]]),
        ("hours=${oc.env:HOURS}", "hours", 3.0),
        ("seed=99999999999999999999999", "seed", 99999999999999999999999),
        ("seed=0", "seed", 0),
        ("batch=1", "batch", 1),
        ("dropout=0", "dropout", 0.0),
        ("dropout=1", "dropout", 1.0),
        ("rate=1e-9", "rate", 1e-9),
        ("rate=null", "rate", None),
        ("out=${hours}", "out", "1.0"),
        ("lora={r: 8}", "lora.r", 8),
        ("lora.r=8", "lora.r", 8),
        ("llm={a: 007, b: 1e5, c: true, d: '3'}", "llm", {"a": "007", "b": 1e5, "c": True, "d": "3"}),
    ],
)
def test_values_of_typed_keys(override, key, value, monkeypatch):
    monkeypatch.setenv("HOURS", "3")
    found = OmegaConf.select(load("train", ["out=x", override]), key)
    assert found == value and type(found) is type(OmegaConf.create([value])[0])


def test_text_in_braces_is_what_was_typed(conf):
    (conf / "more.yaml").write_text("data:\n  train: a  # (path) Folder.\n  epochs: 3  # Passes.\n")
    for name in ("20261128", "1e5", "true", "1_000", "007"):
        assert load("more", [f"data={{train: {name}, epochs: 4}}"]).data == {"train": name, "epochs": 4}
    assert load("more", ["data={train: ./~x y/z.wav, epochs: 5}"]).data == {"train": "./~x y/z.wav", "epochs": 5}


def test_a_derived_configuration_keeps_explanations_and_adds_below_open_keys():
    cfg = load("tiny", ["out=x", "llm.hidden_size=8", "llm.other=1"])
    assert cfg.hours == 2.0 and cfg.steps.rate == 0.5
    assert cfg.llm == {"hidden_size": 8, "other": 1}
    assert config.ScriptConfig("tiny").explanation("hours") == "Hours of speech to make. All sets together."


def test_a_name_below_an_open_key_may_have_dots(conf):
    """An engine is named by its path: `user_voices.train={'piper:/voices/joe.onnx': 1}`."""
    cfg = load("tiny", ["out=x", "llm={'file:/a/b.onnx': 0.5, hidden_size: 8}"])
    assert cfg.llm["file:/a/b.onnx"] == 0.5 and cfg.llm.hidden_size == 8 and "file:/a/b" not in cfg.llm


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
        ("out=${HOME}/x", "${NAME} stands for another key, ${oc.env:NAME} for a variable of the environment."),
        ("out=a${b", "out=a${b: '${' stands for another value"),
        ("out=a\\${b}", "'${' stands for another value. Choose a text without it."),
        ("out=", "out=: expected a path."),
        ("out=  ", "expected a path."),
        ("codec=", "codec=: expected a path or null."),
        ("source=", "source=: expected a list, each item a path."),
        ("source=[a,,b]", "source=: expected a list, each item a path."),
        ("count=x", "count=x: expected a whole number or null."),
        ("count=1.5", "expected a whole number or null"),
        ("count='3'", "count='3': expected a whole number or null."),
        ("pairs=[1,x]", "pairs=x: expected a list, each item a number, such as the default [1.5]."),
        ("hours=nan", "hours=nan: expected a finite number."),
        ("hours=1e999", "expected a finite number"),
        ("hours=1,2", "hours=1,2: expected a number, such as the default 1.0."),
        ("hours=", "hours=: expected a number"),
        ("batch=0", "batch=0: expected a positive whole number, such as the default 8."),
        ("batch=1.5", "expected a positive whole number"),
        ("seed=-1", "seed=-1: expected a whole number from 0, such as the default 0."),
        ("dropout=1.1", "dropout=1.1: expected a share, 0 to 1, such as the default 0.1."),
        ("dropout=-0.1", "expected a share, 0 to 1"),
        ("rate=0", "rate=0: expected a positive number or null."),
        ("ages=[1,0]", "ages=0: expected a list, each item a positive number"),
        ("part=1.5", "part=1.5: expected a whole number from 0, or a share from 0.0 to 1.0, or null, such as the default 3."),
        ("part=-1", "expected a whole number from 0, or a share"),
        ("part=-0.1", "expected a whole number from 0, or a share"),
        ("part=true", "expected a whole number from 0, or a share"),
        ("part=x", "expected a whole number from 0, or a share"),
        ("net.depth=3", "Unknown key 'net.depth'"),
        ("loader.size=x", "loader.size=x: expected a whole number"),
        ("steps=null", "steps=null: expected keys below it."),
        ("lora=8", "lora=8: expected keys below it or null."),
        ("hours=${title}", "hours=a # b: expected a number"),
    ],
)
def test_a_wrong_override_is_named_in_one_line(override, said):
    assert said in refused("out=x", override)


@pytest.mark.parametrize(
    "line, said",
    [
        ("hours: abc", "hours=abc: expected a number, such as the default 1.0."),
        ('hours: "3"', "hours='3': expected a number"),
        ("hours: 1:30", "hours=1:30: expected a number"),
        ("hours: 010", "hours=010: expected a number"),
        ("hours: 0x10", "hours=0x10: expected a number"),
        ("hours: true", "hours=true: expected a number"),
        ("hours: .nan", "hours=.nan: expected a finite number"),
        ("hours: null", "hours=null: expected a number"),
        ("hours: {}", "hours={}: expected a number"),
        ("title: null", "title=null: expected text"),
        ("out: ~", "out=null: expected a path."),
        ("source: [a, null]", "source=null: expected a list, each item a path."),
        ("source: [[a]]", "source=[a]: expected a list, each item a path."),
        ("count: x", "count=x: expected a whole number or null."),
        ("steps: 3", "steps=3: expected keys below it."),
        ("steps: {every: 1.5}", "steps.every=1.5: expected a whole number"),
        ("flag: 1", "flag=1: expected true or false"),
    ],
)
def test_a_wrong_value_in_a_file_of_ones_own_is_named_with_its_line(tmp_path, line, said):
    (tmp_path / "mine.yaml").write_text(f"defaults: [train, _self_]\n{line}\n")
    assert refused(name="mine", folder=tmp_path).startswith(f"{tmp_path / 'mine.yaml'}, line 2: {said}")


def test_null_in_a_file_of_ones_own(tmp_path):
    """Where the default or the explanation knows it, and for what is empty by default; a value of the file can be unset."""
    lines = "most: null\nnet: null\npart: ~\nllm:\nsource: null\n"
    (tmp_path / "mine.yaml").write_text(f"defaults: [train, _self_]\n{lines}")
    cfg = load("mine", ["out=x"], tmp_path)
    assert (cfg.most, cfg.net, cfg.part, cfg.llm, cfg.source) == (None, None, None, {}, [])
    (tmp_path / "mine.yaml").write_text("defaults: [train, _self_]\nllm: {a: 1}\nsource: [a]\n")
    cfg = load("mine", ["out=x", "llm=null", "source=null"], tmp_path)
    assert (cfg.llm, cfg.source) == ({}, [])


def test_the_value_that_counts_is_converted(tmp_path):
    """Of several files of one's own, and where the command line overrides them."""
    (tmp_path / "mine.yaml").write_text("defaults: [train, other, _self_]\nout: 007\nhours: 2\n")
    (tmp_path / "other.yaml").write_text("out: 1e5\ncodec: 010\nhours: 3\n")
    cfg = load("mine", ["codec=0x1"], tmp_path)
    assert (cfg.out, cfg.codec, cfg.hours) == ("007", "0x1", 2.0) and isinstance(cfg.hours, float)
    assert load("mine", [], tmp_path).codec == "010"
    (tmp_path / "mine.yaml").write_text("defaults: [train, _self_, other]\nout: 007\nhours: 2\n")
    cfg = load("mine", [], tmp_path)
    assert (cfg.out, cfg.hours) == ("1e5", 3.0)


def test_a_required_key_is_asked_for_with_its_explanation():
    assert refused() == 'Not given: out (Folder to write, "#" is allowed). Add out=...'


def test_a_file_may_require_what_the_one_that_it_builds_on_leaves_null(conf, tmp_path):
    """OmegaConf merges `???` into nothing: the null below would stay."""
    (conf / "special.yaml").write_text("defaults: [train, _self_]\ncodec: ???  # (path) Trained one.\nhours: 2.0\n")
    assert refused("out=x", name="special") == "Not given: codec (Trained one). Add codec=..."
    cfg = load("special", ["out=x", "codec=a.nemo"])
    assert (cfg.codec, cfg.hours) == ("a.nemo", 2.0) and load("train", ["out=x"]).codec is None
    (tmp_path / "own.yaml").write_text("defaults: [special, _self_]\ncodec: b.nemo\n")
    assert load("own", ["out=x"], tmp_path).codec == "b.nemo"


def test_unknown_and_broken_files(conf, tmp_path):
    assert refused(name="trian") == "There is no configuration 'trian'. Did you mean 'train'? There are: tiny, train."
    assert "there is no folder" in refused(folder=tmp_path / "none")
    (conf / "broken.yaml").write_text("a: [1,\nb: 2\n")
    assert "broken.yaml is not readable as YAML" in refused(name="broken")
    (conf / "empty.yaml").write_text("# nothing\n")
    assert "expected 'key: value' lines" in refused(name="empty")
    (conf / "lost.yaml").write_text("defaults: [gone, _self_]\na: 1\n")
    assert "lost.yaml: There is no configuration 'gone'" in refused(name="lost")
