"""What a control experiment gives; without torch, so that reports of anybody's outputs can say that there was none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class ControlExperiment:
    """The result of a control experiment.

    Args:
        name: of the experiment.
        passed: None where it is inconclusive.
        detail: one line for people, with the reason.
        figures: the numbers behind it.

    Examples:
        >>> counts([ControlExperiment("silence", True, "silent for 60 s"), NOT_PLAYED])
        {'passed': 1, 'failed': 0, 'inconclusive': 1}
    """

    name: str
    passed: bool | None
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


#: Of recordings of a model that is not there.
NOT_PLAYED = ControlExperiment("controls", None, "not run: they play to an agent: give model= and what=all or turn_taking")


def counts(experiments: Iterable[ControlExperiment]) -> dict[str, int]:
    """How many passed, failed, and were inconclusive."""
    results = [experiment.passed for experiment in experiments]
    return {"passed": results.count(True), "failed": results.count(False), "inconclusive": results.count(None)}
