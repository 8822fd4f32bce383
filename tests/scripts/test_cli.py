"""Entry point of the scripts: help, errors, exit codes."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys

import pytest
from tqdm import tqdm

from nemo_duplex.inputs import InputError
from nemo_duplex.scripts.cli import script

pytestmark = pytest.mark.usefixtures("conf")


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


def test_the_entry_point_runs():
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


def test_what_the_terminal_cannot_write_ends_no_run(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert entry_point(lambda cfg: print("caf\udce9 ↑"))("out=x", "hours=1") == 0
    sys.stdout.flush()
    assert sys.stdout.buffer.getvalue() == b"caf\\udce9 \\u2191\n"


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
        'out= (required path) Folder to write, "#" is allowed.',
        "title=a # b Any text.",
        "steps: Steps and their rates.",
        "steps.every=200 Between validations.",
        "steps.rate=0.5 Of learning.",
        "flag=true Yes or no.",
        "llm={} Any key of transformers.",
        "limit=null Of anything.",
        "source=[] (paths) Files.",
        "codec=null (path) File; null: none.",
        "count=null (whole number) How many.",
        "sets=[dev] Which.",
        "batch=8 (positive whole number) Rows.",
        "seed=0 (whole number from 0) Of all.",
        "dropout=0.1 (share) What is left out.",
        "ages=[1.5] (positive numbers) In years.",
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
    assert process.wait(timeout=120) == 143
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
