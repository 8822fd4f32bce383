"""Numbers counted in bins of equal width: in constant memory, however many there are."""

from __future__ import annotations

from collections import Counter
from typing import Any


class Histogram:
    """Counts numbers in bins, with their sum.

    Args:
        width: of a bin; bin k holds the numbers from `k * width` up to the next.
        low, high: what lies outside is counted in the first or last bin.

    Examples:
        >>> gaps = Histogram(0.5, low=-1, high=2)
        >>> for gap in (0.1, 0.2, 0.6, 7.0):
        ...     gaps.add(gap)
        >>> gaps.bins(), gaps.quantile(0.5)
        ([(0.0, 2), (0.5, 1), (1.5, 1)], 0.25)
    """

    def __init__(self, width: float, low: float, high: float) -> None:
        self.width = width
        self._first, self._last = round(low / width), round(high / width) - 1
        self._counts: Counter[int] = Counter()
        self.count, self.sum = 0, 0.0

    def add(self, number: float) -> None:
        """Counts a number."""
        self._counts[min(max(int(number // self.width), self._first), self._last)] += 1
        self.count += 1
        self.sum += number

    def update(self, other: Histogram) -> None:
        """Counts the numbers of one with bins like these."""
        assert self.width == other.width, "bins of one width"
        self._counts.update(other._counts)
        self.count, self.sum = self.count + other.count, self.sum + other.sum

    def bins(self) -> list[tuple[float, int]]:
        """(lower edge, count) of the bins that hold something, in order."""
        return [(round(k * self.width, 6), n) for k, n in sorted(self._counts.items())]

    def coarser(self, times: int) -> list[tuple[float, int]]:
        """As `bins`, with bins that are so many times as wide."""
        merged: Counter[int] = Counter()
        for k, n in self._counts.items():
            merged[k // times] += n
        return [(round(k * times * self.width, 6), n) for k, n in sorted(merged.items())]

    @property
    def mean(self) -> float | None:
        return self.sum / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """The middle of the bin below whose upper edge lie at least `share` of the numbers; None without numbers."""
        below = 0
        for k, n in sorted(self._counts.items()):
            below += n
            if below >= share * self.count:
                return round((k + 0.5) * self.width, 6)
        return None

    def describe(self) -> dict[str, Any]:
        """For inspect.json: {count, mean, p5, p50, p95, width, bins}."""
        quantiles = {f"p{round(100 * share)}": self.quantile(share) for share in (0.05, 0.5, 0.95)}
        mean = None if self.mean is None else round(self.mean, 4)
        return {"count": self.count, "mean": mean, **quantiles, "width": self.width, "bins": self.bins()}
