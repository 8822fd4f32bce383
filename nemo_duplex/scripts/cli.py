"""Entry point of the scripts: parses arguments, runs a script, and turns errors into one line and an exit code.

    @script("synthesize")                       reads conf/synthesize.yaml, or --config-name=NAME
    def main(cfg: DictConfig) -> None:
        \"\"\"Speaks dialogues into two-channel cuts.\"\"\"         <- the first paragraph of --help
        from nemo_duplex.synthesis.pipeline import ...          <- here, not above: --help and errors stay instant

    if __name__ == "__main__":
        main()

Exit codes: 0 done, 2 wrong input, 130 Ctrl-C, 1 a bug in this package (with its trace), or what a script itself ends with:
`check=` of synthesize.py with 1 if it finds errors.
"""

from __future__ import annotations

import errno
import functools
import inspect
import io
import logging
import os
import shutil
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_duplex.inputs import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig

OPTIONS = {
    "--help": "This text (also -h).",
    "--config-name=NAME": "Another configuration than the script's own: conf/NAME.yaml.",
    "--config-dir=DIR": "Look for configurations in DIR first; one of yours builds on one of ours by its defaults list.",
    "--traceback": "Show where an error came from.",
}

VALUES = "Paths and texts are taken as they are typed, with ~ for the home folder in paths; a list is [a,b]."


def script(name: str) -> Callable[[Callable[[DictConfig], None]], Callable[..., None]]:
    """Makes `main(cfg)` a script that reads `conf/<name>.yaml` and the command line, and ends in an exit code.

    The decorated function takes an optional list of arguments (default: those of the process); it returns when all went
    well, and otherwise raises SystemExit with the exit code.
    """

    def decorate(main: Callable[[DictConfig], None]) -> Callable[..., None]:
        @functools.wraps(main)
        def run(arguments: Sequence[str] | None = None) -> None:
            code = _run(main, name, sys.argv[1:] if arguments is None else arguments)
            if code != 0:
                sys.exit(code)

        return run

    return decorate


def _run(main: Callable[[DictConfig], None], name: str, arguments: Sequence[str]) -> int:
    show_trace = "--traceback" in arguments
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what the terminal cannot write ends no run
    try:
        options, overrides = _parse_arguments(arguments)
        from nemo_duplex.scripts.config import ScriptConfig

        config = ScriptConfig(options.get("--config-name", name), overrides, options.get("--config-dir"))
        if "--help" in options:
            print(_help(main, name, config))
            return 0
        cfg = config.checked()
        quiet_libraries()
        with _terminated_like_interrupted():
            main(cfg)
        return 0
    except KeyboardInterrupt as error:
        return _end(130, "interrupted: nothing half-written", error, show_trace)
    except InputError as error:
        return _end(2, f"error: {error}", error, show_trace)
    except OSError as error:
        return _end(2, f"error: {_os_error(error)}", error, show_trace)


def _end(code: int, line: str, error: BaseException, show_trace: bool) -> int:
    if show_trace:
        traceback.print_exception(type(error), error, error.__traceback__)
    if bars := sys.modules.get("tqdm"):  # a bar that is still open would share its line
        for bar in list(getattr(bars.tqdm, "_instances", ())):
            bar.close()
    print(" ".join(line.split()), file=sys.stderr, flush=True)
    return code


