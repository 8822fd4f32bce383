"""How far a number can be trusted: Wilson intervals for shares, and a bootstrap over conversations for everything else.

Events of one conversation are not independent (same voice, same noise), so the bootstrap resamples conversations, not events.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

_Z95 = 1.959963984540054  # the normal quantile of a two-sided 95 % interval
_MOST_DRAWN = 20_000_000  # conversations drawn for one interval (80 MB); very large sets get fewer resamples of more

Interval = tuple[float, float]
_M = TypeVar("_M")
#: What is counted over what in one measured conversation: (numerator, denominator). Sums of both are pooled, so a long
#: conversation weighs more than a short one and a mean of means can never arise.
Ratio = Callable[[_M], tuple[float, float]]


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
    numerator, denominator = math.fsum(a for a, _ in parts), math.fsum(b for _, b in parts)
    if not denominator:
        return Estimate(None, 0, None)
    bootstrap = cluster_bootstrap(parts, seed=seed)
    interval = wilson(int(numerator), int(denominator)) if proportion else bootstrap
    counted = int(denominator) if denominator.is_integer() else denominator
    return Estimate(numerator / denominator, counted, interval, bootstrap)


def estimate_each(
    ratios: Mapping[str, Ratio[_M]], proportions: Collection[str], conversations: Sequence[_M], seed: int = 0
) -> dict[str, Estimate]:
    """An estimate of each ratio over measured conversations; `proportions` names those that are shares of countable things."""
    return {
        name: estimate_ratio([ratio(m) for m in conversations], proportion=name in proportions, seed=seed)
        for name, ratio in ratios.items()
    }


def ratio_of_sums(parts: Iterable[tuple[float, float]]) -> float | None:
    """The pooled value alone; None where nothing is counted."""
    numerators, denominators = zip(*parts, (0, 0), strict=True)
    return math.fsum(numerators) / math.fsum(denominators) if math.fsum(denominators) else None


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


def told_apart(estimate: Estimate, baseline: float | None) -> bool | None:
    """Whether a share differs from a baseline by more than chance explains: its Wilson interval (95 %) does not hold it.

    None where one of them is undefined. The baseline is taken as known: what another agent scores on the same events.
    """
    if estimate.ci95 is None or baseline is None:
        return None
    low, high = estimate.ci95
    return not low <= baseline <= high


def compared(estimate: Estimate, baseline: float | None, name: str) -> str:
    """The same in words, for a report; `name` is of whom the baseline is.

    Examples:
        >>> compared(estimate_ratio([(36, 37)], proportion=True), 0.93, "an agent that never listens")
        'n too small to tell: 36 of 37 may be the 93.0 % of an agent that never listens; it takes about 136'
        >>> compared(estimate_ratio([(50, 100)], proportion=True), 0.93, "an agent that never listens")
        'below the 93.0 % of an agent that never listens: 50 of 100'
    """
    told = told_apart(estimate, baseline)
    if told is None or estimate.value is None or baseline is None:
        return "nothing to compare"
    counted = f"{estimate.value * estimate.n:g} of {estimate.n:g}"
    if told:
        return f"{'above' if estimate.value > baseline else 'below'} the {baseline:.1%} of {name}: {counted}".replace("%", " %")
    needed = trials_to_tell(estimate.value, baseline)
    enough = "" if needed is None else f"; it takes about {needed}"
    return f"n too small to tell: {counted} may be the {baseline:.1%} of {name}".replace("%", " %") + enough


def trials_to_tell(share: float, baseline: float) -> int | None:
    """How many trials with this share it takes until Wilson's interval does not hold the baseline; None if they are equal."""
    if share == baseline:
        return None
    return math.floor(_Z95**2 * baseline * (1 - baseline) / (share - baseline) ** 2) + 1


