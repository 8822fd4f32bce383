"""The commands of a chain of our scripts, and what each depends on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nemo_duplex.scripts.config import conf_folder

PACKAGE = Path(__file__).parents[1]
#: Rooms that the network is made of.
NETWORK = ("llm", "perception", "models")
#: What `evaluate.py` writes, but for the conversations themselves.
EVALUATION = ("report.json", "report.html", "tables.md", "conversation.wav", "events.csv", "timelines")


@dataclass(frozen=True)
class Scripts:
    """Our scripts, in the folder `examples`."""

    examples: Path

    def command(self, verb: str, keys: Sequence[str]) -> list[str]:
        """Runs `VERB.py` with these keys."""
        return [sys.executable, str(self.examples / f"{verb}.py"), *keys]

    def reads(self, verb: str, configurations: Sequence[str], rooms: Sequence[str]) -> list[Path]:
        """What a script depends on: itself, its configurations, the vocabulary, and the rooms that it calls."""
        vocabulary = [PACKAGE / name for name in ("frames.py", "conversation.py", "channels")]
        configured = [conf_folder() / name for name in configurations]
        return [self.examples / f"{verb}.py", *configured, *vocabulary, *(PACKAGE / room for room in rooms)]
