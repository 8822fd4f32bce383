"""What made a number: a recogniser, a network that rates sound, a language model. No number stands under another's name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from nemo_duplex.evaluation.confidence import Estimate


@dataclass(frozen=True)
class Scorer:
    """Who judges.

    Args:
        name: short, for keys and tables: `distillmos`, `whisper-tiny.en`.
        version: of the package or the model.
        sha256: of the weights, where they are a file.
        comparable: whether the paper's number of the same kind comes from this very scorer.
        about: one line for people: what it is, and what to know about its numbers.

    Examples:
        >>> Scorer("distillmos", "0.9.1", about="estimated mean opinion score, 1 to 5").as_dict()["comparable"]
        False
    """

    name: str
    version: str
    sha256: str | None = None
    comparable: bool = False
    about: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def made_by(scorer: Scorer, estimate: Estimate) -> dict[str, Any]:
    """The entry of a number in report.json: `value`, `n`, `ci95`, `bootstrap95`, and the name of its `scorer`."""
    return estimate.as_dict() | {"scorer": scorer.name}


def not_run(why: str) -> dict[str, Any]:
    """The entry of a number that was not measured, with the reason: "distillmos is not installed: pip install ..."."""
    return Estimate(None, 0, None).as_dict() | {"not_run": why}
