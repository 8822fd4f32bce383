"""Gaps of people: drawn as published, found again by a fit, counted only where the speaker changes."""

from __future__ import annotations

import numpy as np
import pytest
from lhotse import MonoCut, SupervisionSegment

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.gaps import PEOPLE, PEOPLE_AS_AGENT, GapDistribution, fit_gaps, gaps_of


def cut(*turns: tuple[str, float, float]) -> MonoCut:
    supervisions = [
        SupervisionSegment(str(i), "r", start, end - start, speaker=who) for i, (who, start, end) in enumerate(turns)
    ]
    return MonoCut("c", 0.0, 1000.0, 0, supervisions=supervisions)


def drawn(distribution: GapDistribution, count: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([distribution.draw(rng) for _ in range(count)])


def test_people_wait_as_long_as_published():
    """Without bounds: 40 % overlaps and 54 % under 0.2 s (Heldner and Edlund), a mean of 0.236 s (Stivers et al.)."""
    gaps = drawn(GapDistribution(PEOPLE.mean, PEOPLE.deviation, PEOPLE.tail, low=-9, high=9), 20000)
    assert np.mean(gaps < 0) == pytest.approx(0.40, abs=0.01)
    assert np.mean(gaps < 0.2) == pytest.approx(0.54, abs=0.01)
    assert gaps.mean() == pytest.approx(0.236, abs=0.015)


def test_bounds_hold_and_do_not_pile_up():
    gaps = drawn(PEOPLE)
    assert -0.64 <= gaps.min() < -0.6 and 2.5 < gaps.max() <= 4.0
    assert np.mean(gaps < -0.6) < 0.03, "Drawn again, not moved to the bound."
    assert drawn(PEOPLE_AS_AGENT, 500).min() >= 0.08


def test_a_gap_is_from_the_end_of_one_speaker_to_the_start_of_the_other():
    talk = cut(("b", 3.5, 5.0), ("a", 1.0, 3.0), ("a", 6.0, 9.0), ("b", 7.0, 7.5), ("b", 8.75, 10.0), ("b", 11.0, 12.0))
    assert gaps_of([talk]) == pytest.approx([0.5, 1.0, -0.25]), "A backchannel inside a turn and a second turn are no changes."
    assert gaps_of([talk, talk], before="b") == pytest.approx([1.0, 1.0])
    assert gaps_of([talk], after="b") == pytest.approx([0.5, -0.25])
    assert gaps_of([cut()]) == []


def test_a_fit_finds_the_distribution_again():
    true = GapDistribution(-0.1, 0.2, 0.4, low=-2, high=9)
    cuts = [cut(("user", 0.0, 10.0), ("agent", 10.0 + gap, 30.0)) for gap in drawn(true)]
    found = fit_gaps(cuts)
    assert (found.mean, found.deviation, found.tail) == pytest.approx((-0.1, 0.2, 0.4), abs=0.03)
    gaps = gaps_of(cuts)
    assert (found.low, found.high) == pytest.approx((min(gaps), max(gaps)), abs=1e-4)


def test_a_fit_takes_gaps_without_a_tail():
    rng = np.random.default_rng(1)
    cuts = [cut(("user", 0.0, 10.0), ("agent", 10.0 + rng.normal(0.3, 0.1), 30.0)) for _ in range(500)]
    found = fit_gaps(cuts)
    assert found.mean + found.tail == pytest.approx(0.3, abs=0.02) and found.tail < 0.08


@pytest.mark.parametrize(
    "count, gap, reason", [(29, 0.5, "29 gaps .* 30 or more gaps"), (40, 0.5, "40 gaps .* different gaps")]
)
def test_too_few_gaps_are_refused(count, gap, reason):
    with pytest.raises(InputError, match=reason):
        fit_gaps([cut(("user", 0.0, 1.0), ("agent", 1.0 + gap, 3.0))] * count)