def cluster_bootstrap(parts: Sequence[tuple[float, float]], resamples: int = 10_000, seed: int = 0) -> Interval | None:
    """Percentile interval (95 %) of the ratio of sums when whole conversations are drawn with replacement.

    Draws with a denominator of 0 are left out. None with fewer than two conversations
    that count, where resampling cannot show any spread.
    """
    counted = _in_order(np.array(parts, dtype=np.float32).reshape(-1, 2))
    if (counted[:, 1] > 0).sum() < 2:
        return None
    above, below = (_draws(len(counted), min(resamples, max(1000, _MOST_DRAWN // len(counted))), seed) @ counted).T
    low, high = np.percentile(above[below > 0] / below[below > 0], [2.5, 97.5])
    return round(float(low), 6), round(float(high), 6)


def drawn_interval(
    counts: np.ndarray, value: Callable[[np.ndarray], np.ndarray], resamples: int = 10_000, seed: int = 0
) -> Interval | None:
    """Percentile interval (95 %) of any value of summed counts when whole conversations are drawn with replacement.

    Args:
        counts: (conversations, K).
        value: of sums (resamples, K), (resamples,).

    Returns:
        None with fewer than two conversations.
    """
    if len(counts) < 2:
        return None
    drawn = _draws(len(counts), min(resamples, max(1000, _MOST_DRAWN // len(counts))), seed) @ _in_order(
        np.asarray(counts, np.float64)
    )
    low, high = np.percentile(value(drawn), [2.5, 97.5])
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
    rows = _in_order(np.concatenate([np.reshape(first, (-1, 2)), np.reshape(second, (-1, 2))], axis=1, dtype=np.float64))
    counts = rows.reshape(-1, 2, 2).swapaxes(0, 1)  # (2, conversations, 2)
    above, below = counts.sum(1).T
    if not below.all():
        return Estimate(None, 0, None)
    drawn = _draws(counts.shape[1], resamples, seed) @ counts  # (2, resamples, 2)
    drawn = drawn[:, (drawn[..., 1] > 0).all(0)]
    (before, after), ratios = above / below, drawn[..., 0] / drawn[..., 1]
    low, high = np.percentile(ratios[1] - ratios[0], [2.5, 97.5])
    interval = round(float(low), 6), round(float(high), 6)
    return Estimate(float(after - before), float(below.min()), interval, interval)


def estimate_quantile(values: Sequence[Sequence[float]], quantile: float, seed: int = 0) -> Estimate:
    """A quantile of the values of all conversations together: the smallest that at least this share of them do not exceed.

    Args:
        values: those of each conversation.
        quantile: 0.5 for the median, which of an even number of values is the mean of the two in the middle.

    Returns:
        value, n (how many values), and as both intervals that of 95 % when conversations are drawn; None with fewer than two
        conversations that have values.
    """
    counted = sorted(sorted(row) for row in values if len(row))
    pooled = np.array([value for row in counted for value in row])
    if not len(pooled):
        return Estimate(None, 0, None)
    order = np.argsort(pooled, kind="stable")
    value = float(np.median(pooled) if quantile == 0.5 else pooled[order[math.ceil(quantile * len(pooled)) - 1]])
    if len(counted) < 2:
        return Estimate(value, len(pooled), None)
    of = np.repeat(np.arange(len(counted)), [len(row) for row in counted])[order]
    resamples = min(2000, max(200, _MOST_DRAWN // len(pooled)))
    reached = _draws(len(counted), resamples, seed)[:, of].cumsum(axis=1)
    wanted, ordered = quantile * reached[:, -1:], pooled[order]
    drawn = ordered[(reached < wanted - 1e-6).sum(axis=1)]
    if quantile == 0.5:  # as above, the mean of the two in the middle
        drawn = (drawn + ordered[(reached < wanted + 1e-6).sum(axis=1)]) / 2
    low, high = np.percentile(drawn, [2.5, 97.5])
    interval = round(float(low), 6), round(float(high), 6)
    return Estimate(value, len(pooled), interval, interval)


def _in_order(counts: np.ndarray) -> np.ndarray:
    """Rows (conversations, K) in an order of their own, so that an interval does not depend on that of the conversations: it
    is the same whoever gathers them from several processes."""
    return counts[np.lexsort(counts.T)]


@lru_cache(maxsize=4)
def _draws(conversations: int, resamples: int, seed: int) -> np.ndarray:
    """(resamples, conversations) float32: how often each is drawn. The same for every rate of a set, so made once."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(conversations, np.full(conversations, 1 / conversations), size=resamples).astype(np.float32)
