"""Dialogues that tell their number, some of them with a turn that is too long."""

from __future__ import annotations

from collections.abc import Callable

from nemo_duplex.synthesis.cuts import DialogueCuts
from nemo_duplex.synthesis.dialogue_spec import DialogueSpec
from nemo_duplex.synthesis.text.sources import Dialogue, Exchange
from tests.synthesis.tones import ToneEngine, cast_of


class Numbered:
    """Dialogue n of each split is one exchange, "Question n?", "Answer n."; the user of some numbers speaks for long."""

    def __init__(self, long: Callable[[int], bool], agent: str = "Answer", count: int = 40) -> None:
        self.long, self.agent, self.count = long, agent, count

    def dialogue(self, split, index, rng) -> Dialogue:
        number = index % self.count
        user = "word " * 90 if self.long(number) else f"Question {number}?"
        return Dialogue(f"n{number}", (Exchange(user, f"{self.agent} {number}.", "", "numbers"),), language="en")


def numbered(source: Numbered, engine: ToneEngine | None = None, **spec) -> DialogueCuts:
    return DialogueCuts(DialogueSpec(quiet=0.0, **spec), source, cast_of(engine))
