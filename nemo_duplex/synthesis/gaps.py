"""How long people wait before they take the turn: a distribution that may be negative, and its fit to a corpus.

A gap is the time from the end of one speaker's turn to the start of the other's; where they overlap it is negative. Published
distributions have one peak near 0, and a longer tail to the right than to the left. The form here has both: a normal
distribution plus an exponential one (ex-Gaussian), within bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import exponnorm

from nemo_duplex.conversation import is_time
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, refuse_unknown

if TYPE_CHECKING:
    from lhotse.cut import Cut

_FEWEST = 30  # gaps that a distribution is fitted to
_MOST_DRAWN = 1000


@dataclass(frozen=True)
class GapDistribution:
    """Gaps before a turn: normal (`mean`, `deviation`) plus exponential (`tail`), drawn again until within `low` and `high`.

    Args:
        mean, deviation: of the normal part, in Seconds.
        tail: mean of the exponential part; the mean of the whole is `mean + tail`.
        low, high: bounds of what is drawn.

    Raises:
        InputError: if the numbers make no distribution, or hardly any of it lies within the bounds.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> gaps = [PEOPLE.draw(rng) for _ in range(1000)]
        >>> 0.3 < np.mean(np.array(gaps) < 0) < 0.4
        True
    """

    mean: Seconds
    deviation: Seconds
    tail: Seconds
    low: Seconds = -0.64
    high: Seconds = 4.0

    def __post_init__(self) -> None:
        numbers = (self.mean, self.deviation, self.tail, self.low, self.high)
        valid = all(map(is_time, numbers)) and min(self.deviation, self.tail) > 0 and self.low < self.high
        if not valid or self._share_within < 0.05:
            raise InputError(
                f"A distribution of gaps with mean={self.mean}, deviation={self.deviation}, tail={self.tail}, low={self.low}, "
                f"high={self.high}: expected seconds, deviation and tail above 0, and most gaps between low and high, such as "
                "{mean: -0.32, deviation: 0.38, tail: 0.56, low: -0.64, high: 4.0}."
            )

    @property
    def _share_within(self) -> float:
        whole = exponnorm(self.tail / self.deviation, loc=self.mean, scale=self.deviation)
        return float(whole.cdf(self.high) - whole.cdf(self.low))

    def draw(self, rng: np.random.Generator) -> Seconds:
        """A gap."""
        for _ in range(_MOST_DRAWN):
            gap = float(rng.normal(self.mean, self.deviation) + rng.exponential(self.tail))
            if self.low <= gap <= self.high:
                return gap
        raise AssertionError(f"{self} has hardly any gaps within its bounds.")


#: Gaps of people in conversation. Fitted to three published numbers: two in five transitions between speakers overlap and
#: 51 to 55 % follow within 0.2 s (Heldner & Edlund 2010, J. Phonetics 38, three corpora), and English answers come 0.236 s
#: after the question on average (Stivers et al. 2009, PNAS 106). Its median is 0.14 s and its peak near 0, between the 0 and
#: 0.2 s that Levinson & Torreira (2015, Front. Psychol. 6) report. Overlaps are no longer than the agent continues after a
#: barge-in, so that a user who overlaps its last words is no barge-in.
PEOPLE = GapDistribution(mean=-0.32, deviation=0.385, tail=0.556)
#: The same for an agent. It cannot know a word before it is heard, so it does not start before the user has ended.
PEOPLE_AS_AGENT = GapDistribution(mean=-0.32, deviation=0.385, tail=0.556, low=0.08, high=2.0)


def gap_distribution(given: str | Mapping[str, Any], key: str, people: GapDistribution) -> GapDistribution | None:
    """The distribution that a key of the configuration stands for: None for `paper`, `people`, or one given by its numbers.

    Raises:
        InputError: for anything else.
    """
    if given == "paper":
        return None
    if given == "people":
        return people
    if not isinstance(given, Mapping):
        raise InputError(
            f"{key}={given}: expected paper, people, or keys such as {{mean: -0.32, deviation: 0.38, tail: 0.56}}."
        )
    refuse_unknown(given, ("mean", "deviation", "tail", "low", "high"), key)
    if missing := [name for name in ("mean", "deviation", "tail") if name not in given]:
        raise InputError(f"{key}: {', '.join(missing)} not given, such as {{mean: -0.32, deviation: 0.38, tail: 0.56}}.")
    return GapDistribution(**{"low": people.low, "high": people.high, **given})


def gaps_of(cuts: Iterable[Cut], before: str | None = None, after: str | None = None) -> list[Seconds]:
    """The gaps of cuts, wherever the speaker changes. A turn within the other's, as a backchannel is, changes nothing.

    Args:
        cuts: with supervisions of two or more speakers.
        before, after: only gaps after a turn of the speaker `before`, only those before one of `after`; None: of anyone.
    """
    gaps = []
    for cut in cuts:
        turns = sorted(cut.supervisions, key=lambda s: (s.start, s.end))
        last = None
        for turn in turns:
            if last is None:
                last = turn
            if turn.end <= last.end:
                continue
            if turn.speaker != last.speaker and before in (None, last.speaker) and after in (None, turn.speaker):
                gaps.append(turn.start - last.end)
            last = turn
    return gaps


def fit_gaps(cuts: Iterable[Cut], before: str | None = None, after: str | None = None) -> GapDistribution:
    """The distribution of the gaps of cuts, by maximum likelihood. Its bounds are the shortest and the longest gap.

    Arguments are those of `gaps_of`.

    Raises:
        InputError: if there are fewer than 30 gaps, or all are the same.
    """
    gaps = np.array(gaps_of(cuts, before, after))
    if len(gaps) < _FEWEST or np.ptp(gaps) < 1e-3:
        kind = "gaps" if len(gaps) < _FEWEST else "different gaps"
        raise InputError(
            f"{len(gaps)} gaps between speakers in the cuts; expected {_FEWEST} or more {kind}. "
            "Give more cuts with supervisions of two speakers."
        )
    mean, deviation = float(gaps.mean()), float(gaps.std())
    skewness = float(np.mean(((gaps - mean) / deviation) ** 3))
    tail = deviation * min(max(skewness / 2, 1e-3), 0.99) ** (1 / 3)  # by the moments, to start from
    normal = float(np.sqrt(deviation**2 - tail**2))
    ratio, loc, scale = exponnorm.fit(gaps, tail / normal, loc=mean - tail, scale=normal)
    found = (loc, scale, ratio * scale, gaps.min(), gaps.max())
    return GapDistribution(*(round(float(number), 4) for number in found))
