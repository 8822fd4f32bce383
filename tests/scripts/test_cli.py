"""Entry point of the scripts: overrides, what is refused and how, help, exit codes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from nemo_duplex.inputs import InputError
from nemo_duplex.scripts import config
from nemo_duplex.scripts.cli import script
from nemo_duplex.scripts.config import load

TRAIN = """\
# Trains a thing.

# Hours of speech to make.
# All sets together.
hours: 1.0
out: ???  # Folder to write, "#" is allowed.
title: "a # b"  # Any text.
# Steps and their rates.
steps:
  # Between validations.
  every: 200
  rate: 0.5  # Of learning.
llm: {}  # Any key of transformers.
source: []  # Files.
flag: true  # Yes or no.
limit: null  # Of anything.
most: 3  # Files that are read; null: all.
twice: ${hours}  # As many.
"""
DERIVED = "defaults: [train, _self_]\nhours: 2.0\nllm:\n  hidden_size: 64\n"


@pytest.fixture(autouse=True)
def conf(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / "train.yaml").write_text(TRAIN)
    (folder / "tiny.yaml").write_text(DERIVED)
    monkeypatch.setattr(config, "conf_folder", lambda: folder)
    return folder


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


# --- the entry point --------------------------------------------------------------------------------------------------


def entry_point(main):
    """Runs a script, gives its exit code."""
    run = script("train")(main)

    def enter(*arguments: str) -> int:
        try:
            run(list(arguments))
        except SystemExit as end:
            return end.code
        return 0

    return enter


def test_the_door_opens():
    seen = []
    assert entry_point(seen.append)("out=x", "hours=3") == 0
    assert seen[0].out == "x" and seen[0].hours == 3.0
    assert (
        entry_point(seen.append)("out=x", "--config-name=tiny")
        == entry_point(seen.append)("--config-name", "tiny", "out=x")
        == 0
    )
    assert seen[1].hours == seen[2].hours == 2.0


def test_without_arguments_those_of_the_process_are_read(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "argv", ["train.py", "out=y"])
    script("train")(seen.append)()
    assert seen[0].out == "y"
    with pytest.raises(SystemExit):
        script("train")(seen.append)([])  # an empty list is no argument at all
    assert len(seen) == 1


def test_a_folder_of_configurations_by_option(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.yaml").write_text("defaults: [train, _self_]\nout: here\n")
    seen = []
    assert entry_point(seen.append)(f"--config-dir={tmp_path / 'own'}", "--config-name=mine") == 0
    assert seen[0].out == "here"


@pytest.mark.parametrize("slurm", [False, True])
def test_sigterm_is_an_exit_and_only_while_the_script_runs(monkeypatch, slurm):
    """SLURM's is left to Lightning."""
    monkeypatch.setenv("SLURM_JOB_ID", "1") if slurm else monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    seen = []

    def before(*_):
        """What the program around the script does."""

    outside = signal.signal(signal.SIGTERM, before)

    def main(cfg):
        seen.append(signal.getsignal(signal.SIGTERM))
        if not slurm:
            signal.raise_signal(signal.SIGTERM)

    try:
        assert entry_point(main)("out=x") == (0 if slurm else 143)
        assert (seen[0] is before) == slurm
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, outside)


def test_a_bar_that_is_open_does_not_share_the_line_of_an_error(capsys):
    def main(cfg):
        main.bar = tqdm(total=3)
        raise InputError("wrong")

    assert entry_point(main)("out=x") == 2
    assert main.bar.disable and capsys.readouterr().err.endswith("\nerror: wrong\n")


def raising(error: BaseException):
    def main(cfg):
        raise error

    return entry_point(main)


