"""One number of a benchmark: what it is, which way is better, and what it was computed over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nemo_duplex.evaluation.confidence import Estimate, estimate_quantile, estimate_ratio
from nemo_duplex.evaluation.scorer import Scorer, made_by, not_run

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Metric:
    """What a number is.

    Args:
        name: its key.
        better: which way; None where that depends on the sample, or nothing is better.
        unit: "" for shares and scores.
    """

    name: str
    better: Better | None = None
    unit: str = ""

    def entry(self, scorer: Scorer, estimate: Estimate) -> dict[str, Any]:
        """For results.json: as `made_by`, with `better` and `unit`."""
        return made_by(scorer, estimate) | {"better": self.better, "unit": self.unit}

    def missing(self, why: str) -> dict[str, Any]:
        """For results.json: as `not_run`, with `better` and `unit`."""
        return not_run(why) | {"better": self.better, "unit": self.unit}


def share(values: Sequence[bool]) -> Estimate:
    """The share of samples for which something holds, with Wilson's interval."""
    return estimate_ratio([(float(value), 1.0) for value in values], proportion=True)


def mean(values: Sequence[float]) -> Estimate:
    """The mean over samples, with the bootstrap's interval."""
    return estimate_ratio([(value, 1.0) for value in values], proportion=False)


def pooled_mean(samples: Sequence[Sequence[float]]) -> Estimate:
    """The mean of all values of all samples; samples are drawn for the interval."""
    return estimate_ratio([(sum(values), float(len(values))) for values in samples], proportion=False)


def pooled_median(samples: Sequence[Sequence[float]]) -> Estimate:
    """The median of all values of all samples; samples are drawn for the interval."""
    return estimate_quantile(samples, 0.5)
