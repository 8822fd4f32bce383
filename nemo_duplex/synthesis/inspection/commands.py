"""`synthesize.py inspect=` and `check=`: what the script does when it makes nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Literal

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.inspection.check import check
from nemo_duplex.synthesis.inspection.inspect_corpus import inspect_corpus, lines

Command = Literal["out", "inspect", "check"]
_COMMANDS: tuple[Command, ...] = ("out", "inspect", "check")


def asked_for(keys: Mapping[str, Any]) -> Command:
    """Which one of the three the script is asked for.

    Raises:
        InputError: if none is given, or several.
    """
    given = [name for name in _COMMANDS if keys[name] is not None]
    if not given:
        raise InputError(
            "Not given: out, inspect or check. Add out=FOLDER to make a corpus, inspect=FOLDER or check=FOLDER to look at one."
        )
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)}: one run makes a corpus, inspects one or checks one. Give one of them.")
    return given[0]


def look_at(keys: Mapping[str, Any]) -> None:
    """Inspects or checks a corpus and prints what is found; ends the process with 1 if a check finds errors."""
    speakers = dict(keys["speakers"] or {})
    if keys["inspect"] is not None:
        print(*lines(inspect_corpus(keys["inspect"], speakers, keys["examples"], keys["report"])), sep="\n")
        return
    workers = (os.cpu_count() or 1) if keys["workers"] is None else keys["workers"]
    checked = check(keys["check"], speakers, keys["tokenizer"], workers)
    print(*checked.lines(), sep="\n")
    if keys["tokenizer"] is None:
        print("whether texts fit their frames was not checked: give tokenizer=")
    if not checked.is_good:
        sys.exit(1)