@pytest.mark.parametrize(
    "error, code, line",
    [
        (InputError("two\n lines"), 2, "error: two lines"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.wav"), 2, "error: a.wav: No such file or directory"),
        (OSError(errno.ENOSPC, "No space left on device", "big"), 2, "error: no space left on the disk of big: free some"),
        (OSError("the hub\nis away"), 2, "error: the hub is away"),
        (KeyboardInterrupt(), 130, "interrupted: nothing half-written"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(error, code, line, capsys):
    assert raising(error)("out=x") == code
    said = capsys.readouterr().err
    assert said.startswith(line) and said.count("\n") == 1


def test_traceback_is_shown_when_asked_for(capsys):
    assert raising(InputError("wrong"))("out=x", "--traceback") == 2
    said = capsys.readouterr().err
    assert "Traceback" in said and said.endswith("error: wrong\n")


def test_our_own_mistakes_keep_their_trace():
    with pytest.raises(ZeroDivisionError):
        raising(ZeroDivisionError())("out=x")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--out=x"], "Unknown option --out. Keys are given without dashes: out=x."),
        (["-x"], "Unknown option -x."),
        (["--config-name"], "--config-name needs a value"),
        (["--config-name=trian", "out=x"], "Did you mean 'train'?"),
    ],
)
def test_wrong_options(arguments, said, capsys):
    assert raising(AssertionError("reached"))(*arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_explains_every_key(option, capsys):
    def main(cfg):
        """Trains a thing
        from data.

        Not in the help.
        """
        raise AssertionError("reached")

    assert entry_point(main)(option) == 0
    text = capsys.readouterr().out
    assert text.startswith("train: Trains a thing from data.\n") and "Not in the help" not in text
    words = " ".join(text.split())
    for line in (
        "hours=1.0 Hours of speech to make. All sets together.",
        'out= (required) Folder to write, "#" is allowed.',
        "title=a # b Any text.",
        "steps: Steps and their rates.",
        "steps.every=200 Between validations.",
        "steps.rate=0.5 Of learning.",
        "flag=true Yes or no.",
        "llm={} Any key of transformers.",
        "limit=null Of anything.",
        "source=[] Files.",
        "--config-name=NAME",
    ):
        assert line in words, text


def test_help_names_the_files_that_groups_choose(conf, capsys):
    (conf / "voice").mkdir()
    (conf / "voice" / "low.yaml").write_text("pitch: 80  # Hz.\n")
    (conf / "train.yaml").write_text("defaults:\n  - voice: low\n  - _self_\nrate: 1.0  # Speed.\n")
    assert entry_point(lambda cfg: None)("--help") == 0
    assert "voice=low Chooses conf/voice/low.yaml." in " ".join(capsys.readouterr().out.split())


def test_help_shows_the_defaults_as_overridden(capsys):
    assert entry_point(lambda cfg: None)("--help", "hours=7") == 0
    assert "hours=7.0" in capsys.readouterr().out


def test_help_and_errors_do_not_wait_for_torch():
    """--help in under a second needs an entry point free of torch and NeMo; the quick way to know is what got imported."""
    code = (
        "import sys, nemo_duplex.scripts.cli, nemo_duplex.scripts.config; "
        "print({'torch', 'nemo', 'lhotse', 'numpy'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_sigterm_removes_what_is_half_written(tmp_path, conf):
    program = f"""
import time
from nemo_duplex.scripts import config
from nemo_duplex.scripts.cli import script
from nemo_duplex.files.atomic import whole_file

config.conf_folder = lambda: config.Path({str(conf)!r})

@script("train")
def main(cfg):
    with whole_file(cfg.out) as part:
        part.write_text("half")
        print("writing", flush=True)
        time.sleep(60)

main()
"""
    out = tmp_path / "out"
    environment = {k: v for k, v in os.environ.items() if k != "SLURM_JOB_ID"}
    process = subprocess.Popen(
        [sys.executable, "-c", program, f"out={out / 'file'}"], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    assert list(out.iterdir()) == []


def test_nemo_keeps_quiet_on_the_console_and_complete_in_its_log():
    """NeMo sets the level of its logger when imported, so a level set before would be lost."""
    program = """
import logging
from nemo_duplex.scripts.cli import script
from nemo_duplex.scripts import config

def main(cfg):
    logger = logging.getLogger("nemo_logger")
    console, file = logging.StreamHandler(), logging.FileHandler("/dev/stdout")
    for handler in (console, file):
        logger.addHandler(handler)
        handler.setLevel(logging.INFO)
    logger.setLevel(logging.INFO)
    logging.getLogger("nv_one_logger.api.config").warning("telemetry is switched off")
    logger.info("a message")
    logger.warning("Exp_manager is logging to a folder")
    logger.warning("a warning")
    logging.getLogger("nemo_duplex.models").info("our own message")

script("demo")(main)([])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "a warning\nour own message\n"
    assert done.stdout == "a message\na warning\n"
