"""How far a number can be trusted: Wilson intervals for shares, and a bootstrap over conversations for everything else.

Events of one conversation are not independent (same voice, same noise), so the bootstrap resamples conversations, not events.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

_Z95 = 1.959963984540054  # the normal quantile of a two-sided 95 % interval
_MOST_DRAWN = 20_000_000  # conversations drawn for one interval (80 MB); very large sets get fewer resamples of more

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A pooled number, with what it rests on.

    Args:
        value: None where there is nothing to measure.
        n: events (or whatever is counted below the line) that it was measured over.
        ci95: the interval to print: Wilson's for a share, else the bootstrap's.
        bootstrap95: over conversations; for a share of 0 or 1 it has no width, which is why Wilson's is printed.

    Examples:
        >>> share = estimate_ratio([(3, 4), (5, 5)], proportion=True)      # of two conversations
        >>> round(share.value, 3), share.n
        (0.889, 9)
    """

    value: float | None
    n: float
    ci95: Interval | None
    bootstrap95: Interval | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def estimate_ratio(parts: Sequence[tuple[float, float]], proportion: bool, seed: int = 0) -> Estimate:
    """The ratio of sums over conversations, from each one's (numerator, denominator).

    Args:
        proportion: whether it is a share of countable things, so that Wilson's interval holds.
    """
    numerator, denominator = sum(a for a, _ in parts), sum(b for _, b in parts)
    if not denominator:
        return Estimate(None, 0, None)
    bootstrap = cluster_bootstrap(parts, seed=seed)
    interval = wilson(int(numerator), int(denominator)) if proportion else bootstrap
    return Estimate(numerator / denominator, denominator, interval, bootstrap)


def wilson(successes: int, trials: int, z: float = _Z95) -> Interval | None:
    """Wilson's score interval for a share (Wilson 1927, JASA 22:209); None without trials."""
    if not trials:
        return None
    assert 0 <= successes <= trials, f"{successes} successes in {trials} trials"
    share, spread = successes / trials, z * z / trials
    centre = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    low = 0.0 if successes == 0 else (centre - half) / (1 + spread)
    high = 1.0 if successes == trials else (centre + half) / (1 + spread)
    return low, high


def cluster_bootstrap(parts: Sequence[tuple[float, float]], resamples: int = 10_000, seed: int = 0) -> Interval | None:
    """Percentile interval (95 %) of the ratio of sums when whole conversations are drawn with replacement.

    Draws with a denominator of 0 are left out. None with fewer than two conversations
    that count, where resampling cannot show any spread.
    """
    counted = np.array(parts, dtype=np.float32).reshape(-1, 2)
    if (counted[:, 1] > 0).sum() < 2:
        return None
    above, below = (_draws(len(counted), min(resamples, max(1000, _MOST_DRAWN // len(counted))), seed) @ counted).T
    low, high = np.percentile(above[below > 0] / below[below > 0], [2.5, 97.5])
    return round(float(low), 6), round(float(high), 6)


def paired_difference(
    first: Sequence[tuple[float, float]], second: Sequence[tuple[float, float]], resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """How much larger the ratio of sums is the second time, of the same conversations played twice.

    Args:
        first, second: each conversation's (numerator, denominator), in the same order.

    Returns:
        value, and as both intervals that of 95 % when conversations are drawn, each with both of its times: what they have in
        common cancels out. If it holds 0, no change can be shown.
    """
    assert len(first) == len(second), f"{len(first)} conversations and {len(second)}: they are no pairs."
    counts = np.array([first, second], dtype=np.float64).reshape(2, -1, 2)
    above, below = counts.sum(1).T
    if not below.all():
        return Estimate(None, 0, None)
    drawn = _draws(counts.shape[1], resamples, seed) @ counts  # (2, resamples, 2)
    drawn = drawn[:, (drawn[..., 1] > 0).all(0)]
    (before, after), ratios = above / below, drawn[..., 0] / drawn[..., 1]
    low, high = np.percentile(ratios[1] - ratios[0], [2.5, 97.5])
    interval = round(float(low), 6), round(float(high), 6)
    return Estimate(float(after - before), float(below.min()), interval, interval)


@lru_cache(maxsize=4)
def _draws(conversations: int, resamples: int, seed: int) -> np.ndarray:
    """(resamples, conversations) float32: how often each is drawn. The same for every rate of a set, so made once."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(conversations, np.full(conversations, 1 / conversations), size=resamples).astype(np.float32)