def _os_error(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"no space left on the disk of {error.filename or Path.cwd()}: free some, or write to another disk."
    if error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


# --- arguments --------------------------------------------------------------------------------------------------------


def _parse_arguments(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Options (with their value, "" for a switch) and `key=value` overrides, in any order."""
    known = {option.partition("=")[0]: "=" in option for option in OPTIONS}
    options, overrides = {}, []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        option, equals, value = ("--help" if argument == "-h" else argument).partition("=")
        if option not in known:
            advice = f"Keys are given without dashes: {argument.lstrip('-')}." if equals else f"There are {', '.join(OPTIONS)}."
            raise InputError(f"Unknown option {option}. {advice}")
        if known[option] and not equals:
            if not rest:
                raise InputError(f"{option} needs a value: {option}=...")
            value = rest.pop(0)
        options[option] = value
    return options, overrides


# --- help -------------------------------------------------------------------------------------------------------------


def _help(main: Callable, name: str, config: Any) -> str:
    """What the script does, its options, and every key with its default and explanation."""
    from nemo_duplex.scripts.values import REQUIRED, as_typed

    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    paragraph = " ".join((inspect.getdoc(main) or "").split("\n\n")[0].split())
    lines = [*textwrap.wrap(f"{name}: {paragraph}", width), "", "Usage: key=value ... [option ...]", ""]
    for option, explanation in OPTIONS.items():
        lines += _entry(f"  {option}", explanation, width)
    lines += ["", *textwrap.wrap(f"Keys, with their defaults. {VALUES}", width), ""]
    for group, option in config.groups.items():
        lines += _entry(f"  {group}={option}", f"Chooses conf/{group}/{option}.yaml.", width)
    explained: set[str] = set()
    for key, value in config.leaves():
        for parent in _parents(key):
            if parent not in explained and config.explanation(parent):
                lines += ["", *textwrap.wrap(f"{parent}: {config.explanation(parent)}", width, initial_indent="  ")]
            explained.add(parent)
        default = "" if value == REQUIRED else as_typed(value)
        note = f"{'required ' if value == REQUIRED else ''}{config.keys[key].type.note if key in config.keys else ''}".strip()
        explanation = f"({note}) {config.explanation(key)}" if note else config.explanation(key)
        lines += _entry(f"  {key}={default}", explanation, width)
    return "\n".join(lines)


def _parents(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _entry(head: str, explanation: str, width: int, column: int = 36) -> list[str]:
    """`head`, and beside it (below it, where it is too long) the explanation."""
    text = textwrap.wrap(explanation, max(width - column, 40)) or [""]
    if len(head) < column:
        return [f"{head:<{column}}{text[0]}".rstrip(), *(" " * column + line for line in text[1:])]
    return [head, *(" " * column + line for line in text)]


# --- the process ------------------------------------------------------------------------------------------------------


class _terminated_like_interrupted:
    """SIGTERM exits the program by an exception, so that half-written files are removed; SLURM's is left to Lightning."""

    def __enter__(self) -> None:
        self._active = threading.current_thread() is threading.main_thread() and "SLURM_JOB_ID" not in os.environ
        if self._active:
            self._before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    def __exit__(self, *_: object) -> None:
        if self._active:
            signal.signal(signal.SIGTERM, self._before)


def quiet_libraries() -> None:
    """Keeps the libraries' messages below WARNING off the console; NeMo's log file keeps all of them.

    Call it before the libraries are imported: they set up their loggers on import.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    telemetry = logging.getLogger("nv_one_logger")  # NVIDIA's telemetry logs that it is switched off
    telemetry.addHandler(logging.NullHandler())
    telemetry.propagate = False
    for lightning in (
        "lightning.pytorch",
        "lightning.fabric",
        "pytorch_lightning",
    ):  # the last one imported decides which is used
        logging.getLogger(f"{lightning}.utilities.rank_zero").setLevel(logging.WARNING)  # which accelerators there are not
    logging.getLogger("nemo_logger").addFilter(_only_to_file)
    own = logging.getLogger("nemo_duplex")
    if not own.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        own.addHandler(handler)
        own.setLevel(logging.INFO)


# NeMo's warnings in every run that may resume.
_EXPECTED = ("Exp_manager is logging to", "There were no checkpoints found in")


def _only_to_file(record: logging.LogRecord) -> bool:
    """A filter that raises the level of NeMo's console handlers (NeMo makes them when imported), and drops what is expected."""
    if record.getMessage().startswith(_EXPECTED):
        return False
    for handler in logging.getLogger("nemo_logger").handlers:
        if type(handler) is logging.StreamHandler and handler.level < logging.WARNING:
            handler.setLevel(logging.WARNING)
    return True
